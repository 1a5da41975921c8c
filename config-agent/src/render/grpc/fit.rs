//! What a gRPC client can do of a rule.

use envoy_types::pb::envoy::config::route::v3::route_match::PathSpecifier;
use envoy_types::pb::envoy::config::route::v3::{HeaderMatcher, RouteAction};
use sidetrack_routing::{Method, Target, ValidConfig, ValidRule, ValueTest};

use super::left_out::Reason;
use super::{matching, route};

/// A rule that gRPC clients can follow.
pub(super) struct Fit<'c> {
    pub(super) rule: &'c ValidRule,
    /// One of these.
    pub(super) paths: Vec<PathSpecifier>,
    /// All of these, beside the key.
    pub(super) headers: Vec<HeaderMatcher>,
    pub(super) action: RouteAction,
    /// What they don't do.
    pub(super) without: Vec<Reason>,
}

/// `rule` for gRPC clients.
///
/// # Errors
///
/// The first [`Reason`] why it isn't for them.
pub(super) fn fit<'c>(rule: &'c ValidRule, config: &ValidConfig) -> Result<Fit<'c>, Reason> {
    let is_post = |methods: &[Method]| methods.iter().any(|method| method.as_str() == "POST");
    if !rule.methods.is_empty() && !is_post(&rule.methods) {
        return Err(Reason::Methods);
    }
    if rule.query_matchers.iter().any(|(_, test)| *test != ValueTest::Absent) {
        return Err(Reason::Query);
    }
    if !rule.additional_headers.is_empty() || !rule.remove_headers.is_empty() {
        return Err(Reason::Effects);
    }
    let targets: Vec<&Target> = route::shares(&rule.targets).map(|weighted| &weighted.target).collect();
    if rule.sticky_by.is_some() && targets.len() > 1 {
        return Err(Reason::Sticky);
    }
    let fallback = fallback(rule, config);
    if let Some(target) = targets.iter().chain(&fallback).find(|target| has_tls(config, target)) {
        return Err(Reason::Tls((*target).clone()));
    }
    let (action, mut without) = route::to_targets(config, rule);
    if rule.mirror.is_some() {
        without.push(Reason::Mirror);
    }
    Ok(Fit {
        rule,
        paths: matching::paths(&rule.paths)?,
        headers: matching::headers(&rule.header_matchers)?,
        action,
        without,
    })
}

/// The baselines that take what the rule's targets can't, in the order in which they are asked.
pub(super) fn fallback<'c>(rule: &'c ValidRule, config: &'c ValidConfig) -> Vec<&'c Target> {
    match (&rule.host_baseline, rule.falls_back) {
        (_, false) => Vec::new(),
        (Some(baseline), true) => vec![baseline],
        (None, true) => route::shares(&config.routing.default_targets)
            .map(|weighted| &weighted.target)
            .collect(),
    }
}

pub(super) fn has_tls(config: &ValidConfig, target: &Target) -> bool {
    config.services.get(target).is_some_and(|service| service.tls.is_some())
}

#[cfg(test)]
#[path = "fit_tests.rs"]
mod tests;
