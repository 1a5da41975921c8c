//! Lines of a `tracestate` header: the key is the oracle's.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use sidetrack_fuzz::{found, lines, sources, sources::Found, table_with};
use sidetrack_routing::RouteTable;

static TABLE: LazyLock<RouteTable> = LazyLock::new(|| table_with(r#"{"tracestate": "k"}"#));

fuzz_target!(|data: &[u8]| {
    let lines = lines(data);
    let actual = found(&TABLE, "tracestate", &lines);
    assert_eq!(actual, Found::judge(sources::tracestate(&lines, "k")));
});
