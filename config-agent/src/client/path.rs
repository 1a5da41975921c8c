//! The path of a problem, from its text.

use sidetrack_routing::Path;

/// Reads what [`Path`] displays. Of anything else, as much from its beginning as can be read.
pub(super) fn parse(text: &str) -> Path {
    let mut path = Path::root();
    let mut rest = text;
    while let Some((next, after)) = segment(&path, rest) {
        (path, rest) = (next, after);
    }
    path
}

fn segment<'t>(path: &Path, text: &'t str) -> Option<(Path, &'t str)> {
    if let Some(quoted) = text.strip_prefix("[\"") {
        let (key, rest) = unquoted(quoted)?;
        return Some((path.key(key), rest.strip_prefix(']')?));
    }
    if let Some(inner) = text.strip_prefix('[') {
        let (index, rest) = inner.split_once(']')?;
        return Some((path.index(index.parse().ok()?), rest));
    }
    let name = text.strip_prefix('.').unwrap_or(text);
    let end = name.find(['.', '[']).unwrap_or(name.len());
    let (name, rest) = name.split_at(end);
    (!name.is_empty()).then(|| (path.key(name), rest))
}

/// What is before the next quote, the escapes of Rust's `Debug` undone, and what is behind it.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let mut key = String::new();
    let mut rest = text.chars();
    loop {
        match rest.next()? {
            '"' => return Some((key, rest.as_str())),
            '\\' => key.push(match rest.next()? {
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                '0' => '\0',
                'u' => {
                    let (code, after) = rest.as_str().strip_prefix('{')?.split_once('}')?;
                    rest = after.chars();
                    char::from_u32(u32::from_str_radix(code, 16).ok()?)?
                }
                escaped => escaped,
            }),
            plain => key.push(plain),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_displayed_is_read() {
        let root = Path::root();
        for path in [
            root.index(0).key("targetService"),
            root.index(17).key("paths").index(2).key("regex"),
            root.key("routing").key("rules").index(1),
            root.index(0)
                .key("headerMatchers")
                .key("a.b [\"x\"]\\ \n\t\0é\u{7f}")
                .key("prefix"),
        ] {
            assert_eq!(parse(&path.to_string()), path);
        }
    }

    #[test]
    fn of_what_is_no_path_the_beginning_counts() {
        for (text, expected) in [
            ("", Path::root()),
            ("[0", Path::root()),
            ("[0].", Path::root().index(0)),
            ("[0][x]", Path::root().index(0)),
            ("[0][\"x", Path::root().index(0)),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
    }
}
