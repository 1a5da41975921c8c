//! The routes: those for requests with a key, in front of the one for all others.
//!
//! A request that may carry a key takes a route `enter`, which switches the filter on. The filter writes the steering
//! header or the miss header; that makes Envoy pick the route again, now a `target` or `baseline`. All other requests take
//! `baseline` at once and never enter the VM.

use std::collections::BTreeSet;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use envoy_types::pb::envoy::config::core::v3::{HeaderValue, HeaderValueOption};
use envoy_types::pb::envoy::config::route::v3::retry_policy::{
    RetryHostPredicate, RetryPriority, retry_host_predicate, retry_priority,
};
use envoy_types::pb::envoy::config::route::v3::route::Action;
use envoy_types::pb::envoy::config::route::v3::route_action::{ClusterSpecifier, RequestMirrorPolicy};
use envoy_types::pb::envoy::config::route::v3::route_match::PathSpecifier;
use envoy_types::pb::envoy::config::route::v3::weighted_cluster::ClusterWeight;
use envoy_types::pb::envoy::config::route::v3::{
    FilterConfig, HeaderMatcher, QueryParameterMatcher, RetryPolicy, Route, RouteAction, RouteConfiguration,
    RouteMatch, VirtualHost, WeightedCluster, header_matcher, query_parameter_matcher,
};
use envoy_types::pb::envoy::extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate;
use envoy_types::pb::envoy::extensions::retry::priority::previous_priorities::v3::PreviousPrioritiesConfig;
use envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use envoy_types::pb::envoy::r#type::matcher::v3::{RegexMatcher, StringMatcher};
use envoy_types::pb::google::protobuf::Any;
use sidetrack_routing::{
    EXPLAIN_HEADER, INTERNAL_HEADERS, KeySource, MIRROR_HEADER, MISS_HEADER, STEERING_HEADER, ValidRouting,
};

use super::filter::FILTER;
use super::proto::{any, duration, number};

/// What the target can't have begun to work on.
const RETRY_ON: &str = "connect-failure,refused-stream,reset-before-request";

/// And what may be done twice: a connection that breaks in the middle of it.
const RETRY_IDEMPOTENT_ON: &str = "connect-failure,refused-stream,reset";
const IDEMPOTENT: &str = "GET|HEAD|OPTIONS|TRACE|PUT|DELETE";
const RETRIES: u32 = 2;
const TARGET_RETRIES: u32 = 3;

/// How often Envoy looks for an endpoint that wasn't tried yet.
const HOST_SELECTIONS: i64 = 3;

/// Says in an answer of Envoy's own why there is no other. A target's isn't passed on: metrics count by it.
const ERROR_HEADER: &str = "x-route-error";

/// The clusters of the default targets, and their weights.
pub(super) type Baseline = Vec<(String, u32)>;

/// The route configuration `name`. A `timeout` of zero is none.
pub(super) fn route_configuration(
    name: &str,
    routing: &ValidRouting,
    baseline: &Baseline,
    timeout: Duration,
) -> RouteConfiguration {
    let explained = if routing.debug_header {
        vec![decision_header()]
    } else {
        Vec::new()
    };
    let enter = entries(routing).into_iter().map(|mut entry| {
        entry.headers.push(absent(MISS_HEADER));
        Route {
            name: "enter".to_owned(),
            r#match: Some(entry),
            action: to_baseline(baseline, timeout),
            typed_per_filter_config: [(FILTER.to_owned(), switched_on())].into(),
            ..Default::default()
        }
    });
    let mirrors: BTreeSet<String> = routing
        .rules
        .iter()
        .filter_map(|rule| rule.mirror.as_ref())
        .map(|mirror| mirror.target.to_string())
        .collect();
    let mirrors_or_none = mirrors.iter().map(Some).chain([None]);
    let targets = mirrors_or_none
        .flat_map(|mirror| target_routes(mirror, timeout, &explained))
        .collect::<Vec<_>>();
    let ordinary = Route {
        name: "baseline".to_owned(),
        r#match: Some(matching(Vec::new())),
        action: to_baseline(baseline, timeout),
        response_headers_to_add: explained,
        ..Default::default()
    };
    let host = VirtualHost {
        name: "all".to_owned(),
        domains: vec!["*".to_owned()],
        routes: targets.into_iter().chain(enter).chain([ordinary]).collect(),
        ..Default::default()
    };
    RouteConfiguration {
        name: name.to_owned(),
        virtual_hosts: vec![host],
        request_headers_to_remove: INTERNAL_HEADERS.map(str::to_owned).to_vec(),
        response_headers_to_remove: vec![ERROR_HEADER.to_owned()],
        ..Default::default()
    }
}

