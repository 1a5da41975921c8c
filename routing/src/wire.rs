//! The configuration as people write it: raw, unchecked, every field of config.yaml by its name there.
//!
//! Nothing here is used to route. [`validate`](crate::validate) turns it into types that can only hold what is right.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A whole config.yaml.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
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
    /// Per target: where it lives. A target that isn't here is a DNS name.
    #[serde(default)]
    pub services: BTreeMap<String, Service>,
}

/// Envoy's ports.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
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
}

/// The agent's ports.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Agent {
    /// The REST API, `/healthz` and `/readyz`.
    pub api_port: u16,
    /// The aggregated discovery service that Envoy connects to.
    pub xds_port: u16,
    /// The IP address of both.
    pub bind_address: String,
}

/// Which request goes where. Also the JSON form of the filter's plugin configuration.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Routing {
    /// The header that carries the route key.
    #[serde(default = "default_route_key_header")]
    pub route_key_header: String,
    /// The baseline: `HOST` or `HOST:PORT`.
    pub default_target: String,
    /// Tried in this order among those with the request's key.
    #[serde(default)]
    pub rules: Vec<Rule>,
}

/// A rule: requests with this key that match go to this target.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rule {
    /// The route key, compared byte for byte.
    pub route_key: String,
    /// `HOST` or `HOST:PORT`.
    pub target_service: String,
    /// For metrics and explanations; by default derived from key and target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Any of these must match; none given: any path does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub path_prefixes: Vec<String>,
    /// All of these must match, by the exact value.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub header_matchers: BTreeMap<String, String>,
    /// Set on the request to the target.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub additional_headers: BTreeMap<String, String>,
}

/// Where a target lives.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Service {
    /// `HOST:PORT` each.
    pub endpoints: Vec<String>,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            http_port: 8080,
            grpc_port: 8081,
            metrics_port: 9090,
            bind_address: "0.0.0.0".to_owned(),
            admin_port: 9901,
        }
    }
}

impl Default for Agent {
    fn default() -> Self {
        Self {
            api_port: 9902,
            xds_port: 18000,
            bind_address: "127.0.0.1".to_owned(),
        }
    }
}

fn default_route_key_header() -> String {
    "X-Route-Key".to_owned()
}
