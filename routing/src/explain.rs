//! Why a request goes where it goes: the walk of [`decide`](crate::decide), written down.
//!
//! There is no second way to decide here. The recorder watches the one there is, so an explanation can't differ from what
//! happens.

use serde::Serialize;

use crate::decide::{Destination, Recorder, RequestHead, decide_with};
use crate::layout::{SourceKind, Subject, Test};
use crate::table::{Condition, RouteTable, Rule, Source};

/// Where a request goes, and everything that was looked at on the way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// What becomes of it.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// The route key, if it has a valid one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Whether another source holds another key.
    pub disagreement: bool,
    /// The key sources in their order, and what was there.
    pub sources: Vec<LookedAt>,
    /// The rules of the key, up to the one that matched.
    pub rules: Vec<TriedRule>,
}

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", tag = "decision")]
pub enum Outcome {
    /// It goes to a target of this rule.
    Target {
        /// The rule's name.
        rule: String,
        /// The cluster of the target.
        cluster: String,
        /// The cluster that gets a copy.
        #[serde(skip_serializing_if = "Option::is_none")]
        mirror: Option<String>,
    },
    /// It goes to the baseline.
    Baseline {
        /// Why: `no_key`, `invalid_key`, `unknown_key` or `no_match`.
        reason: &'static str,
    },
}

/// A key source and what was there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct LookedAt {
    /// `header x-route-key`, `baggage sd-routing-key`, …
    pub source: String,
    /// The key there, if there is one.
    pub found: Option<String>,
}

/// A rule and why it matched or didn't.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct TriedRule {
    /// Its name.
    pub rule: String,
    /// Whether it is the one.
    pub matched: bool,
    /// Whether its time is over.
    pub expired: bool,
    /// What was compared, in order; the first that isn't true ends it.
    pub matchers: Vec<Compared>,
}

/// A matcher, all its alternatives together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Compared {
    /// What was looked at: `path`, `header x-user`, …
    pub subject: String,
    /// What it must be, the alternatives that were tried.
    pub expected: Vec<String>,
    /// What it was; empty if there was none.
    pub actual: Vec<String>,
    /// Whether it matched.
    pub matched: bool,
}

/// Decides about `head`, and says why.
pub fn explain<'t>(table: &'t RouteTable, head: &impl RequestHead<'t>) -> Explanation {
    let mut notes = Notes::default();
    let decision = decide_with(table, head, &mut notes);
    let outcome = match decision.destination {
        Destination::Target { rule, cluster, mirror } => {
            if let Some(last) = notes.rules.last_mut() {
                last.matched = true;
            }
            Outcome::Target {
                rule: rule.name().to_owned(),
                cluster: cluster.to_owned(),
                mirror: mirror.map(str::to_owned),
            }
        }
        Destination::Baseline(reason) => Outcome::Baseline {
            reason: reason.as_str(),
        },
    };
    Explanation {
        outcome,
        key: decision.key.map(|key| shown(key.as_bytes())),
        disagreement: decision.disagreement,
        sources: notes.sources,
        rules: notes.rules,
    }
}

#[derive(Default)]
struct Notes {
    sources: Vec<LookedAt>,
    rules: Vec<TriedRule>,
    /// The alternatives of the group that is being looked at.
    group: Option<Compared>,
}

impl Recorder for Notes {
    fn source(&mut self, source: Source<'_>, key: Option<&[u8]>) {
        let kind = match source.kind {
            SourceKind::Header => "header",
            SourceKind::Baggage => "baggage",
            SourceKind::Tracestate => "tracestate",
            SourceKind::Cookie => "cookie",
            SourceKind::Query => "query",
            SourceKind::Host => "host *",
        };
        let gap = if source.kind == SourceKind::Host { "" } else { " " };
        self.sources.push(LookedAt {
            source: format!("{kind}{gap}{}", source.name),
            found: key.map(shown),
        });
    }

    fn rule(&mut self, rule: Rule<'_>, expired: bool) {
        let rule = rule.name().to_owned();
        self.rules.push(TriedRule {
            rule,
            matched: false,
            expired,
            matchers: Vec::new(),
        });
    }

    fn condition(&mut self, condition: &Condition<'_>, actual: Option<&[u8]>, _held: bool) {
        let group = self.group.get_or_insert_with(|| Compared {
            subject: subject(condition),
            expected: Vec::new(),
            actual: Vec::new(),
            matched: false,
        });
        let add = |list: &mut Vec<String>, text: String| {
            if !list.contains(&text) {
                list.push(text);
            }
        };
        add(&mut group.expected, expected(condition));
        if let Some(actual) = actual {
            add(&mut group.actual, shown(actual));
        }
    }

