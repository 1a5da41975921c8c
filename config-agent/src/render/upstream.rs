//! How a target is spoken to: protocol, TLS, health checks.

use envoy_types::pb::envoy::config::core::v3::health_check::{
    GrpcHealthCheck, HealthChecker, HttpHealthCheck, TcpHealthCheck,
};
use envoy_types::pb::envoy::config::core::v3::{
    HealthCheck, Http1ProtocolOptions, Http2ProtocolOptions, HttpProtocolOptions, TransportSocket, transport_socket,
};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::common_tls_context::ValidationContextType;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::subject_alt_name_matcher::SanType;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::tls_parameters::TlsProtocol;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, CommonTlsContext, SubjectAltNameMatcher, TlsParameters, UpstreamTlsContext,
};
pub(super) use envoy_types::pb::envoy::extensions::upstreams::http::v3::HttpProtocolOptions as HttpOptions;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::http_protocol_options::explicit_http_config::ProtocolConfig;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::http_protocol_options::{
    AutoHttpConfig, ExplicitHttpConfig, UpstreamProtocolOptions, UseDownstreamHttpConfig,
};
use envoy_types::pb::envoy::r#type::matcher::v3::StringMatcher;
use envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use envoy_types::pb::envoy::r#type::v3::CodecClientType;
use sidetrack_routing::wire::Protocol;
use sidetrack_routing::{Host, Probe, Target, ValidUpstream, ValidUpstreamTls};

use super::proto::{any, duration, number};
use super::tls::{file, in_files};

/// Where Debian, Ubuntu, Alpine and the distroless images, Envoy's own among them, have the authorities they trust.
pub(crate) const SYSTEM_AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// How many streams a connection of HTTP/2 has at one time, how much of each may be on its way to whoever doesn't read yet,
/// and how much of all of them: by Envoy's default two streams whose readers stopped would fill a connection, and all others
/// on it would wait for them.
const STREAMS: u32 = 1024;
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = STREAMS * STREAM_WINDOW;

/// How many frames with nothing in them a target may send in a row.
const EMPTY_FRAMES: u32 = 1024;

/// HTTP/2 where a stream that isn't read holds up no other.
pub(super) fn http2_with_windows() -> Http2ProtocolOptions {
    Http2ProtocolOptions {
        max_concurrent_streams: number(STREAMS),
        initial_stream_window_size: number(STREAM_WINDOW),
        initial_connection_window_size: number(CONNECTION_WINDOW),
        ..Default::default()
    }
}

/// HTTP/1.1 with the trailers that end a body, which Envoy drops by default.
pub(super) fn with_trailers() -> Http1ProtocolOptions {
    Http1ProtocolOptions {
        enable_trailers: true,
        ..Default::default()
    }
}

/// What the target speaks, and how long a connection without requests is kept.
pub(super) fn http_protocol_options(upstream: &ValidUpstream, has_tls: bool) -> HttpOptions {
    let http1 = with_trailers;
    let http2 = || Http2ProtocolOptions {
        // By default two empty frames in a row break a connection with all its streams, and two streams that end may be two.
        max_consecutive_inbound_frames_with_empty_payload: number(EMPTY_FRAMES),
        // WebSocket over HTTP/2 (RFC 8441).
        allow_connect: true,
        ..http2_with_windows()
    };
    let explicit = |protocol| {
        UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig {
            protocol_config: Some(protocol),
        })
    };
    let protocol = match (upstream.protocol, has_tls) {
        (Protocol::Http1, _) => explicit(ProtocolConfig::HttpProtocolOptions(http1())),
        (Protocol::Http2, _) => explicit(ProtocolConfig::Http2ProtocolOptions(http2())),
        (Protocol::Auto, true) => UpstreamProtocolOptions::AutoConfig(AutoHttpConfig {
            http_protocol_options: Some(http1()),
            http2_protocol_options: Some(http2()),
            ..Default::default()
        }),
        (Protocol::Auto, false) => UpstreamProtocolOptions::UseDownstreamProtocolConfig(UseDownstreamHttpConfig {
            http_protocol_options: Some(http1()),
            http2_protocol_options: Some(http2()),
            ..Default::default()
        }),
    };
    HttpOptions {
        common_http_protocol_options: Some(HttpProtocolOptions {
            idle_timeout: duration(upstream.pool.idle_timeout),
            ..Default::default()
        }),
        upstream_protocol_options: Some(protocol),
        ..Default::default()
    }
}

/// TLS that verifies who answers.
pub(super) fn upstream_tls(tls: &ValidUpstreamTls) -> TransportSocket {
    let (sni, san_type, name) = match &tls.name {
        Host::Name(name) => (name.clone(), SanType::Dns, name.clone()),
        Host::Ip(ip) => (String::new(), SanType::IpAddress, ip.to_string()),
    };
    let validation = CertificateValidationContext {
        trusted_ca: Some(file(tls.ca.as_deref().unwrap_or(SYSTEM_AUTHORITIES))),
        match_typed_subject_alt_names: vec![SubjectAltNameMatcher {
            san_type: san_type.into(),
            matcher: Some(StringMatcher {
                match_pattern: Some(MatchPattern::Exact(name)),
                ..Default::default()
            }),
            ..Default::default()
        }],
        ..Default::default()
    };
    let client = tls.client.iter().map(|(cert, key)| in_files(cert, key));
    let context = UpstreamTlsContext {
        sni,
        common_tls_context: Some(CommonTlsContext {
            // Without it, 1.2 and no more.
            tls_params: Some(TlsParameters {
                tls_maximum_protocol_version: TlsProtocol::TlSv13.into(),
                ..Default::default()
            }),
            tls_certificates: client.collect(),
            validation_context_type: Some(ValidationContextType::ValidationContext(validation)),
            ..Default::default()
        }),
        ..Default::default()
    };
    TransportSocket {
        name: "envoy.transport_sockets.tls".to_owned(),
        config_type: Some(transport_socket::ConfigType::TypedConfig(any(&context))),
    }
}

/// What each endpoint is asked.
pub(super) fn health_checks(upstream: &ValidUpstream, target: &Target) -> Vec<HealthCheck> {
    let checks = upstream.health_check.iter().map(|check| {
        let checker = match &check.probe {
            Probe::Http(path) => HealthChecker::HttpHealthCheck(HttpHealthCheck {
                host: host_of(target),
                path: path.clone(),
                codec_client_type: match upstream.protocol {
                    Protocol::Http2 => CodecClientType::Http2,
                    Protocol::Http1 | Protocol::Auto => CodecClientType::Http1,
                }
                .into(),
                ..Default::default()
            }),
            Probe::Grpc => HealthChecker::GrpcHealthCheck(GrpcHealthCheck {
                authority: host_of(target),
                ..Default::default()
            }),
            Probe::Tcp => HealthChecker::TcpHealthCheck(TcpHealthCheck::default()),
        };
        HealthCheck {
            timeout: duration(check.timeout),
            interval: duration(check.interval),
            // Without it, targets without traffic would be asked once a minute.
            no_traffic_interval: duration(check.interval),
            unhealthy_threshold: number(check.unhealthy_threshold),
            healthy_threshold: number(check.healthy_threshold),
            health_checker: Some(checker),
            ..Default::default()
        }
    });
    checks.collect()
}

fn host_of(target: &Target) -> String {
    match target.host() {
        Host::Name(name) => name.clone(),
        Host::Ip(ip) => ip.to_string(),
    }
}
