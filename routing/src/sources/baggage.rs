//! The `baggage` header of W3C Baggage.

use super::list::{Bounded, elements};
use super::{MAX_BYTES, percent, split_once, trimmed};

/// As many as W3C Baggage has every platform carry on.
const MAX_MEMBERS: usize = 64;

/// How much of a request's `baggage` was read. One search, line by line, takes one of these: what lies beyond 64
/// members and [`MAX_BYTES`] in all its lines is ignored.
#[derive(Debug, Default)]
pub(crate) struct Baggage(Bounded<MAX_MEMBERS>);

impl Baggage {
    /// The value, still percent-encoded, of the first well-formed member called `name` in the next line whose value is
    /// not empty. `name` is a token; keys compare byte for byte. Properties are no part of the value.
    pub(crate) fn member<'v>(&mut self, line: &'v [u8], name: &[u8]) -> Option<&'v [u8]> {
        self.0
            .elements(line)
            .filter_map(|member| split_once(without_properties(member), b'='))
            .filter(|(key, _)| trimmed(key) == name)
            .map(|(_, value)| trimmed(value))
            .find(|value| !value.is_empty() && value.iter().all(|byte| is_baggage_octet(*byte)))
    }
}

/// Makes `out` the header value of all `lines` with the member `name` set to `value`.
///
/// It takes the place of the first member of that name, every other one is left out, also those that are malformed: who
/// reads less strictly than the reader here shall find no other key. Without a place that lies within the limits it comes
/// first, where also those find it who stop at a limit. All else stays as it was and in its order, but for white space
/// and empty elements between commas.
pub fn merged<'l>(lines: impl Iterator<Item = &'l [u8]>, name: &str, value: &[u8], out: &mut Vec<u8>) {
    let mut member = [name.as_bytes(), b"="].concat();
    percent::encode(value, is_baggage_octet, &mut member);
    out.clear();
    let (mut members, mut is_set) = (0, false);
    for mut element in lines.flat_map(elements) {
        if key(element) == name.as_bytes() {
            if is_set || members >= MAX_MEMBERS || out.len() + 1 + member.len() > MAX_BYTES {
                continue;
            }
            is_set = true;
            element = &member;
        }
        if members > 0 {
            out.push(b',');
        }
        out.extend(element);
        members += 1;
    }
    if !is_set {
        if members > 0 {
            member.push(b',');
        }
        out.splice(..0, member);
    }
}

/// What a member is called, be it malformed in what follows.
fn key(member: &[u8]) -> &[u8] {
    let member = without_properties(member);
    trimmed(split_once(member, b'=').map_or(member, |(key, _)| key))
}

fn without_properties(member: &[u8]) -> &[u8] {
    split_once(member, b';').map_or(member, |(member, _)| member)
}