    fn group(&mut self, held: bool) {
        if let (Some(mut group), Some(rule)) = (self.group.take(), self.rules.last_mut()) {
            group.matched = held;
            rule.matchers.push(group);
        }
    }
}

fn subject(condition: &Condition<'_>) -> String {
    match condition.subject {
        Subject::Path => "path".to_owned(),
        Subject::Host => "host".to_owned(),
        Subject::Method => "method".to_owned(),
        Subject::Header => format!("header {}", condition.name),
        Subject::Query => format!("query {}", condition.name),
    }
}

fn expected(condition: &Condition<'_>) -> String {
    let value = shown(condition.value);
    match condition.test {
        Test::Exact => value,
        Test::SegmentPrefix if value.ends_with('/') => format!("below {value}"),
        Test::SegmentPrefix => format!("{value} or below"),
        Test::Prefix => format!("{value}…"),
        Test::Suffix => format!("…{value}"),
        Test::Contains => format!("…{value}…"),
        Test::Regex => format!("regex {value}"),
        Test::Present => "present".to_owned(),
        Test::Absent => "absent".to_owned(),
        Test::OneLabelBefore => format!("*{value}"),
    }
}

/// Bytes of a request as text, with what isn't printable escaped: an explanation is read in terminals.
fn shown(bytes: &[u8]) -> String {
    const MOST: usize = 256;
    let shown: String = String::from_utf8_lossy(bytes)
        .chars()
        .take(MOST)
        .flat_map(|c| {
            let escaped: String = if c.is_control() {
                c.escape_default().collect()
            } else {
                c.into()
            };
            escaped.chars().collect::<Vec<_>>()
        })
        .collect();
    if bytes.len() > MOST {
        format!("{shown}… ({} bytes)", bytes.len())
    } else {
        shown
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::decide::Request;

    const ROUTING: &str = r#"{
        "defaultTarget": "d",
        "keySources": [{"header": "x-route-key"}, {"cookie": "k"}, {"host": "*.preview.example"}],
        "rules": [
            {"routeKey": "k1", "targetService": "old", "name": "gone", "expiresAt": "1970-01-01T00:00:01Z"},
            {"routeKey": "k1", "targetService": "a", "name": "one", "pathPrefixes": ["/a", "/b/"], "methods": ["GET"]},
            {"routeKey": "k1", "targetService": "b", "name": "two", "headerMatchers": {"x-user": {"prefix": "qa-"}}}
        ]}"#;

    #[test]
    fn every_rule_says_what_was_expected_and_what_was_there() {
        let table = RouteTable::from_configuration(ROUTING.into()).unwrap();
        let headers = [
            (":path", "/c?x=1"),
            (":method", "GET"),
            ("cookie", "k=k1"),
            ("x-user", "dev"),
            ("x-user", "qa-7"),
        ];
        let request = Request {
            now: 1000,
            ..Request::new(&headers)
        };
        assert_eq!(
            serde_json::to_value(explain(&table, &request)).unwrap(),
            json!({
                "decision": "target", "rule": "two", "cluster": "b:80|baseline", "key": "k1", "disagreement": false,
                "sources": [
                    {"source": "header x-route-key", "found": null},
                    {"source": "cookie k", "found": "k1"},
                    {"source": "host *.preview.example", "found": null},
                ],
                "rules": [
                    {"rule": "gone", "matched": false, "expired": true, "matchers": []},
                    {"rule": "one", "matched": false, "expired": false, "matchers": [
                        {"subject": "path", "expected": ["/a or below", "below /b/"], "actual": ["/c"], "matched": false},
                    ]},
                    {"rule": "two", "matched": true, "expired": false, "matchers": [
                        {"subject": "header x-user", "expected": ["qa-…"], "actual": ["dev", "qa-7"], "matched": true},
                    ]},
                ],
            })
        );
    }

    #[test]
    fn without_a_key_the_sources_are_named() {
        let table = RouteTable::from_configuration(ROUTING.into()).unwrap();
        let explanation = explain(&table, &Request::new(&[("x-route-key", b"\x1b[31m\xff")]));
        assert_eq!(explanation.outcome, Outcome::Baseline { reason: "invalid_key" });
        assert_eq!(explanation.sources[0].found.as_deref(), Some("\\u{1b}[31m\u{fffd}"));
        assert!(explanation.rules.is_empty());
    }
}
