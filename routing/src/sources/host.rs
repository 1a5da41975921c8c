//! The authority of a request: `HOST` or `HOST:PORT`.

/// The label of `authority` in the place of the wildcard of `*.preview.example.com`, for which `suffix` is
/// `.preview.example.com`, in lower case and with its dot.
///
/// Exactly one label that is not empty stands there, as the client wrote it: letters of either case are equal in the
/// suffix, but the label is a route key, and those compare byte for byte. Browsers send lower case. The port, and a dot
/// at the end of the name, don't count.
pub(crate) fn label<'v>(authority: &'v [u8], suffix: &[u8]) -> Option<&'v [u8]> {
    let host = without_port(authority);
    let host = host.strip_suffix(b".").unwrap_or(host);
    let (label, rest) = host.split_at_checked(host.len().checked_sub(suffix.len())?)?;
    let is_label = !label.is_empty() && !label.contains(&b'.');
    (is_label && rest.eq_ignore_ascii_case(suffix)).then_some(label)
}

/// The host of `authority`, an IPv6 address in its brackets. An authority that has more colons than a host and a port
/// may have, or something else than digits for a port, stays as it is.
pub(crate) fn without_port(authority: &[u8]) -> &[u8] {
    let colon = authority.iter().rposition(|byte| *byte == b':');
    match colon.and_then(|colon| authority.split_at_checked(colon)) {
        Some((host, [b':', port @ ..])) if port.iter().all(u8::is_ascii_digit) && is_host(host) => host,
        _ => authority,
    }
}

fn is_host(text: &[u8]) -> bool {
    matches!(text, [b'[', .., b']']) || !text.contains(&b':')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::hostile;
    use super::*;

    const SUFFIX: &str = ".preview.example.com";
    const PARTS: &[&str] = &[
        ".preview.example.com",
        ".Preview.EXAMPLE.com",
        "K",
        ".",
        ":",
        "80",
        "[",
        "]",
        "::1",
    ];

    #[track_caller]
    fn check(authority: &str, expected: Option<&str>) {
        let actual = label(authority.as_bytes(), SUFFIX.as_bytes());
        assert_eq!(actual, expected.map(str::as_bytes), "{authority}");
    }

    #[track_caller]
    fn host(authority: &str, expected: &str) {
        assert_eq!(without_port(authority.as_bytes()), expected.as_bytes(), "{authority}");
    }

    /// Tries every place where the host may end.
    fn host_oracle(authority: &[u8]) -> Vec<u8> {
        for end in 0..authority.len() {
            let (host, rest) = (&authority[..end], &authority[end..]);
            let is_port = rest[0] == b':' && rest[1..].iter().all(u8::is_ascii_digit);
            let bracketed = host.len() > 1 && host.starts_with(b"[") && host.ends_with(b"]");
            if is_port && (bracketed || host.iter().all(|byte| *byte != b':')) {
                return host.to_vec();
            }
        }
        authority.to_vec()
    }

    fn label_oracle(authority: &[u8], suffix: &str) -> Option<Vec<u8>> {
        let mut labels: Vec<Vec<u8>> = host_oracle(authority)
            .split(|byte| *byte == b'.')
            .map(<[u8]>::to_vec)
            .collect();
        if labels.len() > 1 && labels.last().is_some_and(Vec::is_empty) {
            labels.pop();
        }
        let first = labels[0].clone();
        labels[0].clear();
        let rest = labels.join(&b'.').to_ascii_lowercase();
        (!first.is_empty() && rest == suffix.as_bytes()).then_some(first)
    }

    #[test]
    fn the_label_before_the_suffix_counts() {
        check("pr-17.preview.example.com", Some("pr-17"));
        check("K.preview.example.com", Some("K"));
        check("K.PREVIEW.Example.com", Some("K"));
        check("\u{e4}_%.preview.example.com", Some("\u{e4}_%"));
    }

    #[test]
    fn port_and_last_dot_do_not_count() {
        check("K.preview.example.com:8080", Some("K"));
        check("K.preview.example.com:", Some("K"));
        check("K.preview.example.com.", Some("K"));
        check("K.preview.example.com.:8080", Some("K"));
        check("K.preview.example.com..", None);
        check("K.preview.example.com:http", None);
        check("K.preview.example.com:80:80", None);
    }

    #[test]
    fn exactly_one_label_that_is_not_empty_counts() {
        check("a.K.preview.example.com", None);
        check(".preview.example.com", None);
        check("..preview.example.com", None);
        check("preview.example.com", None);
        check("Kpreview.example.com", None);
        check("K.preview.example.org", None);
        check("K.preview.example.com.evil.org", None);
        check("", None);
        check("[::1]:80", None);
    }

    #[test]
    fn a_port_is_digits_after_a_host() {
        host("a:80", "a");
        host("a:", "a");
        host("a", "a");
        host(":80", "");
        host("", "");
        host("10.0.0.1:80", "10.0.0.1");
        host("a:b", "a:b");
        host("a:b:80", "a:b:80");
    }

    #[test]
    fn an_ipv6_address_keeps_its_brackets() {
        host("[::1]", "[::1]");
        host("[::1]:80", "[::1]");
        host("[::1]:", "[::1]");
        host("::1", "::1");
        host("[::1", "[::1");
        host("[::1]x:80", "[::1]x:80");
        host("[:80", "[");
    }

    #[test]
    fn hostile_values_are_read_as_the_oracle_reads_them() {
        for value in hostile::values() {
            let within = [b"K", &value[..], SUFFIX.as_bytes(), b":80"].concat();
            assert_eq!(
                label(&within, SUFFIX.as_bytes()),
                label_oracle(&within, SUFFIX).as_deref()
            );
            assert_eq!(label(&value, SUFFIX.as_bytes()), None);
            assert_eq!(label(&value, b""), label_oracle(&value, "").as_deref());
        }
    }

    proptest! {
        #[test]
        fn it_finds_what_the_oracle_finds(authority in hostile::value(PARTS)) {
            prop_assert_eq!(without_port(&authority), host_oracle(&authority));
            let expected = label_oracle(&authority, SUFFIX);
            prop_assert_eq!(label(&authority, SUFFIX.as_bytes()), expected.as_deref());
        }
    }
}
