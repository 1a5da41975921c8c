//! Configurations with nothing wrong in them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::matchers::{HostPattern, Method, PathTest, ValueTest};
use crate::names::{HeaderName, HeaderValue, RouteKey, Target};
use crate::sources::host::without_port;
use crate::upstream::{RoutePolicy, ValidUpstream, ValidUpstreamTls};
use crate::wire::Mode;

/// A configuration with nothing wrong in it.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidConfig {
    /// Where Envoy listens.
    pub server: ValidServer,
    /// Where the agent listens.
    pub agent: ValidAgent,
    /// Which request goes where.
    pub routing: ValidRouting,
    /// How targets are spoken to.
    pub upstream: ValidUpstream,
    /// Targets with something of their own.
    pub services: Arc<BTreeMap<Target, ValidService>>,
    /// Where spans are sent to.
    pub tracing: Option<ValidTracing>,
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
    /// What this Envoy stands before.
    pub mode: Option<Mode>,
    /// The files of the certificate that clients see, and of its key, on Envoy's machine.
    pub tls: Option<ServerTls>,
    /// How long requests under way may take when it is stopped.
    pub drain_time: Duration,
}

/// The certificate that clients see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerTls {
    /// Its file.
    pub cert: String,
    /// The file of its key.
    pub key: String,
}

/// Where spans are sent to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidTracing {
    /// The collector: OTLP over gRPC, without TLS.
    pub otlp: Target,
    /// Of 1,000,000 traces that begin here, how many are sampled.
    pub per_million: u32,
}

/// The agent's addresses. The ports differ from each other and from the server's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidAgent {
    /// The address of the discovery service.
    pub bind_address: IpAddr,
    /// That of the REST API: on loopback, unless there are tokens.
    pub api_bind_address: IpAddr,
    /// REST API.
    pub api_port: u16,
    /// Discovery service.
    pub xds_port: u16,
    /// The file of those who may use the API.
    pub tokens_file: Option<String>,
    /// The file of the rules that came through the API.
    pub state_file: Option<String>,
    /// In the order of precedence.
    pub scopes: Vec<ValidScope>,
}

/// Proxies that serve a part of the hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidScope {
    /// Its name, unique.
    pub name: String,
    /// The node's cluster, if that counts.
    pub cluster: Option<String>,
    /// Fields of the node's metadata, and their texts. Something counts, cluster or metadata.
    pub metadata: BTreeMap<String, String>,
    /// The hosts: at least one.
    pub hosts: Vec<HostPattern>,
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
    /// The baselines of hosts that have their own: a host in lower case, or `*.` and what follows any labels.
    pub hosts: BTreeMap<String, Target>,
    /// In one word, how the routes to a target differ from those to others, where they do.
    pub route_policies: Arc<BTreeMap<Target, String>>,
    /// In the order of precedence.
    pub rules: Vec<Arc<ValidRule>>,
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
    /// For metrics and explanations. Unique among the rules of its key, unless the configuration gives it twice.
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
    /// That baseline, if it isn't the default target: that of the rule's hosts.
    pub host_baseline: Option<Target>,
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

/// A target with something of its own.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidService {
    /// Where it lives, each endpoint once; none: its name is a DNS name.
    pub endpoints: Vec<Target>,
    /// How it is spoken to.
    pub upstream: ValidUpstream,
    /// TLS to it.
    pub tls: Option<ValidUpstreamTls>,
}

impl ValidConfig {
    /// How `target` is spoken to.
    pub fn upstream_of(&self, target: &Target) -> &ValidUpstream {
        self.services
            .get(target)
            .map_or(&self.upstream, |service| &service.upstream)
    }

    /// Whether nothing but the rules may differ.
    pub fn equals_but_for_rules(&self, other: &Self) -> bool {
        let Self {
            server,
            agent,
            routing,
            upstream,
            services,
            tracing,
        } = self;
        let same_services = Arc::ptr_eq(services, &other.services) || *services == other.services;
        same_services
            && *server == other.server
            && *agent == other.agent
            && *upstream == other.upstream
            && *tracing == other.tracing
            && routing.equals_but_for_rules(&other.routing)
    }

    /// The policies of routes to targets that have their own, by the word for each.
    pub fn route_policies(&self) -> BTreeMap<&str, &RoutePolicy> {
        let policies = self.routing.route_policies.iter();
        policies
            .map(|(target, name)| (name.as_str(), &self.upstream_of(target).route))
            .collect()
    }
}

impl ValidScope {
    /// Whether its proxies may get requests for `rule`.
    pub fn serves(&self, rule: &ValidRule) -> bool {
        let serves = |pattern: &HostPattern| self.hosts.iter().any(|host| host.overlaps(pattern));
        rule.hosts.is_empty() || rule.hosts.iter().any(serves)
    }
}

impl ValidRule {
    /// The cluster of `target` for this rule: the target's own, or one that falls back to the baseline, or one whose
    /// routes have a policy of their own: `TARGET|BASELINE#POLICY`.
    pub fn cluster(&self, target: &Target, routing: &ValidRouting) -> String {
        let mut cluster = String::new();
        self.write_cluster(&mut cluster, target, routing);
        cluster
    }

    /// Appends it to `cluster`.
    pub(crate) fn write_cluster(&self, cluster: &mut String, target: &Target, routing: &ValidRouting) {
        // Writing to a string can't fail.
        let _ = match (&self.host_baseline, self.falls_back) {
            (None, true) if !routing.is_default(target) => write!(cluster, "{target}|baseline"),
            (Some(baseline), true) if baseline != target => write!(cluster, "{target}|{baseline}"),
            _ => write!(cluster, "{target}"),
        };
        if let Some(policy) = routing.route_policies.get(target) {
            *cluster += "#";
            *cluster += policy;
        }
    }
}

/// The target of a cluster that a rule names.
pub fn target_of(cluster: &str) -> &str {
    cluster.split(['|', '#']).next().unwrap_or_default()
}

impl ValidRouting {
    fn equals_but_for_rules(&self, other: &Self) -> bool {
        let Self {
            route_key_header,
            key_sources,
            propagate_baggage,
            debug_header,
            default_targets,
            hosts,
            route_policies,
            rules: _,
        } = self;
        *route_key_header == other.route_key_header
            && *key_sources == other.key_sources
            && *propagate_baggage == other.propagate_baggage
            && *debug_header == other.debug_header
            && *default_targets == other.default_targets
            && *hosts == other.hosts
            && *route_policies == other.route_policies
    }

    /// The baseline of the host in `authority`, if it has one of its own.
    pub fn host_baseline(&self, authority: &str) -> Option<&Target> {
        let host = without_port(authority.as_bytes()).to_ascii_lowercase();
        let host = String::from_utf8_lossy(&host);
        self.hosts.get(host.as_ref()).or_else(|| {
            let dots = host
                .char_indices()
                .filter(|(index, character)| *character == '.' && *index > 0);
            let mut suffixes = dots.filter_map(|(index, _)| host.get(index..));
            suffixes.find_map(|suffix| self.hosts.get(&format!("*{suffix}")))
        })
    }

    /// Whether `target` is one of the default targets.
    pub fn is_default(&self, target: &Target) -> bool {
        self.default_targets.iter().any(|default| default.target == *target)
    }

    /// Whether `target` is the baseline of any host.
    pub fn is_baseline(&self, target: &Target) -> bool {
        self.is_default(target) || self.hosts.values().any(|baseline| baseline == target)
    }
}
