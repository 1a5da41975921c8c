//! Everything Envoys are to have, at one moment.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::core::v3::TypedExtensionConfig;
use envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use envoy_types::pb::envoy::config::listener::v3::Listener;
use envoy_types::pb::envoy::config::route::v3::RouteConfiguration;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::Secret;
use envoy_types::pb::google::protobuf::Any;
use prost::{Message, Name};
use sidetrack_routing::ValidConfig;
use twox_hash::XxHash64;

use super::cluster::{aggregate_clusters, cluster, discovered_endpoints, targets};
use super::envoy::EnvoyVersion;
use super::filter::{FILTER, FilterCode, filter_config};
use super::listener::{Port, listener, routes};
use super::metrics::metrics_listener;
use super::proto::any;
use super::tls::server_certificate;
use super::tracing::collector;

/// The types of resources, in the order they are pushed: what is named comes before what names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourceType {
    /// CDS.
    Cluster,
    /// EDS.
    Endpoints,
    /// LDS.
    Listener,
    /// SDS: the certificate that clients see.
    Secret,
    /// RDS.
    Route,
    /// ECDS: the filter with its table.
    FilterConfig,
}

/// Resources of one type, by name.
pub type ResourceSet = BTreeMap<String, Arc<Resource>>;

/// One resource, encoded once for all proxies.
#[derive(PartialEq, Eq)]
pub struct Resource {
    /// Its name, unique in its type.
    pub name: String,
    /// What Envoy gets.
    pub body: Any,
    /// A hash of it.
    pub hash: u64,
    /// Whether Envoy asks for endpoints of this name when it has got this resource.
    pub has_endpoints: bool,
}

/// A whole, consistent configuration of Envoys of one version: whatever is named in it is in it.
#[derive(Debug, PartialEq, Eq)]
pub struct Snapshot {
    resources: [ResourceSet; ResourceType::ALL.len()],
}

impl ResourceType {
    /// All types, in the order they are pushed.
    pub const ALL: [Self; 6] = [
        Self::Cluster,
        Self::Endpoints,
        Self::Listener,
        Self::Secret,
        Self::Route,
        Self::FilterConfig,
    ];

    /// The type URL of the resources.
    pub fn type_url(self) -> String {
        match self {
            Self::Cluster => Cluster::type_url(),
            Self::Endpoints => ClusterLoadAssignment::type_url(),
            Self::Listener => Listener::type_url(),
            Self::Secret => Secret::type_url(),
            Self::Route => RouteConfiguration::type_url(),
            Self::FilterConfig => TypedExtensionConfig::type_url(),
        }
    }

    /// The type with this type URL, if it is one of ours.
    pub fn from_type_url(url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.type_url() == url)
    }
}

impl fmt::Display for ResourceType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cluster => "CDS",
            Self::Endpoints => "EDS",
            Self::Listener => "LDS",
            Self::Secret => "SDS",
            Self::Route => "RDS",
            Self::FilterConfig => "ECDS",
        })
    }
}

impl Snapshot {
    /// Renders `config` for Envoys of the version `envoy` that find the filter's code at `code`.
    pub fn render(config: &ValidConfig, code: &FilterCode, envoy: EnvoyVersion) -> Self {
        let targets = targets(config);
        let clusters = targets.iter().map(|target| Resource {
            has_endpoints: discovered_endpoints(config, target).is_some(),
            ..Resource::new(target.to_string(), &cluster(config, target))
        });
        let aggregates = aggregate_clusters(config).into_iter();
        let collector = config.tracing.iter().map(collector);
        let without_endpoints = aggregates
            .chain(collector)
            .map(|cluster| Resource::new(cluster.name.clone(), &cluster));
        let endpoints = targets.iter().filter_map(|target| {
            discovered_endpoints(config, target).map(|endpoints| Resource::new(target.to_string(), &endpoints))
        });
        let listeners = Port::ALL.map(|port| listener(config, port, code, envoy));
        let routes = Port::ALL.map(|port| routes(config, port, &ToString::to_string));
        let certificate = config.server.tls.iter().map(|tls| server_certificate(tls, envoy));
        let filter = Resource::new(FILTER.to_owned(), &filter_config(&config.routing, code, envoy));
        let resources = [
            set(clusters.chain(without_endpoints)),
            set(endpoints),
            set(listeners
                .iter()
                .chain([&metrics_listener(&config.server)])
                .map(|listener| Resource::new(listener.name.clone(), listener))),
            set(certificate.map(|certificate| Resource::new(certificate.name.clone(), &certificate))),
            set(routes.iter().map(|routes| Resource::new(routes.name.clone(), routes))),
            set([filter]),
        ];
        Self { resources }
    }

