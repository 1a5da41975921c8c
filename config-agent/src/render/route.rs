//! The routes: two for requests with a key, in front of the one for all others.
//!
//! A request with a key takes the route `enter`, which switches the filter on. The filter writes the steering header or
//! the miss header; that makes Envoy pick the route again, now `target` or `baseline`. A request without a key takes
//! `baseline` at once and never enters the VM.

use std::time::Duration;

use envoy_types::pb::envoy::config::route::v3::route::Action;
use envoy_types::pb::envoy::config::route::v3::route_action::ClusterSpecifier;
use envoy_types::pb::envoy::config::route::v3::route_match::PathSpecifier;
use envoy_types::pb::envoy::config::route::v3::{
    FilterConfig, HeaderMatcher, RetryPolicy, Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost,
    header_matcher,
};
use envoy_types::pb::google::protobuf::Any;
use sidetrack_routing::{INTERNAL_HEADERS, MISS_HEADER, STEERING_HEADER, ValidRouting};

use super::filter::FILTER;
use super::proto::{any, duration, number};

const RETRY_ON: &str = "connect-failure,refused-stream,reset-before-request";
const RETRIES: u32 = 2;

/// The route configuration `name`. A `timeout` of zero is none.
pub(super) fn route_configuration(
    name: &str,
    routing: &ValidRouting,
    baseline: &str,
    timeout: Duration,
) -> RouteConfiguration {
    let to_baseline = || action(ClusterSpecifier::Cluster(baseline.to_owned()), timeout);
    let routes = vec![
        Route {
            name: "target".to_owned(),
            r#match: Some(matching(vec![present(STEERING_HEADER)])),
            action: action(ClusterSpecifier::ClusterHeader(STEERING_HEADER.to_owned()), timeout),
            ..Default::default()
        },
        Route {
            name: "enter".to_owned(),
            r#match: Some(matching(vec![
                present(routing.route_key_header.as_str()),
                absent(MISS_HEADER),
            ])),
            action: to_baseline(),
            typed_per_filter_config: [(FILTER.to_owned(), switched_on())].into(),
            ..Default::default()
        },
        Route {
            name: "baseline".to_owned(),
            r#match: Some(matching(Vec::new())),
            action: to_baseline(),
            ..Default::default()
        },
    ];
    let host = VirtualHost {
        name: "all".to_owned(),
        domains: vec!["*".to_owned()],
        routes,
        ..Default::default()
    };
    RouteConfiguration {
        name: name.to_owned(),
        virtual_hosts: vec![host],
        request_headers_to_remove: INTERNAL_HEADERS.map(str::to_owned).to_vec(),
        ..Default::default()
    }
}

fn action(cluster: ClusterSpecifier, timeout: Duration) -> Option<Action> {
    Some(Action::Route(RouteAction {
        cluster_specifier: Some(cluster),
        timeout: duration(timeout),
        retry_policy: Some(RetryPolicy {
            retry_on: RETRY_ON.to_owned(),
            num_retries: number(RETRIES),
            ..Default::default()
        }),
        ..Default::default()
    }))
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

fn present(name: &str) -> HeaderMatcher {
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
