//! How targets are spoken to, as people write it. Durations are texts such as `500ms`, `30s`, `5m`, `1h`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A service has all fields of `upstream` and some of its own, and both refuse unknown ones, which serde's `flatten` can't.
macro_rules! with_upstream_fields {
    ($(#[$doc:meta])* pub struct $name:ident { $($own:tt)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        #[serde(rename_all = "camelCase", deny_unknown_fields, default)]
        pub struct $name {
            $($own)*
            /// What the target speaks.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub protocol: Option<Protocol>,
            /// How long a connection may take to be established.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub connect_timeout: Option<String>,
            /// How long a request may take, from its end to the end of its response; `0s` for any time. Streams (gRPC,
            /// upgrades, event streams) and requests by grpcPort may always take any time.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub request_timeout: Option<String>,
            /// How long one try may take until its response begins; by default as long as the request.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub per_try_timeout: Option<String>,
            /// How an endpoint is chosen.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub load_balancer: Option<LoadBalancer>,
            /// What `ringHash` and `maglev` choose an endpoint by.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub hash_by: Option<HashBy>,
            /// The connections that are kept.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub connection_pool: Option<ConnectionPool>,
            /// How much the target gets at once. What is more is refused.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub circuit_breaker: Option<CircuitBreaker>,
            /// When an endpoint that fails is left out for a time.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub outlier_detection: Option<OutlierDetection>,
            /// Asks each endpoint whether it is well; by default none is asked.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub health_check: Option<HealthCheck>,
            /// When a request is tried again.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub retries: Option<Retries>,
        }
    };
}

with_upstream_fields! {
    /// The defaults for every target.
    pub struct Upstream {}
}

with_upstream_fields! {
    /// A target: where it lives, and what differs from `upstream`.
    pub struct Service {
        /// `HOST:PORT` each; none given: the target's name is a DNS name.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub endpoints: Option<Vec<String>>,
        /// TLS to the target.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub tls: Option<UpstreamTls>,
    }
}

impl Service {
    /// What differs from `upstream`.
    pub fn upstream(&self) -> Upstream {
        Upstream {
            protocol: self.protocol,
            connect_timeout: self.connect_timeout.clone(),
            request_timeout: self.request_timeout.clone(),
            per_try_timeout: self.per_try_timeout.clone(),
            load_balancer: self.load_balancer,
            hash_by: self.hash_by.clone(),
            connection_pool: self.connection_pool.clone(),
            circuit_breaker: self.circuit_breaker.clone(),
            outlier_detection: self.outlier_detection.clone(),
            health_check: self.health_check.clone(),
            retries: self.retries.clone(),
        }
    }
}

/// Every target by its name.
pub type Services = BTreeMap<String, Service>;

/// What a target speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2; without TLS with prior knowledge. gRPC needs it.
    Http2,
    /// As the client speaks; with TLS, what both agree on (ALPN).
    Auto,
}

/// How an endpoint is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum LoadBalancer {
    /// In turn.
    RoundRobin,
    /// Of two by chance, the one with fewer requests.
    LeastRequest,
    /// By chance.
    Random,
    /// By a hash of `hashBy`: when an endpoint leaves, only its requests move.
    RingHash,
    /// The same, faster and more even, with some more that move.
    Maglev,
}

/// What an endpoint is chosen by. Exactly one field.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct HashBy {
    /// The value of this header; a request without it is spread by chance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    /// The value of this cookie.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cookie: Option<String>,
    /// The client's address. Only `true`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_address: Option<bool>,
}

/// The connections that are kept.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ConnectionPool {
    /// Connections to the target at one time. Requests beyond wait for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<u32>,
    /// A connection without requests is closed after this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<String>,
}

/// How much a target gets at once, from each Envoy.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct CircuitBreaker {
    /// Connections; the smaller of this and `connectionPool.maxConnections` counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<u32>,
    /// Requests that wait for a connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_pending_requests: Option<u32>,
    /// Requests under way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_requests: Option<u32>,
    /// Retries under way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_retries: Option<u32>,
}

/// When an endpoint that fails is left out.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct OutlierDetection {
    /// After so many responses of 500 to 599 in a row; 0 for never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consecutive5xx: Option<u32>,
    /// How often it is looked whether an endpoint comes back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<String>,
    /// How long it is left out: this time the number of times it was already.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base_ejection_time: Option<String>,
}

/// How endpoints are asked whether they are well. Exactly one of `path`, `grpc` and `tcp`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct HealthCheck {
    /// `GET` of this path must be answered 200.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// `grpc.health.v1.Health` must say SERVING. Only `true`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grpc: Option<bool>,
    /// It must accept a connection. Only `true`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp: Option<bool>,
    /// How often.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<String>,
    /// How long an answer may take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,
    /// After so many failures in a row it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unhealthy_threshold: Option<u32>,
    /// After so many successes in a row it is back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthy_threshold: Option<u32>,
}

/// When a request is tried again.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Retries {
    /// How often, the first try aside; a fallback to the baseline aside, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
    /// After what: Envoy's names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on: Option<Vec<RetryOn>>,
}

/// What a request is tried again after, by Envoy's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum RetryOn {
    /// No connection was made.
    ConnectFailure,
    /// The target refused the stream before it looked at it.
    RefusedStream,
    /// The connection broke before the request was sent.
    ResetBeforeRequest,
    /// The connection broke, or a try took too long.
    Reset,
    /// 502, 503, 504.
    GatewayError,
    /// Any 5xx, and what `reset` says.
    #[serde(rename = "5xx")]
    ServerError,
    /// 409.
    #[serde(rename = "retriable-4xx")]
    Retriable4xx,
    /// gRPC status 1.
    Cancelled,
    /// gRPC status 4.
    DeadlineExceeded,
    /// gRPC status 13.
    Internal,
    /// gRPC status 8.
    ResourceExhausted,
    /// gRPC status 14.
    Unavailable,
}

/// TLS to a target. Paths are on Envoy's machine, in PEM.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct UpstreamTls {
    /// The name that is asked for and that the target's certificate must be for; by default the target's host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sni: Option<String>,
    /// The authorities that may have signed it; by default those the system trusts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// The certificate that is shown to the target.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_cert: Option<String>,
    /// Its key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_key: Option<String>,
}
