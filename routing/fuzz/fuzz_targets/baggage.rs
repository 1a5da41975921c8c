//! Lines of a `baggage` header: the key is the oracle's, and a member that is set is the one that is found.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use sidetrack_fuzz::{found, lines, sources, sources::Found, table_with};
use sidetrack_routing::{RouteTable, merged_baggage};

static TABLE: LazyLock<RouteTable> = LazyLock::new(|| table_with(r#"{"baggage": "k"}"#));

fuzz_target!(|data: &[u8]| {
    let lines = lines(data);
    let actual = found(&TABLE, "baggage", &lines);
    assert_eq!(actual, Found::judge(sources::baggage(&lines, "k")));
    let mut merged = Vec::new();
    merged_baggage(lines.iter().map(Vec::as_slice), "k", b"a;b%", &mut merged);
    assert_eq!(found(&TABLE, "baggage", &[merged]), Found::Key(b"a;b%".to_vec()));
});
