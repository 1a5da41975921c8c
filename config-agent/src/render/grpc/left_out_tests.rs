use serde_json::{Value, json};

use super::super::tests::{config, left_out};
use super::*;

#[track_caller]
fn check(sections: Value, expected: &[(&str, Reason)]) {
    let text = sections.to_string();
    let expected: Vec<String> = expected
        .iter()
        .map(|(name, reason)| format!("{name}: {reason}"))
        .collect();
    assert_eq!(left_out(&config(sections)), expected, "{text}");
}

#[test]
fn a_plain_configuration_is_there_as_a_whole() {
    check(json!({}), &[]);
    check(
        json!({"routing": {"rules": [{"routeKey": "k", "targetService": "t"}]}}),
        &[],
    );
    // Neither of these means anything for gRPC; the last is as if it weren't there.
    check(
        json!({"upstream": {"protocol": "auto", "requestTimeout": "1s", "outlierDetection": {"consecutive5xx": 0}}}),
        &[],
    );
    check(json!({"services": {"unused": {"connectTimeout": "1s"}}}), &[]);
}

#[test]
fn key_sources_that_clients_cannot_read_are_said() {
    let sources = |sources: Value| json!({"routing": {"keySources": sources}});
    check(sources(json!([{"header": "X-Route-Key"}, {"query": "q"}])), &[]);
    check(
        sources(json!([{"header": "X-Route-Key"}, {"baggage": "m"}, {"tracestate": "m"}, {"cookie": "c"}])),
        &[
            ("key source {baggage: m}", Reason::Source),
            ("key source {tracestate: m}", Reason::Source),
            ("key source {cookie: c}", Reason::Source),
        ],
    );
    check(
        sources(json!([{"header": "X-Route-Key"}, {"header": "Authorization"}])),
        &[("key source {header: authorization}", Reason::Source)],
    );
    check(
        sources(
            json!([{"baggage": "a"}, {"baggage": "b"}, {"baggage": "c"}, {"header": "X-Route-Key"}, {"baggage": "d"}, {"header": "X-B"}]),
        ),
        &[
            ("key source {baggage: a}", Reason::Source),
            ("key source {baggage: b}", Reason::Source),
            ("key source {baggage: c}", Reason::Source),
            ("key source {baggage: d}", Reason::Source),
            ("key source {header: x-b}", Reason::LateSource),
            ("routing.routeKeyHeader", Reason::Written),
        ],
    );
}

#[test]
fn what_only_an_envoy_does_is_said() {
    check(
        json!({
            "routing": {"debugHeader": true, "propagate": {"baggage": "m"}, "keySources": [{"header": "X-Other"}]},
            "tracing": {"otlp": "collector:4317"},
        }),
        &[
            ("routing.routeKeyHeader", Reason::Written),
            ("routing.propagate", Reason::Written),
            ("routing.debugHeader", Reason::Decision),
            ("tracing", Reason::Tracing),
        ],
    );
}

/// Each field that a target may have, with a value that clients can't follow.
#[test]
fn how_targets_are_spoken_to_is_said_once() {
    for (field, value) in [
        ("connectTimeout", json!("1s")),
        ("perTryTimeout", json!("1s")),
        ("retries.on", json!(["5xx"])),
        ("loadBalancer", json!("random")),
        ("connectionPool", json!({"maxConnections": 1})),
        ("circuitBreaker.maxConnections", json!(1)),
        ("circuitBreaker.maxPendingRequests", json!(1)),
        ("circuitBreaker.maxRetries", json!(1)),
        ("outlierDetection", json!({"consecutive5xx": 1})),
        ("healthCheck", json!({"tcp": true})),
    ] {
        let upstream = match field.split_once('.') {
            Some((outer, inner)) => json!({outer: {inner: value}}),
            None => json!({field: value}),
        };
        let in_upstream = format!("upstream.{field}");
        check(json!({"upstream": upstream}), &[(&in_upstream, Reason::Field)]);
        let of_service = format!(r#"services["d:80"].{field}"#);
        check(json!({"services": {"d": upstream}}), &[(&of_service, Reason::Field)]);
        // A service that says nothing of its own has nothing of its own left out.
        check(
            json!({"upstream": upstream, "services": {"d": {"endpoints": ["127.0.0.1:1"]}}}),
            &[(&in_upstream, Reason::Field)],
        );
    }
    for by in [json!({"cookie": "c"}), json!({"sourceAddress": true})] {
        check(
            json!({"services": {"d": {"loadBalancer": "maglev", "hashBy": by}}}),
            &[(r#"services["d:80"].hashBy"#, Reason::Field)],
        );
    }
}

#[test]
fn a_target_with_names_among_several_endpoints_is_said() {
    let endpoints = |endpoints: Value| json!({"services": {"d": {"endpoints": endpoints}}});
    check(endpoints(json!(["one:1"])), &[]);
    check(endpoints(json!(["127.0.0.1:1", "127.0.0.1:2"])), &[]);
    let said = [(r#"services["d:80"].endpoints"#, Reason::Endpoints)];
    check(endpoints(json!(["one:1", "two:2"])), &said);
    check(endpoints(json!(["one:1", "127.0.0.1:2"])), &said);
}
