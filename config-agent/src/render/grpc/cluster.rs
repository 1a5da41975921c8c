//! Clusters as gRPC clients know them: endpoints from the agent, one DNS name, or other clusters in turn (gRFC A37).

use std::collections::{BTreeSet, HashSet};
use std::fmt::Display;
use std::iter;
use std::sync::Arc;

use envoy_types::pb::envoy::config::cluster::v3::circuit_breakers::Thresholds;
use envoy_types::pb::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, CustomClusterType, DiscoveryType, EdsClusterConfig, LbConfig, LbPolicy, RingHashLbConfig,
};
use envoy_types::pb::envoy::config::cluster::v3::load_balancing_policy::Policy;
use envoy_types::pb::envoy::config::cluster::v3::{CircuitBreakers, Cluster, LoadBalancingPolicy};
use envoy_types::pb::envoy::config::core::v3::{Locality, TypedExtensionConfig};
use envoy_types::pb::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint,
};
use envoy_types::pb::envoy::extensions::clusters::aggregate::v3::ClusterConfig;
use envoy_types::pb::envoy::extensions::load_balancing_policies::least_request::v3::LeastRequest;
use envoy_types::pb::envoy::extensions::load_balancing_policies::round_robin::v3::RoundRobin;
use envoy_types::pb::envoy::extensions::load_balancing_policies::wrr_locality::v3::WrrLocality;
use prost::{Message, Name};
use sidetrack_routing::wire::LoadBalancer;
use sidetrack_routing::{Host, Target, ValidConfig, ValidRule, ValidUpstream};

use super::Resources;
use super::fit::fallback;
use super::route::{cluster_of, shares};
use crate::render::cluster::endpoints;
use crate::render::proto::{any, from_agent, number, number64, target_address};
use crate::render::resource::{Resource, ResourceSet, ResourceType};

/// How many places an endpoint has on the ring of hashing load balancers. Clients make rings of at most 4096 places.
const PLACES_ON_THE_RING: u64 = 512;
const LARGEST_RING: u64 = 4096;

/// Clusters and their endpoints.
pub(super) struct Clusters<'c> {
    config: &'c ValidConfig,
    /// Those of before. What has the name of one of these is the same.
    known: Option<&'c ResourceSet>,
    targets: BTreeSet<&'c Target>,
    names: HashSet<String>,
    assignments: HashSet<String>,
    clusters: ResourceSet,
    endpoints: ResourceSet,
}

impl<'c> Clusters<'c> {
    pub(super) fn new(config: &'c ValidConfig, known: Option<&'c Resources>) -> Self {
        let of = |kind| known.map(|known| &known[kind as usize]);
        let known: Option<&ResourceSet> = of(ResourceType::Cluster);
        Self {
            config,
            known,
            targets: BTreeSet::new(),
            names: HashSet::new(),
            assignments: HashSet::new(),
            clusters: known.cloned().unwrap_or_default(),
            endpoints: of(ResourceType::Endpoints).cloned().unwrap_or_default(),
        }
    }

    /// Those that the routes of `rule` name, and those that these are made of.
    pub(super) fn add_of_rule(&mut self, rule: &'c ValidRule) {
        for weighted in shares(&rule.targets) {
            let target = &weighted.target;
            let name = cluster_of(rule, target, &self.config.routing);
            if name == target.to_string() {
                self.add(target);
            } else {
                let others = fallback(rule, self.config).into_iter();
                let targets: Vec<_> = iter::once(target)
                    .chain(others.filter(|other| *other != target))
                    .collect();
                self.put_cluster(&name, &targets);
            }
        }
    }

    /// The one of `target`.
    pub(super) fn add(&mut self, target: &'c Target) {
        self.put_cluster(&target.to_string(), &[target]);
    }

