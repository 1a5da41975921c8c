//! The routes, in this order:
//!
//! 1. `baseline`, for requests that can't carry a key: they never enter the VM.
//! 2. `enter`, for requests that may carry a key: it switches the filter on, and leads to the baseline. Where a rule matches,
//!    the filter writes the steering header, and that makes Envoy pick the route again.
//! 3. `target`, for these: by the steering header.
//! 4. `baseline`, for those that are left.
//!
//! On httpPort each of them is there for requests with a time limit and for streams, which have none, but for the first: most
//! requests have a limit and no key, and each route that a request passes costs it 560 instructions.

use std::collections::BTreeSet;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use envoy_types::pb::envoy::config::core::v3::{HeaderValue, HeaderValueOption};
use envoy_types::pb::envoy::config::route::v3::route::Action;
use envoy_types::pb::envoy::config::route::v3::route_action::hash_policy::{
    ConnectionProperties, Cookie, Header, PolicySpecifier,
};
use envoy_types::pb::envoy::config::route::v3::route_action::{ClusterSpecifier, HashPolicy, RequestMirrorPolicy};
use envoy_types::pb::envoy::config::route::v3::weighted_cluster::ClusterWeight;
use envoy_types::pb::envoy::config::route::v3::{
    FilterConfig, HeaderMatcher, RetryPolicy, Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost,
    WeightedCluster,
};
use envoy_types::pb::google::protobuf::Any;
use sidetrack_routing::{
    HashKey, INTERNAL_HEADERS, MIRROR_HEADER, RoutePolicy, STEERING_HEADER, ValidConfig, ValidRouting,
};

use super::cluster::ClusterName;
use super::filter::FILTER;
use super::local_reply::ROUTE_ERROR_HEADER;
use super::log::undecided_metadata;
use super::matching::{
    carries_no_key, containing, ending, exact, matching, matching_regex, may_carry_a_key, no_stream, present,
};
use super::proto::{any, duration, number, number64};
use super::retry::{falling_back, retry_policy};

/// How long Envoy lets a request be silent by default.
const IDLE_TIMEOUT: Duration = Duration::from_secs(5 * 60);

/// Methods of requests that may be done twice (RFC 9110 §9.2.2).
const IDEMPOTENT: &str = "GET|HEAD|OPTIONS|TRACE|PUT|DELETE";

/// How much of a body is kept to be sent again. A longer one is sent once.
const KEPT_BODY_BYTES: u64 = 1 << 20;

/// The route configuration `name`, with the baselines' clusters named so. Where requests `have_limits`, streams are told
/// from others.
pub(super) fn route_configuration(
    name: &str,
    config: &ValidConfig,
    cluster_name: &ClusterName<'_>,
    have_limits: bool,
) -> RouteConfiguration {
    let routing = &config.routing;
    let targets = target_routes(config, have_limits);
    let host = |name: &str, domain: &str, baseline: &Baseline<'_>| VirtualHost {
        name: name.to_owned(),
        domains: vec![domain.to_owned()],
        routes: all_routes(routing, baseline, &targets, have_limits),
        request_body_buffer_limit: number64(KEPT_BODY_BYTES),
        ..Default::default()
    };
    let hosts = routing.hosts.iter().map(|(domain, target)| {
        let cluster = ClusterSpecifier::Cluster(cluster_name(target));
        let policy = &config.upstream_of(target).route;
        host(domain, domain, &Baseline { cluster, policy })
    });
    let default = host("all", "*", &default_baseline(config, cluster_name));
    RouteConfiguration {
        name: name.to_owned(),
        virtual_hosts: hosts.chain([default]).collect(),
        // A host is compared without its port.
        ignore_port_in_host_matching: !routing.hosts.is_empty(),
        ..Default::default()
    }
}

/// Where requests without a target of their own go.
struct Baseline<'c> {
    cluster: ClusterSpecifier,
    policy: &'c RoutePolicy,
}

fn default_baseline<'c>(config: &'c ValidConfig, cluster_name: &ClusterName<'_>) -> Baseline<'c> {
    let targets = &config.routing.default_targets;
    let cluster = match targets.as_slice() {
        [only] => ClusterSpecifier::Cluster(cluster_name(&only.target)),
        several => ClusterSpecifier::WeightedClusters(WeightedCluster {
            clusters: several
                .iter()
                .map(|weighted| ClusterWeight {
                    name: cluster_name(&weighted.target),
                    weight: number(weighted.weight),
                    ..Default::default()
                })
                .collect(),
            ..Default::default()
        }),
    };
    // All of them have the same; `validate` sees to it.
    let policy = targets
        .first()
        .map_or(&config.upstream.route, |first| &config.upstream_of(&first.target).route);
    Baseline { cluster, policy }
}

