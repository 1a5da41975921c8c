//! What gRPC clients don't get of a configuration, and why.

use std::collections::BTreeSet;
use std::fmt;

use schemars::JsonSchema;
use serde::Serialize;
use sidetrack_routing::wire::{LoadBalancer, RetryOn};
use sidetrack_routing::{HashKey, Host, KeySource, Path, Target, ValidConfig, ValidUpstream};
use thiserror::Error;

use super::matching::{MAX_MEMBER_SOURCES, is_comparable, is_member};
use super::route::RETRIABLE;
use crate::render::cluster::endpoints;

/// Something that gRPC clients don't get.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LeftOut {
    /// Of this rule, or of this part of the configuration; or a name, such as `xds:///shop`, that no client can dial.
    pub name: String,
    /// What and why.
    pub reason: String,
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
    #[error("without retries: its targets differ in them, and gRPC clients choose one only after that")]
    Retries,
    #[error("without hashBy: its targets differ in it, and gRPC clients choose one only after that")]
    Hash,
    #[error("left out: gRPC clients ask for whole names; those to be dialed must be in routing.hosts")]
    Wildcard,
    #[error("left out: gRPC clients compare whole headers; calls that may have a key here get none from later sources")]
    Source,
    #[error(
        "followed only by calls without baggage, tracestate and cookie: too many key sources of these come before it"
    )]
    LateSource,
    #[error("left out: gRPC clients write no headers")]
    Written,
    #[error("left out: gRPC clients answer with no decision")]
    Decision,
    #[error("left out: spans are Envoy's, and there is none between a gRPC client and its service")]
    Tracing,
    #[error("one after the other: addresses first, then each name, because gRPC clients know one name for a cluster")]
    Endpoints,
    #[error("left out: gRPC clients can't, or mean something else by it")]
    Field,
}

impl Reason {
    pub(super) fn of(&self, name: impl fmt::Display) -> LeftOut {
        LeftOut {
            name: name.to_string(),
            reason: self.to_string(),
        }
    }
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.reason)
    }
}

/// Of what isn't in any rule or target.
pub(super) fn of_routing(config: &ValidConfig) -> Vec<LeftOut> {
    let routing = &config.routing;
    let path = |field: &str| Path::root().key("routing").key(field);
    let mut left_out = Vec::new();
    let mut members = 0;
    for source in &routing.key_sources {
        members += usize::from(is_member(source));
        let reason = match source {
            // No call has a query, so no key is missed.
            KeySource::Query(_) => None,
            KeySource::Header(_) | KeySource::Host(_) if is_comparable(source) => {
                (members > MAX_MEMBER_SOURCES).then_some(Reason::LateSource)
            }
            _ => Some(Reason::Source),
        };
        left_out.extend(reason.map(|reason| reason.of(format_args!("key source {}", text(source)))));
    }
    let is_elsewhere =
        |source: &KeySource| !matches!(source, KeySource::Header(name) if *name == routing.route_key_header);
    let mut comparable = routing.key_sources.iter().filter(|source| is_comparable(source));
    if comparable.any(is_elsewhere) {
        left_out.push(Reason::Written.of(path("routeKeyHeader")));
    }
    if routing.propagate_baggage.is_some() {
        left_out.push(Reason::Written.of(path("propagate")));
    }
    if routing.debug_header {
        left_out.push(Reason::Decision.of(path("debugHeader")));
    }
    if config.tracing.is_some() {
        left_out.push(Reason::Tracing.of("tracing"));
    }
    left_out
}

/// A key source as a configuration has it.
fn text(source: &KeySource) -> String {
    match source {
        KeySource::Header(name) => format!("{{header: {}}}", name.as_str()),
        KeySource::Baggage(name) => format!("{{baggage: {name}}}"),
        KeySource::Tracestate(name) => format!("{{tracestate: {name}}}"),
        KeySource::Cookie(name) => format!("{{cookie: {name}}}"),
        KeySource::Query(name) => format!("{{query: {name}}}"),
        KeySource::Host(suffix) => format!("{{host: \"*{suffix}\"}}"),
    }
}

