//! What Envoy answers itself, where no target does.

use envoy_types::pb::envoy::config::accesslog::v3::access_log_filter::FilterSpecifier;
use envoy_types::pb::envoy::config::accesslog::v3::{AccessLogFilter, ResponseFlagFilter};
use envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use envoy_types::pb::envoy::config::core::v3::substitution_format_string::Format;
use envoy_types::pb::envoy::config::core::v3::{
    DataSource, HeaderValue, HeaderValueOption, SubstitutionFormatString, data_source,
};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    LocalReplyConfig, ResponseMapper,
};

use super::log::TARGET;

/// The header that says why no target answered.
pub(super) const ROUTE_ERROR_HEADER: &str = "x-route-error";

/// Why no target answered: Envoy's response flags, our word, and the sentence for people. The first that fits counts. (That
/// it was tried as often as it may, `URX`, is no reason: with what happened each time it is said beside it, and otherwise the
/// target's last answer is the client's.)
pub(super) const REASONS: [(&[&str], &str, &str); 8] = [
    (
        &["UO"],
        "overloaded",
        "the target has as many requests as it may get at once; try again later",
    ),
    (&["NC"], "unknown_target", "there is no such target"),
    (
        &["UH"],
        "no_healthy_endpoint",
        "the target has no endpoint that is well",
    ),
    (&["UT"], "timeout", "the target took too long"),
    (&["SI"], "idle", "neither side sent anything for too long"),
    (
        &["UPE"],
        "protocol_error",
        "the target doesn't speak the protocol it was spoken to in; see `protocol` of the service",
    ),
    (
        &["UF"],
        "connection_failed",
        "no connection to the target could be made",
    ),
    (
        &["UC", "UR", "LR"],
        "connection_broken",
        "the connection to the target broke before it answered",
    ),
];

/// Each reason as a header, and in the body: of gRPC, whose errors are a text, as that; otherwise as JSON.
pub(super) fn local_replies(is_grpc: bool) -> LocalReplyConfig {
    let mappers = REASONS.iter().map(|(flags, reason, sentence)| ResponseMapper {
        filter: Some(AccessLogFilter {
            filter_specifier: Some(FilterSpecifier::ResponseFlagFilter(ResponseFlagFilter {
                flags: flags.iter().map(ToString::to_string).collect(),
            })),
        }),
        headers_to_add: vec![HeaderValueOption {
            header: Some(HeaderValue {
                key: ROUTE_ERROR_HEADER.to_owned(),
                value: (*reason).to_owned(),
                ..Default::default()
            }),
            append_action: HeaderAppendAction::OverwriteIfExistsOrAdd.into(),
            ..Default::default()
        }],
        body_format_override: Some(body(is_grpc, reason, sentence)),
        ..Default::default()
    });
    LocalReplyConfig {
        mappers: mappers.collect(),
        ..Default::default()
    }
}

/// A text format, also for JSON: Envoy's own JSON has its fields in an order that differs between versions.
fn body(is_grpc: bool, reason: &str, sentence: &str) -> SubstitutionFormatString {
    // Without a cluster of that name there is only the name.
    let target = if reason == "unknown_target" {
        "%REQ(x-route-cluster)%"
    } else {
        TARGET
    };
    let (text, content_type) = if is_grpc {
        (format!("{reason}: {sentence} (target {target})"), "text/plain")
    } else {
        let text = format!("{{\"error\":\"{reason}\",\"target\":\"{target}\",\"message\":\"{sentence}\"}}\n");
        (text, "application/json")
    };
    SubstitutionFormatString {
        content_type: content_type.to_owned(),
        format: Some(Format::TextFormatSource(DataSource {
            specifier: Some(data_source::Specifier::InlineString(text)),
            ..Default::default()
        })),
        ..Default::default()
    }
}
