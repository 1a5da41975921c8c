//! The configuration as people write it: raw, unchecked, every field of config.yaml by its name there.
//!
//! Nothing here is used to route. [`validate`](crate::validate) turns it into types that can only hold what is right.

mod upstream;

use std::collections::BTreeMap;
use std::fmt;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

pub use upstream::{
    CircuitBreaker, ConnectionPool, HashBy, HealthCheck, LoadBalancer, OutlierDetection, Protocol, Retries, RetryOn,
    Service, Services, Upstream, UpstreamTls,
};

/// A whole config.yaml.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// Where Envoy listens.
    #[serde(default)]
    pub server: Server,
    /// Where the agent listens.
    #[serde(default)]
    pub agent: Agent,
    /// Which request goes where.
    pub routing: Routing,
    /// How targets are spoken to.
    #[serde(default)]
    pub upstream: Upstream,
    /// Per target: where it lives, and what differs from `upstream`. A target that isn't here is a DNS name.
    #[serde(default)]
    pub services: Services,
    /// Where spans are sent to; by default none are made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracing: Option<Tracing>,
}

/// Envoy's ports.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Server {
    /// HTTP/1.1, HTTP/2 without TLS, WebSocket.
    pub http_port: u16,
    /// HTTP/2 only.
    pub grpc_port: u16,
    /// `GET /metrics`.
    pub metrics_port: u16,
    /// The IP address of the three ports above.
    pub bind_address: String,
    /// Envoy's admin interface, on loopback only.
    pub admin_port: u16,
    /// What this Envoy stands before; the environment's PROXY_MODE goes before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// TLS on the HTTP and gRPC ports.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<ServerTls>,
    /// How long requests under way may take when it is stopped.
    pub drain_time: String,
}

/// What an Envoy stands before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum Mode {
    /// One service on this machine: the default target is on loopback.
    Sidecar,
    /// Many hosts, at the edge: client addresses are taken from connections, and handed on.
    Gateway,
}

/// The certificate that clients see. Paths on Envoy's machine, in PEM.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServerTls {
    /// The certificate and those between it and its authority.
    pub cert: String,
    /// Its key.
    pub key: String,
}

/// Where spans are sent to.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Tracing {
    /// `HOST:PORT` of an OpenTelemetry collector (OTLP over gRPC, without TLS).
    pub otlp: String,
    /// Of 100 traces that begin here, how many are sampled: 0 to 100, fractions allowed.
    #[serde(default = "all")]
    pub sampling: f64,
}

/// The agent's ports.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Agent {
    /// The REST API, `/healthz` and `/readyz`.
    pub api_port: u16,
    /// The aggregated discovery service that Envoy connects to.
    pub xds_port: u16,
    /// The IP address of both.
    pub bind_address: String,
    /// The IP address of the REST API, if it is another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_bind_address: Option<String>,
    /// Who may use the REST API, a path. Without it the API is on loopback only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_file: Option<String>,
    /// Where rules that came through the REST API are kept, a path; by default beside this file, with `.state.json` at its
    /// name's end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_file: Option<String>,
    /// Which proxies get a part of the rules only; the first that matches counts, and a proxy that none matches gets all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<Scope>,
}

/// Proxies that serve a part of the hosts, and need no rules for others.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Scope {
    /// What it is called where proxies are listed.
    pub name: String,
    /// Which proxies these are.
    pub r#match: ScopeMatch,
    /// The hosts they serve, as in a rule. They get the rules for any of them, and those for every host.
    pub hosts: Vec<String>,
}

/// Which proxies are meant: those of which all that is given here is true. At least one field.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ScopeMatch {
    /// `node.cluster` of its bootstrap is this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// `node.metadata` has these fields with these texts.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
}

/// Which request goes where. Also the JSON form of the filter's plugin configuration.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Routing {
    /// The header that carries the route key, and in which a target gets it.
    #[serde(default = "default_route_key_header")]
    pub route_key_header: String,
    /// The baseline.
    pub default_target: DefaultTarget,
    /// The baselines of hosts that have their own: an authority without its port, or `*.` and what follows any labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub hosts: BTreeMap<String, String>,
    /// Tried in this order among those with the request's key.
    #[serde(default)]
    pub rules: Vec<Rule>,
    /// Where the key is looked for, in this order; none given: in the route key header alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub key_sources: Vec<KeySource>,
    /// The key sources of other tools, looked in after `keySources`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub key_dialects: Vec<KeyDialect>,
    /// How the key is handed on beside the route key header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub propagate: Option<Propagate>,
    /// Whether a request with X-Route-Explain is answered with X-Route-Decision.
    #[serde(default)]
    pub debug_header: bool,
}

/// `HOST` or `HOST:PORT`, or a weighted list of them.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum DefaultTarget {
    /// All requests.
    One(String),
    /// Shares of them.
    Split(Vec<WeightedTarget>),
}

/// A target and its share.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WeightedTarget {
    /// `HOST` or `HOST:PORT`.
    pub service: String,
    /// Its share is this divided by the sum of all weights.
    pub weight: u32,
}

/// A place where a key may be. Exactly one field.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct KeySource {
    /// A header of this name: the first element of its list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    /// The member of this name in `baggage` (W3C Baggage).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub baggage: Option<String>,
    /// The member of this name in `tracestate` (W3C Trace Context).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tracestate: Option<String>,
    /// The cookie of this name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cookie: Option<String>,
    /// The query parameter of this name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// The label in the wildcard's place of `*.HOST`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
}

