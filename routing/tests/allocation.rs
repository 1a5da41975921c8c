//! A decision allocates nothing, however large the table, whatever it looks at.

#![cfg(not(target_arch = "wasm32"))]
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test may panic")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;

use serde_json::{Value, json};
use sidetrack_routing::{Destination, Request, RequestHead, RouteTable, decide};

/// The system's allocator, with a count of what each thread asks of it.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: everything is the system's, the count aside, which itself allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        unsafe { System.alloc_zeroed(layout) }
    }
}

/// Other threads of the test runner may be at work: only one's own are counted. At a thread's end nobody asks any more.
fn count() {
    let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
}

/// How often `work` allocated.
fn allocations<T>(work: impl FnOnce() -> T) -> usize {
    let before = ALLOCATIONS.get();
    black_box(work());
    ALLOCATIONS.get() - before
}

/// A table of this many keys `key-0`, `key-1`, …; the one in the midst has all the rules that the cases below want.
fn table(keys: usize) -> RouteTable {
    let split = json!([{"service": "a", "weight": 1}, {"service": "b", "weight": 3}, {"service": "c", "weight": 0}]);
    let mut rules: Vec<Value> = vec![
        json!({"pathPrefixes": ["/prefix"], "targetService": "prefix",
                "additionalHeaders": {"X-E": "1"}, "removeHeaders": ["X-D"]}),
        json!({"paths": [{"exact": "/sticky"}], "targets": split, "stickyBy": {"header": "X-User"}}),
        json!({"paths": [{"exact": "/cookie"}], "targets": split, "stickyBy": {"cookie": "user"}}),
        json!({"paths": [{"exact": "/key"}], "targets": split, "stickyBy": {"routeKey": true}}),
        json!({"paths": [{"exact": "/chance"}], "targets": split}),
        json!({"paths": [{"exact": "/mirror"}], "targetService": "mirrored",
                "mirror": {"service": "m", "percent": 99.9}}),
        json!({"paths": [{"exact": "/expired"}], "targetService": "expired", "expiresAt": "1970-01-01T00:00:01Z"}),
        json!({"paths": [{"exact": "/headers"}], "targetService": "headers", "headerMatchers": {
                "X-A": "1", "X-B": {"prefix": "p"}, "X-C": {"contains": "c"}, "X-N": {"absent": true}}}),
        json!({"paths": [{"exact": "/query"}], "targetService": "query",
                "queryMatchers": {"q": {"oneOf": ["1", "a b"]}}}),
        json!({"paths": [{"exact": "/host"}], "targetService": "host", "hosts": ["x", "*.a.b"],
                "methods": ["GET", "POST"]}),
        json!({"paths": [{"regex": "/v[0-9]+/(orders|items)/.*"}], "targetService": "regex",
                "headerMatchers": {"X-R": {"regex": "(foo|bar)+[a-z]{2,5}"}}}),
    ];
    for rule in &mut rules {
        rule["routeKey"] = format!("key-{}", keys / 2).into();
    }
    let others = (0..keys).filter(|number| *number != keys / 2);
    rules.extend(others.map(
        |number| json!({"routeKey": format!("key-{number}"), "targetService": "other", "pathPrefixes": ["/prefix"]}),
    ));
    let config = json!({"defaultTarget": "d", "rules": rules, "keySources": [
        {"header": "X-Route-Key"}, {"baggage": "k"}, {"tracestate": "k"}, {"cookie": "k"}, {"query": "k"},
        {"host": "*.preview.example"}]});
    RouteTable::from_configuration(config.to_string().into_bytes()).unwrap()
}