/// What a request looks like that may carry a key; of each source, because any of them may be the one.
fn entries(routing: &ValidRouting) -> Vec<RouteMatch> {
    let sources = routing.key_sources.iter().map(|source| match source {
        KeySource::Header(name) => matching(vec![present(name.as_str())]),
        KeySource::Baggage(name) => matching(vec![containing("baggage", name)]),
        KeySource::Tracestate(name) => matching(vec![containing("tracestate", name)]),
        KeySource::Cookie(name) => matching(vec![containing("cookie", name)]),
        KeySource::Query(name) => {
            let present = query_parameter_matcher::QueryParameterMatchSpecifier::PresentMatch(true);
            let parameter = QueryParameterMatcher {
                name: name.clone(),
                query_parameter_match_specifier: Some(present),
            };
            RouteMatch {
                query_parameters: vec![parameter],
                ..matching(Vec::new())
            }
        }
        KeySource::Host(suffix) => {
            let host = format!(r"(?i)[^.:]+{}\.?(:[0-9]+)?", suffix.replace('.', r"\."));
            matching(vec![matching_regex(":authority", host)])
        }
    });
    let asking = routing.debug_header.then(|| matching(vec![present(EXPLAIN_HEADER)]));
    sources.chain(asking).collect()
}

/// The routes to the cluster that the steering header names: for requests that may be done twice, and for others. With a
/// `mirror`, for those of which it gets a copy. (The cluster of copies could be named by a header, too, but that header
/// would have to reach the target.)
fn target_routes(mirror: Option<&String>, timeout: Duration, explained: &[HeaderValueOption]) -> [Route; 2] {
    let mirrored = mirror.map(|cluster| string_match(MIRROR_HEADER, MatchPattern::Exact(cluster.clone())));
    let route = |name: &str, method: Option<HeaderMatcher>, retry_on| Route {
        name: name.to_owned(),
        r#match: Some(matching(
            std::iter::once(present(STEERING_HEADER))
                .chain(mirrored.clone())
                .chain(method)
                .collect(),
        )),
        action: to_target(mirror, retry_on, timeout),
        response_headers_to_add: explained.to_vec(),
        ..Default::default()
    };
    [
        route(
            "target-idempotent",
            Some(matching_regex(":method", IDEMPOTENT.to_owned())),
            RETRY_IDEMPOTENT_ON,
        ),
        route("target", None, RETRY_ON),
    ]
}