    /// The hash of the content.
    pub(super) fn version(&self) -> String {
        let hashes = self.resources.iter().flat_map(ResourceSet::values);
        version(hashes.map(|resource| resource.hash))
    }

    /// The resources of `kind`.
    pub fn resources(&self, kind: ResourceType) -> &ResourceSet {
        &self.resources[kind as usize]
    }
}

impl Resource {
    fn new<M: Message + Name>(name: String, message: &M) -> Self {
        let body = any(message);
        Self {
            name,
            hash: XxHash64::oneshot(0, &body.value),
            body,
            has_endpoints: false,
        }
    }
}

fn set(resources: impl IntoIterator<Item = Resource>) -> ResourceSet {
    resources
        .into_iter()
        .map(|resource| (resource.name.clone(), Arc::new(resource)))
        .collect()
}

impl fmt::Debug for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} bytes {:016x}", self.name, self.body.value.len(), self.hash)
    }
}

/// The version of content with these hashes, in this order.
pub(crate) fn version(hashes: impl Iterator<Item = u64>) -> String {
    let bytes: Vec<u8> = hashes.flat_map(u64::to_le_bytes).collect();
    format!("{:016x}", XxHash64::oneshot(0, &bytes))
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use sidetrack_routing::{decode, validate};

    use super::*;

    fn snapshot(config: serde_json::Value) -> Snapshot {
        let config = decode(&config, validate).unwrap();
        Snapshot::render(&config, &FilterCode::file("/filter.wasm".into()), EnvoyVersion::NEWEST)
    }

    fn sample(target: &str) -> serde_json::Value {
        json!({
            "routing": {"defaultTarget": "d", "rules": [{"routeKey": "k", "targetService": target}]},
            "services": {"d": {"endpoints": ["127.0.0.1:1", "127.0.0.1:2"]}},
        })
    }

    #[test]
    fn equal_configurations_have_equal_bytes_and_version() {
        assert_eq!(snapshot(sample("a")), snapshot(sample("a")));
        assert_ne!(snapshot(sample("a")).version(), snapshot(sample("b")).version());
    }

    #[test]
    fn only_what_changed_has_another_hash() {
        let (a, b) = (snapshot(sample("a")), snapshot(sample("b")));
        assert_eq!(a.resources(ResourceType::Listener), b.resources(ResourceType::Listener));
        assert_eq!(a.resources(ResourceType::Route), b.resources(ResourceType::Route));
        assert_eq!(
            a.resources(ResourceType::Endpoints),
            b.resources(ResourceType::Endpoints)
        );
        assert_ne!(
            a.resources(ResourceType::FilterConfig),
            b.resources(ResourceType::FilterConfig)
        );
    }

    #[test]
    fn a_listed_service_has_endpoints_and_others_have_dns_or_an_address() {
        let snapshot = snapshot(json!({
            "routing": {"defaultTarget": "d", "rules": [
                {"routeKey": "k", "targetService": "dns.example"},
                {"routeKey": "k", "targetService": "10.0.0.1:81"},
                {"routeKey": "k", "targetService": "mixed"},
            ]},
            "services": {
                "d": {"endpoints": ["127.0.0.1:1"]},
                "mixed": {"endpoints": ["127.0.0.1:1", "host:2"]},
                "unused": {"endpoints": ["127.0.0.1:3"]},
            },
        }));
        let names: Vec<_> = snapshot.resources(ResourceType::Cluster).keys().collect();
        assert_eq!(
            names,
            [
                "10.0.0.1:81",
                "10.0.0.1:81|baseline",
                "d:80",
                "dns.example:80",
                "dns.example:80|baseline",
                "mixed:80",
                "mixed:80|baseline",
            ]
        );
        let discovered: Vec<_> = snapshot.resources(ResourceType::Endpoints).keys().collect();
        assert_eq!(discovered, ["d:80"]);
    }
}
