//! `sidetrack explain`: what a request's decision is and why, for a terminal or as JSON.

use std::fmt::Write as _;
use std::hash::{BuildHasher as _, RandomState};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, ensure};
use serde::Serialize;
use sidetrack_routing::{
    Explanation, InvalidTable, Outcome, Request, RouteTable, TriedRule, ValidRouting, compile, explain, target_of,
};

/// A request to be explained.
#[derive(Clone, Debug)]
pub struct Question {
    /// The method.
    pub method: String,
    /// The authority; empty if it doesn't matter.
    pub host: String,
    /// The path with its query.
    pub path: String,
    /// The headers.
    pub headers: Vec<(String, String)>,
}

/// The explanation, and the request it is about.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    method: String,
    host: String,
    path: String,
    /// The targets that share the requests of this host's baseline.
    baseline: Vec<String>,
    #[serde(flatten)]
    explanation: Explanation,
}

/// Decides about `question` by `routing`, now.
///
/// # Errors
///
/// None that a valid configuration can cause.
pub fn answer(routing: &ValidRouting, question: Question) -> Result<Answer, InvalidTable> {
    let table = RouteTable::load(compile(routing))?;
    let Question {
        method,
        host,
        path,
        headers,
    } = question;
    let pseudo = [(":method", &method), (":authority", &host), (":path", &path)];
    let mut head: Vec<(String, &str)> = pseudo
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(n, v)| (n.to_owned(), v.as_str()))
        .collect();
    head.extend(
        headers
            .iter()
            .map(|(name, value)| (name.to_ascii_lowercase(), value.as_str())),
    );
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_millis();
    let request = Request {
        headers: &head,
        now: u64::try_from(now).unwrap_or(u64::MAX),
        random: RandomState::new().hash_one(now),
    };
    let explanation = explain(&table, &request);
    let baseline = match routing.host_baseline(&host) {
        Some(target) => vec![target.to_string()],
        None => {
            let shares = routing.default_targets.iter().filter(|weighted| weighted.weight > 0);
            shares.map(|weighted| weighted.target.to_string()).collect()
        }
    };
    Ok(Answer {
        baseline,
        method,
        host,
        path,
        explanation,
    })
}

/// A header as it is given on the command line: `Name: value`.
///
/// # Errors
///
/// It has no name, or is `Host`, which HTTP/2 and Envoy have elsewhere.
pub fn parse_header(text: &str) -> anyhow::Result<(String, String)> {
    let (name, value) = text.split_once(':').context("must be 'Name: value'")?;
    let name = name.trim();
    ensure!(
        !name.is_empty(),
        "must be 'Name: value'; path, method and host have options of their own"
    );
    ensure!(!name.eq_ignore_ascii_case("host"), "must be given by --host");
    Ok((name.to_owned(), value.trim().to_owned()))
}

/// Checks a header's name as it is given to the API.
///
/// # Errors
///
/// It is no name, or is given elsewhere.
pub fn check_header_name(name: &str) -> anyhow::Result<()> {
    ensure!(
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':'),
        "is no header's name; path, method and host have fields of their own"
    );
    ensure!(!name.eq_ignore_ascii_case("host"), "must be given as `host`");
    Ok(())
}

/// A path as it is given on the command line: as it is compared, which is after Envoy has normalised it.
///
/// # Errors
///
/// Envoy would refuse it or compare another one.
pub fn parse_path(text: &str) -> anyhow::Result<String> {
    ensure!(text.starts_with('/'), "must begin with a slash: \"/{text}\"");
    ensure!(
        !text.contains('#'),
        "must have no fragment: a client keeps it to itself"
    );
    let path = text.split('?').next().unwrap_or_default();
    let dots = path.split('/').any(|segment| segment == "." || segment == "..");
    let encoded = path
        .split('%')
        .skip(1)
        .filter_map(|rest| u8::from_str_radix(rest.get(..2)?, 16).ok());
    let decodes = encoded
        .into_iter()
        .any(|byte| byte.is_ascii_alphanumeric() || b"-._~/\\".contains(&byte));
    ensure!(
        !dots && !decodes && !path.contains("//") && !path.contains('\\'),
        "isn't as Envoy compares it: write it without double slashes, backslashes, dot segments, and %XX that stand for \
         letters, digits or slashes"
    );
    Ok(text.to_owned())
}

