//! What the tests here begin with, and the whole of what is rendered.

use serde_json::{Value, json};
use sidetrack_routing::{decode, validate};

use super::*;

/// A configuration with these sections; without `routing.defaultTarget` that is `d`.
pub(super) fn config(mut sections: Value) -> ValidConfig {
    if sections["routing"]["defaultTarget"].is_null() {
        sections["routing"]["defaultTarget"] = json!("d");
    }
    decode(&sections, validate).unwrap()
}

/// One with this rule of the key `k`.
pub(super) fn with_rule(mut rule: Value) -> ValidConfig {
    rule["routeKey"] = json!("k");
    rule["name"] = json!("r");
    if rule["targets"].is_null() && rule["targetService"].is_null() {
        rule["targetService"] = json!("t");
    }
    config(json!({"routing": {"rules": [rule]}}))
}

/// What gRPC clients don't get of `config`, `NAME: REASON`.
pub(super) fn left_out(config: &ValidConfig) -> Vec<String> {
    render(config, 0, None)
        .left_out
        .iter()
        .map(ToString::to_string)
        .collect()
}

fn names(rendered: &Rendered, kind: ResourceType) -> Vec<String> {
    let names = rendered.resources[kind as usize].names();
    names.map(ToString::to_string).collect()
}

#[test]
fn a_rule_is_there_until_its_moment() {
    let config = config(json!({"routing": {"rules": [
        {"routeKey": "a", "targetService": "a", "expiresAt": "1970-01-01T00:00:20Z"},
        {"routeKey": "b", "targetService": "b", "expiresAt": "1970-01-01T00:00:10Z"},
        {"routeKey": "c", "targetService": "c", "removeHeaders": ["X-A"], "expiresAt": "1970-01-01T00:00:05Z"},
        {"routeKey": "e", "targetService": "e"},
    ]}}));
    let mut known = None;
    for (now, expected, expiry) in [
        (0, &["a", "b", "e"][..], Some(10_000)),
        (9_999, &["a", "b", "e"], Some(10_000)),
        (10_000, &["a", "e"], Some(20_000)),
        (20_000, &["e"], None),
        (30_000, &["e"], None),
        (0, &["a", "b", "e"], Some(10_000)),
    ] {
        let rendered = render(&config, now, known.as_ref());
        let clusters = names(&rendered, ResourceType::Cluster);
        let sandboxes = clusters.iter().filter_map(|name| name.strip_suffix(":80|baseline"));
        assert_eq!(sandboxes.collect::<Vec<_>>(), expected, "{now}");
        assert_eq!(rendered.expiry, expiry, "{now}");
        known = Some(rendered.resources);
    }
}

#[test]
fn what_is_made_from_what_is_known_is_what_is_rendered_anew() {
    let state =
        |rules: Value| config(json!({"services": {"a": {"endpoints": ["127.0.0.1:1"]}}, "routing": {"rules": rules}}));
    let states = [
        state(json!([])),
        state(json!([{"routeKey": "k", "targetService": "a"}, {"routeKey": "l", "targetService": "b"}])),
        state(json!([{"routeKey": "k", "targetService": "a", "fallback": "none"}])),
        state(json!([{"routeKey": "k", "targetService": "b", "hosts": ["shop.example"]}])),
    ];
    let mut known = None;
    for state in states.iter().chain(states.iter().rev()) {
        let made = render(state, 0, known.as_ref()).resources;
        assert_eq!(made, render(state, 0, None).resources);
        known = Some(made);
    }
}

#[test]
fn whatever_is_named_is_there() {
    let config = config(json!({
        "routing": {
            "defaultTarget": [{"service": "v1", "weight": 1}, {"service": "v2", "weight": 0}],
            "hosts": {"shop.example": "shop"},
            "rules": [
                {"routeKey": "k", "targetService": "a", "hosts": ["shop.example"]},
                {"routeKey": "k", "targets": [{"service": "b", "weight": 1}, {"service": "c", "weight": 2}], "fallback": "none"},
            ],
        },
        "services": {"c": {"endpoints": ["127.0.0.1:1", "one:2", "two:3"]}},
    }));
    let rendered = render(&config, 0, None);
    assert_eq!(
        names(&rendered, ResourceType::Listener),
        [
            "shop",
            "shop.example",
            "shop.example:80",
            "shop:80",
            "v1",
            "v1:80",
            "v2",
            "v2:80"
        ]
    );
    assert_eq!(
        names(&rendered, ResourceType::Cluster),
        [
            "a:80|shop:80",
            "a:80|shop:80/a:80",
            "a:80|shop:80/shop:80",
            "b:80",
            "c:80",
            "c:80/c:80/addresses",
            "c:80/c:80/one:2",
            "c:80/c:80/two:3",
            "shop:80",
            "v1:80",
        ]
    );
    assert_eq!(names(&rendered, ResourceType::Endpoints), ["c:80/addresses"]);
}