/// Another tool's key sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum KeyDialect {
    /// `sd-routing-key`, `sd-sandbox` in baggage and tracestate, and the headers of older tracers.
    Signadot,
    /// `mirrord-session` in baggage, tracestate, query and cookie.
    Mirrord,
    /// `okteto-divert` in baggage.
    Okteto,
    /// The header `kubernetes-route-as` of Bridge to Kubernetes.
    BridgeToKubernetes,
}

/// How the key is handed on.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Propagate {
    /// As the member of this name in `baggage`.
    pub baggage: String,
}

/// A rule: requests with this key that match go to this target.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rule {
    /// The route key, compared byte for byte.
    pub route_key: String,
    /// `HOST` or `HOST:PORT`. Either this or `targets`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_service: Option<String>,
    /// Several targets and their shares.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub targets: Option<Vec<WeightedTarget>>,
    /// What keeps a client at one of the targets; by default nothing does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sticky_by: Option<StickyBy>,
    /// For metrics and explanations; by default derived from key and target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Any of these must match the authority, port aside; none given: any authority does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// Any of these and of `paths` must match; none given: any path does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub path_prefixes: Vec<String>,
    /// Any of these and of `pathPrefixes` must match.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<PathMatcher>,
    /// Any of these; none given: any method does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// All of these must match.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub header_matchers: BTreeMap<String, ValueMatcher>,
    /// All of these must match.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub query_matchers: BTreeMap<String, ValueMatcher>,
    /// Set on the request to the target.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub additional_headers: BTreeMap<String, String>,
    /// Removed from the request to the target.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove_headers: Vec<String>,
    /// Where requests go that the target can't take.
    #[serde(default)]
    pub fallback: Fallback,
    /// Where a copy of a share of the requests goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<Mirror>,
    /// From this moment on the rule doesn't exist: RFC 3339, UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
}

/// A path, compared without the query. Exactly one field.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PathMatcher {
    /// This path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exact: Option<String>,
    /// This path and what lies below it, as in `pathPrefixes`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// The whole path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub regex: Option<String>,
}

/// A header's or query parameter's value: text for exactly that, or one of the forms.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum ValueMatcher {
    /// Exactly this.
    Exact(String),
    /// One of the forms.
    Form(ValueForm),
}

/// What a value must be like. Exactly one field.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ValueForm {
    /// This value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exact: Option<String>,
    /// A value that begins with this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// A value that ends with this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suffix: Option<String>,
    /// A value with this in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contains: Option<String>,
    /// The whole value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub regex: Option<String>,
    /// There is a value, whatever it is. Only `true`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub present: Option<bool>,
    /// There is no value. Only `true`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub absent: Option<bool>,
    /// One of these values.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub one_of: Option<Vec<String>>,
}

/// What keeps a client at one target. Exactly one field.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct StickyBy {
    /// The header's value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    /// The cookie's value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cookie: Option<String>,
    /// The route key: all requests of a key go to one target. Only `true`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route_key: Option<bool>,
}

/// Where requests go that a target can't take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum Fallback {
    /// To the default target.
    #[default]
    Baseline,
    /// Nowhere: 503.
    None,
}

/// Where copies go.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Mirror {
    /// `HOST` or `HOST:PORT`.
    pub service: String,
    /// Of 100 requests, how many are copied: 0 to 100, fractions allowed.
    #[serde(default = "all")]
    pub percent: f64,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            http_port: 8080,
            grpc_port: 8081,
            metrics_port: 9090,
            bind_address: "0.0.0.0".to_owned(),
            admin_port: 9901,
            mode: None,
            tls: None,
            drain_time: "30s".to_owned(),
        }
    }
}

impl Default for Agent {
    fn default() -> Self {
        Self {
            api_port: 9902,
            xds_port: 18000,
            bind_address: "127.0.0.1".to_owned(),
            api_bind_address: None,
            tokens_file: None,
            state_file: None,
            scopes: Vec::new(),
        }
    }
}

fn default_route_key_header() -> String {
    "X-Route-Key".to_owned()
}

fn all() -> f64 {
    100.0
}

impl<'de> Deserialize<'de> for DefaultTarget {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = DefaultTarget;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("HOST or HOST:PORT, or a list of {service, weight}")
            }

            fn visit_str<E>(self, text: &str) -> Result<DefaultTarget, E> {
                Ok(DefaultTarget::One(text.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<DefaultTarget, A::Error> {
                Deserialize::deserialize(SeqAccessDeserializer::new(list)).map(DefaultTarget::Split)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl<'de> Deserialize<'de> for ValueMatcher {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = ValueMatcher;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text in quotes, or a mapping such as {prefix: \"qa-\"}")
            }

            fn visit_str<E>(self, text: &str) -> Result<ValueMatcher, E> {
                Ok(ValueMatcher::Exact(text.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, form: A) -> Result<ValueMatcher, A::Error> {
                Deserialize::deserialize(MapAccessDeserializer::new(form)).map(ValueMatcher::Form)
            }
        }
        deserializer.deserialize_any(Either)
    }
}
