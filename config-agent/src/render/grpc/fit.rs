//! What a gRPC client can do of a rule.

use envoy_types::pb::envoy::config::route::v3::route_match::PathSpecifier;
use envoy_types::pb::envoy::config::route::v3::{HeaderMatcher, RouteAction};
use sidetrack_routing::{Target, ValidConfig, ValidRule, ValueTest};
use thiserror::Error;

use super::{matching, route};

/// A rule that gRPC clients can follow.
pub(super) struct Fit<'c> {
    pub(super) rule: &'c ValidRule,
    /// One of these.
    pub(super) paths: Vec<PathSpecifier>,
    /// All of these, beside the key.
    pub(super) headers: Vec<HeaderMatcher>,
    pub(super) action: RouteAction,
}

/// Why gRPC clients don't get a rule, or a part of it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum Reason {
    #[error("left out: no key source is a header that a gRPC client can compare")]
    KeySources,
    #[error("left out: it sets or removes headers, which gRPC clients can't")]
    Effects,
    #[error("left out: it isn't for the method POST, and that is every gRPC call's")]
    Methods,
    #[error("left out: it wants a query, and no gRPC call has one")]
    Query,
    #[error("left out: {0} is no metadata that a gRPC client can compare")]
    Header(String),
    #[error("left out: not every gRPC client can read the regular expression {0:?}")]
    Regex(String),
    #[error("left out: gRPC clients choose among several targets anew for each call, not by stickyBy")]
    Sticky,
    #[error("left out: TLS to {0} is up to the client's own credentials, which routes can't choose")]
    Tls(Target),
    #[error("without its mirror: gRPC clients send no copies")]
    Mirror,
}

/// `rule` for gRPC clients.
///
/// # Errors
///
/// The first [`Reason`] why it isn't for them.
pub(super) fn fit<'c>(rule: &'c ValidRule, config: &ValidConfig) -> Result<Fit<'c>, Reason> {
    let is_post = |methods: &[sidetrack_routing::Method]| methods.iter().any(|method| method.as_str() == "POST");
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
    Ok(Fit {
        rule,
        paths: matching::paths(&rule.paths)?,
        headers: matching::headers(&rule.header_matchers)?,
        action: route::to_targets(config, rule),
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
