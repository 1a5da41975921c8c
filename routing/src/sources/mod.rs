//! Where a request may carry its route key: parsers of header values and of the `:path`.
//!
//! Clients wrote what is parsed here. So every parser takes any bytes, never panics, allocates nothing and is linear in
//! what it reads. What is malformed is skipped, never repaired, and what lies across a limit is skipped whole: a value
//! that was cut would be another route key. Values are returned as they stand in the request, a part of it; `percent`
//! decodes them.
//!
//! | source | parser | what follows |
//! |---|---|---|
//! | header | [`list::first_element`] | |
//! | baggage | [`Baggage::member`], line by line | [`percent::decoded`] |
//! | tracestate | [`TraceState::member`], line by line | |
//! | cookie | [`cookie::value`] | |
//! | query | [`query::parameter`] | [`percent::decoded`], `+` is a space |
//! | host | [`host::label`] | |
//!
//! A source has a key when its parser finds a value that isn't empty; whether the value is a valid key is not asked
//! here. [`baggage::merged`] is the way back: the header that carries the key on to the next service.

pub(crate) mod baggage;
pub(crate) mod cookie;
pub(crate) mod host;
#[cfg(test)]
mod hostile;
pub(crate) mod list;
pub(crate) mod percent;
pub(crate) mod query;
mod tracestate;

pub(crate) use baggage::Baggage;
pub(crate) use tracestate::TraceState;

/// The bytes of a list of members or cookies that are read, the limit of W3C Baggage. Envoy takes headers of 60 KiB
/// unless told otherwise, and nobody needs that many for a route key.
pub(crate) const MAX_BYTES: usize = 8192;

/// `text` without the optional white space of HTTP (RFC 9110 §5.6.3) around it.
fn trimmed(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

/// What stands before the first `separator`, and what after it.
fn split_once(text: &[u8], separator: u8) -> Option<(&[u8], &[u8])> {
    let mut parts = text.splitn(2, |byte| *byte == separator);
    Some((parts.next()?, parts.next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_spaces_and_tabs_are_white_space() {
        for (text, expected) in [
            ("", ""),
            (" \t ", ""),
            ("\t a b\t", "a b"),
            ("\u{b}a\r\n", "\u{b}a\r\n"),
            ("\0 ", "\0"),
        ] {
            assert_eq!(trimmed(text.as_bytes()), expected.as_bytes(), "{text:?}");
        }
    }

    #[test]
    fn the_first_separator_splits() {
        assert_eq!(split_once(b"a=b=c", b'='), Some((&b"a"[..], &b"b=c"[..])));
        assert_eq!(split_once(b"=", b'='), Some((&b""[..], &b""[..])));
        assert_eq!(split_once(b"", b'='), None);
        assert_eq!(split_once(b"a", b'='), None);
    }
}
