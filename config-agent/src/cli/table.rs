//! Columns of text.

use super::print::harmless;

/// Between columns.
const GAP: &str = "  ";

/// Lines with the cells of each column below one another, the first line being the names of the columns.
pub(super) fn lines<const N: usize>(names: [&str; N], rows: &[[String; N]]) -> Vec<String> {
    let head = names.map(str::to_owned);
    let rows: Vec<[String; N]> = std::iter::once(&head)
        .chain(rows)
        .map(|row| row.each_ref().map(|cell| harmless(cell)))
        .collect();
    let mut widths = [0; N];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join(GAP).trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_stand_below_one_another() {
        let rows = [
            ["é".to_owned(), "1".to_owned(), String::new()],
            ["long\u{1b}[2J".to_owned(), String::new(), "x".to_owned()],
        ];
        assert_eq!(
            lines(["A", "NUMBER", "C"], &rows),
            ["A         NUMBER  C", "é         1", "long\u{fffd}[2J          x"]
        );
    }
}