/// Whether a value may have this byte in it: visible ASCII but for `"`, `,`, `;` and `\`.
fn is_baggage_octet(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'"' | b',' | b';' | b'\\')
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::super::hostile;
    use super::super::list::tests::oracle as bounded;
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
        ";p=1",
        "a=1,",
        "%2C",
        "\"",
        "\\",
    ];

    fn found(lines: &[Vec<u8>], name: &str) -> Option<Vec<u8>> {
        let mut read = Baggage::default();
        let value = lines.iter().find_map(|line| read.member(line, name.as_bytes()));
        value.map(<[u8]>::to_vec)
    }

    fn with(lines: &[Vec<u8>], value: &[u8]) -> Vec<u8> {
        let mut out = b"what was there before".to_vec();
        merged(lines.iter().map(Vec::as_slice), NAME, value, &mut out);
        out
    }

    /// What a member is called, and its value if it is well-formed: split at `;`, then at `=`.
    fn parts(member: &[u8]) -> (Vec<u8>, Option<Vec<u8>>) {
        const ALLOWED: &str =
            "!#$%&'()*+-./0123456789:<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[]^_`abcdefghijklmnopqrstuvwxyz{|}~";
        let is_space = |c: char| c == ' ' || c == '\t';
        // Each byte one character, so that any bytes are a text.
        let text: String = member.iter().map(|byte| char::from(*byte)).collect();
        let bytes = |text: &str| text.trim_matches(is_space).chars().map(|c| c as u8).collect::<Vec<_>>();
        let pair: Vec<&str> = text.split(';').next().unwrap().splitn(2, '=').collect();
        let value = pair.get(1).map(|value| value.trim_matches(is_space));
        let value = value.filter(|value| !value.is_empty() && value.chars().all(|c| ALLOWED.contains(c)));
        (bytes(pair[0]), value.map(bytes))
    }

    fn oracle(lines: &[Vec<u8>], name: &str) -> Option<Vec<u8>> {
        let mut members = bounded(lines, 64).into_iter().map(|member| parts(&member));
        members.find_map(|(key, value)| value.filter(|_| key == name.as_bytes()))
    }

    /// How many members are called [`NAME`], and all others.
    fn members(lines: &[Vec<u8>]) -> (usize, Vec<&[u8]>) {
        let all = lines.iter().flat_map(|line| elements(line));
        let (named, others): (Vec<_>, Vec<_>) = all.partition(|member| parts(member).0 == NAME.as_bytes());
        (named.len(), others)
    }

    #[track_caller]
    fn check(line: &str, expected: Option<&str>) {
        let actual = found(&[line.into()], NAME);
        assert_eq!(actual.as_deref(), expected.map(str::as_bytes), "{line}");
    }

    #[track_caller]
    fn check_merged(lines: &[&str], value: &str, expected: &str) {
        let lines: Vec<Vec<u8>> = lines.iter().map(|line| line.as_bytes().to_vec()).collect();
        assert_eq!(with(&lines, value.as_bytes()).escape_ascii().to_string(), expected);
    }

    #[test]
    fn the_first_well_formed_member_counts() {
        check("sd-routing-key=K", Some("K"));
        check("userId=alice,sd-routing-key=K,isProduction=false", Some("K"));
        check("sd-routing-key=K1,sd-routing-key=K2", Some("K1"));
        check(
            "sd-routing-key=,sd-routing-key,,sd-routing-key=;p,sd-routing-key=K",
            Some("K"),
        );
        check(
            "sd-routing-key=a b,sd-routing-key=\"a\",sd-routing-key=a\\,sd-routing-key=K",
            Some("K"),
        );
        check("sd-routing-key=\0,sd-routing-key=\u{e4},sd-routing-key=K", Some("K"));
        check("sd-routing-key=a=b", Some("a=b"));
        check("", None);
    }

    #[test]
    fn white_space_and_properties_are_no_part_of_it() {
        check("a=1 ,\t sd-routing-key \t=\t K ;p=1;q", Some("K"));
        check("sd-routing-key=K;sd-routing-key=K2", Some("K"));
        check("a=1;sd-routing-key=K", None);
        check("sd-routing-key;p=K", None);
    }

    #[test]
    fn a_key_compares_byte_for_byte() {
        check(
            "Sd-Routing-Key=K,xsd-routing-key=K,sd-routing-key2=K,sd-routing=key=K",
            None,
        );
        check("sd%2Drouting-key=K,\"sd-routing-key\"=K,x sd-routing-key=K", None);
    }

    #[test]
    fn the_value_stays_encoded() {
        check("sd-routing-key=a%2Cb%", Some("a%2Cb%"));
    }

    #[test]
    fn the_limits_hold_over_all_lines() {
        let lines = |before: usize| [vec![b"a=1".to_vec(); before], vec![b"sd-routing-key=K".to_vec()]].concat();
        assert_eq!(found(&lines(63), NAME).as_deref(), Some(&b"K"[..]));
        assert_eq!(found(&lines(64), NAME), None);
        let long = |length: usize| [b"y".repeat(length), b"sd-routing-key=K".to_vec()];
        assert_eq!(found(&long(8192 - 17), NAME).as_deref(), Some(&b"K"[..]));
        assert_eq!(found(&long(8192 - 16), NAME), None);
    }

    #[test]
    fn dialects_of_others_are_read() {
        for name in ["sd-routing-key", "sd-sandbox", "mirrord-session", "okteto-divert"] {
            assert_eq!(
                found(&[format!("a=1, {name}=K;p").into()], name).as_deref(),
                Some(&b"K"[..])
            );
        }
    }

    #[test]
    fn a_member_that_is_set_takes_the_place_of_the_first() {
        check_merged(&[], "K", "sd-routing-key=K");
        check_merged(&["sd-routing-key=old;p=1"], "K", "sd-routing-key=K");
        check_merged(
            &["a=1;p , sd-routing-key = x;q, b=2", ",sd-routing-key=y"],
            "K",
            "a=1;p,sd-routing-key=K,b=2",
        );
        check_merged(
            &["b=2,sd-routing-key, sd-routing-key;p,c"],
            "K",
            "b=2,sd-routing-key=K,c",
        );
    }

    #[test]
    fn a_member_that_had_no_place_within_the_limits_comes_first() {
        check_merged(&["a=1;p=2 ;q", "", " b"], "K", "sd-routing-key=K,a=1;p=2 ;q,b");
        let many = [&"a=1,".repeat(64), "sd-routing-key=old"].concat();
        check_merged(&[&many], "K", &format!("sd-routing-key=K{}", ",a=1".repeat(64)));
        let long = "y".repeat(8192);
        check_merged(&[&long, "sd-routing-key=old"], "K", &format!("sd-routing-key=K,{long}"));
    }

    #[test]
    fn a_value_that_is_set_is_percent_encoded() {
        check_merged(
            &[],
            "a,b;c=d %\"\\\u{e4}",
            "sd-routing-key=a%2Cb%3Bc=d%20%25%22%5C%C3%A4",
        );
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
                assert_eq!(found(&[with(&lines, b"K")], NAME).as_deref(), Some(&b"K"[..]));
            }
        }
    }

    proptest! {
        #[test]
        fn it_finds_what_the_oracle_finds(lines in vec(hostile::value(PARTS), 0..4)) {
            prop_assert_eq!(found(&lines, NAME), oracle(&lines, NAME));
        }

        #[test]
        fn what_is_set_is_found_once_and_all_else_stays(
            lines in vec(hostile::value(PARTS), 0..4),
            value in vec(any::<u8>(), 1..=256),
        ) {
            let result = vec![with(&lines, &value)];
            let raw = found(&result, NAME).unwrap_or_default();
            let mut buffer = [0; 256];
            prop_assert_eq!(percent::decoded(&raw, false, &mut buffer), Some(value.as_slice()));
            let (_, others_before) = members(&lines);
            let (count, others_after) = members(&result);
            prop_assert_eq!(count, 1);
            prop_assert_eq!(others_after, others_before);
            let without_gaps: Vec<&[u8]> = elements(&result[0]).collect();
            prop_assert_eq!(&result[0], &without_gaps.join(&b','));
        }
    }
}
