//! What the API answers, as far as the command line looks at it. Fields that it doesn't know it passes over: agent and
//! command may be of different releases.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The answer to a change.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// The number of the configuration with it.
    pub revision: u64,
    /// The hash of that configuration's content.
    pub version: String,
    /// How many rules it has, or how many the key has.
    pub rules: usize,
    /// Whether every connected proxy has accepted it; `None` if that wasn't waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_force: Option<bool>,
    /// Those that haven't.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting_for: Vec<Waiting>,
    /// The ETag of the key's rules now.
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
}

/// A proxy that hasn't accepted a change.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Waiting {
    /// Its node id.
    pub node: String,
    /// Why it hasn't.
    pub reason: String,
}

/// The connected proxies.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProxyList {
    /// The number of the configuration in force.
    pub revision: u64,
    /// The hash of its content.
    pub version: String,
    /// Who is connected.
    pub proxies: Vec<ProxyEntry>,
    /// Who was turned away, and why.
    #[serde(default)]
    pub refused: BTreeMap<String, String>,
}

/// A connected proxy.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProxyEntry {
    /// Its node id.
    pub node: String,
    /// The cluster that it says it is of.
    #[serde(default)]
    pub cluster: Option<String>,
    /// What it is: `Envoy 1.40.0`.
    pub data_plane: String,
    /// `delta` or `sotw`.
    pub protocol: String,
    /// The name of its scope, if it has one.
    #[serde(default)]
    pub scope: Option<String>,
    /// Since when, RFC 3339.
    pub connected_at: String,
    /// The version that it has accepted as a whole.
    #[serde(default)]
    pub accepted: Option<String>,
    /// Whether that is the one in force.
    pub in_force: bool,
    /// Why it isn't.
    #[serde(default)]
    pub waiting_for: Option<String>,
    /// Pushes that were sent.
    pub pushes: u64,
    /// Pushes that were refused.
    pub nacks: u64,
    /// How long the last accepted one took.
    #[serde(default)]
    pub ack_millis: Option<f64>,
    /// What it refuses, if it does.
    #[serde(default)]
    pub nack: Option<Refused>,
}

/// What a proxy refuses.
#[derive(Clone, Debug, Deserialize)]
pub struct Refused {
    /// The type of the resources.
    pub resources: String,
    /// What it says.
    pub message: String,
}
