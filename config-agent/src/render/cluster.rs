//! A cluster for each target, and the endpoints of those that list them.

use std::collections::BTreeSet;
use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3::circuit_breakers::Thresholds;
use envoy_types::pb::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, CustomClusterType, DiscoveryType, DnsLookupFamily, EdsClusterConfig, LbPolicy,
};
use envoy_types::pb::envoy::config::cluster::v3::{CircuitBreakers, Cluster};
use envoy_types::pb::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint,
};
use envoy_types::pb::envoy::extensions::clusters::aggregate::v3::ClusterConfig;
use sidetrack_routing::{Host, Target, ValidConfig};

use super::log::baseline_metadata;
use super::proto::{any, duration, flag, from_agent, number, target_address};
use super::route::Baseline;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The cluster of the baseline in a bootstrap that must work without the agent, and of its further targets with a number
/// after it. No target has this name.
const STATIC_BASELINE: &str = "baseline";

/// The default targets, every rule's targets and mirrors, each once, in order.
pub fn targets(config: &ValidConfig) -> BTreeSet<&Target> {
    let routing = &config.routing;
    let rules = routing.rules.iter().flat_map(|rule| {
        let mirror = rule.mirror.iter().map(|mirror| &mirror.target);
        rule.targets.iter().map(|weighted| &weighted.target).chain(mirror)
    });
    rules
        .chain(routing.default_targets.iter().map(|weighted| &weighted.target))
        .collect()
}

/// The targets of rules that fall back, each once, in order.
pub(super) fn falling_back(config: &ValidConfig) -> BTreeSet<&Target> {
    let rules = config.routing.rules.iter().filter(|rule| rule.falls_back);
    let targets = rules.flat_map(|rule| rule.targets.iter().map(|weighted| &weighted.target));
    targets.filter(|target| !config.routing.is_baseline(target)).collect()
}

/// The clusters of the default targets, and their weights.
pub(super) fn baseline(config: &ValidConfig) -> Baseline {
    config
        .routing
        .default_targets
        .iter()
        .map(|weighted| (weighted.target.to_string(), weighted.weight))
        .collect()
}

/// The same for a bootstrap.
pub(super) fn static_baseline(config: &ValidConfig) -> Baseline {
    let targets = config.routing.default_targets.iter().enumerate();
    targets
        .map(|(index, weighted)| (static_name(index), weighted.weight))
        .collect()
}

fn static_name(index: usize) -> String {
    if index == 0 {
        STATIC_BASELINE.to_owned()
    } else {
        format!("{STATIC_BASELINE}-{}", index + 1)
    }
}

/// The cluster that is `target` as long as it can take requests, and the baseline otherwise. A target that isn't there
/// or has no endpoints is passed over at once; one that refuses a connection, by the retry.
///
/// Here a retry isn't a second burden on something that fails, but the way to the baseline, which has limits of its own:
/// Envoy's default of three at a time would fail all requests but three while a target is down.
pub(super) fn fallback_cluster(config: &ValidConfig, target: &Target) -> Cluster {
    let baseline = config
        .routing
        .default_targets
        .iter()
        .filter(|weighted| weighted.weight > 0);
    let clusters = std::iter::once(target).chain(baseline.map(|weighted| &weighted.target));
    let aggregate = ClusterConfig {
        clusters: clusters.map(ToString::to_string).collect(),
    };
    let limits = Thresholds {
        max_retries: number(u32::MAX),
        ..Default::default()
    };
    Cluster {
        name: target.fallback_cluster(),
        connect_timeout: duration(CONNECT_TIMEOUT),
        circuit_breakers: Some(CircuitBreakers {
            thresholds: vec![limits],
            ..Default::default()
        }),
        lb_policy: LbPolicy::ClusterProvided.into(),
        cluster_discovery_type: Some(ClusterDiscoveryType::ClusterType(CustomClusterType {
            name: "envoy.clusters.aggregate".to_owned(),
            typed_config: Some(any(&aggregate)),
        })),
        ..Default::default()
    }
}

