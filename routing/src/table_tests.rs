use std::collections::BTreeSet;

use serde_json::json;

use super::*;

fn sample() -> Vec<u8> {
    let json = br#"{"defaultTarget": "d", "rules": [
        {"routeKey": "b", "targetService": "x", "pathPrefixes": ["/1", "/2"], "headerMatchers": {"A": "1"}},
        {"routeKey": "a", "targetService": "y", "additionalHeaders": {"B": "2"}, "removeHeaders": ["C"],
         "paths": [{"regex": "/a+"}], "expiresAt": "2026-12-01T00:00:00Z", "stickyBy": {"cookie": "u"},
         "mirror": {"service": "m", "percent": 5}}]}"#;
    RouteTable::from_configuration(json.to_vec()).unwrap().bytes
}

/// The sample with `change` made to it and the checksum put right again.
fn forged(change: impl FnOnce(&mut Vec<u8>)) -> Result<RouteTable, InvalidTable> {
    let mut bytes = sample();
    change(&mut bytes);
    let sum = checksum(&bytes[CHECKED_FROM..]);
    bytes[12..CHECKED_FROM].copy_from_slice(&sum.to_le_bytes());
    RouteTable::load(bytes)
}

#[test]
fn a_table_loads_as_it_was_compiled() {
    let table = RouteTable::load(sample()).unwrap();
    assert_eq!(
        (table.keys(), table.rules(), table.route_key_header()),
        (2, 2, "x-route-key")
    );
    let clusters = |key: &[u8]| {
        table
            .rules_of(key)
            .map(|rules| rules.flat_map(|rule| rule.targets()).collect::<Vec<_>>())
    };
    assert_eq!(clusters(b"a"), Some(vec![("y:80|baseline", 1)]));
    assert_eq!(clusters(b"b"), Some(vec![("x:80|baseline", 1)]));
    assert_eq!(clusters(b"c"), None);
    let b = table.rules_of(b"b").unwrap().next().unwrap();
    assert_eq!(b.conditions().count(), 3);
    assert_eq!(b.additional_headers().count(), 0);
}

/// Whether a table of `keys` has each of `asked` if, and only if, it is one of them.
fn finds(keys: &BTreeSet<String>, asked: impl IntoIterator<Item = String>) -> bool {
    let rule = |key: &String| json!({"routeKey": key, "targetService": "x"});
    let rules: Vec<_> = keys.iter().map(rule).collect();
    let json = json!({"defaultTarget": "d", "rules": rules});
    let table = RouteTable::from_configuration(json.to_string().into_bytes()).unwrap();
    asked.into_iter().all(|key| {
        let found = table.rules_of(key.as_bytes()).and_then(|mut rules| rules.next());
        let name = found.map(|rule| rule.name().to_owned());
        name == keys.contains(&key).then(|| format!("{key}@x:80"))
    })
}

#[test]
fn every_key_is_found_and_no_other() {
    let keys = ["a", "aa", "aab", "ab", "abc", "abca", "abcb", "b", "ba", "z"];
    let others = [
        "", "0", "a0", "aaa", "aba", "abcaa", "abcc", "ac", "az", "zz", "a\0", "abc\0\0",
    ];
    for count in 0..=keys.len() {
        let keys: BTreeSet<_> = keys[..count].iter().map(ToString::to_string).collect();
        assert!(finds(&keys, keys.iter().cloned()), "{keys:?}");
        assert!(finds(&keys, others.map(str::to_owned)), "{keys:?}");
    }
}

#[cfg(not(target_arch = "wasm32"))]
proptest::proptest! {
    /// Keys that have much in common: they differ before, within and after the eight bytes that are compared at once, and are
    /// beginnings of each other.
    #[test]
    fn keys_that_begin_alike_are_found(
        beginning in "[ab]{0,12}",
        ends in proptest::collection::vec("[!a~]{0,11}", 1..40),
        others in proptest::collection::vec("[!a~\0]{0,11}", 20),
    ) {
        let whole = |end: &String| format!("{beginning}{end}");
        let keys: BTreeSet<_> = ends.iter().map(whole).filter(|key| !key.is_empty()).collect();
        proptest::prop_assert!(finds(&keys, ends.iter().chain(&others).map(whole)));
        proptest::prop_assert!(finds(&keys, others));
        proptest::prop_assert!(finds(&keys, (0..beginning.len()).map(|end| beginning[..end].to_owned())));
    }
}

#[test]
fn no_rules_are_a_table_too() {
    let table = RouteTable::from_configuration(br#"{"defaultTarget": "d"}"#.to_vec()).unwrap();
    assert_eq!((table.keys(), table.rules()), (0, 0));
    assert!(table.rules_of(b"").is_none());
}

#[test]
fn another_version_is_refused_by_name() {
    let mut bytes = sample();
    bytes[8] = 9;
    let error = RouteTable::load(bytes).unwrap_err();
    assert_eq!(error, InvalidTable::Version(9));
    assert!(error.to_string().contains("wants version 4"));
}

#[test]
fn what_is_neither_json_nor_a_table_is_refused() {
    for bytes in [&b""[..], b"\0", b"{", b"\xff\xfe", b"[]", b"{\"defaultTarget\": \"\"}"] {
        assert!(RouteTable::from_configuration(bytes.to_vec()).is_err(), "{bytes:?}");
    }
}

#[test]
fn no_cut_and_no_flipped_bit_gets_through() {
    let bytes = sample();
    for length in 0..bytes.len() {
        assert!(RouteTable::load(bytes[..length].to_vec()).is_err(), "cut to {length}");
    }
    for index in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[index] ^= 0x40;
        assert!(RouteTable::load(changed).is_err(), "changed at {index}");
    }
}

#[test]
fn a_forged_table_is_refused_or_harmless() {
    let length = sample().len();
    for index in CHECKED_FROM..length {
        for value in [0, 1, 0x7f, 0xff] {
            let Ok(table) = forged(|bytes| bytes[index] = value) else {
                continue;
            };
            for key in [&b"a"[..], b"b", b""] {
                for rule in table.rules_of(key).into_iter().flatten() {
                    let _ = (rule.name(), rule.targets().count(), rule.conditions().count());
                    let _ = rule.additional_headers().count();
                }
            }
        }
    }
}
