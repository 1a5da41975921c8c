//! Numbers and tables as text.

/// `1234567` as `1,234,567`.
pub(crate) fn count(number: f64) -> String {
    let digits = format!("{:.0}", number.abs());
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if number <= -0.5 { format!("-{text}") } else { text }
}

/// The same with a sign.
pub(crate) fn difference(number: f64) -> String {
    let sign = if number > -0.5 { "+" } else { "" };
    format!("{sign}{}", count(number))
}

/// Columns of equal width, the first to the left and the others to the right. An empty row is an empty line.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let widths: Vec<usize> = (0..head.len())
        .map(|column| {
            let cells = rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count());
            cells.chain([head[column].chars().count()]).max().unwrap_or_default()
        })
        .collect();
    let line = |cells: &[String]| {
        let cells = cells.iter().zip(&widths).enumerate();
        let cells: Vec<String> = cells
            .map(|(column, (cell, width))| match column {
                0 => format!("{cell:width$}"),
                _ => format!("{cell:>width$}"),
            })
            .collect();
        cells.join("  ").trim_end().to_owned() + "\n"
    };
    let head: Vec<String> = head.iter().map(|cell| (*cell).to_owned()).collect();
    std::iter::once(head.as_slice())
        .chain(rows.iter().map(Vec::as_slice))
        .map(line)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_divided() {
        for (number, text) in [(0.0, "0"), (999.6, "1,000"), (-1_234_567.0, "-1,234,567"), (-0.2, "0")] {
            assert_eq!(count(number), text);
        }
        assert_eq!(difference(12.0), "+12");
        assert_eq!(difference(-1200.0), "-1,200");
    }

    #[test]
    fn columns_are_aligned() {
        let rows = [vec!["a".to_owned(), "10".to_owned()], vec![], vec!["bcd".to_owned()]];
        assert_eq!(table(&["x", "y"], &rows), "x     y\na    10\n\nbcd\n");
    }
}