fn all_routes(routing: &ValidRouting, baseline: &Baseline<'_>, targets: &[Route], have_limits: bool) -> Vec<Route> {
    let keyless = carries_no_key(routing).map(|found| baseline.routes(found, have_limits).remove(0));
    let enter = may_carry_a_key(routing)
        .into_iter()
        .flat_map(|found| baseline.routes(found, have_limits))
        .map(|route| Route {
            name: "enter".to_owned(),
            typed_per_filter_config: [(FILTER.to_owned(), switched_on())].into(),
            metadata: Some(undecided_metadata()),
            response_headers_to_add: explained(routing),
            ..route
        });
    // Those with a limit have gone by the first route, if that could be said of them.
    let gone = usize::from(keyless.is_some() && have_limits);
    let others = baseline
        .routes(matching(Vec::new()), have_limits)
        .into_iter()
        .skip(gone);
    keyless
        .into_iter()
        .chain(enter)
        .chain(targets.iter().cloned())
        .chain(others)
        .collect()
}

/// The match of requests with a time limit, and then of all others; just the latter where none have one.
fn with_and_without_limits(found: RouteMatch, have_limits: bool) -> impl Iterator<Item = (RouteMatch, bool)> {
    let limited = have_limits.then(|| {
        let mut limited = found.clone();
        limited.headers.extend(no_stream());
        (limited, true)
    });
    limited.into_iter().chain([(found, false)])
}

/// The routes to the cluster that the steering header names: for each policy, those to targets that fall back, of requests
/// that may be done twice and of others, and those to targets that don't. With a mirror, for those of which it gets a copy.
/// (The cluster of copies could be named by a header, too, but that header would have to reach the target.)
fn target_routes(config: &ValidConfig, have_limits: bool) -> Vec<Route> {
    let explained = explained(&config.routing);
    let own = config.route_policies();
    // The word for a policy ends the name of the cluster; the default has none, so it comes last.
    let own = own
        .into_iter()
        .map(|(name, policy)| (Some(ending(STEERING_HEADER, &format!("#{name}"))), policy));
    let policies: Vec<_> = own.chain([(None, &config.upstream.route)]).collect();
    let mut routes = Vec::new();
    for mirror in mirrors(&config.routing) {
        let mirrored = mirror.as_ref().map(|cluster| exact(MIRROR_HEADER, cluster));
        for (policy_match, policy) in &policies {
            for kind in [Kind::Idempotent, Kind::FallsBack, Kind::Plain] {
                let steered = match (kind, policy_match) {
                    (Kind::Idempotent, _) => Some(matching_regex(":method", IDEMPOTENT.to_owned())),
                    (Kind::Plain, None) => Some(present(STEERING_HEADER)),
                    _ => None,
                };
                let falls_back = (kind != Kind::Plain).then(|| containing(STEERING_HEADER, "|"));
                let headers: Vec<HeaderMatcher> = falls_back
                    .into_iter()
                    .chain(policy_match.clone())
                    .chain(mirrored.clone())
                    .chain(steered)
                    .collect();
                // What a stream has done can't be done again.
                let variants = with_and_without_limits(matching(headers), have_limits)
                    .filter(|(_, is_limited)| !have_limits || kind != Kind::Idempotent || *is_limited);
                routes.extend(variants.map(|(found, is_limited)| Route {
                    name: "target".to_owned(),
                    r#match: Some(found),
                    action: to_target(policy, kind, mirror.as_ref(), is_limited),
                    request_headers_to_remove: INTERNAL_HEADERS.map(str::to_owned).to_vec(),
                    response_headers_to_add: explained.clone(),
                    // Metrics count by it, so a sandbox must not write it. A baseline may: there it would cost every request.
                    response_headers_to_remove: vec![ROUTE_ERROR_HEADER.to_owned()],
                    ..Default::default()
                }));
            }
        }
    }
    routes
}

/// Which requests a route to a target is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Those that may be done twice, for a target that falls back.
    Idempotent,
    /// Others for a target that falls back.
    FallsBack,
    /// Those for a target that doesn't.
    Plain,
}

/// The clusters that get copies, and then none.
fn mirrors(routing: &ValidRouting) -> Vec<Option<String>> {
    let mirrors = routing.rules.iter().filter_map(|rule| rule.mirror.as_ref());
    let mirrors: BTreeSet<String> = mirrors.map(|mirror| mirror.target.to_string()).collect();
    mirrors.into_iter().map(Some).chain([None]).collect()
}

