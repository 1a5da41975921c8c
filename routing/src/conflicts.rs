//! What is allowed in a configuration but hardly meant.

use std::collections::BTreeMap;

use crate::matchers::{HostPattern, PathTest, ValueTest};
use crate::problem::Path;
use crate::valid::{ValidRouting, ValidRule};

/// Of so many rules of one key before it a rule is compared with each; beyond that a table isn't written by hand.
const MOST_COMPARED: usize = 500;

/// A doubtful place, and the other one it is in conflict with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The doubtful value.
    pub path: Path,
    /// What is doubtful: lower case, no full stop. What follows it is the other place, if there is one.
    pub message: &'static str,
    /// The other place.
    pub other: Option<Path>,
}

/// All doubtful places of `routing`, which stands at `path`, in the order of the rules.
pub fn warnings(routing: &ValidRouting, path: &Path) -> Vec<Warning> {
    let rules = path.key("rules");
    let mut warnings = Vec::new();
    let mut names: BTreeMap<&str, usize> = BTreeMap::new();
    let mut before: BTreeMap<&str, Vec<(usize, &ValidRule)>> = BTreeMap::new();
    for (index, rule) in routing.rules.iter().enumerate() {
        let place = rules.index(index);
        if let Some(first) = names.get(rule.name.as_str()) {
            let message = "has the same name in metrics and explanations as";
            warnings.push(Warning {
                path: place.key("name"),
                message,
                other: Some(rules.index(*first).key("name")),
            });
        } else {
            names.insert(&rule.name, index);
        }
        let own_fallback = rule.falls_back && rule.targets.iter().any(|target| routing.is_baseline(&target.target));
        if own_fallback {
            let message = "goes to the default target, which is its fallback, too: see";
            warnings.push(Warning {
                path: place.clone(),
                message,
                other: Some(path.key("defaultTarget")),
            });
        }
        let earlier = before.entry(rule.route_key.as_str()).or_default();
        if let Some((first, _)) = earlier.iter().find(|(_, earlier)| covers(earlier, rule)) {
            let message = "can never match, because what it matches is matched before by";
            warnings.push(Warning {
                path: place,
                message,
                other: Some(rules.index(*first)),
            });
        }
        if earlier.len() < MOST_COMPARED {
            earlier.push((index, rule));
        }
    }
    warnings
}

/// Whether `earlier` certainly matches whatever `later` matches, as long as `later` exists.
fn covers(earlier: &ValidRule, later: &ValidRule) -> bool {
    let outlives = match (earlier.expires_at, later.expires_at) {
        (None, _) => true,
        (Some(earlier), Some(later)) => earlier >= later,
        (Some(_), None) => false,
    };
    outlives
        && covers_alternatives(&earlier.paths, &later.paths, covers_path)
        && covers_alternatives(&earlier.methods, &later.methods, PartialEq::eq)
        && covers_alternatives(&earlier.hosts, &later.hosts, covers_host)
        && covers_values(&earlier.header_matchers, &later.header_matchers)
        && covers_values(&earlier.query_matchers, &later.query_matchers)
}

/// No alternatives match everything.
fn covers_alternatives<T>(earlier: &[T], later: &[T], covers: impl Fn(&T, &T) -> bool) -> bool {
    earlier.is_empty() || !later.is_empty() && later.iter().all(|later| earlier.iter().any(|e| covers(e, later)))
}

fn covers_path(earlier: &PathTest, later: &PathTest) -> bool {
    match (earlier, later) {
        (PathTest::Prefix(prefix), PathTest::Exact(path)) => prefix.has_below(path),
        (PathTest::Prefix(prefix), PathTest::Prefix(longer)) => prefix.has_below(longer.as_str()),
        _ => earlier == later,
    }
}

fn covers_host(earlier: &HostPattern, later: &HostPattern) -> bool {
    match (earlier, later) {
        (HostPattern::OneLabelBefore(suffix), HostPattern::Exact(host)) => host
            .strip_suffix(suffix.as_str())
            .is_some_and(|label| !label.is_empty() && !label.contains('.')),
        _ => earlier == later,
    }
}

/// Every matcher of `earlier` is met by one of `later` on the same name.
fn covers_values<N: PartialEq>(earlier: &[(N, ValueTest)], later: &[(N, ValueTest)]) -> bool {
    earlier.iter().all(|(name, test)| {
        later
            .iter()
            .any(|(other, later)| name == other && covers_value(test, later))
    })
}