/// The cluster of `target`.
pub(super) fn cluster(config: &ValidConfig, target: &Target) -> Cluster {
    let endpoints = endpoints(config, target);
    let is_baseline = config.routing.is_baseline(target);
    let mut cluster = Cluster {
        name: target.to_string(),
        connect_timeout: duration(CONNECT_TIMEOUT),
        ..Default::default()
    };
    if endpoints
        .iter()
        .any(|endpoint| matches!(endpoint.host(), Host::Name(_)))
    {
        cluster.load_assignment = Some(assignment(config, target, cluster.name.clone()));
        cluster.dns_lookup_family = DnsLookupFamily::V4Preferred.into();
        // A name that doesn't resolve must not keep Envoy from starting; the baseline's is worth waiting for.
        cluster.wait_for_warm_on_init = if is_baseline { None } else { flag(false) };
        with_type(cluster, DiscoveryType::StrictDns)
    } else if config.services.contains_key(target) {
        cluster.eds_cluster_config = Some(EdsClusterConfig {
            eds_config: Some(from_agent()),
            service_name: String::new(),
        });
        with_type(cluster, DiscoveryType::Eds)
    } else {
        cluster.load_assignment = Some(assignment(config, target, cluster.name.clone()));
        with_type(cluster, DiscoveryType::Static)
    }
}

/// The baseline's clusters for a bootstrap: with everything in them, whatever the agent does.
pub(super) fn static_baseline_clusters(config: &ValidConfig) -> Vec<Cluster> {
    let targets = config.routing.default_targets.iter().enumerate();
    targets
        .map(|(index, weighted)| static_cluster(config, static_name(index), &weighted.target))
        .collect()
}

/// The cluster `name` for `target`, with its endpoints in it.
pub(super) fn static_cluster(config: &ValidConfig, name: String, target: &Target) -> Cluster {
    let endpoints = endpoints(config, target);
    let load_assignment = Some(assignment(config, target, name.clone()));
    let connect_timeout = duration(CONNECT_TIMEOUT);
    let cluster = Cluster {
        name,
        connect_timeout,
        load_assignment,
        ..Default::default()
    };
    if endpoints
        .iter()
        .any(|endpoint| matches!(endpoint.host(), Host::Name(_)))
    {
        let dns_lookup_family = DnsLookupFamily::V4Preferred.into();
        with_type(
            Cluster {
                dns_lookup_family,
                ..cluster
            },
            DiscoveryType::StrictDns,
        )
    } else {
        with_type(cluster, DiscoveryType::Static)
    }
}

/// The endpoints of `target` for those that Envoy asks the agent for, or `None`.
pub(super) fn discovered_endpoints(config: &ValidConfig, target: &Target) -> Option<ClusterLoadAssignment> {
    let service = config.services.get(target)?;
    let discovered = service
        .endpoints
        .iter()
        .all(|endpoint| matches!(endpoint.host(), Host::Ip(_)));
    discovered.then(|| assignment(config, target, target.to_string()))
}

fn with_type(mut cluster: Cluster, discovery: DiscoveryType) -> Cluster {
    cluster.cluster_discovery_type = Some(ClusterDiscoveryType::Type(discovery.into()));
    cluster
}

fn endpoints<'c>(config: &'c ValidConfig, target: &'c Target) -> Vec<&'c Target> {
    match config.services.get(target) {
        Some(service) => service.endpoints.iter().collect(),
        None => vec![target],
    }
}

fn assignment(config: &ValidConfig, target: &Target, cluster_name: String) -> ClusterLoadAssignment {
    let metadata = config.routing.is_baseline(target).then(baseline_metadata);
    let lb_endpoints = endpoints(config, target).into_iter().map(|endpoint| LbEndpoint {
        metadata: metadata.clone(),
        host_identifier: Some(lb_endpoint::HostIdentifier::Endpoint(Endpoint {
            address: Some(target_address(endpoint)),
            ..Default::default()
        })),
        ..Default::default()
    });
    let locality = LocalityLbEndpoints {
        lb_endpoints: lb_endpoints.collect(),
        ..Default::default()
    };
    ClusterLoadAssignment {
        cluster_name,
        endpoints: vec![locality],
        ..Default::default()
    }
}
