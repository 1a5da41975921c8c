use serde_json::{Value, json};

use super::super::tests::{config, left_out};
use super::*;

/// A rule to `a` and `b`, which are these services.
fn two(a: &Value, b: &Value) -> ValidConfig {
    config(json!({
        "services": {"a": a, "b": b},
        "routing": {"rules": [{
            "routeKey": "k",
            "name": "r",
            "targets": [{"service": "a", "weight": 1}, {"service": "b", "weight": 2}, {"service": "unused", "weight": 0}],
            "fallback": "none",
        }]},
    }))
}

fn to(config: &ValidConfig) -> (RouteAction, Vec<Reason>) {
    to_targets(config, &config.routing.rules[0])
}

#[test]
fn targets_keep_what_they_agree_on() {
    let retries = |attempts: u32, on: &str| json!({"retries": {"attempts": attempts, "on": [on]}});
    let with = |mut one: Value, other: Value| {
        one.as_object_mut().unwrap().extend(other.as_object().unwrap().clone());
        one
    };
    let unavailable = || retries(2, "unavailable");
    let ring = |header: &str| json!({"loadBalancer": "ringHash", "hashBy": {"header": header}});
    for (a, b, retries, hashes, without) in [
        (unavailable(), unavailable(), true, false, &[][..]),
        // What they differ in beside makes no difference.
        (
            with(unavailable(), json!({"requestTimeout": "1s"})),
            unavailable(),
            true,
            false,
            &[],
        ),
        (
            with(unavailable(), json!({"perTryTimeout": "1s"})),
            unavailable(),
            true,
            false,
            &[],
        ),
        (
            with(unavailable(), ring("X-A")),
            unavailable(),
            true,
            false,
            &[Reason::Hash],
        ),
        (
            unavailable(),
            retries(3, "unavailable"),
            false,
            false,
            &[Reason::Retries],
        ),
        (unavailable(), retries(2, "internal"), false, false, &[Reason::Retries]),
        // Neither of these two is for clients.
        (retries(2, "5xx"), retries(3, "reset"), false, false, &[]),
        (retries(2, "5xx"), retries(0, "unavailable"), false, false, &[]),
        (ring("X-A"), ring("X-A"), false, true, &[]),
        (
            with(ring("X-A"), unavailable()),
            with(ring("X-A"), retries(1, "unavailable")),
            false,
            true,
            &[Reason::Retries],
        ),
        (ring("X-A"), ring("X-B"), false, false, &[Reason::Hash]),
        (
            with(ring("X-A"), unavailable()),
            ring("X-B"),
            false,
            false,
            &[Reason::Retries, Reason::Hash],
        ),
    ] {
        let config = two(&a, &b);
        let (action, reasons) = to(&config);
        let found = (action.retry_policy.is_some(), !action.hash_policy.is_empty());
        assert_eq!((found, &*reasons), ((retries, hashes), without), "{a} {b}");
        let said: Vec<String> = without.iter().map(|reason| format!("r: {reason}")).collect();
        let all = left_out(&config);
        let of_rule: Vec<_> = all.iter().filter(|line| line.starts_with("r: ")).cloned().collect();
        assert_eq!(of_rule, said, "{a} {b}");
    }
}

#[test]
fn calls_are_tried_again_after_what_clients_know() {
    let on = json!(["connect-failure", "unavailable", "5xx", "cancelled"]);
    let service = json!({"retries": {"attempts": 4, "on": on}});
    let (action, _) = to(&two(&service, &service));
    let policy = action.retry_policy.unwrap();
    assert_eq!(
        (policy.retry_on.as_str(), policy.num_retries),
        ("cancelled,unavailable", number(4))
    );
}

#[test]
fn weights_are_what_they_are_unless_they_are_too_many() {
    let weighted = |weights: &[u32]| {
        let targets = weights.iter().enumerate().map(|(index, weight)| WeightedTarget {
            target: Target::parse(&format!("t{index}")).unwrap(),
            weight: *weight,
        });
        let targets: Vec<_> = targets.collect();
        super::weights(&targets.iter().collect::<Vec<_>>()).collect::<Vec<u32>>()
    };
    assert_eq!(weighted(&[3, 1]), [3, 1]);
    assert_eq!(weighted(&[u32::MAX - 1, 1]), [u32::MAX - 1, 1]);
    let half = u32::MAX >> 2;
    assert_eq!(weighted(&[u32::MAX, u32::MAX, 1]), [half, half, 1]);
    let many = weighted(&[u32::MAX; 256]);
    assert!(many.iter().map(|weight| u64::from(*weight)).sum::<u64>() <= u64::from(u32::MAX));
}