fn covers_value(earlier: &ValueTest, later: &ValueTest) -> bool {
    match (earlier, later) {
        (ValueTest::Present, later) => *later != ValueTest::Absent,
        (ValueTest::OneOf(more), ValueTest::OneOf(fewer)) => fewer.iter().all(|value| more.contains(value)),
        (ValueTest::Prefix(prefix), ValueTest::OneOf(values)) => values.iter().all(|value| value.starts_with(prefix)),
        (ValueTest::Prefix(prefix), ValueTest::Prefix(longer)) => longer.starts_with(prefix),
        (ValueTest::Suffix(suffix), ValueTest::OneOf(values)) => values.iter().all(|value| value.ends_with(suffix)),
        (ValueTest::Suffix(suffix), ValueTest::Suffix(longer)) => longer.ends_with(suffix),
        (ValueTest::Contains(part), ValueTest::OneOf(values)) => values.iter().all(|value| value.contains(part)),
        _ => earlier == later,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::decode::decode;
    use crate::validate::validate_routing;

    #[track_caller]
    fn check(rules: Value, expected: &[&str]) {
        let routing = decode(&json!({"defaultTarget": "d", "rules": rules}), validate_routing).unwrap();
        let said: Vec<String> = warnings(&routing, &Path::root())
            .iter()
            .map(|w| format!("{}: {} {}", w.path, w.message, w.other.as_ref().unwrap()))
            .collect();
        assert_eq!(said, expected);
    }

    fn shadowed(earlier: Value, later: Value) -> bool {
        let rule = |name: &str, mut rule: Value| {
            rule["routeKey"] = json!("k");
            rule["targetService"] = json!("t");
            rule["name"] = json!(name);
            rule
        };
        let rules = json!([rule("a", earlier), rule("b", later)]);
        let routing = decode(&json!({"defaultTarget": "d", "rules": rules}), validate_routing).unwrap();
        !warnings(&routing, &Path::root()).is_empty()
    }

    #[test]
    fn both_places_are_named() {
        check(
            json!([
                {"routeKey": "k", "targetService": "a", "name": "one"},
                {"routeKey": "k", "targetService": "b", "name": "two", "pathPrefixes": ["/x"]},
                {"routeKey": "j", "targetService": "d", "name": "one"},
            ]),
            &[
                "rules[1]: can never match, because what it matches is matched before by rules[0]",
                "rules[2].name: has the same name in metrics and explanations as rules[0].name",
                "rules[2]: goes to the default target, which is its fallback, too: see defaultTarget",
            ],
        );
    }

    #[test]
    fn a_rule_is_shadowed_by_one_that_matches_more() {
        for (earlier, later) in [
            (json!({}), json!({})),
            (json!({"pathPrefixes": ["/a"]}), json!({"pathPrefixes": ["/a/b", "/a"]})),
            (json!({"pathPrefixes": ["/a"]}), json!({"paths": [{"exact": "/a/b"}]})),
            (json!({"hosts": ["*.x"]}), json!({"hosts": ["a.x"]})),
            (
                json!({"headerMatchers": {"A": {"present": true}}}),
                json!({"headerMatchers": {"a": "1", "B": "2"}}),
            ),
            (
                json!({"queryMatchers": {"q": {"prefix": "a"}}}),
                json!({"queryMatchers": {"q": {"oneOf": ["a1", "ab"]}}}),
            ),
            (json!({"methods": ["GET", "POST"]}), json!({"methods": ["GET"]})),
            (json!({}), json!({"expiresAt": "2030-01-01T00:00:00Z"})),
        ] {
            assert!(shadowed(earlier.clone(), later.clone()), "{earlier} {later}");
        }
    }

    #[test]
    fn a_rule_that_can_match_is_left_alone() {
        for (earlier, later) in [
            (json!({"pathPrefixes": ["/a"]}), json!({})),
            (json!({"pathPrefixes": ["/a"]}), json!({"pathPrefixes": ["/ab"]})),
            (json!({"pathPrefixes": ["/a/"]}), json!({"pathPrefixes": ["/a"]})),
            (json!({"hosts": ["*.x"]}), json!({"hosts": ["a.b.x"]})),
            (
                json!({"headerMatchers": {"A": {"present": true}}}),
                json!({"headerMatchers": {"A": {"absent": true}}}),
            ),
            (
                json!({"headerMatchers": {"A": "1"}}),
                json!({"headerMatchers": {"B": "1"}}),
            ),
            (json!({"expiresAt": "2030-01-01T00:00:00Z"}), json!({})),
            (json!({"methods": ["GET"]}), json!({"methods": ["GET", "PUT"]})),
        ] {
            assert!(!shadowed(earlier.clone(), later.clone()), "{earlier} {later}");
        }
    }
}