    /// The cluster `name` of the first of `targets` that can be reached.
    fn put_cluster(&mut self, name: &str, targets: &[&'c Target]) {
        if !self.names.insert(name.to_owned()) {
            return;
        }
        self.targets.extend(targets);
        let mut leaves: Vec<Leaf<'_>> = targets
            .iter()
            .flat_map(|target| Leaf::all(self.config, target))
            .collect();
        if let [only] = &mut *leaves
            && only.name == name
        {
            self.put_leaf(only, name);
            return;
        }
        // Of clusters that several are made of, gRPC C++ sees to it for the first alone. So each has its own.
        let members: Vec<String> = leaves.iter().map(|leaf| format!("{name}/{}", leaf.name)).collect();
        for (leaf, member) in leaves.iter().zip(&members) {
            self.names.insert(member.clone());
            self.put_leaf(leaf, member);
        }
        if !self.is_known(name) {
            let cluster = aggregate(name.to_owned(), members);
            self.clusters.insert(Arc::new(Resource::new(name, &cluster)));
        }
    }

    fn put_leaf(&mut self, leaf: &Leaf<'_>, name: &str) {
        if let Place::Addresses(addresses) = &leaf.place
            && self.assignments.insert(leaf.name.clone())
            && !self.endpoints.contains(&leaf.name)
        {
            let assignment = assignment(leaf.name.clone(), addresses);
            self.endpoints.insert(Arc::new(Resource::new(&leaf.name, &assignment)));
        }
        if !self.is_known(name) {
            let cluster = leaf.cluster(name.to_owned());
            self.clusters.insert(Arc::new(Resource::new(name, &cluster)));
        }
    }

    fn is_known(&self, name: &str) -> bool {
        self.known.is_some_and(|known| known.contains(name))
    }

    /// The targets that any of them is for.
    pub(super) fn targets(&self) -> &BTreeSet<&'c Target> {
        &self.targets
    }

    /// The clusters, and their endpoints.
    pub(super) fn rendered(mut self) -> (ResourceSet, ResourceSet) {
        drop_others(&mut self.clusters, &self.names);
        drop_others(&mut self.endpoints, &self.assignments);
        (self.clusters, self.endpoints)
    }
}

fn drop_others(resources: &mut ResourceSet, names: &HashSet<String>) {
    let others = resources.names().filter(|name| !names.contains(&***name));
    for name in others.cloned().collect::<Vec<_>>() {
        resources.remove(&name);
    }
}

/// What a cluster of its own is needed for.
struct Leaf<'c> {
    /// Its name, where it is part of nothing else, and its endpoints'.
    name: String,
    place: Place<'c>,
    upstream: &'c ValidUpstream,
}

/// Where endpoints live.
enum Place<'c> {
    Addresses(Vec<&'c Target>),
    /// A cluster has one DNS name.
    Name(&'c Target),
}

impl<'c> Leaf<'c> {
    /// Those of `target`: one, unless some of its endpoints have names and there are others.
    fn all(config: &'c ValidConfig, target: &'c Target) -> Vec<Self> {
        let upstream = config.upstream_of(target);
        let (addresses, names): (Vec<&Target>, Vec<&Target>) = endpoints(config, target)
            .iter()
            .partition(|endpoint| matches!(endpoint.host(), Host::Ip(_)));
        let has_several = names.len() + usize::from(!addresses.is_empty()) > 1;
        let leaf = |part: &dyn Display, place| Self {
            name: if has_several {
                format!("{target}/{part}")
            } else {
                target.to_string()
            },
            place,
            upstream,
        };
        let addresses = (!addresses.is_empty()).then(|| leaf(&"addresses", Place::Addresses(addresses)));
        let names = names.into_iter().map(|name| leaf(name, Place::Name(name)));
        addresses.into_iter().chain(names).collect()
    }

    fn cluster(&self, name: String) -> Cluster {
        match &self.place {
            Place::Addresses(addresses) => {
                let service_name = if self.name == name {
                    String::new()
                } else {
                    self.name.clone()
                };
                Cluster {
                    eds_cluster_config: Some(EdsClusterConfig {
                        eds_config: Some(from_agent()),
                        service_name,
                    }),
                    cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds.into())),
                    ..bare_cluster(name, self.upstream, addresses.len())
                }
            }
            Place::Name(endpoint) => Cluster {
                load_assignment: Some(assignment(name.clone(), &[endpoint])),
                cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::LogicalDns.into())),
                ..bare_cluster(name, self.upstream, 1)
            },
        }
    }
}

