use envoy_types::pb::google::protobuf::Any;
use serde_json::{Value, json};

use super::super::tests::{config, with_rule};
use super::*;

fn decoded<M: Message + Default>(set: &ResourceSet, name: &str) -> Option<M> {
    let any = Any::decode(&*set.get(name)?.any().concat()).unwrap();
    Some(M::decode(&*any.value).unwrap())
}

/// The cluster of the target `t`, which is this service; and how many endpoints of it the agent sends.
fn cluster(service: Value) -> (Cluster, usize) {
    let config = config(json!({"services": {"t": service}}));
    let target = Target::parse("t").unwrap();
    let mut clusters = Clusters::new(&config, None);
    clusters.add(&target);
    let (clusters, endpoints) = clusters.rendered();
    let endpoints: Option<ClusterLoadAssignment> = decoded(&endpoints, "t:80");
    let count = endpoints.map_or(0, |endpoints| endpoints.endpoints[0].lb_endpoints.len());
    (decoded(&clusters, "t:80").unwrap(), count)
}

/// The clusters that `name` is made of, the first that can be reached being used.
fn members(clusters: &ResourceSet, name: &str) -> Vec<String> {
    let cluster: Cluster = decoded(clusters, name).unwrap();
    let Some(ClusterDiscoveryType::ClusterType(custom)) = cluster.cluster_discovery_type else {
        return Vec::new();
    };
    ClusterConfig::decode(&*custom.typed_config.unwrap().value)
        .unwrap()
        .clusters
}

#[test]
fn addresses_come_from_the_agent_and_a_name_is_looked_up() {
    let kind = |kind: DiscoveryType| Some(ClusterDiscoveryType::Type(kind.into()));
    let (listed, endpoints) = cluster(json!({"endpoints": ["127.0.0.1:1", "127.0.0.1:2"]}));
    assert_eq!(
        (listed.cluster_discovery_type, endpoints),
        (kind(DiscoveryType::Eds), 2)
    );
    let (named, endpoints) = cluster(json!({}));
    assert_eq!(
        (named.cluster_discovery_type, endpoints),
        (kind(DiscoveryType::LogicalDns), 0)
    );
    // Clients pass over a locality without a weight.
    let assignment = named.load_assignment.unwrap();
    assert_eq!(assignment.endpoints[0].load_balancing_weight, number(1));
}

#[test]
fn load_balancers_are_those_that_clients_have() {
    let policy = |balancer: &str| {
        let service = json!({"loadBalancer": balancer, "endpoints": ["127.0.0.1:1"]});
        let (cluster, _) = cluster(service);
        let policies = cluster
            .load_balancing_policy
            .as_ref()
            .map(|policy| policy.policies.len());
        (cluster.lb_policy(), policies)
    };
    assert_eq!(policy("roundRobin"), (LbPolicy::RoundRobin, None));
    assert_eq!(policy("random"), (LbPolicy::RoundRobin, None));
    // Clients that don't know the one take the other.
    assert_eq!(policy("leastRequest"), (LbPolicy::RoundRobin, Some(1)));
    assert_eq!(policy("ringHash"), (LbPolicy::RingHash, None));
    assert_eq!(policy("maglev"), (LbPolicy::RingHash, None));
}

#[test]
fn a_ring_is_as_large_as_clients_make_it() {
    for (endpoints, expected) in [(1, 512), (4, 2048), (8, 4096), (100, 4096)] {
        let endpoints: Vec<String> = (0..endpoints).map(|port| format!("127.0.0.1:{}", port + 1)).collect();
        let (cluster, _) = cluster(json!({"loadBalancer": "ringHash", "endpoints": endpoints}));
        let Some(LbConfig::RingHashLbConfig(ring)) = cluster.lb_config else {
            panic!("{cluster:?}");
        };
        assert_eq!(ring.minimum_ring_size, number64(expected));
        // Clients refuse a ring whose least is above its most, which is 8 Mi by default.
        assert_eq!(ring.maximum_ring_size, None);
    }
}

#[test]
fn of_the_limits_only_that_of_calls_is_there() {
    let (cluster, _) = cluster(json!({
        "circuitBreaker": {"maxRequests": 7, "maxConnections": 8, "maxPendingRequests": 9, "maxRetries": 1},
        "outlierDetection": {"consecutive5xx": 1},
        "healthCheck": {"tcp": true},
    }));
    let limits = Thresholds {
        max_requests: number(7),
        ..Default::default()
    };
    assert_eq!(cluster.circuit_breakers.unwrap().thresholds, [limits]);
    // Theirs would mean something else.
    assert_eq!((cluster.outlier_detection, cluster.health_checks.len()), (None, 0));
}

/// The names of the clusters for a rule to `targets`, with `fallback`, and what the first of them is made of.
fn of_rule(config: &ValidConfig) -> (Vec<String>, ResourceSet) {
    let mut clusters = Clusters::new(config, None);
    clusters.add_of_rule(&config.routing.rules[0]);
    let (clusters, _) = clusters.rendered();
    (clusters.names().map(ToString::to_string).collect(), clusters)
}

#[test]
fn a_rule_falls_back_in_the_order_of_the_default_targets() {
    let (names, _) = of_rule(&with_rule(json!({"fallback": "none"})));
    assert_eq!(names, ["t:80"]);
    let (names, clusters) = of_rule(&with_rule(json!({})));
    assert_eq!(names, ["t:80|baseline", "t:80|baseline/d:80", "t:80|baseline/t:80"]);
    assert_eq!(
        members(&clusters, "t:80|baseline"),
        ["t:80|baseline/t:80", "t:80|baseline/d:80"]
    );
    // What gets nothing takes nothing; a default target as a target falls back nowhere.
    let default =
        json!([{"service": "d1", "weight": 1}, {"service": "d2", "weight": 0}, {"service": "d3", "weight": 9}]);
    let to = |target: &str| {
        let rules = json!([{"routeKey": "k", "targetService": target}]);
        config(json!({"routing": {"defaultTarget": default, "rules": rules}}))
    };
    let (_, clusters) = of_rule(&to("t"));
    assert_eq!(
        members(&clusters, "t:80|baseline"),
        ["t:80|baseline/t:80", "t:80|baseline/d1:80", "t:80|baseline/d3:80"]
    );
    assert_eq!(of_rule(&to("d1")).0, ["d1:80"]);
}

#[test]
fn a_target_that_gets_nothing_has_no_cluster() {
    let targets = json!([{"service": "a", "weight": 1}, {"service": "b", "weight": 0}]);
    let (names, _) = of_rule(&with_rule(json!({"targets": targets, "fallback": "none"})));
    assert_eq!(names, ["a:80"]);
}

#[test]
fn several_names_are_taken_in_turn() {
    let target = Target::parse("t").unwrap();
    for (endpoints, expected) in [
        (json!(["127.0.0.1:1", "127.0.0.1:2"]), &[][..]),
        (json!(["one:1"]), &[]),
        (json!(["one:1", "two:2"]), &["t:80/t:80/one:1", "t:80/t:80/two:2"]),
        (
            json!(["one:1", "127.0.0.1:1", "127.0.0.1:2"]),
            &["t:80/t:80/addresses", "t:80/t:80/one:1"],
        ),
    ] {
        let config = config(json!({"services": {"t": {"endpoints": endpoints}}}));
        let mut clusters = Clusters::new(&config, None);
        clusters.add(&target);
        let (clusters, _) = clusters.rendered();
        assert_eq!(members(&clusters, "t:80"), expected, "{endpoints}");
        assert_eq!(clusters.len(), 1 + expected.len());
    }
}
