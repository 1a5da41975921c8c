//! The metrics of requests, and the port where they are read.
//!
//! Envoy counts by itself, with the stats logger of each listener; no VM is entered for it. What it can't say (seconds,
//! help texts, a label's default), `metrics.lua` adds when somebody asks, which costs requests nothing.

use std::time::Duration;

use envoy_types::pb::envoy::config::accesslog::v3::access_log_filter::FilterSpecifier;
use envoy_types::pb::envoy::config::accesslog::v3::{AccessLog, AccessLogFilter, HeaderFilter, ResponseFlagFilter};
use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType};
use envoy_types::pb::envoy::config::core::v3::{DataSource, data_source};
use envoy_types::pb::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint,
};
use envoy_types::pb::envoy::config::listener::v3::{Filter, FilterChain, Listener, filter};
use envoy_types::pb::envoy::config::metrics::v3::{HistogramBucketSettings, StatsConfig};
use envoy_types::pb::envoy::config::route::v3::route::Action;
use envoy_types::pb::envoy::config::route::v3::route_action::ClusterSpecifier;
use envoy_types::pb::envoy::config::route::v3::route_match::PathSpecifier;
use envoy_types::pb::envoy::config::route::v3::{
    DirectResponseAction, HeaderMatcher, Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost,
};
use envoy_types::pb::envoy::extensions::access_loggers::stats::v3::Config as StatsLog;
use envoy_types::pb::envoy::extensions::access_loggers::stats::v3::config::{Counter, Histogram, Stat, Tag};
use envoy_types::pb::envoy::extensions::filters::http::lua::v3::Lua;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::{
    RouteSpecifier, ServerHeaderTransformation,
};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, HttpFilter, http_filter,
};
use envoy_types::pb::envoy::r#type::matcher::v3::StringMatcher;
use envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use envoy_types::pb::envoy::r#type::v3::Scope;
use sidetrack_routing::{ValidRouting, ValidServer};

use super::envoy::EnvoyVersion;
use super::listener::router;
use super::local_reply::REASONS;
use super::log::{ROLE, RULE, access_log};
use super::matching::{exact, matching_regex, present};
use super::proto::{address, any, duration, flag, loopback, number64};

/// What a request is counted under: what its path matched, or the rule's name; nothing without a rule, and `metrics.lua`
/// makes `baseline` of that. One look is all it takes: every request pays for it, twice.
const PATH: &str = "%FILTER_STATE(wasm.sidetrack.path:PLAIN)%";

/// Microseconds; where the answer has no end, because the client or the target was gone, whole milliseconds of them. The
/// expression alone would cost more than everything else together.
const MICROSECONDS: &str = concat!(
    r#"%COALESCE({"operators": ["#,
    r#"{"command": "COMMON_DURATION", "param": "DS_RX_BEG:DS_TX_END:us"}, "#,
    r#"{"command": "CEL", "param": "request.duration.getSeconds() * 1000000 + request.duration.getMilliseconds() * 1000"}"#,
    r#"]})%"#
);

/// The reason that the client was told, or what Envoy calls it if the answer had begun already.
const ERROR_TYPE: &str = concat!(
    r#"%COALESCE({"operators": ["#,
    r#"{"command": "RESP", "param": "x-route-error"}, {"command": "RESPONSE_FLAGS_LONG"}]})%"#
);

/// The scope of Wasm's own metrics: it is printed without a prefix.
const SCOPE: &str = "wasmcustom";

const REQUESTS: &str = "proxy_requests_total";
const DURATION: &str = "proxy_request_duration_us";
const ROUTING_ERRORS: &str = "proxy_routing_errors_total";
const OUTCOMES: &str = "sidetrack_requests_total";

/// In microseconds: 5 ms to 10 s, as Prometheus's client libraries have them, and two below.
const BUCKETS: [f64; 13] = [
    1e3, 2.5e3, 5e3, 10e3, 25e3, 50e3, 100e3, 250e3, 500e3, 1e6, 2.5e6, 5e6, 10e6,
];

