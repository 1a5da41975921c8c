//! Spans for an OpenTelemetry collector.

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::core::v3::grpc_service::{EnvoyGrpc, TargetSpecifier};
use envoy_types::pb::envoy::config::core::v3::{GrpcService, TypedExtensionConfig};
use envoy_types::pb::envoy::config::trace::v3::tracing::Http;
use envoy_types::pb::envoy::config::trace::v3::{OpenTelemetryConfig, tracing as trace};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::RequestIdExtension;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::Tracing;
use envoy_types::pb::envoy::extensions::request_id::uuid::v3::UuidRequestIdConfig;
use envoy_types::pb::envoy::extensions::tracers::opentelemetry::samplers::v3::{
    ParentBasedSamplerConfig, TraceIdRatioBasedSamplerConfig,
};
use envoy_types::pb::envoy::r#type::tracing::v3::{CustomTag, custom_tag};
use envoy_types::pb::envoy::r#type::v3::FractionalPercent;
use envoy_types::pb::envoy::r#type::v3::fractional_percent::DenominatorType;
use sidetrack_routing::wire::Protocol;
use sidetrack_routing::{ValidRouting, ValidTracing, ValidUpstream};

use super::cluster::cluster_at;
use super::proto::{any, flag};

/// The collector's cluster.
const COLLECTOR: &str = "sidetrack-otlp";

/// What spans call this proxy (`service.name`).
const SERVICE: &str = "sidetrack";

/// The attribute of a span that has the route key.
const ROUTE_KEY: &str = "sidetrack.route_key";

/// Spans of the requests that are sampled, by the client's decision if it made one.
pub(super) fn tracing(to: &ValidTracing, routing: &ValidRouting) -> Tracing {
    let collector = GrpcService {
        target_specifier: Some(TargetSpecifier::EnvoyGrpc(EnvoyGrpc {
            cluster_name: COLLECTOR.to_owned(),
            ..Default::default()
        })),
        ..Default::default()
    };
    let provider = OpenTelemetryConfig {
        grpc_service: Some(collector),
        service_name: SERVICE.to_owned(),
        sampler: Some(sampler(to)),
        ..Default::default()
    };
    let route_key = custom_tag::Header {
        name: routing.route_key_header.as_str().to_owned(),
        ..Default::default()
    };
    Tracing {
        custom_tags: vec![CustomTag {
            tag: ROUTE_KEY.to_owned(),
            r#type: Some(custom_tag::Type::RequestHeader(route_key)),
        }],
        provider: Some(Http {
            name: "envoy.tracers.opentelemetry".to_owned(),
            config_type: Some(trace::http::ConfigType::TypedConfig(any(&provider))),
        }),
        ..Default::default()
    }
}

/// As the client has decided; where the trace begins here, a share by the trace's id.
fn sampler(to: &ValidTracing) -> TypedExtensionConfig {
    let share = TraceIdRatioBasedSamplerConfig {
        sampling_percentage: Some(FractionalPercent {
            numerator: to.per_million,
            denominator: DenominatorType::Million.into(),
        }),
    };
    let by_parent = ParentBasedSamplerConfig {
        wrapped_sampler: Some(TypedExtensionConfig {
            name: "envoy.tracers.opentelemetry.samplers.trace_id_ratio_based".to_owned(),
            typed_config: Some(any(&share)),
        }),
    };
    TypedExtensionConfig {
        name: "envoy.tracers.opentelemetry.samplers.parent_based".to_owned(),
        typed_config: Some(any(&by_parent)),
    }
}

/// The sampler decides. Otherwise Envoy would do by `x-request-id`, and write what it decided into that.
pub(super) fn sampled_without_request_id() -> RequestIdExtension {
    let by_sampler = UuidRequestIdConfig {
        use_request_id_for_trace_sampling: flag(false),
        ..Default::default()
    };
    RequestIdExtension {
        typed_config: Some(any(&by_sampler)),
    }
}

/// The collector's cluster.
pub(super) fn collector(to: &ValidTracing) -> Cluster {
    let upstream = ValidUpstream {
        protocol: Protocol::Http2,
        ..ValidUpstream::default()
    };
    cluster_at(COLLECTOR.to_owned(), &to.otlp, &upstream)
}
