//! Everything of `routing` but its rules.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Check;
use crate::names::{HeaderName, Target};
use crate::problem::Path;
use crate::valid::{KeySource, ValidRouting, ValidRule, WeightedTarget};
use crate::wire::{self, DefaultTarget, KeyDialect};

const MAX_SOURCES: usize = 32;

/// More are no split but a load balancer, which is Envoy's: list them as endpoints of one service.
const MAX_TARGETS: usize = 256;

impl Check {
    pub(super) fn routing(&mut self, routing: &wire::Routing, path: &Path) -> Option<ValidRouting> {
        let route_key_header = self.ok(path.key("routeKeyHeader"), HeaderName::parse(&routing.route_key_header));
        let default_path = path.key("defaultTarget");
        let default_targets = match &routing.default_target {
            DefaultTarget::One(target) => self
                .ok(default_path, Target::parse(target))
                .map(|target| vec![WeightedTarget { target, weight: 1 }]),
            DefaultTarget::Split(targets) => self.weighted_targets(targets, &default_path),
        };
        let sources = self.key_sources(&routing.key_sources, &path.key("keySources"));
        let propagate_baggage = routing.propagate.as_ref().and_then(|propagate| {
            let path = path.key("propagate").key("baggage");
            self.member_name(&propagate.baggage, path)
        });
        let hosts = self.hosts(&routing.hosts, &path.key("hosts"));
        let rules = self.rules_after(std::iter::empty(), &routing.rules, &path.key("rules"));
        let rules = self.with_baselines(rules, &routing.rules, &hosts, &path.key("rules"));
        let route_key_header = route_key_header?;
        self.keep_route_key_header(&route_key_header, &routing.rules, &path.key("rules"));
        let mut key_sources = Vec::new();
        let mut seen = BTreeSet::new();
        let dialects = routing
            .key_dialects
            .iter()
            .flat_map(|dialect| dialect_sources(*dialect));
        let sources = if routing.key_sources.is_empty() {
            vec![KeySource::Header(route_key_header.clone())]
        } else {
            sources
        };
        for source in sources.into_iter().chain(dialects) {
            if seen.insert(source.clone()) {
                key_sources.push(source);
            }
        }
        if key_sources.len() > MAX_SOURCES {
            let message = format!(
                "has {} places to look for the key, must have at most {MAX_SOURCES}",
                key_sources.len()
            );
            self.problem(path.key("keySources"), message);
        }
        Some(ValidRouting {
            route_key_header,
            key_sources,
            propagate_baggage,
            debug_header: routing.debug_header,
            default_targets: default_targets?,
            hosts,
            route_policies: Arc::default(),
            rules,
        })
    }

    /// `rules`, which were right in `wire`, with the baselines they fall back to. If some weren't right, places aren't known.
    pub(super) fn with_baselines(
        &mut self,
        mut rules: Vec<ValidRule>,
        wire: &[wire::Rule],
        hosts: &BTreeMap<String, Target>,
        path: &Path,
    ) -> Vec<Arc<ValidRule>> {
        if rules.len() == wire.len() {
            for (index, rule) in rules.iter_mut().enumerate() {
                rule.host_baseline = self.host_baseline(rule, hosts, &path.index(index));
            }
        }
        rules.into_iter().map(Arc::new).collect()
    }

    /// A rule that set or removed the header of the key would keep it from the target, or not, by where the key came from.
    pub(super) fn keep_route_key_header(&mut self, header: &HeaderName, rules: &[wire::Rule], path: &Path) {
        const WHY: &str = "is the route key header, in which the target gets the key: leave it out";
        for (index, rule) in rules.iter().enumerate() {
            let path = path.index(index);
            for name in rule
                .additional_headers
                .keys()
                .filter(|name| name.eq_ignore_ascii_case(header.as_str()))
            {
                self.problem(path.key("additionalHeaders").key(name), WHY);
            }
            for (index, name) in rule.remove_headers.iter().enumerate() {
                if name.eq_ignore_ascii_case(header.as_str()) {
                    self.problem(path.key("removeHeaders").index(index), WHY);
                }
            }
        }
    }

