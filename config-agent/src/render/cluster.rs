//! A cluster for each target, and the endpoints of those that list them.

use std::collections::BTreeSet;
use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, DiscoveryType, DnsLookupFamily, EdsClusterConfig,
};
use envoy_types::pb::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint,
};
use sidetrack_routing::{Host, Target, ValidConfig};

use super::proto::{duration, flag, from_agent, target_address};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The cluster of the baseline in a bootstrap that must work without the agent. No target has this name.
pub(super) const STATIC_BASELINE: &str = "baseline";

/// The baseline and every rule's target, each once, in order.
pub fn targets(config: &ValidConfig) -> BTreeSet<&Target> {
    let rules = config.routing.rules.iter().map(|rule| &rule.target);
    rules.chain([&config.routing.default_target]).collect()
}

/// The cluster of `target`.
pub(super) fn cluster(config: &ValidConfig, target: &Target) -> Cluster {
    let endpoints = endpoints(config, target);
    let is_baseline = *target == config.routing.default_target;
    let mut cluster = Cluster {
        name: target.to_string(),
        connect_timeout: duration(CONNECT_TIMEOUT),
        ..Default::default()
    };
    if endpoints
        .iter()
        .any(|endpoint| matches!(endpoint.host(), Host::Name(_)))
    {
        cluster.load_assignment = Some(assignment(cluster.name.clone(), &endpoints));
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
        cluster.load_assignment = Some(assignment(cluster.name.clone(), &endpoints));
        with_type(cluster, DiscoveryType::Static)
    }
}

/// The baseline's cluster for a bootstrap: with everything in it, whatever the agent does.
pub(super) fn static_baseline(config: &ValidConfig) -> Cluster {
    let target = &config.routing.default_target;
    let endpoints = endpoints(config, target);
    let name = STATIC_BASELINE.to_owned();
    let load_assignment = Some(assignment(name.clone(), &endpoints));
    let connect_timeout = duration(CONNECT_TIMEOUT);
    if endpoints
        .iter()
        .any(|endpoint| matches!(endpoint.host(), Host::Name(_)))
    {
        let dns = Cluster {
            dns_lookup_family: DnsLookupFamily::V4Preferred.into(),
            ..Default::default()
        };
        with_type(
            Cluster {
                name,
                connect_timeout,
                load_assignment,
                ..dns
            },
            DiscoveryType::StrictDns,
        )
    } else {
        let cluster = Cluster {
            name,
            connect_timeout,
            load_assignment,
            ..Default::default()
        };
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
    discovered.then(|| assignment(target.to_string(), &service.endpoints.iter().collect::<Vec<_>>()))
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

fn assignment(cluster_name: String, endpoints: &[&Target]) -> ClusterLoadAssignment {
    let lb_endpoints = endpoints.iter().map(|endpoint| LbEndpoint {
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
