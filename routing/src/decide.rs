//! Which target a request goes to, and why. Allocates nothing.

use std::fmt;

use crate::layout::{Subject, Test};
use crate::names::MAX_ROUTE_KEY_BYTES;
use crate::table::{Condition, RouteTable, Rule};

/// The head of a request, as whoever holds it can show it.
pub trait RequestHead {
    /// Whether `test` holds for any value of the header `name` (lower case; `:path` and the other pseudo-headers
    /// count as headers). Values are given in the order they were sent, until one passes. `false` if there is no
    /// such header.
    fn any_value(&self, name: &str, test: impl FnMut(&[u8]) -> bool) -> bool;
}

/// Where a request goes.
#[derive(Clone, Copy, Debug)]
pub enum RouteDecision<'t> {
    /// To the target of this rule, with its headers.
    Target(Rule<'t>),
    /// To the baseline, for this reason.
    Baseline(Reason),
}

/// Why a request goes to the baseline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It carries no route key.
    NoKey,
    /// Its route key is longer than 256 bytes.
    InvalidKey,
    /// No rule has its route key.
    UnknownKey,
    /// No rule of its route key matches.
    NoMatch,
}

impl Reason {
    /// The reason's name in headers, logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoKey => "no_key",
            Self::InvalidKey => "invalid_key",
            Self::UnknownKey => "unknown_key",
            Self::NoMatch => "no_match",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Finds the key of the request, and the first of the key's rules that matches.
pub fn decide<'t>(table: &'t RouteTable, head: &impl RequestHead) -> RouteDecision<'t> {
    let mut decision = RouteDecision::Baseline(Reason::NoKey);
    head.any_value(table.key_header(), |value| match first_element(value) {
        Some(key) => {
            decision = decide_for(table, key, head);
            true
        }
        None => false,
    });
    decision
}

fn decide_for<'t>(table: &'t RouteTable, key: &[u8], head: &impl RequestHead) -> RouteDecision<'t> {
    if key.len() > MAX_ROUTE_KEY_BYTES {
        return RouteDecision::Baseline(Reason::InvalidKey);
    }
    let Some(mut rules) = table.rules_of(key) else {
        return RouteDecision::Baseline(Reason::UnknownKey);
    };
    match rules.find(|rule| matches(*rule, head)) {
        Some(rule) => RouteDecision::Target(rule),
        None => RouteDecision::Baseline(Reason::NoMatch),
    }
}

/// Whether of each group of alternatives one holds.
fn matches(rule: Rule<'_>, head: &impl RequestHead) -> bool {
    let mut held = false;
    for condition in rule.conditions() {
        held = held || holds(&condition, head);
        if condition.what.last && !std::mem::take(&mut held) {
            return false;
        }
    }
    true
}

fn holds(condition: &Condition<'_>, head: &impl RequestHead) -> bool {
    match condition.what.subject {
        Subject::Path => head.any_value(":path", |path| test(condition, without_query(path))),
        Subject::Header => head.any_value(condition.name, |value| test(condition, value)),
    }
}

fn test(condition: &Condition<'_>, actual: &[u8]) -> bool {
    match condition.what.test {
        Test::Exact => actual == condition.value,
        Test::SegmentPrefix => is_segment_prefix(condition.value, actual),
    }
}

fn is_segment_prefix(prefix: &[u8], path: &[u8]) -> bool {
    match path.strip_prefix(prefix) {
        Some(rest) => rest.is_empty() || rest.starts_with(b"/") || prefix.ends_with(b"/"),
        None => false,
    }
}

fn without_query(path: &[u8]) -> &[u8] {
    path.split(|byte| matches!(byte, b'?' | b'#'))
        .next()
        .unwrap_or_default()
}

/// The first element of a header that is a comma-separated list (RFC 9110 §5.6.1), which is what several lines of one
/// header may have been joined to on the way. Empty elements don't count.
fn first_element(value: &[u8]) -> Option<&[u8]> {
    value
        .split(|byte| *byte == b',')
        .map(<[u8]>::trim_ascii)
        .find(|element| !element.is_empty())
}

