//! The listeners of httpPort and grpcPort.

use std::time::Duration;

use envoy_types::pb::envoy::config::common::mutation_rules::v3 as rules;
use envoy_types::pb::envoy::config::core::v3::TypedExtensionConfig;
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
use sidetrack_routing::{INTERNAL_HEADERS, ValidConfig};

use super::envoy::EnvoyVersion;
use super::filter::{FilterCode, discovered_filter};
use super::log::access_logs;
use super::proto::{address, any, flag, from_agent};
use super::route::{Baseline, route_configuration};

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

    /// Streams last as long as they last.
    fn timeout(self) -> Duration {
        match self {
            Self::Http => Duration::from_secs(30),
            Self::Grpc => Duration::ZERO,
        }
    }
}

/// The routes of `port`, whose baseline are the clusters `baseline`.
pub(super) fn routes(config: &ValidConfig, port: Port, baseline: &Baseline) -> RouteConfiguration {
    route_configuration(port.name(), &config.routing, baseline, port.timeout())
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
        discovered_filter(&config.routing, code, envoy),
        envoy,
    )
}

/// The listener of `port` with its routes in it, and `filter`.
pub(super) fn static_listener(
    config: &ValidConfig,
    port: Port,
    baseline: &Baseline,
    filter: HttpFilter,
    envoy: EnvoyVersion,
) -> Listener {
    listener_with(
        config,
        port,
        RouteSpecifier::RouteConfig(routes(config, port, baseline)),
        filter,
        envoy,
    )
}

fn listener_with(
    config: &ValidConfig,
    port: Port,
    routes: RouteSpecifier,
    filter: HttpFilter,
    envoy: EnvoyVersion,
) -> Listener {
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
            ..Default::default()
        }],
        ..Default::default()
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
