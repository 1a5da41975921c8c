//! The `cookie` header (RFC 6265bis), read as leniently as servers do.

use super::{MAX_BYTES, split_once, trimmed};

/// The value of the first cookie called `name` in this line whose value is not empty, without the double quotes that
/// may stand around it.
///
/// White space around names and values doesn't count, and which characters a value has isn't asked. Of the line
/// [`MAX_BYTES`] are read. Names compare byte for byte.
pub(crate) fn value<'v>(line: &'v [u8], name: &[u8]) -> Option<&'v [u8]> {
    pairs(line)
        .filter_map(|pair| split_once(pair, b'='))
        .filter(|(key, _)| trimmed(key) == name)
        .map(|(_, value)| unquoted(trimmed(value)))
        .find(|value| !value.is_empty())
}

/// The `name=value` pairs that end within the limit.
fn pairs(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut end = 0;
    // One byte more shows whether the last pair goes on beyond the limit.
    let readable = line.get(..=MAX_BYTES).unwrap_or(line);
    readable.split(|byte| *byte == b';').filter(move |pair| {
        let start = end;
        end = start + pair.len() + 1;
        start + pair.len() <= MAX_BYTES
    })
}

fn unquoted(value: &[u8]) -> &[u8] {
    match value {
        [b'"', inner @ .., b'"'] => inner,
        _ => value,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::hostile;
    use super::*;

    const PARTS: &[&str] = &[
        "route-key=",
        "route-key",
        "K",
        "=",
        ";",
        "; ",
        "\"",
        " ",
        "\t",
        "x=1; ",
        ",",
    ];

    #[track_caller]
    fn check(line: &str, expected: Option<&str>) {
        let actual = value(line.as_bytes(), b"route-key");
        assert_eq!(actual, expected.map(str::as_bytes), "{line}");
    }

    fn oracle(line: &[u8], name: &[u8]) -> Option<Vec<u8>> {
        let is_space = |byte: &u8| *byte == b' ' || *byte == b'\t';
        let trim = |text: &[u8]| {
            let mut text = text.to_vec();
            while text.last().is_some_and(is_space) {
                text.pop();
            }
            while text.first().is_some_and(is_space) {
                text.remove(0);
            }
            text
        };
        let mut start = 0;
        for pair in line.split(|byte| *byte == b';') {
            let end = start + pair.len();
            start = end + 1;
            let Some(equals) = pair.iter().position(|byte| *byte == b'=') else {
                continue;
            };
            if end > 8192 || trim(&pair[..equals]) != name {
                continue;
            }
            let mut value = trim(&pair[equals + 1..]);
            if value.len() >= 2 && value.starts_with(b"\"") && value.ends_with(b"\"") {
                value = value[1..value.len() - 1].to_vec();
            }
            if !value.is_empty() {
                return Some(value);
            }
        }
        None
    }

    #[test]
    fn the_first_value_that_is_not_empty_counts() {
        check("route-key=K", Some("K"));
        check("session=x; route-key=K; theme=dark", Some("K"));
        check("route-key=K1; route-key=K2", Some("K1"));
        check("route-key=; route-key=\"\"; route-key; route-key=K", Some("K"));
        check("route-key=a=b", Some("a=b"));
        check("route-key=", None);
        check("route-key", None);
        check("", None);
    }

    #[test]
    fn a_name_matches_as_a_whole() {
        check("xroute-key=K; route-key2=K; Route-Key=K", None);
        check("x=route-key=K", None);
        check("x=1, route-key=K", None);
    }

    #[test]
    fn white_space_and_separators_are_read_leniently() {
        check("a=1;route-key=K", Some("K"));
        check(";; \troute-key \t=\t K ;", Some("K"));
        check("route-key=a b, c", Some("a b, c"));
    }

    #[test]
    fn one_pair_of_double_quotes_is_removed() {
        check("route-key=\"K\"", Some("K"));
        check("route-key=\"\"K\"\"", Some("\"K\""));
        check("route-key=\"", Some("\""));
        check("route-key=\"K", Some("\"K"));
        check("route-key=K\"", Some("K\""));
    }

    #[test]
    fn a_cookie_across_the_limit_is_not_cut_but_left_out() {
        let line = |value: &str| format!("{};route-key={value}", "y".repeat(8192 - ";route-key=K1".len()));
        check(&line("K1"), Some("K1"));
        check(&line("K1; x=1"), Some("K1"));
        check(&line("K12"), None);
        check(&line("K12; route-key=K"), None);
    }

    #[test]
    fn dialects_of_others_are_read() {
        assert_eq!(value(b"a=b; mirrord-session=K", b"mirrord-session"), Some(&b"K"[..]));
    }

    #[test]
    fn hostile_values_are_read_as_the_oracle_reads_them() {
        for line in hostile::values() {
            for line in [
                [&b"route-key=K; "[..], &line].concat(),
                [&line[..], b";k=v"].concat(),
                line,
            ] {
                // The oracle takes its time with white space.
                if line.windows(9000).any(|text| text.iter().all(|byte| *byte == b' ')) {
                    assert_eq!(value(&line, b"k"), None);
                    continue;
                }
                for name in [&b"route-key"[..], b"k", b""] {
                    assert_eq!(value(&line, name), oracle(&line, name).as_deref());
                }
            }
        }
    }

    proptest! {
        #[test]
        fn it_finds_what_the_oracle_finds(line in hostile::value(PARTS)) {
            let expected = oracle(&line, b"route-key");
            prop_assert_eq!(value(&line, b"route-key"), expected.as_deref());
        }
    }
}