fn to_target(mirror: Option<&String>, retry_on: &str, timeout: Duration) -> Option<Action> {
    let mirror = mirror.map(|cluster| RequestMirrorPolicy {
        cluster: cluster.clone(),
        disable_shadow_host_suffix_append: true,
        ..Default::default()
    });
    let mut action = action(
        ClusterSpecifier::ClusterHeader(STEERING_HEADER.to_owned()),
        retry_on,
        timeout,
    );
    action.request_mirror_policies = mirror.into_iter().collect();
    if let Some(retry) = &mut action.retry_policy {
        // The second try goes to another endpoint of the target, the third to the baseline, where the cluster has one to
        // fall back to; a fourth is for a baseline with a dead endpoint.
        let previous = PreviousPrioritiesConfig { update_frequency: 2 };
        retry.num_retries = number(TARGET_RETRIES);
        retry.retry_priority = Some(RetryPriority {
            name: "envoy.retry_priorities.previous_priorities".to_owned(),
            config_type: Some(retry_priority::ConfigType::TypedConfig(any(&previous))),
        });
        let previous = PreviousHostsPredicate {};
        retry.retry_host_predicate = vec![RetryHostPredicate {
            name: "envoy.retry_host_predicates.previous_hosts".to_owned(),
            config_type: Some(retry_host_predicate::ConfigType::TypedConfig(any(&previous))),
        }];
        retry.host_selection_retry_max_attempts = HOST_SELECTIONS;
    }
    Some(Action::Route(action))
}

fn to_baseline(baseline: &Baseline, timeout: Duration) -> Option<Action> {
    let cluster = match baseline.as_slice() {
        [(cluster, _)] => ClusterSpecifier::Cluster(cluster.clone()),
        clusters => {
            let clusters = clusters.iter().map(|(cluster, weight)| ClusterWeight {
                name: cluster.clone(),
                weight: number(*weight),
                ..Default::default()
            });
            ClusterSpecifier::WeightedClusters(WeightedCluster {
                clusters: clusters.collect(),
                ..Default::default()
            })
        }
    };
    Some(Action::Route(action(cluster, RETRY_ON, timeout)))
}

fn action(cluster: ClusterSpecifier, retry_on: &str, timeout: Duration) -> RouteAction {
    RouteAction {
        cluster_specifier: Some(cluster),
        timeout: duration(timeout),
        retry_policy: Some(RetryPolicy {
            retry_on: retry_on.to_owned(),
            num_retries: number(RETRIES),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// Set by the filter where the request asks for it; without a value Envoy adds no header.
fn decision_header() -> HeaderValueOption {
    HeaderValueOption {
        header: Some(HeaderValue {
            key: "x-route-decision".to_owned(),
            value: "%FILTER_STATE(wasm.sidetrack.decision:PLAIN)%".to_owned(),
            ..Default::default()
        }),
        append_action: HeaderAppendAction::OverwriteIfExistsOrAdd.into(),
        ..Default::default()
    }
}

/// The filter of this name, with its own configuration, is on for this route.
fn switched_on() -> Any {
    any(&FilterConfig {
        config: Some(Any::default()),
        ..Default::default()
    })
}

fn matching(headers: Vec<HeaderMatcher>) -> RouteMatch {
    RouteMatch {
        path_specifier: Some(PathSpecifier::Prefix("/".to_owned())),
        headers,
        ..Default::default()
    }
}

pub(super) fn present(name: &str) -> HeaderMatcher {
    let specifier = header_matcher::HeaderMatchSpecifier::PresentMatch(true);
    HeaderMatcher {
        name: name.to_owned(),
        header_match_specifier: Some(specifier),
        ..Default::default()
    }
}

fn absent(name: &str) -> HeaderMatcher {
    HeaderMatcher {
        invert_match: true,
        ..present(name)
    }
}

fn containing(name: &str, part: &str) -> HeaderMatcher {
    string_match(name, MatchPattern::Contains(part.to_owned()))
}

pub(super) fn matching_regex(name: &str, regex: String) -> HeaderMatcher {
    string_match(
        name,
        MatchPattern::SafeRegex(RegexMatcher {
            regex,
            ..Default::default()
        }),
    )
}

pub(super) fn string_match(name: &str, pattern: MatchPattern) -> HeaderMatcher {
    let matcher = StringMatcher {
        match_pattern: Some(pattern),
        ..Default::default()
    };
    let specifier = header_matcher::HeaderMatchSpecifier::StringMatch(matcher);
    HeaderMatcher {
        name: name.to_owned(),
        header_match_specifier: Some(specifier),
        ..Default::default()
    }
}