/// The first of `members` that can be reached. Each has its own load balancer; clients want one here all the same.
fn aggregate(name: String, members: Vec<String>) -> Cluster {
    let config = ClusterConfig { clusters: members };
    Cluster {
        name,
        lb_policy: LbPolicy::RoundRobin.into(),
        cluster_discovery_type: Some(ClusterDiscoveryType::ClusterType(CustomClusterType {
            name: "envoy.clusters.aggregate".to_owned(),
            typed_config: Some(any(&config)),
        })),
        ..Default::default()
    }
}

fn bare_cluster(name: String, upstream: &ValidUpstream, endpoints: usize) -> Cluster {
    let limits = Thresholds {
        max_requests: number(upstream.circuit_breaker.max_requests),
        ..Default::default()
    };
    // Connection limits, health checks and outlier detection aren't theirs, or mean something else: gRPC's ejects an endpoint
    // for answers such as NOT_FOUND (gRFC A50).
    let cluster = Cluster {
        name,
        lb_policy: LbPolicy::RoundRobin.into(),
        circuit_breakers: Some(CircuitBreakers {
            thresholds: vec![limits],
            ..Default::default()
        }),
        ..Default::default()
    };
    match upstream.load_balancer {
        LoadBalancer::RoundRobin | LoadBalancer::Random => cluster,
        LoadBalancer::LeastRequest => Cluster {
            load_balancing_policy: Some(least_request()),
            ..cluster
        },
        LoadBalancer::RingHash | LoadBalancer::Maglev => Cluster {
            lb_policy: LbPolicy::RingHash.into(),
            lb_config: Some(LbConfig::RingHashLbConfig(RingHashLbConfig {
                minimum_ring_size: number64((endpoints as u64 * PLACES_ON_THE_RING).min(LARGEST_RING)),
                ..Default::default()
            })),
            ..cluster
        },
    }
}

/// The endpoint with the fewest calls under way, for clients that can (gRFC A48, A52); otherwise the next.
fn least_request() -> LoadBalancingPolicy {
    let of_endpoints = LoadBalancingPolicy {
        policies: vec![
            policy("least_request", &LeastRequest::default()),
            policy("round_robin", &RoundRobin::default()),
        ],
    };
    let of_localities = WrrLocality {
        endpoint_picking_policy: Some(of_endpoints),
    };
    LoadBalancingPolicy {
        policies: vec![policy("wrr_locality", &of_localities)],
    }
}

fn policy<M: Message + Name>(name: &str, config: &M) -> Policy {
    Policy {
        typed_extension_config: Some(TypedExtensionConfig {
            name: format!("envoy.load_balancing_policies.{name}"),
            typed_config: Some(any(config)),
        }),
    }
}

/// In one locality, which must be there and have a weight: without it clients pass it over.
fn assignment(cluster_name: String, endpoints: &[&Target]) -> ClusterLoadAssignment {
    let lb_endpoints = endpoints.iter().map(|endpoint| LbEndpoint {
        host_identifier: Some(lb_endpoint::HostIdentifier::Endpoint(Endpoint {
            address: Some(target_address(endpoint)),
            ..Default::default()
        })),
        ..Default::default()
    });
    let locality = LocalityLbEndpoints {
        locality: Some(Locality::default()),
        load_balancing_weight: number(1),
        lb_endpoints: lb_endpoints.collect(),
        ..Default::default()
    };
    ClusterLoadAssignment {
        cluster_name,
        endpoints: vec![locality],
        ..Default::default()
    }
}

#[cfg(test)]
#[path = "cluster_tests.rs"]
mod tests;
