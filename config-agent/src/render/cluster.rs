//! A cluster for each target, and the endpoints of those that list them.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use envoy_types::pb::envoy::config::cluster::v3::circuit_breakers::Thresholds;
use envoy_types::pb::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, CommonLbConfig, CustomClusterType, DiscoveryType, DnsLookupFamily, EdsClusterConfig,
    LbConfig, LbPolicy, RingHashLbConfig,
};
use envoy_types::pb::envoy::config::cluster::v3::{CircuitBreakers, Cluster, OutlierDetection};
use envoy_types::pb::envoy::config::core::v3::Metadata;
use envoy_types::pb::envoy::config::endpoint::v3::cluster_load_assignment::Policy;
use envoy_types::pb::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint,
};
use envoy_types::pb::envoy::extensions::clusters::aggregate::v3::ClusterConfig;
use envoy_types::pb::envoy::r#type::v3::Percent;
use envoy_types::pb::google::protobuf::Any;
use prost::Name;
use sidetrack_routing::wire::LoadBalancer;
use sidetrack_routing::{Host, Target, ValidConfig, ValidRule, ValidUpstream};

use super::log::{baseline_metadata, target_metadata};
use super::proto::{any, duration, flag, from_agent, number, number64, target_address};
use super::upstream::{HttpOptions, health_checks, http_protocol_options, upstream_tls};

/// The baseline's clusters in a bootstrap that must work without the agent begin with this. No target has such a name.
const STATIC_BASELINE: &str = "baseline";

/// Of a baseline's endpoints, at most so many are left out because they fail: the others' requests need some place to go.
const MAX_BASELINE_EJECTION: u32 = 50;

/// In percent of what one endpoint takes: one that is well of a thousand takes all requests. By Envoy's default of 140 the
/// baseline would get 30 % of a sandbox's requests when one of its two endpoints is left out.
const OVERPROVISIONING: u32 = 100_000;

/// How many places an endpoint has on the ring of `ringHash`, and how many there may be: Envoy's limit.
const PLACES_ON_THE_RING: u64 = 512;
const LARGEST_RING: u64 = 8 << 20;

/// The default targets, the hosts' baselines, every rule's targets and mirrors, each once, in order.
pub fn targets(config: &ValidConfig) -> BTreeSet<&Target> {
    let routing = &config.routing;
    let rules = routing.rules.iter().flat_map(|rule| {
        let mirror = rule.mirror.iter().map(|mirror| &mirror.target);
        rule.targets.iter().map(|weighted| &weighted.target).chain(mirror)
    });
    rules.chain(baselines(config)).collect()
}

/// The default targets, and the hosts' baselines.
pub(super) fn baselines(config: &ValidConfig) -> impl Iterator<Item = &Target> {
    let routing = &config.routing;
    let defaults = routing.default_targets.iter().map(|weighted| &weighted.target);
    defaults.chain(routing.hosts.values())
}

/// How the cluster of a baseline is called.
pub(super) type ClusterName<'c> = dyn Fn(&Target) -> String + 'c;

/// The names of the baselines' clusters in a bootstrap: `baseline`, and of further ones with a number after it.
pub(super) fn static_names(config: &ValidConfig) -> BTreeMap<&Target, String> {
    let mut names = BTreeMap::new();
    for target in baselines(config) {
        let number = names.len() + 1;
        names.entry(target).or_insert_with(|| match number {
            1 => STATIC_BASELINE.to_owned(),
            _ => format!("{STATIC_BASELINE}-{number}"),
        });
    }
    names
}

/// The clusters that rules use in place of their targets' own, by name: which clusters they are made of, the first that
/// can take requests being used. A target that isn't there or has no endpoints is passed over at once; one that refuses
/// a connection, by the retry.
pub(super) fn aggregate_clusters(config: &ValidConfig) -> Vec<Cluster> {
    let mut clusters = BTreeMap::new();
    for rule in &config.routing.rules {
        for weighted in &rule.targets {
            let cluster = aggregate_cluster_of(config, rule, &weighted.target);
            clusters.extend(cluster.map(|cluster| (cluster.name.clone(), cluster)));
        }
    }
    clusters.into_values().collect()
}

/// The one that `rule` uses in place of the cluster of `target`, if it does.
pub(super) fn aggregate_cluster_of(config: &ValidConfig, rule: &ValidRule, target: &Target) -> Option<Cluster> {
    let routing = &config.routing;
    let name = rule.cluster(target, routing);
    if name == target.to_string() {
        return None;
    }
    let fallback: Vec<&Target> = match (&rule.host_baseline, rule.falls_back) {
        (_, false) => Vec::new(),
        (Some(baseline), true) => vec![baseline],
        (None, true) => {
            let shares = routing.default_targets.iter().filter(|weighted| weighted.weight > 0);
            shares.map(|weighted| &weighted.target).collect()
        }
    };
    let fallback: Vec<&Target> = fallback.into_iter().filter(|baseline| *baseline != target).collect();
    Some(aggregate_cluster(config, name, target, &fallback))
}

