//! Configurations with nothing wrong in them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::matchers::{HostPattern, Method, PathTest, ValueTest};
use crate::names::{HeaderName, HeaderValue, RouteKey, Target};

/// A configuration with nothing wrong in it.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidConfig {
    /// Where Envoy listens.
    pub server: ValidServer,
    /// Where the agent listens.
    pub agent: ValidAgent,
    /// Which request goes where.
    pub routing: ValidRouting,
    /// Where targets live that are no DNS names of their own.
    pub services: BTreeMap<Target, ValidService>,
}

/// Envoy's addresses. The ports are distinct and not 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidServer {
    /// The address of the three public ports.
    pub bind_address: IpAddr,
    /// HTTP/1.1 and HTTP/2.
    pub http_port: u16,
    /// HTTP/2 only.
    pub grpc_port: u16,
    /// Prometheus metrics.
    pub metrics_port: u16,
    /// Envoy's admin interface, on loopback.
    pub admin_port: u16,
}

/// The agent's addresses. The ports differ from each other and from the server's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidAgent {
    /// The address of both ports.
    pub bind_address: IpAddr,
    /// REST API.
    pub api_port: u16,
    /// Discovery service.
    pub xds_port: u16,
}

/// Which request goes where.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidRouting {
    /// The header in which a target gets the key.
    pub route_key_header: HeaderName,
    /// Where the key is looked for, in this order. At least one, each once.
    pub key_sources: Vec<KeySource>,
    /// The baggage member in which the key is handed on, too.
    pub propagate_baggage: Option<String>,
    /// Whether a request may ask for its decision.
    pub debug_header: bool,
    /// The baseline: at least one target, their weights' sum isn't 0.
    pub default_targets: Vec<WeightedTarget>,
    /// In the order of precedence.
    pub rules: Vec<ValidRule>,
}

/// A target and its share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightedTarget {
    /// The target.
    pub target: Target,
    /// Its share of the sum of all weights.
    pub weight: u32,
}

/// A place where a key may be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeySource {
    /// The first element of this header's list.
    Header(HeaderName),
    /// The member of this name in `baggage`.
    Baggage(String),
    /// The member of this name in `tracestate`.
    Tracestate(String),
    /// The cookie of this name.
    Cookie(String),
    /// The query parameter of this name.
    Query(String),
    /// The label before this, which begins with a dot, in the authority.
    Host(String),
}

/// A rule.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidRule {
    /// For metrics and explanations. Unique unless the configuration gives it twice.
    pub name: String,
    /// Whether the configuration gave it that name; otherwise it is derived.
    pub is_named: bool,
    /// The key it is for.
    pub route_key: RouteKey,
    /// Where its requests go: at least one target, their weights' sum isn't 0.
    pub targets: Vec<WeightedTarget>,
    /// What keeps a client at one of them.
    pub sticky_by: Option<Sticky>,
    /// One of these must match; empty: any authority does.
    pub hosts: Vec<HostPattern>,
    /// One of these must match; empty: any path does.
    pub paths: Vec<PathTest>,
    /// One of these; empty: any method does.
    pub methods: Vec<Method>,
    /// All of these must match. Sorted by name.
    pub header_matchers: Vec<(HeaderName, ValueTest)>,
    /// All of these must match. Sorted by name.
    pub query_matchers: Vec<(String, ValueTest)>,
    /// Set on the request to the target. Sorted by name.
    pub additional_headers: Vec<(HeaderName, HeaderValue)>,
    /// Removed from the request to the target. Sorted.
    pub remove_headers: Vec<HeaderName>,
    /// Whether the baseline takes what the targets can't.
    pub falls_back: bool,
    /// Where copies go.
    pub mirror: Option<ValidMirror>,
    /// The moment from which on the rule doesn't exist, in milliseconds since 1970.
    pub expires_at: Option<u64>,
}

/// What keeps a client at one target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sticky {
    /// This header's value.
    Header(HeaderName),
    /// The value of this cookie.
    Cookie(String),
    /// The route key.
    RouteKey,
}

/// Where copies go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidMirror {
    /// The target.
    pub target: Target,
    /// Of 1,000,000 requests, how many are copied.
    pub per_million: u32,
}

/// Where a target lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidService {
    /// At least one, each one once.
    pub endpoints: Vec<Target>,
}

impl ValidRule {
    /// The cluster of `target` for this rule: the target's own, or the one that falls back to the baseline.
    pub fn cluster(&self, target: &Target, routing: &ValidRouting) -> String {
        if self.falls_back && !routing.is_baseline(target) {
            target.fallback_cluster()
        } else {
            target.to_string()
        }
    }
}

impl ValidRouting {
    /// Whether `target` is one of the default targets.
    pub fn is_baseline(&self, target: &Target) -> bool {
        self.default_targets.iter().any(|default| default.target == *target)
    }
}

impl Target {
    /// The name of the cluster that is this target as long as it can take requests, and the baseline otherwise.
    pub fn fallback_cluster(&self) -> String {
        format!("{self}|baseline")
    }
}