fn to_target(policy: &RoutePolicy, kind: Kind, mirror: Option<&String>, is_limited: bool) -> Option<Action> {
    let retries = match kind {
        Kind::Idempotent => falling_back(policy, true),
        Kind::FallsBack => falling_back(policy, false),
        Kind::Plain => retry_policy(policy),
    };
    let cluster = ClusterSpecifier::ClusterHeader(STEERING_HEADER.to_owned());
    let mirror = mirror.map(|cluster| RequestMirrorPolicy {
        cluster: cluster.clone(),
        disable_shadow_host_suffix_append: true,
        ..Default::default()
    });
    Some(Action::Route(RouteAction {
        request_mirror_policies: mirror.into_iter().collect(),
        ..action(cluster, policy, retries, is_limited)
    }))
}

impl Baseline<'_> {
    fn routes(&self, found: RouteMatch, have_limits: bool) -> Vec<Route> {
        with_and_without_limits(found, have_limits)
            .map(|(found, is_limited)| Route {
                name: "baseline".to_owned(),
                r#match: Some(found),
                action: self.action(is_limited),
                ..Default::default()
            })
            .collect()
    }

    fn action(&self, is_limited: bool) -> Option<Action> {
        let retries = retry_policy(self.policy);
        Some(Action::Route(action(
            self.cluster.clone(),
            self.policy,
            retries,
            is_limited,
        )))
    }
}

fn action(cluster: ClusterSpecifier, policy: &RoutePolicy, retries: RetryPolicy, is_limited: bool) -> RouteAction {
    let timeout = if is_limited {
        policy.request_timeout
    } else {
        Duration::ZERO
    };
    // Those with a limit also end after five minutes without a byte in either direction, which is Envoy's default; but a
    // target that may think for longer than that may be silent for as long.
    let idle_timeout = (timeout.is_zero() || timeout > IDLE_TIMEOUT).then_some(timeout);
    RouteAction {
        cluster_specifier: Some(cluster),
        timeout: duration(timeout),
        idle_timeout: idle_timeout.and_then(duration),
        retry_policy: Some(retries),
        hash_policy: policy.hash_by.iter().map(hash_policy).collect(),
        ..Default::default()
    }
}

fn hash_policy(key: &HashKey) -> HashPolicy {
    let specifier = match key {
        HashKey::Header(name) => PolicySpecifier::Header(Header {
            header_name: name.as_str().to_owned(),
            ..Default::default()
        }),
        HashKey::Cookie(name) => PolicySpecifier::Cookie(Cookie {
            name: name.clone(),
            ..Default::default()
        }),
        HashKey::SourceAddress => PolicySpecifier::ConnectionProperties(ConnectionProperties { source_ip: true }),
    };
    HashPolicy {
        policy_specifier: Some(specifier),
        ..Default::default()
    }
}

/// Set by the filter where the request asks for it; without a value Envoy adds no header.
fn explained(routing: &ValidRouting) -> Vec<HeaderValueOption> {
    let header = HeaderValueOption {
        header: Some(HeaderValue {
            key: "x-route-decision".to_owned(),
            value: "%FILTER_STATE(wasm.sidetrack.decision:PLAIN)%".to_owned(),
            ..Default::default()
        }),
        append_action: HeaderAppendAction::OverwriteIfExistsOrAdd.into(),
        ..Default::default()
    };
    if routing.debug_header { vec![header] } else { Vec::new() }
}

/// The filter of this name, with its own configuration, is on for this route.
fn switched_on() -> Any {
    any(&FilterConfig {
        config: Some(Any::default()),
        ..Default::default()
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;
    use sidetrack_routing::{decode, validate};

    use super::*;

    /// Request time and idle time, in seconds, of all routes of httpPort whose targets have this `requestTimeout`.
    fn limits(request_timeout: &str) -> BTreeSet<(i64, Option<i64>)> {
        let config = json!({"routing": {"defaultTarget": "d"}, "upstream": {"requestTimeout": request_timeout}});
        let config = decode(&config, validate).unwrap();
        let routes = route_configuration("http", &config, &ToString::to_string, true).virtual_hosts;
        let actions = routes
            .into_iter()
            .flat_map(|host| host.routes)
            .map(|route| route.action);
        actions
            .map(|action| match action {
                Some(Action::Route(action)) => (
                    action.timeout.unwrap().seconds,
                    action.idle_timeout.map(|time| time.seconds),
                ),
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn a_request_may_be_silent_for_five_minutes_or_as_long_as_it_may_take_and_a_stream_for_ever() {
        const STREAM: (i64, Option<i64>) = (0, Some(0));
        for (request_timeout, request) in [
            ("30s", (30, None)),
            ("5m", (300, None)),
            ("10m", (600, Some(600))),
            ("0s", STREAM),
        ] {
            let expected = [STREAM, request].into();
            assert_eq!(limits(request_timeout), expected, "{request_timeout}");
        }
    }
}
