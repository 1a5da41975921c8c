//! Configurations and requests of few words, so that they meet often: as they should, almost, and not at all.

use proptest::collection::{btree_map, vec};
use proptest::option::{self, weighted};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Map, Value, json};

use crate::decision::Case;
use crate::patterns::{INSTANTS, PATTERNS, PERCENTAGES};

const KEYS: [&str; 10] = ["a", "a", "a", "a", "a", "b", "A", "ab", "a=b", "%61"];
const VALUES: [&str; 10] = ["a", "1", "", "A", "ab", "foo", "foobar", "a b", "a b", "\u{e4}"];
const HEADERS: [&str; 4] = ["X-A", "x-b", "X-C", "cookie"];
const PARAMETERS: [&str; 3] = ["k", "q", "K"];
const PREFIXES: [&str; 6] = ["/", "/a", "/a/", "/a/b", "/ab", "/A"];
const SERVICES: [&str; 4] = ["a", "B:81", "c", "10.0.0.1:80"];

/// The JSON form of `routing`.
pub(crate) fn routing() -> impl Strategy<Value = Value> {
    let default = prop_oneof![
        3 => Just(json!("default")),
        1 => select(vec![json!("a"), json!("A:80"), json!("b:81")]),
        1 => targets().prop_map(Value::from),
    ];
    let dialects = ["signadot", "mirrord", "okteto", "bridge-to-kubernetes"];
    (
        select(vec!["X-Route-Key", "x-k"]),
        default,
        prop_oneof![1 => Just(Vec::new()), 4 => subsequence(sources(), 1..=4).prop_shuffle()],
        prop_oneof![3 => Just(Vec::new()), 1 => subsequence(dialects.to_vec(), 1..=2)],
        vec(rule(), 0..10),
    )
        .prop_map(|(header, default, sources, dialects, rules)| {
            let named = rules.into_iter().enumerate().map(|(index, mut rule)| {
                rule["name"] = format!("rule {index}").into();
                rule
            });
            json!({
                "routeKeyHeader": header,
                "defaultTarget": default,
                "keySources": sources,
                "keyDialects": dialects,
                "rules": named.collect::<Vec<_>>(),
            })
        })
}

/// A request.
pub(crate) fn case() -> impl Strategy<Value = Case> {
    let pseudo = (
        weighted(0.98, path()),
        weighted(0.98, select(vec!["GET", "POST", "get", "M-SEARCH"])),
        weighted(0.98, authority()),
    );
    let now = prop_oneof![
        2 => Just(0),
        3 => (select(INSTANTS.to_vec()), 0..3u64).prop_map(|((_, time), off)| time + off - 1),
        1 => Just(u64::MAX),
    ];
    // Where one share ends and the next begins, of those that weights and percentages give.
    let ends: Vec<(u128, u128)> = vec![
        (0, 1),
        (1, 2),
        (1, 3),
        (1, 11),
        (10, 100),
        (1, 91),
        (1, 1_000_000),
        (333_333, 1_000_000),
        (666_667, 1_000_000),
    ];
    let end = (select(ends), 0..4u64)
        .prop_map(|((part, whole), off)| (((part << 64) / whole) as u64).wrapping_add(off).wrapping_sub(2));
    let random = prop_oneof![1 => any::<u64>(), 1 => end];
    let plain = subsequence(
        vec![
            ("x-route-key", "a"),
            ("x-k", "a"),
            ("baggage", "k=a,K=a"),
            ("tracestate", "k=a"),
            ("cookie", "k=a; u=1"),
            ("x-a", "a"),
            ("x-b", "foo"),
        ],
        0..=7,
    );
    let lines = (plain, vec(line(), 0..6)).prop_map(|(plain, mut lines)| {
        lines.extend(
            plain
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())),
        );
        lines
    });
    (pseudo, lines.prop_shuffle(), now, random).prop_map(|((path, method, authority), mut headers, now, random)| {
        headers.extend(path.map(|path| (":path".to_owned(), path)));
        headers.extend(method.map(|method| (":method".to_owned(), method.into())));
        headers.extend(authority.map(|authority| (":authority".to_owned(), authority)));
        Case { headers, now, random }
    })
}

fn sources() -> Vec<Value> {
    vec![
        json!({"header": "X-Route-Key"}),
        json!({"header": "x-k"}),
        json!({"header": "Cookie"}),
        json!({"baggage": "k"}),
        json!({"baggage": "K"}),
        json!({"tracestate": "k"}),
        json!({"cookie": "k"}),
        json!({"query": "k"}),
        json!({"query": "q"}),
        json!({"host": "*.a.b"}),
        json!({"host": "*.B"}),
    ]
}

