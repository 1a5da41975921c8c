//! What the core's work takes: decisions, key sources, tables.
//!
//! Criterion rather than divan: its estimates are files, which `scripts/bench` puts into docs/benchmarks.md.

#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a bench may panic, and its macros write no documentation"
)]

use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use serde_json::{Value, json};
use sidetrack_routing::{Request, RouteTable, ValidRouting, compile, decide, decode, validate_routing};

const SIZES: [usize; 4] = [10, 1_000, 10_000, 100_000];

const HEADERS: [(&str, &str); 4] = [
    (":path", "/api/v1/orders?page=2"),
    (":authority", "shop.example"),
    ("x-user", "alice"),
    ("x-team", "payments"),
];

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    targets = decisions, key_sources, tables
}
criterion_main!(benches);

/// This many keys, whose rules ask for the key alone, for key and path, and for key, path and two headers, in turns.
fn config(keys: usize) -> Value {
    let rules = (0..keys).map(|index| {
        let (prefixes, headers) = match index % 3 {
            0 => (json!([]), json!({})),
            1 => (json!(["/api/v1"]), json!({})),
            _ => (
                json!(["/api/v1"]),
                json!({"X-User": "alice", "X-Team": {"prefix": "pay"}}),
            ),
        };
        json!({
            "routeKey": format!("sandbox-{index}"),
            "targetService": format!("shop.sandbox-{index}"),
            "pathPrefixes": prefixes,
            "headerMatchers": headers,
        })
    });
    json!({"defaultTarget": "shop", "rules": rules.collect::<Vec<_>>()})
}

fn routing(keys: usize) -> ValidRouting {
    valid(&config(keys))
}

fn valid(config: &Value) -> ValidRouting {
    decode(config, validate_routing).unwrap()
}

fn decisions(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decide");
    for size in SIZES {
        let table = RouteTable::load(compile(&routing(size))).unwrap();
        // A number of which all three kinds come next.
        let middle = size / 2 / 3 * 3;
        let keys = [
            ("key", Some(format!("sandbox-{middle}"))),
            ("key + path", Some(format!("sandbox-{}", middle + 1))),
            ("key + path + 2 headers", Some(format!("sandbox-{}", middle + 2))),
            ("unknown key", Some("sandbox-of-others".to_owned())),
            ("no key", None),
        ];
        for (name, key) in keys {
            let key = key.as_deref().map(|key| ("x-route-key", key));
            let headers: Vec<_> = HEADERS.into_iter().chain(key).collect();
            group.bench_function(BenchmarkId::new(name, size), |bencher| {
                bencher.iter(|| black_box(decide(&table, &Request::new(black_box(&headers)))));
            });
        }
    }
}

fn key_sources(criterion: &mut Criterion) {
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let sources = [
        ("header", json!({"header": "X-Route-Key"}), ("x-route-key", "sandbox-1")),
        (
            "baggage",
            json!({"baggage": "sd-routing-key"}),
            ("baggage", "tenant=shop,user=alice%20a;private,sd-routing-key=sandbox-1"),
        ),
        (
            "tracestate",
            json!({"tracestate": "sd-routing-key"}),
            (
                "tracestate",
                "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7,sd-routing-key=sandbox-1",
            ),
        ),
        (
            "cookie",
            json!({"cookie": "route-key"}),
            ("cookie", "session=6f1c1b8e4a; theme=dark; route-key=sandbox-1"),
        ),
        (
            "query",
            json!({"query": "route-key"}),
            (":path", "/api/v1/orders?page=2&route-key=sandbox-1"),
        ),
        (
            "host",
            json!({"host": "*.preview.example"}),
            (":authority", "sandbox-1.preview.example"),
        ),
    ];
    let mut group = criterion.benchmark_group("key");
    for (name, source, header) in sources {
        let rules = json!([{"routeKey": "sandbox-1", "targetService": "shop.sandbox-1"}]);
        let config = json!({"defaultTarget": "shop", "keySources": [source], "rules": rules});
        let table = RouteTable::load(compile(&valid(&config))).unwrap();
        // The source's own is before the one that all requests have, and the first counts.
        let headers: Vec<_> = [header, ("traceparent", trace)].into_iter().chain(HEADERS).collect();
        let found = decide(&table, &Request::new(&headers))
            .key
            .map(|key| key.as_bytes().to_vec());
        assert_eq!(found.as_deref(), Some(b"sandbox-1".as_slice()), "{name}");
        group.bench_function(name, |bencher| {
            bencher.iter(|| black_box(decide(&table, &Request::new(black_box(&headers)))));
        });
    }
}

fn tables(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("table");
    group.sample_size(20);
    for size in SIZES {
        let routing = routing(size);
        let bytes = compile(&routing);
        group.throughput(Throughput::Elements(size as u64));
        group.bench_function(BenchmarkId::new("compile", size), |bencher| {
            bencher.iter(|| black_box(compile(black_box(&routing))));
        });
        group.bench_function(BenchmarkId::new("load", size), |bencher| {
            bencher.iter_batched(
                || bytes.clone(),
                |bytes| black_box(RouteTable::load(bytes)),
                BatchSize::LargeInput,
            );
        });
        // What the filter does with a configuration that people write.
        let json = config(size).to_string().into_bytes();
        group.bench_function(BenchmarkId::new("load JSON", size), |bencher| {
            bencher.iter_batched(
                || json.clone(),
                |json| black_box(RouteTable::from_configuration(json)),
                BatchSize::LargeInput,
            );
        });
    }
}
