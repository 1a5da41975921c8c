//! The `tracestate` header of W3C Trace Context.

use super::list::Bounded;
use super::split_once;

/// As many as W3C Trace Context lets a request have.
const MAX_MEMBERS: usize = 32;

/// How much of a request's `tracestate` was read. One search, line by line, takes one of these: what lies beyond 32
/// members and [`MAX_BYTES`](super::MAX_BYTES) in all its lines is ignored.
#[derive(Debug, Default)]
pub(crate) struct TraceState(Bounded<MAX_MEMBERS>);

impl TraceState {
    /// The value of the first well-formed member called `name` in the next line.
    ///
    /// Keys compare byte for byte, the tenant of `tenant@system` is a part of the key, and white space belongs to it.
    /// Nothing is percent-encoded. A value is visible characters other than `,` and `=`, and spaces but for its end.
    pub(crate) fn member<'v>(&mut self, line: &'v [u8], name: &[u8]) -> Option<&'v [u8]> {
        self.0
            .elements(line)
            .filter_map(|member| split_once(member, b'='))
            .find(|(key, value)| *key == name && is_value(value))
            .map(|(_, value)| value)
    }
}

fn is_value(text: &[u8]) -> bool {
    let is_allowed = |byte: &u8| matches!(byte, b' '..=b'~') && !matches!(byte, b',' | b'=');
    !text.is_empty() && text.iter().all(is_allowed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::hostile;
    use super::super::list::tests::oracle as elements;
    use super::*;

    const NAME: &str = "sd-routing-key";
    const PARTS: &[&str] = &[
        "sd-routing-key=",
        "sd-routing-key",
        "K",
        "=",
        ",",
        ",",
        " ",
        "\t",
        ";",
        "t@s=v,",
    ];

    fn found(lines: &[Vec<u8>], name: &str) -> Option<Vec<u8>> {
        let mut read = TraceState::default();
        let value = lines.iter().find_map(|line| read.member(line, name.as_bytes()));
        value.map(<[u8]>::to_vec)
    }

    fn oracle(lines: &[Vec<u8>], name: &str) -> Option<Vec<u8>> {
        elements(lines, 32).into_iter().find_map(|member| {
            let text = String::from_utf8(member).ok()?;
            let value = text.strip_prefix(name)?.strip_prefix('=')?;
            let is_allowed = |c: char| (c.is_ascii_graphic() || c == ' ') && c != '=';
            (!value.is_empty() && value.chars().all(is_allowed)).then(|| value.into())
        })
    }

    #[track_caller]
    fn check(line: &str, expected: Option<&str>) {
        let actual = found(&[line.into()], NAME);
        assert_eq!(actual.as_deref(), expected.map(str::as_bytes), "{line}");
    }

    #[test]
    fn the_first_well_formed_member_counts() {
        check("sd-routing-key=K", Some("K"));
        check("congo=t61rcWkgMzE, sd-routing-key=K\t,rojo=00f067aa0ba902b7", Some("K"));
        check("sd-routing-key=K1,sd-routing-key=K2", Some("K1"));
        check(
            "sd-routing-key=,sd-routing-key,,sd-routing-key= ,sd-routing-key=K",
            Some("K"),
        );
        check("sd-routing-key=a=b", None);
        check("sd-routing-key=a\tb", None);
        check("sd-routing-key=\u{e4}", None);
        check("sd-routing-key=\0", None);
        check("", None);
    }

    #[test]
    fn a_key_compares_byte_for_byte() {
        check("Sd-Routing-Key=K", None);
        check("xsd-routing-key=K,sd-routing-key2=K", None);
        check("sd-routing-key =K", None);
        check("x=sd-routing-key=K", None);
        check("t@sd-routing-key=K,sd-routing-key@t=K", None);
        assert_eq!(found(&["a=1,t@s=K".into()], "t@s").as_deref(), Some(&b"K"[..]));
    }

    #[test]
    fn the_value_stays_as_it_is() {
        check("sd-routing-key=a%2Cb;c", Some("a%2Cb;c"));
        check("sd-routing-key= a b ", Some(" a b"));
    }

    #[test]
    fn the_limits_hold_over_all_lines() {
        let lines = |before: usize| [vec![b"a=1".to_vec(); before], vec![b"sd-routing-key=K".to_vec()]].concat();
        assert_eq!(found(&lines(31), NAME).as_deref(), Some(&b"K"[..]));
        assert_eq!(found(&lines(32), NAME), None);
        let long = |length: usize| [b"y".repeat(length), b"sd-routing-key=K".to_vec()];
        assert_eq!(found(&long(8192 - 17), NAME).as_deref(), Some(&b"K"[..]));
        assert_eq!(found(&long(8192 - 16), NAME), None);
    }

    #[test]
    fn dialects_of_others_are_read() {
        for name in ["sd-routing-key", "sd-sandbox", "mirrord-session"] {
            assert_eq!(
                found(&[format!("a=1,{name}=K").into()], name).as_deref(),
                Some(&b"K"[..])
            );
        }
    }

    #[test]
    fn hostile_values_are_read_as_the_oracle_reads_them() {
        for value in hostile::values() {
            for lines in [
                vec![value.clone(), b"k=v".to_vec()],
                vec![[&value[..], b",k=v"].concat()],
                vec![value],
            ] {
                assert_eq!(found(&lines, "k"), oracle(&lines, "k"));
            }
        }
    }

    proptest! {
        #[test]
        fn it_finds_what_the_oracle_finds(lines in prop::collection::vec(hostile::value(PARTS), 0..4)) {
            prop_assert_eq!(found(&lines, NAME), oracle(&lines, NAME));
        }
    }
}
