//! The listeners of httpPort and grpcPort.

use std::time::Duration;

use envoy_types::pb::envoy::config::common::mutation_rules::v3 as rules;
use envoy_types::pb::envoy::config::core::v3::{Http2ProtocolOptions, KeepaliveSettings, TypedExtensionConfig};
use envoy_types::pb::envoy::config::listener::v3::{Filter, FilterChain, Listener, filter};
use envoy_types::pb::envoy::config::route::v3::RouteConfiguration;
use envoy_types::pb::envoy::extensions::filters::http::router::v3::Router;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::{
    CodecType, PathWithEscapedSlashesAction, RouteSpecifier, ServerHeaderTransformation, UpgradeConfig,
};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, HttpFilter, Rds, http_filter,
};
use envoy_types::pb::envoy::extensions::http::early_header_mutation::header_mutation::v3::HeaderMutation;
use sidetrack_routing::wire::Mode;
use sidetrack_routing::{INTERNAL_HEADERS, ValidConfig};

use super::cluster::ClusterName;
use super::envoy::EnvoyVersion;
use super::filter::{FilterCode, discovered_filter};
use super::local_reply::local_replies;
use super::log::access_logs;
use super::proto::{address, any, duration, flag, from_agent, number};
use super::route::route_configuration;
use super::tls::{Certificate, downstream_tls};
use super::tracing::{sampled_without_request_id, tracing};
use super::upstream::{http2_with_windows, with_trailers};

/// How often a client of HTTP/2 is asked whether it is there, and how long its answer may take.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(60);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// How many bytes a client of HTTP/2 may have on their way to targets that don't read yet.
const CONNECTION_WINDOW: u32 = 32 << 20;

/// One of the two ports for requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Port {
    Http,
    Grpc,
}

impl Port {
    pub(super) const ALL: [Self; 2] = [Self::Http, Self::Grpc];

    /// The name of the listener, its routes and its statistics.
    fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Grpc => "grpc",
        }
    }

    fn number(self, config: &ValidConfig) -> u16 {
        match self {
            Self::Http => config.server.http_port,
            Self::Grpc => config.server.grpc_port,
        }
    }

    fn codec(self) -> CodecType {
        match self {
            Self::Http => CodecType::Auto,
            Self::Grpc => CodecType::Http2,
        }
    }

    /// Whether requests have a time limit, streams aside. On grpcPort all are streams.
    fn has_limits(self) -> bool {
        self == Self::Http
    }

    /// What clients can agree on in TLS (ALPN), the best first.
    fn alpn(self) -> &'static [&'static str] {
        match self {
            Self::Http => &["h2", "http/1.1"],
            Self::Grpc => &["h2"],
        }
    }
}

/// The routes of `port`, with the baselines' clusters named so.
pub(super) fn routes(config: &ValidConfig, port: Port, cluster_name: &ClusterName<'_>) -> RouteConfiguration {
    route_configuration(port.name(), config, cluster_name, port.has_limits())
}

/// The listener of `port`, which asks the agent for its routes and its filter's table.
pub(super) fn listener(config: &ValidConfig, port: Port, code: &FilterCode, envoy: EnvoyVersion) -> Listener {
    let rds = Rds {
        config_source: Some(from_agent()),
        route_config_name: port.name().to_owned(),
    };
    listener_with(
        config,
        port,
        RouteSpecifier::Rds(rds),
        discovered_filter(code, envoy),
        Certificate::FromAgent,
        envoy,
    )
}

/// The listener of `port` with its routes in it, and `filter`. Envoy isn't to look whether their clusters are there: those
/// of mirrors may come from the agent.
pub(super) fn static_listener(
    config: &ValidConfig,
    port: Port,
    cluster_name: &ClusterName<'_>,
    filter: HttpFilter,
    envoy: EnvoyVersion,
) -> Listener {
    let routes = RouteConfiguration {
        validate_clusters: flag(false),
        ..routes(config, port, cluster_name)
    };
    listener_with(
        config,
        port,
        RouteSpecifier::RouteConfig(routes),
        filter,
        Certificate::FromFiles,
        envoy,
    )
}

fn listener_with(
    config: &ValidConfig,
    port: Port,
    routes: RouteSpecifier,
    filter: HttpFilter,
    certificate: Certificate,
    envoy: EnvoyVersion,
) -> Listener {
    let tls = config.server.tls.as_ref();
    let connection_manager = HttpConnectionManager {
        stat_prefix: port.name().to_owned(),
        codec_type: port.codec().into(),
        route_specifier: Some(routes),
        http_filters: vec![filter, router()],
        access_log: access_logs(&config.routing, envoy),
        early_header_mutation_extensions: vec![strip_internal_headers()],
        normalize_path: flag(true),
        merge_slashes: true,
        path_with_escaped_slashes_action: PathWithEscapedSlashesAction::UnescapeAndRedirect.into(),
        upgrade_configs: vec![UpgradeConfig {
            upgrade_type: "websocket".to_owned(),
            ..Default::default()
        }],
        // Clients that are gone without a word make room for others.
        http2_protocol_options: Some(http2_with_keepalive()),
        http_protocol_options: (port == Port::Http).then(with_trailers),
        proxy_100_continue: true,
        local_reply_config: Some(local_replies(port == Port::Grpc)),
        tracing: config.tracing.as_ref().map(|to| tracing(to, &config.routing)),
        request_id_extension: config.tracing.is_some().then(sampled_without_request_id),
        use_remote_address: flag(config.server.mode == Some(Mode::Gateway)),
        generate_request_id: flag(false),
        server_header_transformation: ServerHeaderTransformation::PassThrough.into(),
        ..Default::default()
    };
    let network_filter = Filter {
        name: "envoy.filters.network.http_connection_manager".to_owned(),
        config_type: Some(filter::ConfigType::TypedConfig(any(&connection_manager))),
    };
    Listener {
        name: port.name().to_owned(),
        address: Some(address(config.server.bind_address, port.number(config))),
        filter_chains: vec![FilterChain {
            filters: vec![network_filter],
            transport_socket: tls.map(|tls| downstream_tls(tls, port.alpn(), certificate)),
            ..Default::default()
        }],
        ..Default::default()
    }
}

fn http2_with_keepalive() -> Http2ProtocolOptions {
    Http2ProtocolOptions {
        connection_keepalive: Some(KeepaliveSettings {
            interval: duration(KEEPALIVE_INTERVAL),
            timeout: duration(KEEPALIVE_TIMEOUT),
            ..Default::default()
        }),
        // Clients aren't trusted with as much memory as targets.
        initial_connection_window_size: number(CONNECTION_WINDOW),
        ..http2_with_windows()
    }
}

pub(super) fn router() -> HttpFilter {
    HttpFilter {
        name: "envoy.filters.http.router".to_owned(),
        config_type: Some(http_filter::ConfigType::TypedConfig(any(&Router {
            suppress_envoy_headers: true,
            ..Default::default()
        }))),
        ..Default::default()
    }
}

/// Before any route is looked at.
fn strip_internal_headers() -> TypedExtensionConfig {
    let removals = INTERNAL_HEADERS.map(|name| rules::HeaderMutation {
        action: Some(rules::header_mutation::Action::Remove(name.to_owned())),
    });
    let mutation = HeaderMutation {
        mutations: removals.to_vec(),
    };
    TypedExtensionConfig {
        name: "strip-internal-headers".to_owned(),
        typed_config: Some(any(&mutation)),
    }
}
