//! The rules that all ways to route get.

use std::fmt::Write as _;

use serde_json::{Value, json};

/// This many sandboxes, with a rule each. Every fourth is of one kind.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sandboxes(pub(crate) usize);

/// What a sandbox's rule asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The key alone.
    Key,
    /// The same; and where the sandbox doesn't answer, nobody does.
    KeyWithoutFallback,
    /// Key and path prefix.
    KeyAndPath,
    /// Key, path prefix, and two headers.
    KeyPathAndHeaders,
}

/// The path prefix of rules that have one.
const PREFIX: &str = "/api/v1";

impl Kind {
    pub(crate) const ALL: [Self; 4] = [
        Self::Key,
        Self::KeyWithoutFallback,
        Self::KeyAndPath,
        Self::KeyPathAndHeaders,
    ];

    /// The headers of rules that have some. Every request has them.
    pub(crate) const HEADERS: [(&'static str, &'static str); 2] = [("x-user", "alice"), ("x-team", "payments")];

    fn has_path(self) -> bool {
        matches!(self, Self::KeyAndPath | Self::KeyPathAndHeaders)
    }

    fn headers(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::KeyPathAndHeaders => &Self::HEADERS,
            _ => &[],
        }
    }
}

impl Sandboxes {
    /// All keys, each with its kind.
    fn all(self) -> impl Iterator<Item = (String, Kind)> {
        let kinds = Kind::ALL.into_iter().cycle();
        (0..self.0).map(key).zip(kinds)
    }

    /// All keys.
    pub(crate) fn keys(self) -> impl Iterator<Item = String> {
        (0..self.0).map(key)
    }

    /// The key of a sandbox of this kind, in the middle of all.
    pub(crate) fn key_of(self, kind: Kind) -> String {
        let kinds = Kind::ALL.len();
        key(self.0 / 2 / kinds * kinds + kind as usize)
    }

    /// The rules of config.yaml.
    pub(crate) fn rules(self) -> Value {
        let rules = self.all().map(|(key, kind)| {
            let mut rule = json!({"routeKey": key, "targetService": "sandbox"});
            if kind == Kind::KeyWithoutFallback {
                rule["fallback"] = "none".into();
            }
            if kind.has_path() {
                rule["pathPrefixes"] = json!([PREFIX]);
            }
            for (name, value) in kind.headers() {
                rule["headerMatchers"][name] = (*value).into();
            }
            rule
        });
        Value::Array(rules.collect())
    }

    /// The rules as `table.lua` reads them.
    pub(crate) fn lines(self) -> String {
        let mut lines = String::new();
        for (key, kind) in self.all() {
            let prefix = if kind.has_path() { PREFIX } else { "" };
            let headers: String = kind.headers().iter().map(|(n, v)| format!("{n}={v};")).collect();
            let _ = writeln!(lines, "{key}\t{prefix}\t{headers}");
        }
        lines
    }
}

fn key(index: usize) -> String {
    format!("sandbox-{index}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_a_kind_has_a_rule_of_that_kind() {
        for sandboxes in [10, 1_000, 100_000].map(Sandboxes) {
            for kind in Kind::ALL {
                let key = sandboxes.key_of(kind);
                assert!(sandboxes.all().any(|found| found == (key.clone(), kind)), "{key}");
            }
        }
    }
}