/// The name of the listener of metricsPort, its routes and its statistics.
const METRICS: &str = "metrics";

/// The one path there.
const METRICS_PATH: &str = "/metrics";

/// What it stands for on the admin port: our own metrics, and the few of Envoy's that `metrics.lua` has a text for. Percent-
/// encoded: `^(wasmcustom\.(proxy|sidetrack)_|control_plane\.connected_state$|http\.(http|grpc)\.downstream_(cx|rq)_active$)`.
const ADMIN_PATH: &str = concat!(
    "/stats/prometheus?filter=",
    "%5E(wasmcustom%5C.(proxy%7Csidetrack)_",
    "%7Ccontrol_plane%5C.connected_state%24",
    "%7Chttp%5C.(http%7Cgrpc)%5C.downstream_(cx%7Crq)_active%24)"
);

/// The cluster of Envoy's own admin interface. No target has this name.
const ADMIN: &str = "sidetrack-admin";

/// The loggers that count requests, errors, and what became of requests with a key.
pub(super) fn counts(routing: &ValidRouting, envoy: EnvoyVersion) -> [AccessLog; 3] {
    let requests = StatsLog {
        counters: vec![counter(REQUESTS, &[("path", PATH), ("status_code", "%RESPONSE_CODE%")])],
        histograms: vec![Histogram {
            stat: Some(stat(DURATION, &[("path", PATH)])),
            value_format: MICROSECONDS.to_owned(),
            ..Default::default()
        }],
        ..without_prefix(envoy)
    };
    let errors = StatsLog {
        counters: vec![counter(ROUTING_ERRORS, &[("error_type", ERROR_TYPE)])],
        ..without_prefix(envoy)
    };
    let outcomes = StatsLog {
        counters: vec![counter(OUTCOMES, &[("rule", RULE), ("role", ROLE)])],
        ..without_prefix(envoy)
    };
    let failed = FilterSpecifier::ResponseFlagFilter(ResponseFlagFilter {
        flags: REASONS
            .iter()
            .flat_map(|(flags, ..)| *flags)
            .map(ToString::to_string)
            .collect(),
    });
    let keyed = FilterSpecifier::HeaderFilter(HeaderFilter {
        header: Some(present(routing.route_key_header.as_str())),
    });
    let of = |filter| {
        Some(AccessLogFilter {
            filter_specifier: Some(filter),
        })
    };
    [
        access_log("counts", None, any(&requests)),
        access_log("errors", of(failed), any(&errors)),
        access_log("outcomes", of(keyed), any(&outcomes)),
    ]
}

fn counter(name: &str, tags: &[(&str, &str)]) -> Counter {
    Counter {
        stat: Some(stat(name, tags)),
        value_fixed: number64(1),
        ..Default::default()
    }
}

fn stat(name: &str, tags: &[(&str, &str)]) -> Stat {
    let tags = tags.iter().map(|(name, format)| Tag {
        name: (*name).to_owned(),
        value_format: (*format).to_owned(),
        ..Default::default()
    });
    Stat {
        name: name.to_owned(),
        tags: tags.collect(),
    }
}