/// Of how `targets` are spoken to. What is as it is by default isn't said.
pub(super) fn of_targets(config: &ValidConfig, targets: &BTreeSet<&Target>) -> Vec<LeftOut> {
    let mut left_out = Vec::new();
    let default = ValidUpstream::default();
    let differ = |one: &ValidUpstream, others: &[&ValidUpstream]| {
        let differs = |says: &Says| others.iter().all(|other| says(one, other));
        let fields = FIELDS.iter().filter(|(_, says)| differs(says));
        fields.map(|(name, _)| *name).collect::<Vec<_>>()
    };
    let path = Path::root().key("upstream");
    left_out.extend(
        differ(&config.upstream, &[&default])
            .into_iter()
            .map(|field| at(&path, field)),
    );
    for target in targets {
        let Some(service) = config.services.get(target) else {
            continue;
        };
        let path = Path::root().key("services").key(target.to_string());
        let fields = differ(&service.upstream, &[&default, &config.upstream]);
        left_out.extend(fields.into_iter().map(|field| at(&path, field)));
        let is_name = |endpoint: &&Target| matches!(endpoint.host(), Host::Name(_));
        let endpoints = endpoints(config, target);
        if endpoints.len() > 1 && endpoints.iter().any(|endpoint| is_name(&endpoint)) {
            left_out.push(Reason::Endpoints.of(path.key("endpoints")));
        }
    }
    left_out
}

fn at(path: &Path, field: &str) -> LeftOut {
    let path = field.split('.').fold(path.clone(), |path, key| path.key(key));
    Reason::Field.of(path)
}

/// Whether the first says something of a field that the second doesn't, and that clients can't follow.
type Says = fn(&ValidUpstream, &ValidUpstream) -> bool;

/// What there is besides is followed, or has no meaning for gRPC: `protocol`, `requestTimeout`.
const FIELDS: [(&str, Says); 11] = [
    ("connectTimeout", |one, other| {
        one.connect_timeout != other.connect_timeout
    }),
    ("perTryTimeout", |one, other| {
        let time = one.route.per_try_timeout;
        time.is_some() && time != other.route.per_try_timeout
    }),
    ("retries.on", |one, other| {
        let on = &one.route.retry_on;
        one.route.attempts > 0 && !on.iter().all(is_followed) && *on != other.route.retry_on
    }),
    ("hashBy", |one, other| {
        let by = &one.route.hash_by;
        !matches!(by, None | Some(HashKey::Header(_))) && *by != other.route.hash_by
    }),
    ("loadBalancer", |one, other| {
        one.load_balancer == LoadBalancer::Random && other.load_balancer != one.load_balancer
    }),
    ("connectionPool", |one, other| one.pool != other.pool),
    ("circuitBreaker.maxConnections", |one, other| {
        one.circuit_breaker.max_connections != other.circuit_breaker.max_connections
    }),
    ("circuitBreaker.maxPendingRequests", |one, other| {
        one.circuit_breaker.max_pending_requests != other.circuit_breaker.max_pending_requests
    }),
    ("circuitBreaker.maxRetries", |one, other| {
        one.circuit_breaker.max_retries != other.circuit_breaker.max_retries
    }),
    ("outlierDetection", |one, other| {
        let limits = &one.outlier_detection;
        limits.consecutive_5xx > 0 && *limits != other.outlier_detection
    }),
    ("healthCheck", |one, other| {
        one.health_check.is_some() && one.health_check != other.health_check
    }),
];

/// Calls that no service has seen are tried again by the libraries, whatever is said.
fn is_followed(on: &RetryOn) -> bool {
    let by_itself = matches!(
        on,
        RetryOn::ConnectFailure | RetryOn::RefusedStream | RetryOn::ResetBeforeRequest
    );
    by_itself || RETRIABLE.contains(on)
}

#[cfg(test)]
#[path = "left_out_tests.rs"]
mod tests;
