//! The access log. It is Envoy's: no VM is entered for it.

use envoy_types::pb::envoy::config::accesslog::v3::access_log::ConfigType;
use envoy_types::pb::envoy::config::accesslog::v3::{AccessLog, AccessLogFilter};
use envoy_types::pb::envoy::config::core::v3::substitution_format_string::Format;
use envoy_types::pb::envoy::config::core::v3::{Metadata, SubstitutionFormatString};
use envoy_types::pb::envoy::extensions::access_loggers::stream::v3::StdoutAccessLog;
use envoy_types::pb::envoy::extensions::access_loggers::stream::v3::stdout_access_log::AccessLogFormat;
use envoy_types::pb::google::protobuf::value::Kind;
use envoy_types::pb::google::protobuf::{Any, Struct, Value};
use prost::{Message, Name};
use sidetrack_routing::{Reason, Target, ValidRouting};

use super::envoy::EnvoyVersion;
use super::filter::FILTER;
use super::metrics::counts;

/// The rule that matched, and why none did; see `filter/src/effects.rs`.
pub(super) const RULE: &str = concat!(
    r#"%COALESCE({"operators": ["#,
    r#"{"command": "FILTER_STATE", "param": "wasm.sidetrack.rule:PLAIN"}, "#,
    r#"{"command": "FILTER_STATE", "param": "wasm.sidetrack.path:PLAIN"}]})%"#
);
const REASON: &str = concat!(
    r#"%COALESCE({"operators": ["#,
    r#"{"command": "FILTER_STATE", "param": "wasm.sidetrack.reason:PLAIN"}, "#,
    r#"{"command": "METADATA", "param": "ROUTE:sidetrack:reason"}]})%"#
);

/// What an endpoint of the default target is marked with: of a request for another target it says that this fell back.
pub(super) const ROLE: &str = "%UPSTREAM_METADATA(sidetrack:role)%";

/// What each cluster is marked with: the target it is for. Its name may have words after that, which are ours.
pub(super) const TARGET: &str = "%CLUSTER_METADATA(sidetrack:target)%";

/// The loggers of a listener.
pub(super) fn access_logs(routing: &ValidRouting, envoy: EnvoyVersion) -> Vec<AccessLog> {
    std::iter::once(requests(routing))
        .chain(counts(routing, envoy))
        .collect()
}

/// The mark of the default target's endpoints.
pub(super) fn baseline_metadata() -> Metadata {
    metadata("role", "baseline")
}

/// The mark of a target's clusters.
pub(super) fn target_metadata(target: &Target) -> Metadata {
    metadata("target", &target.to_string())
}

/// The mark of the routes by which requests enter the filter. Those that it lets go on by them, without a word, have a key
/// that no rule has: to say so for each would cost it 6,000 instructions.
pub(super) fn undecided_metadata() -> Metadata {
    metadata("reason", Reason::UnknownKey.as_str())
}

fn metadata(name: &str, value: &str) -> Metadata {
    let fields = [(name.to_owned(), text(value))].into();
    Metadata {
        filter_metadata: [(FILTER.to_owned(), Struct { fields })].into(),
        ..Default::default()
    }
}

/// One line of JSON for each request, to standard output. Without the query, which may hold secrets.
fn requests(routing: &ValidRouting) -> AccessLog {
    let route_key = format!("%REQ({})%", routing.route_key_header.as_str());
    let fields = [
        ("authority", "%REQ(:AUTHORITY)%"),
        ("durationMs", "%DURATION%"),
        ("flags", "%RESPONSE_FLAGS%"),
        ("method", "%REQ(:METHOD)%"),
        ("path", "%PATH(NQ:PATH)%"),
        ("protocol", "%PROTOCOL%"),
        ("reason", REASON),
        ("role", ROLE),
        ("routeKey", &route_key),
        ("rule", RULE),
        ("status", "%RESPONSE_CODE%"),
        ("target", "%UPSTREAM_CLUSTER%"),
        ("time", "%START_TIME%"),
        ("upstream", "%UPSTREAM_HOST%"),
    ];
    // The fields are a map, so each is a message of its own, in our order; see `filter::wasm`.
    let value = fields
        .iter()
        .flat_map(|(name, format)| with_field(name, format).encode_to_vec())
        .collect();
    let config = Any {
        type_url: StdoutAccessLog::type_url(),
        value,
    };
    access_log("requests", None, config)
}

fn with_field(name: &str, format: &str) -> StdoutAccessLog {
    let format = Format::JsonFormat(Struct {
        fields: [(name.to_owned(), text(format))].into(),
    });
    let format = SubstitutionFormatString {
        format: Some(format),
        ..Default::default()
    };
    StdoutAccessLog {
        access_log_format: Some(AccessLogFormat::LogFormat(format)),
    }
}

pub(super) fn access_log(name: &str, filter: Option<AccessLogFilter>, config: Any) -> AccessLog {
    AccessLog {
        name: name.to_owned(),
        filter,
        config_type: Some(ConfigType::TypedConfig(config)),
    }
}

fn text(value: &str) -> Value {
    Value {
        kind: Some(Kind::StringValue(value.to_owned())),
    }
}