impl Answer {
    /// For a terminal.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        self.write(&mut text).unwrap_or_default();
        text
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let Explanation {
            outcome,
            key,
            disagreement,
            sources,
            rules,
        } = &self.explanation;
        let baseline = format!("the baseline ({})", self.baseline.join(" or "));
        write!(out, "{} {}{} goes to ", self.method, self.host, self.path)?;
        match outcome {
            Outcome::Target { rule, cluster, mirror } => {
                let target = target_of(cluster);
                match cluster.contains('|') {
                    true => writeln!(out, "{target}, or to {baseline} if that can't take it")?,
                    false => writeln!(out, "{target}")?,
                }
                writeln!(out, "  by the rule {rule}")?;
                if let Some(mirror) = mirror {
                    writeln!(out, "  a copy goes to {mirror}")?;
                }
            }
            Outcome::Baseline { reason } => {
                writeln!(out, "{baseline}")?;
                let why = match *reason {
                    "no_key" => "it carries no route key",
                    "invalid_key" => "its route key is longer than 256 bytes or has characters that no key has",
                    "unknown_key" => "no rule has its route key",
                    _ => "no rule of its route key matches",
                };
                writeln!(out, "  because {why} ({reason})")?;
            }
        }
        if let Some(key) = key {
            writeln!(out, "\nroute key: {key}")?;
        } else {
            writeln!(out, "\nroute key: none")?;
        }
        for looked in sources {
            match &looked.found {
                Some(found) => writeln!(out, "  {}: {found}", looked.source)?,
                None => writeln!(out, "  {}: nothing there", looked.source)?,
            }
        }
        if *disagreement {
            writeln!(out, "  the sources disagree: the first one counts")?;
        }
        if !rules.is_empty() {
            writeln!(out, "\nrules of this key, in order:")?;
        }
        rules.iter().try_for_each(|rule| write_rule(out, rule))
    }
}

fn write_rule(out: &mut String, rule: &TriedRule) -> std::fmt::Result {
    let mark = if rule.matched { '✓' } else { '✗' };
    writeln!(
        out,
        "  {mark} {}{}",
        rule.rule,
        if rule.expired { ": expired" } else { "" }
    )?;
    for matcher in &rule.matchers {
        let mark = if matcher.matched { '✓' } else { '✗' };
        let expected = matcher.expected.join(" | ");
        let actual = if matcher.actual.is_empty() {
            "not there".to_owned()
        } else {
            matcher.actual.join(", ")
        };
        writeln!(out, "      {mark} {}: must be {expected}; is {actual}", matcher.subject)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use sidetrack_routing::{decode, validate_routing};

    use super::*;

    fn ask(headers: &[(&str, &str)]) -> Answer {
        let routing = json!({"defaultTarget": "d", "rules": [
            {"routeKey": "k", "targetService": "a", "pathPrefixes": ["/a"]},
            {"routeKey": "k", "targetService": "b", "name": "second", "headerMatchers": {"X-User": {"prefix": "qa-"}}},
        ]});
        let question = Question {
            method: "GET".to_owned(),
            host: "shop".to_owned(),
            path: "/b".to_owned(),
            headers: headers
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
        };
        answer(&decode(&routing, validate_routing).unwrap(), question).unwrap()
    }

    #[test]
    fn a_decision_reads_well() {
        assert_eq!(
            ask(&[("X-Route-Key", "k"), ("X-User", "qa-1")]).to_text(),
            "GET shop/b goes to b:80, or to the baseline (d:80) if that can't take it\n  by the rule second\n\nroute key: k\n  \
             header x-route-key: k\n\nrules of this key, in order:\n  ✗ k@a:80\n      ✗ path: must be /a or below; is \
             /b\n  ✓ second\n      ✓ header x-user: must be qa-…; is qa-1\n"
        );
        assert_eq!(
            ask(&[]).to_text(),
            "GET shop/b goes to the baseline (d:80)\n  because it carries no route key (no_key)\n\nroute key: none\n  header \
             x-route-key: nothing there\n"
        );
    }

    #[test]
    fn as_json_it_has_the_same_parts() {
        let json = serde_json::to_value(ask(&[("x-route-key", "other")])).unwrap();
        assert_eq!(json["decision"], "baseline");
        assert_eq!(json["reason"], "unknown_key");
        assert_eq!(json["path"], "/b");
    }

    #[test]
    fn a_header_is_a_name_and_a_value() {
        assert_eq!(
            parse_header("X-A:  b: c ").unwrap(),
            ("X-A".to_owned(), "b: c".to_owned())
        );
        for text in ["X-A", ":path: /x", " : a", "Host: shop"] {
            assert!(parse_header(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_path_that_envoy_would_change_is_refused() {
        for text in ["/", "/a/b?x=//..", "/a..b/.c", "/%20%c3%bc", "/%zz", "/API;x=1"] {
            assert!(parse_path(text).is_ok(), "{text}");
        }
        for text in [
            "",
            "api",
            "*",
            "/a//b",
            "/a/../b",
            "/.",
            "/a\\b",
            "/%61pi",
            "/a%2fb",
            "/a%5Cb",
            "/%2e%2e/a",
            "/a#b",
        ] {
            assert!(parse_path(text).is_err(), "{text}");
        }
    }
}
