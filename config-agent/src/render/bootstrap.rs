//! What Envoy is started with.

use std::time::Duration;

use envoy_types::pb::envoy::config::bootstrap::v3::bootstrap::{
    DeferredStatOptions, DynamicResources, StaticResources,
};
use envoy_types::pb::envoy::config::bootstrap::v3::{Admin, Bootstrap, ClusterManager, MemoryAllocatorManager};
use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType};
use envoy_types::pb::envoy::config::core::v3::api_config_source::ApiType;
use envoy_types::pb::envoy::config::core::v3::grpc_service::{EnvoyGrpc, TargetSpecifier};
use envoy_types::pb::envoy::config::core::v3::{
    ApiConfigSource, ApiVersion, BackoffStrategy, ConfigSource, GrpcService, Http2ProtocolOptions, KeepaliveSettings,
    Node, RetryPolicy,
};
use envoy_types::pb::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint,
};
use envoy_types::pb::envoy::config::overload::v3::{OverloadManager, ResourceMonitor, resource_monitor};
use envoy_types::pb::envoy::extensions::resource_monitors::downstream_connections::v3::DownstreamConnectionsConfig;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::HttpProtocolOptions;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::http_protocol_options::explicit_http_config::ProtocolConfig;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::http_protocol_options::{
    ExplicitHttpConfig, UpstreamProtocolOptions,
};
use prost::Name;
use sidetrack_routing::{Host, Target, ValidConfig};

use super::cluster::{aggregate_clusters, static_baseline_clusters, static_cluster, static_names, targets};
use super::envoy::EnvoyVersion;
use super::filter::{FilterCode, discovered_filter, static_filter};
use super::listener::{Port, static_listener};
use super::metrics::{admin_cluster, metrics_listener, stats_config};
use super::proto::{address, any, duration, from_agent, loopback, target_address};
use super::tracing::collector;

/// How long an Envoy that can do without the agent waits for it when it starts.
const INITIAL_FETCH_TIMEOUT: Duration = Duration::from_secs(1);

/// Connections of clients. Without a limit they could use up all file descriptors.
const MAX_CONNECTIONS: i64 = 50_000;

/// How much of its free memory Envoy gives back to the system, in bytes.
const RELEASED_PER_SECOND: u64 = 16 << 20;

/// The cluster of the agent itself.
const AGENT: &str = "sidetrack-agent";

/// How an Envoy is known to its agents, and where those are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvoyNode {
    /// Its node id.
    pub id: String,
    /// Its node cluster, by which `agent.scopes` can tell it from others.
    pub cluster: String,
    /// The agents' discovery services. It connects to one of them, and to the next when that is gone. None given: the one of
    /// the configuration.
    pub agents: Vec<Target>,
}

impl EnvoyNode {
    /// The one with this id.
    pub fn new(id: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            cluster: Self::CLUSTER.to_owned(),
            agents: Vec::new(),
        }
    }

    /// The cluster of those that are given no other.
    pub const CLUSTER: &str = "sidetrack";
}

/// A bootstrap for an Envoy that gets everything from the agent, and follows every change. It is the same for every
/// version of Envoy.
pub fn dynamic_bootstrap(config: &ValidConfig, node: &EnvoyNode) -> Bootstrap {
    Bootstrap {
        static_resources: Some(StaticResources {
            clusters: vec![agent_cluster(config, node), admin_cluster(&config.server)],
            ..Default::default()
        }),
        dynamic_resources: Some(DynamicResources {
            lds_config: Some(from_agent()),
            ..dynamic_resources()
        }),
        ..bootstrap(config, node)
    }
}

/// A bootstrap for an Envoy that must serve the baseline even if it starts while the agent is away: listeners, routes and
/// baseline are in it. Targets and rules come from the agent; a change of anything else needs a new bootstrap.
pub fn static_bootstrap(config: &ValidConfig, node: &EnvoyNode, code: &FilterCode, envoy: EnvoyVersion) -> Bootstrap {
    let filter = discovered_filter(code, envoy);
    let names = static_names(config);
    let name = |target: &Target| names.get(target).cloned().unwrap_or_else(|| target.to_string());
    let listeners = Port::ALL.map(|port| static_listener(config, port, &name, filter.clone(), envoy));
    let mut clusters = static_baseline_clusters(config);
    clusters.extend([agent_cluster(config, node), admin_cluster(&config.server)]);
    clusters.extend(config.tracing.iter().map(collector));
    Bootstrap {
        static_resources: Some(StaticResources {
            listeners: listeners
                .into_iter()
                .chain([metrics_listener(&config.server)])
                .collect(),
            clusters,
            ..Default::default()
        }),
        dynamic_resources: Some(DynamicResources {
            cds_config: Some(ConfigSource {
                initial_fetch_timeout: duration(INITIAL_FETCH_TIMEOUT),
                ..from_agent()
            }),
            ..dynamic_resources()
        }),
        ..bootstrap(config, node)
    }
}

