//! Regular expressions for gRPC clients, which have RE2 or what is like it.

/// RE2's limit of a repetition, and of repetitions within each other.
const MAX_REPEATED: u32 = 1000;

/// Whether `text`, which our engine takes, means the same to RE2 and to Go's engine: literals, classes, groups, alternatives,
/// repetitions. Clients refuse a whole set of routes for one expression that they can't read.
pub(super) fn is_portable(text: &str) -> bool {
    let mut rest = text.bytes().peekable();
    let mut may_repeat = false;
    let mut repeated: u32 = 1;
    while let Some(byte) = rest.next() {
        let mut repeats = false;
        match byte {
            b'\\' => {
                if !rest.next().is_some_and(is_escape) {
                    return false;
                }
                may_repeat = true;
            }
            b'[' => {
                if !is_class(&mut rest) {
                    return false;
                }
                may_repeat = true;
            }
            b'(' => {
                if rest.next_if_eq(&b'?').is_some() && rest.next() != Some(b':') {
                    return false;
                }
                may_repeat = false;
            }
            b'|' | b'^' | b'$' => may_repeat = false,
            b')' => may_repeat = true,
            b'*' | b'+' | b'?' => repeats = true,
            b'{' => match repetitions(&mut rest) {
                Some(count) => {
                    repeated = repeated.saturating_mul(count.max(1));
                    repeats = true;
                }
                None => return false,
            },
            b'}' | b']' => return false,
            b' '..=b'~' => may_repeat = true,
            _ => return false,
        }
        if repeats {
            if !may_repeat || repeated > MAX_REPEATED {
                return false;
            }
            // As few as possible: that changes no match of the whole.
            rest.next_if_eq(&b'?');
            may_repeat = false;
        }
    }
    true
}

/// `text` as an expression that matches only it.
pub(super) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if r"\.+*?()|[]{}^$".contains(character) {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}

/// `\<` and `\>` are the ends of words to us, and letters to others.
fn is_escape(byte: u8) -> bool {
    let is_sign = byte.is_ascii_punctuation() && !matches!(byte, b'<' | b'>');
    is_sign || matches!(byte, b'd' | b'D' | b'w' | b'W' | b's' | b'S')
}

/// What follows a `[`, up to its end.
fn is_class(rest: &mut std::iter::Peekable<std::str::Bytes<'_>>) -> bool {
    rest.next_if_eq(&b'^');
    let mut last = None;
    while let Some(byte) = rest.next() {
        match byte {
            b']' => return last.is_some(),
            b'\\' => {
                if !rest.next().is_some_and(is_escape) {
                    return false;
                }
            }
            // A class in a class, or an operation on classes.
            b'[' => return false,
            b'&' | b'-' | b'~' if last == Some(byte) => return false,
            b' '..=b'~' => {}
            _ => return false,
        }
        last = Some(byte);
    }
    false
}

/// What follows a `{`, up to its end: the most repetitions.
fn repetitions(rest: &mut std::iter::Peekable<std::str::Bytes<'_>>) -> Option<u32> {
    let mut text = String::new();
    loop {
        match rest.next()? {
            b'}' => break,
            byte => text.push(char::from(byte)),
        }
    }
    let (least, most) = text.split_once(',').unwrap_or((&text, &text));
    let least: u32 = least.parse().ok()?;
    match most {
        "" => Some(least),
        most => most.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use sidetrack_routing::Pattern;

    use super::*;

    #[test]
    fn what_all_engines_know_is_portable() {
        for text in [
            "",
            "foo|foobar",
            "/v[0-9]+/orders/.*",
            r"/shop\.Cart/(?:Get|Put)[A-Z]\w*",
            "[^/]+?",
            "a{2}b{3,}c{0,9}",
            r"[\w\-.]+",
            "^a$",
            "(a+)?",
            "qa-%20<x>",
        ] {
            assert!(Pattern::parse(text).is_ok() && is_portable(text), "{text}");
        }
    }

    #[test]
    fn what_some_engine_may_not_know_is_not() {
        for text in [
            "(?i)a",
            "(?P<name>a)",
            r"\x41",
            r"\bword",
            r"\<word\>",
            r"\pL",
            "a**",
            "a+*",
            "a{2}{3}",
            "(?:a{40}){40}",
            "a{1001}",
            "[[:alpha:]]",
            "[a&&b]",
            "[a--b]",
            "ä",
            "a}",
            "]",
        ] {
            assert!(!is_portable(text), "{text}");
        }
    }

    #[test]
    fn an_escaped_text_matches_itself_alone() {
        for text in ["", "a.b", r"\d[x]{2}(y|z)^$*+?", "a-b_c/d e#"] {
            let pattern = Pattern::parse(&escaped(text)).unwrap();
            assert!(pattern.matches(text.as_bytes()), "{text}");
            assert!(!pattern.matches(b"aXb") && !pattern.matches(b"1"), "{text}");
            assert!(is_portable(&escaped(text)), "{text}");
        }
    }
}
