//! Percent-encoding (RFC 3986 §2.1).

use crate::names::MAX_ROUTE_KEY_BYTES;

/// What `raw` stands for: `raw` itself if nothing in it is encoded, else what `buffer` is filled with. `None` if that
/// is longer than a route key can be.
///
/// A `%` without two hexadecimal digits after it stands for itself, as W3C Baggage and the URL standard say. The result
/// is bytes, never repaired to UTF-8. In a query `plus_is_space`, as forms have it.
pub(crate) fn decoded<'b>(
    raw: &'b [u8],
    plus_is_space: bool,
    buffer: &'b mut [u8; MAX_ROUTE_KEY_BYTES],
) -> Option<&'b [u8]> {
    if raw.len() > 3 * MAX_ROUTE_KEY_BYTES {
        return None;
    }
    if !raw.iter().any(|byte| *byte == b'%' || (*byte == b'+' && plus_is_space)) {
        return (raw.len() <= MAX_ROUTE_KEY_BYTES).then_some(raw);
    }
    let mut room = buffer.iter_mut();
    let mut rest = raw;
    let mut length = 0;
    while let Some((byte, after)) = next(rest, plus_is_space) {
        *room.next()? = byte;
        length += 1;
        rest = after;
    }
    buffer.get(..length)
}

/// The first byte that `text` stands for, and what of `text` follows it.
fn next(text: &[u8], plus_is_space: bool) -> Option<(u8, &[u8])> {
    if let [b'%', high, low, after @ ..] = text
        && let (Some(high), Some(low)) = (digit(*high), digit(*low))
    {
        return Some((high << 4 | low, after));
    }
    match text {
        [b'+', after @ ..] if plus_is_space => Some((b' ', after)),
        [byte, after @ ..] => Some((*byte, after)),
        [] => None,
    }
}

fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

/// Appends `value` to `out`, its bytes that are not `plain` as `%` and two digits, and each `%` too.
pub(super) fn encode(value: &[u8], plain: impl Fn(u8) -> bool, out: &mut Vec<u8>) {
    let digit = |nibble: u8| if nibble < 10 { b'0' + nibble } else { b'A' + nibble - 10 };
    for byte in value {
        if plain(*byte) && *byte != b'%' {
            out.push(*byte);
        } else {
            out.extend([b'%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::hostile;
    use super::*;

    const PARTS: &[&str] = &["a", "K", "%", "%4", "%41", "%zz", "%fF", "%00", "+", "%2", "b"];

    #[track_caller]
    fn check(raw: &[u8], plus_is_space: bool, expected: Option<&[u8]>) {
        let mut buffer = [0; 256];
        let actual = decoded(raw, plus_is_space, &mut buffer);
        assert_eq!(actual, expected, "{}", raw.escape_ascii());
    }

    /// Right to left, which needs no look ahead, on a list that grows.
    fn oracle(raw: &[u8], plus_is_space: bool) -> Option<Vec<u8>> {
        let mut units: Vec<Vec<u8>> = raw.iter().map(|byte| vec![*byte]).collect();
        let mut at = 0;
        while at < units.len() {
            let triple = units.get(at..at + 3).map(<[_]>::concat).unwrap_or_default();
            let text = String::from_utf8_lossy(&triple).into_owned();
            if text.len() == 3 && text.starts_with('%') && text[1..].chars().all(|c| c.is_ascii_hexdigit()) {
                let byte = u8::from_str_radix(&text[1..], 16).unwrap();
                units.splice(at..at + 3, [vec![byte]]);
            } else if plus_is_space && units[at] == b"+" {
                units[at] = b" ".to_vec();
            }
            at += 1;
        }
        let all = units.concat();
        (all.len() <= 256).then_some(all)
    }

    #[test]
    fn two_digits_after_a_percent_sign_are_a_byte() {
        check(b"pr%2D17", false, Some(b"pr-17"));
        check(b"%4b%4B", false, Some(b"KK"));
        check(b"%00%ff", false, Some(b"\0\xff"));
        check(b"%2541", false, Some(b"%41"));
    }

    #[test]
    fn other_percent_signs_stay() {
        for raw in ["%", "%%", "%4", "%g1", "%1g", "%+1", "% 1", "a%"] {
            check(raw.as_bytes(), false, Some(raw.as_bytes()));
        }
        check(b"%%41%4", false, Some(b"%A%4"));
    }

    #[test]
    fn a_plus_is_a_space_only_in_a_query() {
        check(b"a+b", true, Some(b"a b"));
        check(b"a+b", false, Some(b"a+b"));
        check(b"a%2Bb", true, Some(b"a+b"));
    }

    #[test]
    fn the_limit_is_that_of_what_was_decoded() {
        check(&b"K".repeat(256), false, Some(&b"K".repeat(256)));
        check(&b"K".repeat(257), false, None);
        check(&b"%4B".repeat(256), false, Some(&b"K".repeat(256)));
        check(&b"%4B".repeat(257), false, None);
        check(&[&b"%4B".repeat(255)[..], b"%4"].concat(), false, None);
        check(&b"%".repeat(257), false, None);
    }

    #[test]
    fn what_needs_no_decoding_is_not_copied() {
        let raw = b"pr-17";
        let mut buffer = [b'x'; 256];
        assert!(std::ptr::eq(decoded(raw, true, &mut buffer).unwrap(), raw.as_slice()));
        assert_eq!(decoded(b"a+b", false, &mut buffer), Some(&b"a+b"[..]));
        assert_eq!(buffer, [b'x'; 256]);
    }

    #[test]
    fn hostile_values_do_no_harm() {
        for value in hostile::values() {
            let expected = (value.len() < 1000).then(|| oracle(&value, false)).flatten();
            check(&value, false, expected.as_deref());
        }
    }

    proptest! {
        #[test]
        fn it_decodes_what_the_oracle_decodes(raw in hostile::value(PARTS), plus_is_space: bool) {
            let expected = oracle(&raw, plus_is_space);
            let mut buffer = [0; 256];
            prop_assert_eq!(decoded(&raw, plus_is_space, &mut buffer), expected.as_deref());
        }

        #[test]
        fn what_was_encoded_decodes_to_itself(value in prop::collection::vec(any::<u8>(), 0..=256)) {
            let mut raw = Vec::new();
            encode(&value, |byte| byte.is_ascii_graphic(), &mut raw);
            prop_assert!(raw.iter().all(u8::is_ascii_graphic));
            let mut buffer = [0; 256];
            prop_assert_eq!(decoded(&raw, false, &mut buffer), Some(value.as_slice()));
        }
    }
}
