//! Where calls go.

use envoy_types::pb::envoy::config::route::v3::route::Action;
use envoy_types::pb::envoy::config::route::v3::route_action::hash_policy::{Header, PolicySpecifier};
use envoy_types::pb::envoy::config::route::v3::route_action::{ClusterSpecifier, HashPolicy};
use envoy_types::pb::envoy::config::route::v3::route_match::PathSpecifier;
use envoy_types::pb::envoy::config::route::v3::weighted_cluster::ClusterWeight;
use envoy_types::pb::envoy::config::route::v3::{
    HeaderMatcher, RetryPolicy, Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost, WeightedCluster,
};
use sidetrack_routing::wire::RetryOn;
use sidetrack_routing::{HashKey, RoutePolicy, Target, ValidConfig, ValidRouting, ValidRule, WeightedTarget};

use super::fit::Fit;
use super::left_out::Reason;
use super::matching::{KeyCase, any_path};
use crate::render::proto::number;

/// Calls are tried again after these alone (gRFC A44).
pub(super) const RETRIABLE: [RetryOn; 5] = [
    RetryOn::Cancelled,
    RetryOn::DeadlineExceeded,
    RetryOn::Internal,
    RetryOn::ResourceExhausted,
    RetryOn::Unavailable,
];

/// The targets that get anything.
pub(super) fn shares(targets: &[WeightedTarget]) -> impl Iterator<Item = &WeightedTarget> {
    targets.iter().filter(|weighted| weighted.weight > 0)
}

/// The cluster of `target` for this rule: `TARGET`, or `TARGET|BASELINE` where it falls back. What Envoy keeps with routes
/// is no part of the name, because here each rule has routes of its own.
pub(super) fn cluster_of(rule: &ValidRule, target: &Target, routing: &ValidRouting) -> String {
    let cluster = rule.cluster(target, routing);
    cluster.split('#').next().unwrap_or_default().to_owned()
}

/// The routes `name`: of each rule, in their order, for each way in which calls may carry its key; then the baseline's.
pub(super) fn routes(name: &str, fits: &[&Fit<'_>], cases: &[KeyCase], baseline: RouteAction) -> RouteConfiguration {
    let mut routes = Vec::new();
    for fit in fits {
        for headers in cases.iter().filter_map(|case| case.with(fit.rule.route_key.as_str())) {
            let headers: Vec<HeaderMatcher> = headers.into_iter().chain(fit.headers.iter().cloned()).collect();
            let paths = fit.paths.iter();
            routes.extend(paths.map(|path| route(&fit.rule.name, path.clone(), headers.clone(), fit.action.clone())));
        }
    }
    routes.push(route("baseline", any_path(), Vec::new(), baseline));
    let host = VirtualHost {
        name: "all".to_owned(),
        domains: vec!["*".to_owned()],
        routes,
        ..Default::default()
    };
    RouteConfiguration {
        name: name.to_owned(),
        virtual_hosts: vec![host],
        ..Default::default()
    }
}

fn route(name: &str, path: PathSpecifier, headers: Vec<HeaderMatcher>, action: RouteAction) -> Route {
    Route {
        name: name.to_owned(),
        r#match: Some(RouteMatch {
            path_specifier: Some(path),
            headers,
            ..Default::default()
        }),
        action: Some(Action::Route(action)),
        ..Default::default()
    }
}

/// To the rule's targets, by their weights; and what isn't in there.
pub(super) fn to_targets(config: &ValidConfig, rule: &ValidRule) -> (RouteAction, Vec<Reason>) {
    let targets: Vec<&WeightedTarget> = shares(&rule.targets).collect();
    action(config, &targets, |target| cluster_of(rule, target, &config.routing))
}

/// To the baseline of a host, or to the default targets by their weights. Those agree on everything.
pub(super) fn to_baseline(config: &ValidConfig, baseline: Option<&Target>) -> RouteAction {
    let (action, _) = match baseline {
        Some(target) => {
            let target = target.clone();
            action(config, &[&WeightedTarget { target, weight: 1 }], ToString::to_string)
        }
        None => {
            let targets: Vec<&WeightedTarget> = shares(&config.routing.default_targets).collect();
            action(config, &targets, ToString::to_string)
        }
    };
    action
}

fn action(
    config: &ValidConfig,
    targets: &[&WeightedTarget],
    cluster: impl Fn(&Target) -> String,
) -> (RouteAction, Vec<Reason>) {
    let specifier = match targets {
        [only] => ClusterSpecifier::Cluster(cluster(&only.target)),
        several => ClusterSpecifier::WeightedClusters(WeightedCluster {
            clusters: several
                .iter()
                .zip(weights(several))
                .map(|(weighted, weight)| ClusterWeight {
                    name: cluster(&weighted.target),
                    weight: number(weight),
                    ..Default::default()
                })
                .collect(),
            ..Default::default()
        }),
    };
    let policies = targets
        .iter()
        .map(|weighted| &config.upstream_of(&weighted.target).route);
    let policies: Vec<&RoutePolicy> = policies.collect();
    let mut without = Vec::new();
    let retry_policy = agreed(&policies, retry_policy).unwrap_or_else(|Differ| {
        without.push(Reason::Retries);
        None
    });
    let hash_policy = agreed(&policies, hash_policy).unwrap_or_else(|Differ| {
        without.push(Reason::Hash);
        None
    });
    let action = RouteAction {
        cluster_specifier: Some(specifier),
        retry_policy,
        hash_policy: hash_policy.into_iter().collect(),
        ..Default::default()
    };
    (action, without)
}

/// Clients refuse weights whose sum has more than 32 bits.
fn weights(targets: &[&WeightedTarget]) -> impl Iterator<Item = u32> {
    let sum: u64 = targets.iter().map(|weighted| u64::from(weighted.weight)).sum();
    let bits = u64::BITS - sum.leading_zeros();
    // One bit to spare: whatever gets anything still does, and that may add up.
    let shift = if bits > u32::BITS { bits + 1 - u32::BITS } else { 0 };
    targets.iter().map(move |weighted| (weighted.weight >> shift).max(1))
}

/// What targets don't agree on.
struct Differ;

/// A call takes a route before it takes one of its clusters: what they don't agree on can't be there.
fn agreed<P: PartialEq>(
    policies: &[&RoutePolicy],
    part: impl Fn(&RoutePolicy) -> Option<P>,
) -> Result<Option<P>, Differ> {
    let mut parts = policies.iter().map(|policy| part(policy));
    let first = parts.next().flatten();
    match parts.all(|part| part == first) {
        true => Ok(first),
        false => Err(Differ),
    }
}

fn retry_policy(policy: &RoutePolicy) -> Option<RetryPolicy> {
    let on = policy.retry_on.iter().filter(|on| RETRIABLE.contains(on));
    let on: Vec<&str> = on.map(|on| on.as_str()).collect();
    (policy.attempts > 0 && !on.is_empty()).then(|| RetryPolicy {
        retry_on: on.join(","),
        num_retries: number(policy.attempts),
        ..Default::default()
    })
}

/// Clients hash headers (gRFC A42). What they don't they would pass over and take any endpoint, which is what is done.
fn hash_policy(policy: &RoutePolicy) -> Option<HashPolicy> {
    match &policy.hash_by {
        Some(HashKey::Header(name)) => Some(HashPolicy {
            policy_specifier: Some(PolicySpecifier::Header(Header {
                header_name: name.as_str().to_owned(),
                ..Default::default()
            })),
            ..Default::default()
        }),
        _ => None,
    }
}

#[cfg(test)]
#[path = "route_tests.rs"]
mod tests;