/// Statistics that are printed without a prefix.
fn without_prefix(envoy: EnvoyVersion) -> StatsLog {
    let prefix = SCOPE.to_owned();
    if envoy < EnvoyVersion::V1_39 {
        #[expect(deprecated, reason = "there is no other field yet")]
        return StatsLog {
            stat_prefix: prefix,
            ..Default::default()
        };
    }
    StatsLog {
        stats_scope: Some(Scope {
            prefix,
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// Where the buckets of durations end. It can be said at the start only.
pub(super) fn stats_config() -> StatsConfig {
    let durations = StringMatcher {
        match_pattern: Some(MatchPattern::Prefix(format!("{SCOPE}.{DURATION}"))),
        ..Default::default()
    };
    StatsConfig {
        histogram_bucket_settings: vec![HistogramBucketSettings {
            r#match: Some(durations),
            buckets: BUCKETS.to_vec(),
            ..Default::default()
        }],
        ..Default::default()
    }
}

/// The listener of metricsPort. Of the admin interface it reaches one page, which asks for nothing and changes nothing.
pub(super) fn metrics_listener(server: &ValidServer) -> Listener {
    let text = Lua {
        default_source_code: Some(DataSource {
            specifier: Some(data_source::Specifier::InlineString(
                include_str!("metrics.lua").to_owned(),
            )),
            ..Default::default()
        }),
        ..Default::default()
    };
    let text = HttpFilter {
        name: "metrics-text".to_owned(),
        config_type: Some(http_filter::ConfigType::TypedConfig(any(&text))),
        ..Default::default()
    };
    let connection_manager = HttpConnectionManager {
        stat_prefix: METRICS.to_owned(),
        route_specifier: Some(RouteSpecifier::RouteConfig(metrics_routes())),
        http_filters: vec![text, router()],
        generate_request_id: flag(false),
        server_header_transformation: ServerHeaderTransformation::PassThrough.into(),
        ..Default::default()
    };
    let network_filter = Filter {
        name: "envoy.filters.network.http_connection_manager".to_owned(),
        config_type: Some(filter::ConfigType::TypedConfig(any(&connection_manager))),
    };
    Listener {
        name: METRICS.to_owned(),
        address: Some(address(server.bind_address, server.metrics_port)),
        filter_chains: vec![FilterChain {
            filters: vec![network_filter],
            ..Default::default()
        }],
        ..Default::default()
    }
}

/// The header `:path` has the query, too. As it must be equal as a whole, no query reaches the admin interface.
fn metrics_routes() -> RouteConfiguration {
    let whole = exact(":path", METRICS_PATH);
    let read = matching_regex(":method", "GET|HEAD".to_owned());
    let route = |headers: Vec<HeaderMatcher>, action| Route {
        r#match: Some(RouteMatch {
            path_specifier: Some(PathSpecifier::Path(METRICS_PATH.to_owned())),
            headers,
            ..Default::default()
        }),
        action: Some(action),
        ..Default::default()
    };
    let scrape = RouteAction {
        cluster_specifier: Some(ClusterSpecifier::Cluster(ADMIN.to_owned())),
        prefix_rewrite: ADMIN_PATH.to_owned(),
        ..Default::default()
    };
    let not_allowed = DirectResponseAction {
        status: 405,
        ..Default::default()
    };
    let host = VirtualHost {
        name: "all".to_owned(),
        domains: vec!["*".to_owned()],
        routes: vec![
            route(vec![whole.clone(), read], Action::Route(scrape)),
            route(vec![whole], Action::DirectResponse(not_allowed)),
        ],
        ..Default::default()
    };
    RouteConfiguration {
        name: METRICS.to_owned(),
        virtual_hosts: vec![host],
        ..Default::default()
    }
}

/// The cluster that [`metrics_listener`] asks.
pub(super) fn admin_cluster(server: &ValidServer) -> Cluster {
    let endpoint = Endpoint {
        address: Some(address(loopback(), server.admin_port)),
        ..Default::default()
    };
    let endpoint = LbEndpoint {
        host_identifier: Some(lb_endpoint::HostIdentifier::Endpoint(endpoint)),
        ..Default::default()
    };
    Cluster {
        name: ADMIN.to_owned(),
        connect_timeout: duration(Duration::from_secs(1)),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Static.into())),
        load_assignment: Some(ClusterLoadAssignment {
            cluster_name: ADMIN.to_owned(),
            endpoints: vec![LocalityLbEndpoints {
                lb_endpoints: vec![endpoint],
                ..Default::default()
            }],
            ..Default::default()
        }),
        ..Default::default()
    }
}