/// Decides by `table`, whose keys these are, in every way there is, each allocating nothing: by `path | header: value |
/// … => cluster or reason`, where KEY is a key in the midst of the table.
fn check(table: &RouteTable, keys: usize) {
    let key = format!("key-{}", keys / 2);
    let encoded = key.replace('-', "%2D");
    let long = "x".repeat(10_000);
    for case in [
        "/prefix/x | x-route-key: KEY => prefix",
        "/prefix/x | x-route-key: KEY, other | x-route-key: KEY => prefix",
        "/headers | x-route-key: KEY | x-a: 2 | x-a: 1 | x-b: pq | x-c: abcd => headers",
        "/v1/orders/77 | x-route-key: KEY | x-r: foobarxyz => regex",
        "/v1/orders/77 | x-route-key: KEY | x-r: foob => no_match",
        "/v1/orders/LONG | x-route-key: KEY | x-r: LONG => no_match",
        "/prefix | baggage: a=1,k=ENCODED;p=1 => prefix",
        "/prefix | baggage: a=1 | baggage: LONG | baggage: k=KEY => no_key",
        "/prefix | tracestate: a=1,k=KEY => prefix",
        "/prefix | cookie: a=1; k=\"KEY\" => prefix",
        "/prefix?k=ENCODED => prefix",
        "/query?k=KEY&q=%61+b => query",
        "/query?q=LONG | x-route-key: KEY => no_match",
        "/prefix | :authority: KEY.preview.example:80 => prefix",
        "/host | :authority: y.a.b:80 | :method: POST | x-route-key: KEY => host",
        "/sticky | x-route-key: KEY | x-user: 7 => a or b",
        "/sticky | x-route-key: KEY => a or b",
        "/cookie | x-route-key: KEY | cookie: user=7 => a or b",
        "/key | x-route-key: KEY => a or b",
        "/chance | x-route-key: KEY => a or b",
        "/mirror | x-route-key: KEY => mirrored",
        "/expired | x-route-key: KEY => no_match",
        "/elsewhere | x-route-key: KEY | cookie: k=other => no_match",
        "/ | x-route-key: nobody => unknown_key",
        "/ | x-route-key: LONG => invalid_key",
        "/ | cookie: LONG | tracestate: LONG | baggage: LONG => no_key",
        "/ => no_key",
    ] {
        let filled = case
            .replace("KEY", &key)
            .replace("ENCODED", &encoded)
            .replace("LONG", &long);
        let (request, expected) = filled.split_once(" => ").unwrap();
        let mut parts = request.split(" | ");
        let path = (":path", parts.next().unwrap());
        let head: Vec<_> = std::iter::once(path)
            .chain(parts.map(|line| line.split_once(": ").unwrap()))
            .collect();
        let request = Request {
            now: 5000,
            ..Request::new(&head)
        };
        let mut actual = "";
        let count = allocations(|| {
            actual = match decide(table, &request).destination {
                Destination::Target { rule, cluster, mirror } => {
                    black_box((
                        rule.additional_headers().count(),
                        rule.removed_headers().count(),
                        mirror,
                    ));
                    cluster
                }
                Destination::Baseline(reason) => reason.as_str(),
            };
        });
        assert_eq!(count, 0, "allocations of {case}");
        let actual = actual.trim_end_matches(":80|baseline");
        assert!(expected.split(" or ").any(|one| one == actual), "{case}: {actual}");
    }
}

/// A request that allocates when it is asked for a header.
struct Wasteful;

impl RequestHead<'_> for Wasteful {
    fn any_value(&self, name: &str, mut test: impl FnMut(&[u8]) -> bool) -> bool {
        test(black_box(name.to_owned()).as_bytes())
    }

    fn now(&self) -> u64 {
        0
    }

    fn random(&self) -> u64 {
        0
    }
}

#[test]
fn an_allocation_is_noticed() {
    assert_eq!(allocations(|| Box::new(7)), 1);
    assert_eq!(allocations(|| vec![0u8; 100]), 1);
    let mut grown = Vec::from([1]);
    assert_eq!(allocations(|| grown.extend([2; 100])), 1);
    let table = table(1);
    assert!(allocations(|| decide(&table, &Wasteful).key) >= 6);
}

#[test]
fn no_decision_allocates_with_10_keys() {
    check(&table(10), 10);
}

#[test]
fn no_decision_allocates_with_100_000_keys() {
    check(&table(100_000), 100_000);
}