/// A request head in memory, as (lower-case name, value).
impl<N: AsRef<str>, V: AsRef<[u8]>> RequestHead for &[(N, V)] {
    fn any_value(&self, name: &str, mut test: impl FnMut(&[u8]) -> bool) -> bool {
        self.iter()
            .any(|(header, value)| header.as_ref() == name && test(value.as_ref()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTING: &str = r#"{
        "routeKeyHeader": "X-Route-Key",
        "defaultTarget": "default-service",
        "rules": [
            {"routeKey": "sandbox-123", "targetService": "service-a", "pathPrefixes": ["/api/v1"]},
            {"routeKey": "sandbox-456", "targetService": "service-b", "pathPrefixes": ["/api/v2"],
             "headerMatchers": {"Content-Type": "application/json", "X-User": "7"}},
            {"routeKey": "order", "targetService": "first", "pathPrefixes": ["/a", "/b"]},
            {"routeKey": "order", "targetService": "second", "pathPrefixes": ["/a/deeper"]},
            {"routeKey": "order", "targetService": "third", "pathPrefixes": ["/c/"]},
            {"routeKey": "all", "targetService": "everything"},
            {"routeKey": "root", "targetService": "everything", "pathPrefixes": ["/"]}
        ]}"#;

    /// Cases are `path | header: value | … => cluster or reason`.
    #[track_caller]
    fn check(cases: &[&str]) {
        let table = RouteTable::from_configuration(ROUTING.into()).unwrap();
        for case in cases {
            let (request, expected) = case.split_once(" => ").unwrap();
            let mut parts = request.split(" | ");
            let path = (":path", parts.next().unwrap());
            let head: Vec<_> = std::iter::once(path)
                .chain(parts.map(|line| line.split_once(": ").unwrap_or((line, ""))))
                .collect();
            let actual = match decide(&table, &head.as_slice()) {
                RouteDecision::Target(rule) => rule.cluster().trim_end_matches(":80"),
                RouteDecision::Baseline(reason) => reason.as_str(),
            };
            assert_eq!(actual, expected, "{case}");
        }
    }

    #[test]
    fn the_key_selects_the_rules() {
        check(&[
            "/api/v1/x | x-route-key: sandbox-123 => service-a",
            "/api/v1/x => no_key",
            "/api/v1/x | x-route-key => no_key",
            "/api/v1/x | x-route-key: sandbox-12 => unknown_key",
            "/api/v1/x | x-route-key: sandbox-1234 => unknown_key",
            "/api/v1/x | x-route-key: Sandbox-123 => unknown_key",
            "/api/v1/x | x-other: sandbox-123 => no_key",
        ]);
    }

    #[test]
    fn of_several_keys_the_first_counts() {
        check(&[
            "/ | x-route-key: all, sandbox-123 => everything",
            "/ | x-route-key: all | x-route-key: sandbox-123 => everything",
            "/ | x-route-key: nobody, all => unknown_key",
            "/ | x-route-key: , all => everything",
            "/ | x-route-key | x-route-key: all => everything",
        ]);
    }

    #[test]
    fn a_prefix_matches_whole_segments() {
        check(&[
            "/api/v1 | x-route-key: sandbox-123 => service-a",
            "/api/v1/ | x-route-key: sandbox-123 => service-a",
            "/api/v1?q=/api | x-route-key: sandbox-123 => service-a",
            "/api/v10 | x-route-key: sandbox-123 => no_match",
            "/API/v1 | x-route-key: sandbox-123 => no_match",
            "/other?/api/v1 | x-route-key: sandbox-123 => no_match",
            "/ | x-route-key: sandbox-123 => no_match",
            "/c/x | x-route-key: order => third",
            "/c | x-route-key: order => no_match",
            "/anything | x-route-key: root => everything",
            "/ | x-route-key: root => everything",
            "* | x-route-key: root => no_match",
            "* | x-route-key: all => everything",
        ]);
    }

    #[test]
    fn the_first_matching_rule_wins() {
        check(&[
            "/a/deeper/x | x-route-key: order => first",
            "/b | x-route-key: order => first",
            "/d | x-route-key: order => no_match",
        ]);
    }

    #[test]
    fn all_header_matchers_must_match_any_value() {
        const B: &str = "/api/v2/y | x-route-key: sandbox-456";
        check(&[
            &format!("{B} | content-type: application/json | x-user: 7 => service-b"),
            &format!(
                "{B} | content-type: text/html | x-user: 8 | content-type: application/json | x-user: 7 => service-b"
            ),
            &format!("{B} | content-type: application/json => no_match"),
            &format!("{B} | content-type: application/json | x-user: 77 => no_match"),
            &format!("{B} | content-type: Application/JSON | x-user: 7 => no_match"),
            "/api/v1 | x-route-key: sandbox-456 | content-type: application/json | x-user: 7 => no_match",
        ]);
    }

    #[test]
    fn an_absurd_request_goes_to_the_baseline() {
        let table = RouteTable::from_configuration(ROUTING.into()).unwrap();
        let reason = |key: &[u8]| match decide(&table, &[("x-route-key", key)].as_slice()) {
            RouteDecision::Target(rule) => rule.cluster(),
            RouteDecision::Baseline(reason) => reason.as_str(),
        };
        assert_eq!(reason(&[b'k'; 256]), "unknown_key");
        assert_eq!(reason(&[b'k'; 257]), "invalid_key");
        assert_eq!(reason(&[b'k'; 60_000]), "invalid_key");
        assert_eq!(reason(b"\xff\xfe"), "unknown_key");
        assert_eq!(reason(b" \t "), "no_key");
        assert_eq!(reason(b",,,,"), "no_key");
    }
}