    pub(super) fn weighted_targets(
        &mut self,
        targets: &[wire::WeightedTarget],
        path: &Path,
    ) -> Option<Vec<WeightedTarget>> {
        if targets.len() > MAX_TARGETS {
            let message = format!("has {} targets, must have at most {MAX_TARGETS}", targets.len());
            self.problem(path.clone(), message);
            return None;
        }
        let mut valid: Vec<WeightedTarget> = Vec::new();
        for (index, target) in targets.iter().enumerate() {
            let path = path.index(index).key("service");
            let Some(parsed) = self.ok(path.clone(), Target::parse(&target.service)) else {
                continue;
            };
            if valid.iter().any(|other| other.target == parsed) {
                self.problem(path, format!("{parsed} is listed twice: give it one weight"));
            } else {
                valid.push(WeightedTarget {
                    target: parsed,
                    weight: target.weight,
                });
            }
        }
        if targets.is_empty() {
            self.problem(path.clone(), "is empty: list at least one {service, weight}");
        } else if targets.iter().all(|target| target.weight == 0) {
            self.problem(
                path.clone(),
                "all weights are 0: give at least one target a weight above it",
            );
        }
        (valid.len() == targets.len() && !valid.is_empty()).then_some(valid)
    }

    fn key_sources(&mut self, sources: &[wire::KeySource], path: &Path) -> Vec<KeySource> {
        let mut valid: Vec<KeySource> = Vec::new();
        for (index, source) in sources.iter().enumerate() {
            let path = path.index(index);
            let Some(source) = self.key_source(source, &path) else {
                continue;
            };
            if valid.contains(&source) {
                self.problem(path, "is listed twice: leave one out");
            } else {
                valid.push(source);
            }
        }
        valid
    }

    fn key_source(&mut self, source: &wire::KeySource, path: &Path) -> Option<KeySource> {
        const FORMS: &str = "must have exactly one of header, baggage, tracestate, cookie, query, host";
        let wire::KeySource {
            header,
            baggage,
            tracestate,
            cookie,
            query,
            host,
        } = source;
        match (header, baggage, tracestate, cookie, query, host) {
            (Some(name), None, None, None, None, None) => self
                .ok(path.key("header"), HeaderName::parse(name))
                .map(KeySource::Header),
            (None, Some(name), None, None, None, None) => {
                self.member_name(name, path.key("baggage")).map(KeySource::Baggage)
            }
            (None, None, Some(name), None, None, None) => self
                .member_name(name, path.key("tracestate"))
                .map(KeySource::Tracestate),
            (None, None, None, Some(name), None, None) => {
                self.member_name(name, path.key("cookie")).map(KeySource::Cookie)
            }
            (None, None, None, None, Some(name), None) => {
                self.member_name(name, path.key("query")).map(KeySource::Query)
            }
            (None, None, None, None, None, Some(pattern)) => {
                let path = path.key("host");
                match crate::matchers::HostPattern::parse(pattern) {
                    Ok(crate::matchers::HostPattern::OneLabelBefore(suffix)) => Some(KeySource::Host(suffix)),
                    _ => {
                        self.problem(
                            path,
                            format!("{pattern:?} must be *.HOST: the label in the place of * is the key"),
                        );
                        None
                    }
                }
            }
            _ => {
                self.problem(path.clone(), FORMS);
                None
            }
        }
    }

    /// The name of a baggage or tracestate member, a cookie or a query parameter: characters that need no escape in any
    /// of them.
    pub(super) fn member_name(&mut self, name: &str, path: Path) -> Option<String> {
        const PUNCTUATION: &str = "!$*-._~/@";
        if name.is_empty() || name.len() > 256 {
            self.problem(path, "must be a name of 1 to 256 characters");
            return None;
        }
        match name
            .chars()
            .find(|c| !c.is_ascii_alphanumeric() && !PUNCTUATION.contains(*c))
        {
            Some(character) => {
                self.problem(
                    path,
                    format!("has the character {character:?}, must be letters, digits, and {PUNCTUATION}"),
                );
                None
            }
            None => Some(name.to_owned()),
        }
    }
}

/// The sources of a dialect, as its own documentation names them.
fn dialect_sources(dialect: KeyDialect) -> Vec<KeySource> {
    let baggage = |name: &str| KeySource::Baggage(name.to_owned());
    let tracestate = |name: &str| KeySource::Tracestate(name.to_owned());
    let header = |name: &str| HeaderName::parse(name).ok().map(KeySource::Header);
    match dialect {
        KeyDialect::Signadot => [baggage("sd-routing-key"), baggage("sd-sandbox")]
            .into_iter()
            .chain([tracestate("sd-routing-key"), tracestate("sd-sandbox")])
            .chain(header("ot-baggage-sd-routing-key"))
            .chain(header("uberctx-sd-routing-key"))
            .collect(),
        KeyDialect::Mirrord => vec![
            baggage("mirrord-session"),
            tracestate("mirrord-session"),
            KeySource::Query("mirrord-session".to_owned()),
            KeySource::Cookie("mirrord-session".to_owned()),
        ],
        KeyDialect::Okteto => vec![baggage("okteto-divert")],
        KeyDialect::BridgeToKubernetes => header("kubernetes-route-as").into_iter().collect(),
    }
}