fn rule() -> impl Strategy<Value = Value> {
    let target = prop_oneof![
        1 => select(SERVICES.to_vec()).prop_map(|service| ("targetService", json!(service))),
        2 => targets().prop_map(|targets| ("targets", targets.into())),
    ];
    let path = prop_oneof![
        select(PREFIXES.to_vec()).prop_map(|path| json!({"exact": path})),
        select(PREFIXES.to_vec()).prop_map(|path| json!({"prefix": path})),
        select(PATTERNS.to_vec()).prop_map(|(regex, _)| json!({"regex": regex})),
    ];
    let sticky = select(vec![
        json!({"header": "X-A"}),
        json!({"header": "x-b"}),
        json!({"cookie": "u"}),
        json!({"routeKey": true}),
    ]);
    let hosts = subsequence(vec!["a", "A.b", "*.a.b", "*.B", "[::1]", "10.0.0.1"], 1..=2);
    let mirror = select(PERCENTAGES.to_vec()).prop_map(|(percent, _)| json!({"service": "Mirror", "percent": percent}));
    let matchers = (
        weighted(0.15, hosts.prop_map(Value::from)),
        weighted(0.2, vec(select(PREFIXES.to_vec()), 1..3).prop_map(Value::from)),
        weighted(0.15, vec(path, 1..3).prop_map(Value::from)),
        weighted(
            0.1,
            subsequence(vec!["GET", "POST", "M-SEARCH"], 1..=2).prop_map(Value::from),
        ),
        weighted(0.2, tests(&HEADERS)),
        weighted(0.3, tests(&PARAMETERS)),
    );
    let effects = (
        option::of(btree_map(select(vec!["X-E", "x-f"]), select(vec!["1", "a b"]), 0..3).prop_map(|set| json!(set))),
        weighted(0.5, subsequence(vec!["X-D", "x-g"], 0..=2).prop_map(Value::from)),
        weighted(0.3, mirror),
        weighted(0.2, select(INSTANTS.to_vec()).prop_map(|(text, _)| json!(text))),
        weighted(0.3, select(vec![json!("none"), json!("baseline")])),
        weighted(0.5, sticky),
    );
    (select(KEYS.to_vec()), target, matchers, effects).prop_map(|(key, (field, target), matchers, effects)| {
        let mut rule = Map::new();
        rule.insert("routeKey".to_owned(), key.into());
        rule.insert(field.to_owned(), target);
        let (hosts, prefixes, paths, methods, headers, queries) = matchers;
        let (set, removed, mirror, expires, fallback, sticky) = effects;
        for (name, value) in [
            ("hosts", hosts),
            ("pathPrefixes", prefixes),
            ("paths", paths),
            ("methods", methods),
            ("headerMatchers", headers),
            ("queryMatchers", queries),
            ("additionalHeaders", set),
            ("removeHeaders", removed),
            ("mirror", mirror),
            ("expiresAt", expires),
            ("fallback", fallback),
            ("stickyBy", sticky),
        ] {
            rule.extend(value.map(|value| (name.to_owned(), value)));
        }
        Value::Object(rule)
    })
}

fn targets() -> impl Strategy<Value = Vec<Value>> {
    let weights = vec(select(vec![1u32, 0, 2, 10, 90, 1000, u32::MAX]), 4);
    (subsequence(SERVICES.to_vec(), 1..=4).prop_shuffle(), weights).prop_map(|(services, mut weights)| {
        if weights.iter().take(services.len()).all(|weight| *weight == 0) {
            weights[0] = 1;
        }
        let targets = services.into_iter().zip(weights);
        targets
            .map(|(service, weight)| json!({"service": service, "weight": weight}))
            .collect()
    })
}

/// Tests of one or two values.
fn tests(names: &'static [&'static str]) -> impl Strategy<Value = Value> {
    let value = || select(VALUES.to_vec());
    let part = || select(vec!["a", "b", "f", "foo", "A", " "]);
    let test = prop_oneof![
        3 => value().prop_map(Value::from),
        1 => value().prop_map(|value| json!({"exact": value})),
        1 => part().prop_map(|part| json!({"prefix": part})),
        1 => part().prop_map(|part| json!({"suffix": part})),
        1 => part().prop_map(|part| json!({"contains": part})),
        1 => select(PATTERNS.to_vec()).prop_map(|(regex, _)| json!({"regex": regex})),
        1 => Just(json!({"present": true})),
        1 => Just(json!({"absent": true})),
        1 => vec(value(), 1..3).prop_map(|values| json!({"oneOf": values})),
    ];
    btree_map(select(names), test, 1..3).prop_map(|tests| json!(tests))
}

