//! The access log, and the count of what became of requests with a key. Both are Envoy's: no VM is entered for them.

use envoy_types::pb::envoy::config::accesslog::v3::access_log::ConfigType;
use envoy_types::pb::envoy::config::accesslog::v3::access_log_filter::FilterSpecifier;
use envoy_types::pb::envoy::config::accesslog::v3::{AccessLog, AccessLogFilter, HeaderFilter};
use envoy_types::pb::envoy::config::core::v3::substitution_format_string::Format;
use envoy_types::pb::envoy::config::core::v3::{Metadata, SubstitutionFormatString};
use envoy_types::pb::envoy::extensions::access_loggers::stats::v3::Config as StatsLog;
use envoy_types::pb::envoy::extensions::access_loggers::stats::v3::config::{Counter, Stat, Tag};
use envoy_types::pb::envoy::extensions::access_loggers::stream::v3::StdoutAccessLog;
use envoy_types::pb::envoy::extensions::access_loggers::stream::v3::stdout_access_log::AccessLogFormat;
use envoy_types::pb::envoy::r#type::v3::Scope;
use envoy_types::pb::google::protobuf::value::Kind;
use envoy_types::pb::google::protobuf::{Any, Struct, Value};
use prost::{Message, Name};
use sidetrack_routing::ValidRouting;

use super::envoy::EnvoyVersion;
use super::filter::FILTER;
use super::matching::present;
use super::proto::{any, number64};

/// What the filter calls the rule that matched, and why none did; see `filter/src/effects.rs`.
const RULE: &str = "%FILTER_STATE(wasm.sidetrack.rule:PLAIN)%";
const REASON: &str = "%FILTER_STATE(wasm.sidetrack.reason:PLAIN)%";

/// What an endpoint of the default target is marked with: of a request for another target it says that this fell back.
const ROLE: &str = "%UPSTREAM_METADATA(sidetrack:role)%";

/// The loggers of a listener.
pub(super) fn access_logs(routing: &ValidRouting, envoy: EnvoyVersion) -> Vec<AccessLog> {
    vec![requests(routing), outcomes(routing, envoy)]
}

/// The mark of the default target's endpoints.
pub(super) fn baseline_metadata() -> Metadata {
    let role = [("role".to_owned(), text("baseline"))];
    Metadata {
        filter_metadata: [(FILTER.to_owned(), Struct { fields: role.into() })].into(),
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
    AccessLog {
        name: "requests".to_owned(),
        config_type: Some(ConfigType::TypedConfig(Any {
            type_url: StdoutAccessLog::type_url(),
            value,
        })),
        ..Default::default()
    }
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

/// `sidetrack_requests_total{rule, role}` of requests with a key: with a rule and `role="baseline"`, those that fell back.
fn outcomes(routing: &ValidRouting, envoy: EnvoyVersion) -> AccessLog {
    let tag = |name: &str, format: &str| Tag {
        name: name.to_owned(),
        value_format: format.to_owned(),
        ..Default::default()
    };
    let stat = Stat {
        name: "sidetrack_requests_total".to_owned(),
        tags: vec![tag("rule", RULE), tag("role", ROLE)],
    };
    let counter = Counter {
        stat: Some(stat),
        value_fixed: number64(1),
        ..Default::default()
    };
    let config = StatsLog {
        counters: vec![counter],
        ..without_prefix(envoy)
    };
    let keyed = HeaderFilter {
        header: Some(present(routing.route_key_header.as_str())),
    };
    AccessLog {
        name: "outcomes".to_owned(),
        filter: Some(AccessLogFilter {
            filter_specifier: Some(FilterSpecifier::HeaderFilter(keyed)),
        }),
        config_type: Some(ConfigType::TypedConfig(any(&config))),
    }
}

/// Statistics in the scope of Wasm's own, which are printed without a prefix.
fn without_prefix(envoy: EnvoyVersion) -> StatsLog {
    let prefix = "wasmcustom".to_owned();
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

fn text(value: &str) -> Value {
    Value {
        kind: Some(Kind::StringValue(value.to_owned())),
    }
}