fn aggregate_cluster(config: &ValidConfig, name: String, target: &Target, fallback: &[&Target]) -> Cluster {
    let members = std::iter::once(&target).chain(fallback);
    let aggregate = ClusterConfig {
        clusters: members.map(ToString::to_string).collect(),
    };
    let upstream = config.upstream_of(target);
    let max_retries = if fallback.is_empty() {
        upstream.circuit_breaker.max_retries
    } else {
        // Here a retry isn't a second burden on something that fails, but the way to the baseline, which has limits of its
        // own: with three at a time all requests but three would fail while a target is down.
        u32::MAX
    };
    let limits = Thresholds {
        max_retries: number(max_retries),
        ..Default::default()
    };
    Cluster {
        name,
        metadata: Some(target_metadata(target)),
        connect_timeout: duration(upstream.connect_timeout),
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

/// The cluster of `target`, whose endpoints the agent sends if it knows addresses of them.
pub(super) fn cluster(config: &ValidConfig, target: &Target) -> Cluster {
    if discovered_endpoints(config, target).is_none() {
        let mut cluster = static_cluster(config, target.to_string(), target);
        let is_baseline = config.routing.is_baseline(target);
        if cluster.cluster_discovery_type == discovery(DiscoveryType::StrictDns) && !is_baseline {
            // A name that doesn't resolve must not keep Envoy from starting; the baseline's is worth waiting for.
            cluster.wait_for_warm_on_init = flag(false);
        }
        return cluster;
    }
    Cluster {
        eds_cluster_config: Some(EdsClusterConfig {
            eds_config: Some(from_agent()),
            service_name: String::new(),
        }),
        cluster_discovery_type: discovery(DiscoveryType::Eds),
        ..bare_cluster(config, target.to_string(), target)
    }
}

/// The baselines' clusters for a bootstrap: with everything in them, whatever the agent does.
pub(super) fn static_baseline_clusters(config: &ValidConfig) -> Vec<Cluster> {
    let names = static_names(config);
    names
        .into_iter()
        .map(|(target, name)| static_cluster(config, name, target))
        .collect()
}

/// The cluster `name` for `target`, with its endpoints in it.
pub(super) fn static_cluster(config: &ValidConfig, name: String, target: &Target) -> Cluster {
    let metadata = config.routing.is_baseline(target).then(baseline_metadata);
    let cluster = bare_cluster(config, name, target);
    with_endpoints(cluster, endpoints(config, target), metadata)
}

/// The cluster `name` with one endpoint, for what belongs to Sidetrack itself.
pub(super) fn cluster_at(name: String, endpoint: &Target, upstream: &ValidUpstream) -> Cluster {
    let cluster = Cluster {
        name,
        connect_timeout: duration(upstream.connect_timeout),
        typed_extension_protocol_options: http_options(upstream, false),
        wait_for_warm_on_init: flag(false),
        ..Default::default()
    };
    with_endpoints(cluster, std::slice::from_ref(endpoint), None)
}

/// How `target` is spoken to, without where it lives.
fn bare_cluster(config: &ValidConfig, name: String, target: &Target) -> Cluster {
    let upstream = config.upstream_of(target);
    let tls = config.services.get(target).and_then(|service| service.tls.as_ref());
    let is_baseline = config.routing.is_baseline(target);
    // Where all endpoints of a sandbox are left out, the next in line is better than any of them.
    let healthy_panic_threshold = (!is_baseline).then(Percent::default);
    Cluster {
        name,
        metadata: Some(target_metadata(target)),
        connect_timeout: duration(upstream.connect_timeout),
        lb_policy: lb_policy(upstream.load_balancer).into(),
        lb_config: ring(upstream.load_balancer, endpoints(config, target).len()),
        circuit_breakers: Some(circuit_breakers(upstream)),
        outlier_detection: outlier_detection(upstream, is_baseline),
        health_checks: health_checks(upstream, target),
        // An endpoint that leaves the configuration leaves at once, also if it says that it is well.
        ignore_health_on_host_removal: true,
        common_lb_config: healthy_panic_threshold.map(|threshold| CommonLbConfig {
            healthy_panic_threshold: Some(threshold),
            ..Default::default()
        }),
        transport_socket: tls.map(upstream_tls),
        typed_extension_protocol_options: http_options(upstream, tls.is_some()),
        ..Default::default()
    }
}

fn http_options(upstream: &ValidUpstream, has_tls: bool) -> HashMap<String, Any> {
    let options = http_protocol_options(upstream, has_tls);
    [(HttpOptions::full_name(), any(&options))].into()
}

fn with_endpoints(cluster: Cluster, endpoints: &[Target], metadata: Option<Metadata>) -> Cluster {
    let by_name = endpoints
        .iter()
        .any(|endpoint| matches!(endpoint.host(), Host::Name(_)));
    let load_assignment = Some(assignment(endpoints, metadata, cluster.name.clone()));
    if by_name {
        Cluster {
            load_assignment,
            dns_lookup_family: DnsLookupFamily::V4Preferred.into(),
            cluster_discovery_type: discovery(DiscoveryType::StrictDns),
            ..cluster
        }
    } else {
        Cluster {
            load_assignment,
            cluster_discovery_type: discovery(DiscoveryType::Static),
            ..cluster
        }
    }
}

fn discovery(discovery: DiscoveryType) -> Option<ClusterDiscoveryType> {
    Some(ClusterDiscoveryType::Type(discovery.into()))
}

fn lb_policy(load_balancer: LoadBalancer) -> LbPolicy {
    match load_balancer {
        LoadBalancer::RoundRobin => LbPolicy::RoundRobin,
        LoadBalancer::LeastRequest => LbPolicy::LeastRequest,
        LoadBalancer::Random => LbPolicy::Random,
        LoadBalancer::RingHash => LbPolicy::RingHash,
        LoadBalancer::Maglev => LbPolicy::Maglev,
    }
}

/// So many places on the ring for each endpoint. By default all of them share as many places as there are, and an endpoint
/// that leaves gives its places to the others, which then take values from one another, too.
fn ring(load_balancer: LoadBalancer, endpoints: usize) -> Option<LbConfig> {
    let size = (endpoints as u64 * PLACES_ON_THE_RING).min(LARGEST_RING);
    (load_balancer == LoadBalancer::RingHash).then(|| {
        LbConfig::RingHashLbConfig(RingHashLbConfig {
            minimum_ring_size: number64(size),
            ..Default::default()
        })
    })
}

fn circuit_breakers(upstream: &ValidUpstream) -> CircuitBreakers {
    let limits = Thresholds {
        max_connections: number(upstream.max_connections()),
        max_pending_requests: number(upstream.circuit_breaker.max_pending_requests),
        max_requests: number(upstream.circuit_breaker.max_requests),
        max_retries: number(upstream.circuit_breaker.max_retries),
        ..Default::default()
    };
    CircuitBreakers {
        thresholds: vec![limits],
        ..Default::default()
    }
}

/// Only what a target answers counts. A connection that is refused costs a retry and no more: the next endpoint or the
/// baseline takes the request, and a sandbox that was started again is back at once.
fn outlier_detection(upstream: &ValidUpstream, is_baseline: bool) -> Option<OutlierDetection> {
    let limits = upstream.outlier_detection;
    (limits.consecutive_5xx > 0).then(|| OutlierDetection {
        consecutive_5xx: number(limits.consecutive_5xx),
        interval: duration(limits.interval),
        base_ejection_time: duration(limits.base_ejection_time),
        max_ejection_percent: number(if is_baseline { MAX_BASELINE_EJECTION } else { 100 }),
        always_eject_one_host: flag(!is_baseline),
        enforcing_success_rate: number(0),
        split_external_local_origin_errors: true,
        enforcing_consecutive_local_origin_failure: number(0),
        enforcing_local_origin_success_rate: number(0),
        ..Default::default()
    })
}

/// The endpoints of `target` for those that Envoy asks the agent for, or `None`.
pub(super) fn discovered_endpoints(config: &ValidConfig, target: &Target) -> Option<ClusterLoadAssignment> {
    let service = config.services.get(target)?;
    let is_address = |endpoint: &Target| matches!(endpoint.host(), Host::Ip(_));
    let discovered = !service.endpoints.is_empty() && service.endpoints.iter().all(is_address);
    let metadata = config.routing.is_baseline(target).then(baseline_metadata);
    discovered.then(|| assignment(&service.endpoints, metadata, target.to_string()))
}

pub(super) fn endpoints<'c>(config: &'c ValidConfig, target: &'c Target) -> &'c [Target] {
    match config.services.get(target) {
        Some(service) if !service.endpoints.is_empty() => &service.endpoints,
        _ => std::slice::from_ref(target),
    }
}

fn assignment(endpoints: &[Target], metadata: Option<Metadata>, cluster_name: String) -> ClusterLoadAssignment {
    let lb_endpoints = endpoints.iter().map(|endpoint| LbEndpoint {
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
        policy: Some(Policy {
            overprovisioning_factor: number(OVERPROVISIONING),
            ..Default::default()
        }),
        ..Default::default()
    }
}