/// A header line other than the pseudo-headers.
fn line() -> impl Strategy<Value = (String, Vec<u8>)> {
    let named = |names: &'static [&'static str]| select(names).prop_map(str::to_owned);
    let value = prop_oneof![
        4 => select(VALUES.to_vec()).prop_map(|value| value.as_bytes().to_vec()),
        2 => pieces(&["a", "b", "A", "foo", "bar", ",", " ", "\n", "1"], 4),
    ];
    let keys = || {
        prop_oneof![2 => select(KEYS.to_vec()).prop_map(|key| key.as_bytes().to_vec()),
        1 => pieces(&["a", "b", "A", ",", " ", "\t", "%61", "=", "\""], 4)]
    };
    let members = || {
        pieces(
            &[
                "k=a", "k=a", "k=b", "k=", "k =a", "K=a", ",", ",", ", ", ";", "; ", "a", "=", "%61", "%2C", "%", "\"",
                ";p=1", "\t", "u=1", "u=2",
            ],
            7,
        )
    };
    let dialect = (
        select(vec![
            "sd-routing-key=",
            "sd-sandbox=",
            "mirrord-session=",
            "okteto-divert=",
            "mirrord-session=a;",
        ]),
        pieces(&["a", "b", "%61", ",sd-routing-key=b"], 2),
    )
        .prop_map(|(name, value)| [name.as_bytes(), &value].concat());
    let at_the_limit = (named(&["baggage", "tracestate", "cookie"]), 8187..=8190_usize).prop_map(|(name, length)| {
        let separator = if name == "cookie" { b';' } else { b',' };
        let line = [b"y".repeat(length - 1), b"k=b".to_vec()].join(&separator);
        (name, line)
    });
    prop_oneof![
        8 => (named(&["x-route-key", "x-k"]), keys()),
        2 => (named(&["ot-baggage-sd-routing-key", "uberctx-sd-routing-key", "kubernetes-route-as"]), keys()),
        12 => (named(&["baggage", "tracestate", "cookie", "cookie"]), members()),
        2 => (named(&["baggage", "tracestate", "cookie"]), dialect),
        1 => at_the_limit,
        10 => (named(&["x-a", "x-b", "x-c"]), value),
    ]
}

/// A path, and often a query.
fn path() -> impl Strategy<Value = Vec<u8>> {
    let path = prop_oneof![
        8 => select(PREFIXES.to_vec()).prop_map(|path| path.as_bytes().to_vec()),
        3 => pieces(&["/", "/a", "/b", "a", "b", "%20", "\n"], 4),
        1 => select(vec!["*", ""]).prop_map(|path| path.as_bytes().to_vec()),
    ];
    let query = pieces(
        &[
            "&",
            "&",
            "?",
            "#",
            "k=a",
            "k=b",
            "k=",
            "k",
            "q=1",
            "q=a",
            "q=foo",
            "q=a+b",
            "q=a+b",
            "k=a%20b",
            "q=%61",
            "K=a",
            "=",
            "%ff",
            "%4",
            "mirrord-session=a",
        ],
        6,
    );
    (path, option::of(query)).prop_map(|(path, query)| match query {
        Some(query) => [path, query].join(&b'?'),
        None => path,
    })
}

fn authority() -> impl Strategy<Value = Vec<u8>> {
    let known = [
        "a",
        "A.B",
        "a.b",
        "x.a.b",
        "a.a.b:80",
        "b.A.B.",
        "a.b:8x",
        "x.y.a.b",
        "[::1]",
        "[::1]:80",
        "10.0.0.1:1",
        "",
    ];
    prop_oneof![
        4 => select(known.to_vec()).prop_map(|host| host.as_bytes().to_vec()),
        1 => pieces(&["a", "b", ".", ".a", ".b", ":", ":80", "[", "]"], 5),
    ]
}

/// Some of these `parts` one after another; rarely something that is no text, or that is long.
fn pieces(parts: &'static [&'static str], most: usize) -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        90 => select(parts).prop_map(|part| part.as_bytes().to_vec()),
        3 => select(vec![&b"\xff"[..], b"\0"]).prop_map(<[u8]>::to_vec),
        1 => select(vec![253usize, 255, 256, 257, 760, 8180, 8185, 8190]).prop_map(|length| b"a".repeat(length)),
        1 => select(vec![30usize, 31, 32, 63, 64]).prop_map(|times| b"y=1,".repeat(times)),
    ];
    vec(piece, 0..=most).prop_map(|pieces| pieces.concat())
}
