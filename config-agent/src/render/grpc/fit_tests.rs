use serde_json::{Value, json};

use super::super::tests::{config, left_out, with_rule};
use super::*;

/// Why gRPC clients don't get this rule.
fn refused(rule: Value) -> Option<Reason> {
    let config = with_rule(rule);
    fit(&config.routing.rules[0], &config).err()
}

#[test]
fn a_rule_that_clients_cannot_follow_is_left_out_whole() {
    let two = json!([{"service": "a", "weight": 1}, {"service": "b", "weight": 1}]);
    for (rule, expected) in [
        (json!({"methods": ["GET"]}), Reason::Methods),
        (json!({"queryMatchers": {"debug": "1"}}), Reason::Query),
        (
            json!({"queryMatchers": {"debug": {"present": true}, "a": {"absent": true}}}),
            Reason::Query,
        ),
        (json!({"queryMatchers": {"debug": {"oneOf": [""]}}}), Reason::Query),
        (json!({"additionalHeaders": {"X-A": "1"}}), Reason::Effects),
        (json!({"removeHeaders": ["X-A"]}), Reason::Effects),
        (json!({"targets": two, "stickyBy": {"header": "X-A"}}), Reason::Sticky),
        (json!({"targets": two, "stickyBy": {"cookie": "a"}}), Reason::Sticky),
        (json!({"targets": two, "stickyBy": {"routeKey": true}}), Reason::Sticky),
        (
            json!({"headerMatchers": {"Authorization": {"present": true}}}),
            Reason::Header("authorization".to_owned()),
        ),
        (
            json!({"headerMatchers": {"Content-Type": {"absent": true}}}),
            Reason::Header("content-type".to_owned()),
        ),
        (
            json!({"headerMatchers": {"X-A-Bin": "1"}}),
            Reason::Header("x-a-bin".to_owned()),
        ),
        (
            json!({"headerMatchers": {"X-A": {"regex": "(?i)a"}}}),
            Reason::Regex("(?i)a".to_owned()),
        ),
        (
            json!({"paths": [{"exact": "/a"}, {"regex": r"/\bb"}]}),
            Reason::Regex(r"/\bb".to_owned()),
        ),
    ] {
        assert_eq!(refused(rule.clone()), Some(expected), "{rule}");
    }
}

#[test]
fn what_clients_can_follow_is_there() {
    let one = json!([{"service": "a", "weight": 1}, {"service": "b", "weight": 0}]);
    for rule in [
        json!({}),
        json!({"methods": ["GET", "POST"]}),
        json!({"queryMatchers": {"debug": {"absent": true}}}),
        json!({"targets": one, "stickyBy": {"header": "X-A"}}),
        json!({"targetService": "a", "stickyBy": {"routeKey": true}}),
        json!({"fallback": "none"}),
        json!({"headerMatchers": {"X-A": {"regex": "a|b"}}}),
        json!({"mirror": {"service": "m"}}),
    ] {
        assert_eq!(refused(rule.clone()), None, "{rule}");
    }
}

#[test]
fn a_rule_without_a_part_says_so() {
    let config = with_rule(json!({"mirror": {"service": "m"}}));
    assert_eq!(
        left_out(&config),
        ["r: without its mirror: gRPC clients send no copies"]
    );
    // What isn't there at all isn't there without something.
    let config = with_rule(json!({"mirror": {"service": "m"}, "methods": ["GET"]}));
    let reasons = left_out(&config);
    assert_eq!(reasons.len(), 1, "{reasons:?}");
    assert!(
        reasons[0].starts_with("r: left out: it isn't for the method POST"),
        "{reasons:?}"
    );
}

/// Where it goes, and where it may fall back to.
#[test]
fn tls_anywhere_on_its_way_leaves_a_rule_out() {
    let with = |rule: Value, default: Value| {
        let config = config(json!({
            "routing": {"defaultTarget": default, "hosts": {"shop.example": "secure"}, "rules": [rule]},
            "services": {"secure": {"protocol": "http2", "tls": {}}},
        }));
        fit(&config.routing.rules[0], &config).err()
    };
    let tls = Some(Reason::Tls(Target::parse("secure").unwrap()));
    let to = |target: &str| json!({"routeKey": "k", "targetService": target, "fallback": "none"});
    assert_eq!(with(to("secure"), json!("d")), tls);
    assert_eq!(with(to("a"), json!("d")), None);
    let falls_back = |host: &str| json!({"routeKey": "k", "targetService": "a", "hosts": [host]});
    assert_eq!(with(falls_back("shop.example"), json!("d")), tls);
    assert_eq!(with(falls_back("other.example"), json!("d")), None);
    assert_eq!(with(falls_back("other.example"), json!("secure")), tls);
    let unused = json!([{"service": "d", "weight": 1}, {"service": "secure", "weight": 0}]);
    assert_eq!(with(falls_back("other.example"), unused), None);
}

#[test]
fn without_a_header_to_compare_every_rule_is_left_out() {
    let config = config(
        json!({"routing": {"keySources": [{"baggage": "k"}, {"header": "Authorization"}],
        "rules": [{"routeKey": "k", "name": "r", "targetService": "a"}]}}),
    );
    let reasons = left_out(&config);
    assert!(reasons.contains(&format!("r: {}", Reason::KeySources)), "{reasons:?}");
}
