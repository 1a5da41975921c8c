//! The query of a `:path`.

use super::split_once;

/// The value of the first parameter `name=value` that is not empty, still percent-encoded.
///
/// The query is what lies between the first `?` and the fragment, its parameters are separated by `&`. Names compare
/// byte for byte, nothing in them is decoded.
pub(crate) fn parameter<'v>(path: &'v [u8], name: &[u8]) -> Option<&'v [u8]> {
    values(path, name).find(|value| !value.is_empty())
}

/// The values of all parameters `name=value`, still percent-encoded. A parameter without `=` has an empty one.
pub(crate) fn values<'v>(path: &'v [u8], name: &[u8]) -> impl Iterator<Item = &'v [u8]> {
    let without_fragment = path.split(|byte| *byte == b'#').next().unwrap_or_default();
    let query = split_once(without_fragment, b'?').map(|(_, query)| query);
    let parameters = query.into_iter().flat_map(|query| query.split(|byte| *byte == b'&'));
    parameters
        .map(|parameter| split_once(parameter, b'=').unwrap_or((parameter, b"")))
        .filter_map(move |(key, value)| (key == name).then_some(value))
}

/// The path without query and fragment.
pub(crate) fn path(path: &[u8]) -> &[u8] {
    path.split(|byte| matches!(byte, b'?' | b'#'))
        .next()
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::hostile;
    use super::*;

    const PARTS: &[&str] = &["route-key=", "route-key", "K", "=", "&", "&", "?", "#", "/", ";", "%3D"];

    #[track_caller]
    fn check(path: &str, expected: Option<&str>) {
        let actual = parameter(path.as_bytes(), b"route-key");
        assert_eq!(actual, expected.map(str::as_bytes), "{path}");
    }

    fn oracle(path: &[u8], name: &[u8]) -> Option<Vec<u8>> {
        let path = match path.iter().position(|byte| *byte == b'#') {
            Some(fragment) => &path[..fragment],
            None => path,
        };
        let question = path.iter().position(|byte| *byte == b'?')?;
        let start = [name, b"="].concat();
        path[question + 1..]
            .split(|byte| *byte == b'&')
            .find(|parameter| parameter.starts_with(&start) && parameter.len() > start.len())
            .map(|parameter| parameter[start.len()..].to_vec())
    }

    #[test]
    fn the_first_value_that_is_not_empty_counts() {
        check("/?route-key=K", Some("K"));
        check("/a?x=1&route-key=K&y=2", Some("K"));
        check("/?route-key=K1&route-key=K2", Some("K1"));
        check("/?route-key=&route-key&route-key=K", Some("K"));
        check("/?route-key=a=b?c", Some("a=b?c"));
        check("?route-key=K", Some("K"));
        check("/?route-key=", None);
        check("/?route-key", None);
        check("/", None);
    }

    #[test]
    fn a_name_matches_as_a_whole() {
        check("/?xroute-key=K", None);
        check("/?route-key2=K", None);
        check("/?Route-Key=K", None);
        check("/?route%2Dkey=K", None);
        check("/? route-key=K", None);
        check("/?x=1;route-key=K", None);
    }

    #[test]
    fn path_and_fragment_are_no_query() {
        check("/route-key=K", None);
        check("/&route-key=K", None);
        check("/a#?route-key=K", None);
        check("/a?x=1#&route-key=K", None);
        check("/a?route-key=K#f", Some("K"));
    }

    #[test]
    fn the_value_stays_encoded() {
        check("/?route-key=a%26b+c", Some("a%26b+c"));
    }

    #[test]
    fn dialects_of_others_are_read() {
        let path = b"/?mirrord-session=K&x=1";
        assert_eq!(parameter(path, b"mirrord-session"), Some(&b"K"[..]));
    }

    #[test]
    fn hostile_values_are_read_as_the_oracle_reads_them() {
        for value in hostile::values() {
            let path = [b"/?", &value[..], b"&route-key=K"].concat();
            for path in [value, path] {
                for name in [&b"route-key"[..], b"k", b""] {
                    assert_eq!(parameter(&path, name), oracle(&path, name).as_deref());
                }
            }
        }
    }

    proptest! {
        #[test]
        fn it_finds_what_the_oracle_finds(path in hostile::value(PARTS)) {
            let expected = oracle(&path, b"route-key");
            prop_assert_eq!(parameter(&path, b"route-key"), expected.as_deref());
        }
    }
}