/// Everything in one, for an Envoy that has no agent. A change needs a new one.
pub fn whole_bootstrap(config: &ValidConfig, node: &EnvoyNode, code: &FilterCode, envoy: EnvoyVersion) -> Bootstrap {
    let filter = static_filter(&config.routing, code, envoy);
    let listeners = Port::ALL.map(|port| static_listener(config, port, &ToString::to_string, filter.clone(), envoy));
    let own = targets(config)
        .into_iter()
        .map(|target| static_cluster(config, target.to_string(), target));
    let clusters = own
        .chain(aggregate_clusters(config))
        .chain(config.tracing.iter().map(collector))
        .chain([admin_cluster(&config.server)])
        .collect();
    Bootstrap {
        static_resources: Some(StaticResources {
            listeners: listeners
                .into_iter()
                .chain([metrics_listener(&config.server)])
                .collect(),
            clusters,
            ..Default::default()
        }),
        ..bootstrap(config, node)
    }
}

fn bootstrap(config: &ValidConfig, node: &EnvoyNode) -> Bootstrap {
    let connections = DownstreamConnectionsConfig {
        max_active_downstream_connections: MAX_CONNECTIONS,
    };
    Bootstrap {
        overload_manager: Some(OverloadManager {
            resource_monitors: vec![ResourceMonitor {
                name: "envoy.resource_monitors.global_downstream_max_connections".to_owned(),
                config_type: Some(resource_monitor::ConfigType::TypedConfig(any(&connections))),
            }],
            ..Default::default()
        }),
        stats_config: Some(stats_config()),
        // Most sandboxes get no request from most proxies: 63 kB for each target that falls back instead of 113.
        deferred_stat_options: Some(DeferredStatOptions {
            enable_deferred_creation_stats: true,
        }),
        cluster_manager: Some(ClusterManager {
            enable_deferred_cluster_creation: true,
            ..Default::default()
        }),
        // An update needs ten times its size for a moment, which Envoy would keep otherwise: every second so much is given back.
        memory_allocator_manager: Some(MemoryAllocatorManager {
            bytes_to_release: RELEASED_PER_SECOND,
            ..Default::default()
        }),
        node: Some(Node {
            id: node.id.clone(),
            cluster: node.cluster.clone(),
            ..Default::default()
        }),
        admin: Some(Admin {
            address: Some(address(loopback(), config.server.admin_port)),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn dynamic_resources() -> DynamicResources {
    let back_off = BackoffStrategy {
        base_interval: duration(Duration::from_millis(250)),
        max_interval: duration(Duration::from_secs(2)),
    };
    let grpc = EnvoyGrpc {
        cluster_name: AGENT.to_owned(),
        retry_policy: Some(RetryPolicy {
            retry_back_off: Some(back_off),
            ..Default::default()
        }),
        ..Default::default()
    };
    DynamicResources {
        ads_config: Some(ApiConfigSource {
            api_type: ApiType::DeltaGrpc.into(),
            transport_api_version: ApiVersion::V3.into(),
            grpc_services: vec![GrpcService {
                target_specifier: Some(TargetSpecifier::EnvoyGrpc(grpc)),
                ..Default::default()
            }],
            set_node_on_first_message_only: true,
            ..Default::default()
        }),
        cds_config: Some(from_agent()),
        ..Default::default()
    }
}

fn agent_cluster(config: &ValidConfig, node: &EnvoyNode) -> Cluster {
    // Where the agent binds every address, this machine's own is as good as any.
    let ip = config.agent.bind_address;
    let ip = if ip.is_unspecified() { loopback() } else { ip };
    let addresses = match node.agents.as_slice() {
        [] => vec![address(ip, config.agent.xds_port)],
        agents => agents.iter().map(target_address).collect(),
    };
    let endpoints = addresses.into_iter().map(|address| {
        let endpoint = Endpoint {
            address: Some(address),
            ..Default::default()
        };
        LbEndpoint {
            host_identifier: Some(lb_endpoint::HostIdentifier::Endpoint(endpoint)),
            ..Default::default()
        }
    });
    let is_name = |agent: &Target| matches!(agent.host(), Host::Name(_));
    let discovery = match node.agents.iter().any(is_name) {
        true => DiscoveryType::StrictDns,
        false => DiscoveryType::Static,
    };
    Cluster {
        name: AGENT.to_owned(),
        connect_timeout: duration(Duration::from_secs(1)),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(discovery.into())),
        typed_extension_protocol_options: [(HttpProtocolOptions::full_name(), any(&http2_with_keepalive()))].into(),
        load_assignment: Some(ClusterLoadAssignment {
            cluster_name: AGENT.to_owned(),
            endpoints: vec![LocalityLbEndpoints {
                lb_endpoints: endpoints.collect(),
                ..Default::default()
            }],
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// An agent that is gone without a word is noticed, and a new one connected to.
fn http2_with_keepalive() -> HttpProtocolOptions {
    let http2 = Http2ProtocolOptions {
        connection_keepalive: Some(KeepaliveSettings {
            interval: duration(Duration::from_secs(30)),
            timeout: duration(Duration::from_secs(5)),
            ..Default::default()
        }),
        ..Default::default()
    };
    HttpProtocolOptions {
        upstream_protocol_options: Some(UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig {
            protocol_config: Some(ProtocolConfig::Http2ProtocolOptions(http2)),
        })),
        ..Default::default()
    }
}
