//! Lines of a `cookie` header, and the same bytes as a query, as an authority and as a plain header: the key is the
//! oracle's.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use sidetrack_fuzz::{found, lines, sources, sources::Found, table_with};
use sidetrack_routing::RouteTable;

static COOKIE: LazyLock<RouteTable> = LazyLock::new(|| table_with(r#"{"cookie": "k"}"#));
static QUERY: LazyLock<RouteTable> = LazyLock::new(|| table_with(r#"{"query": "k"}"#));
static HOST: LazyLock<RouteTable> = LazyLock::new(|| table_with(r#"{"host": "*.a"}"#));
static HEADER: LazyLock<RouteTable> = LazyLock::new(|| table_with(r#"{"header": "x-k"}"#));

fuzz_target!(|data: &[u8]| {
    let lines = lines(data);
    let first = &lines[..1];
    assert_eq!(
        found(&COOKIE, "cookie", &lines),
        Found::judge(sources::cookie(&lines, "k"))
    );
    assert_eq!(
        found(&QUERY, ":path", first),
        Found::judge(sources::query(&first[0], "k"))
    );
    assert_eq!(
        found(&HOST, ":authority", first),
        Found::judge(sources::host(&first[0], ".a"))
    );
    assert_eq!(found(&HEADER, "x-k", &lines), Found::judge(sources::header(&lines)));
});
