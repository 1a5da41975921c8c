//! How a target is spoken to, with nothing wrong in it and nothing left open.

use std::time::Duration;

use crate::duration;
use crate::names::{HeaderName, Host};
use crate::wire::{LoadBalancer, Protocol, RetryOn};

/// How a target is spoken to. The default is what a configuration without `upstream` means.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidUpstream {
    /// What it speaks.
    pub protocol: Protocol,
    /// How long a connection may take to be established; above 0.
    pub connect_timeout: Duration,
    /// What belongs to the route to it.
    pub route: RoutePolicy,
    /// How an endpoint is chosen.
    pub load_balancer: LoadBalancer,
    /// Connections at one time, above 0: the smaller of the pool's and the circuit breaker's.
    pub pool: ConnectionPool,
    /// How much it gets at once.
    pub circuit_breaker: CircuitBreaker,
    /// When an endpoint that fails is left out; `None` for never.
    pub outlier_detection: OutlierDetection,
    /// How its endpoints are asked whether they are well.
    pub health_check: Option<HealthCheck>,
}

/// What Envoy keeps with routes, not with clusters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoutePolicy {
    /// How long a request may take; zero for any time.
    pub request_timeout: Duration,
    /// How long one try may take until its response begins, above 0; `None` for as long as the request.
    pub per_try_timeout: Option<Duration>,
    /// How often a request is tried again.
    pub attempts: u32,
    /// After what. Sorted, each once.
    pub retry_on: Vec<RetryOn>,
    /// What hashing load balancers choose by; `None` for those that don't hash.
    pub hash_by: Option<HashKey>,
}

/// What an endpoint is chosen by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashKey {
    /// This header's value.
    Header(HeaderName),
    /// The value of this cookie.
    Cookie(String),
    /// The client's address.
    SourceAddress,
}

/// Connections that are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionPool {
    /// At one time; above 0.
    pub max_connections: u32,
    /// How long without requests; above 0.
    pub idle_timeout: Duration,
}

/// How much a target gets at once; all above 0 but the retries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CircuitBreaker {
    /// Connections.
    pub max_connections: u32,
    /// Requests that wait for a connection.
    pub max_pending_requests: u32,
    /// Requests under way.
    pub max_requests: u32,
    /// Retries under way.
    pub max_retries: u32,
}

/// When an endpoint that fails is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutlierDetection {
    /// After so many 5xx in a row; 0 for never.
    pub consecutive_5xx: u32,
    /// How often it is looked; above 0.
    pub interval: Duration,
    /// How long at first; above 0.
    pub base_ejection_time: Duration,
}

/// How endpoints are asked whether they are well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// By what.
    pub probe: Probe,
    /// How often; above 0.
    pub interval: Duration,
    /// How long an answer may take; above 0.
    pub timeout: Duration,
    /// After so many failures it is left out; above 0.
    pub unhealthy_threshold: u32,
    /// After so many successes it is back; above 0.
    pub healthy_threshold: u32,
}

/// What an endpoint is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// `GET` of this path.
    Http(String),
    /// `grpc.health.v1.Health/Check`.
    Grpc,
    /// A connection.
    Tcp,
}

/// TLS to a target. Paths are on Envoy's machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidUpstreamTls {
    /// The name that is asked for and verified.
    pub name: Host,
    /// The file of authorities; `None` for the system's.
    pub ca: Option<String>,
    /// The files of the certificate that is shown, and of its key.
    pub client: Option<(String, String)>,
}

impl ValidUpstream {
    /// The most connections at one time, by all limits.
    pub fn max_connections(&self) -> u32 {
        self.pool.max_connections.min(self.circuit_breaker.max_connections)
    }
}

impl Default for ValidUpstream {
    fn default() -> Self {
        Self {
            protocol: Protocol::Http1,
            connect_timeout: Duration::from_secs(5),
            route: RoutePolicy {
                request_timeout: Duration::from_secs(30),
                per_try_timeout: None,
                attempts: 2,
                retry_on: vec![
                    RetryOn::ConnectFailure,
                    RetryOn::RefusedStream,
                    RetryOn::ResetBeforeRequest,
                ],
                hash_by: None,
            },
            load_balancer: LoadBalancer::RoundRobin,
            pool: ConnectionPool {
                max_connections: 100,
                idle_timeout: Duration::from_secs(90),
            },
            circuit_breaker: CircuitBreaker {
                max_connections: 1024,
                max_pending_requests: 1024,
                max_requests: 1024,
                max_retries: 3,
            },
            outlier_detection: OutlierDetection {
                consecutive_5xx: 5,
                interval: Duration::from_secs(10),
                base_ejection_time: Duration::from_secs(30),
            },
            health_check: None,
        }
    }
}

impl RoutePolicy {
    /// What is different here from `other`, as one word; `None` if nothing is. Equal differences have equal words, and no
    /// word is the end of another with a `|` before it.
    pub fn difference(&self, other: &Self) -> Option<String> {
        let mut parts = Vec::new();
        if self.request_timeout != other.request_timeout {
            parts.push(format!("timeout={}", duration::text(self.request_timeout)));
        }
        if self.per_try_timeout != other.per_try_timeout {
            parts.push(format!(
                "try={}",
                self.per_try_timeout.map_or("any".to_owned(), duration::text)
            ));
        }
        if self.attempts != other.attempts {
            parts.push(format!("retries={}", self.attempts));
        }
        if self.retry_on != other.retry_on {
            parts.push(format!("on={}", self.retry_on_text().replace(',', "+")));
        }
        if self.hash_by != other.hash_by {
            parts.push(match &self.hash_by {
                None => "hash=none".to_owned(),
                Some(HashKey::Header(name)) => format!("hash=header:{}", name.as_str()),
                Some(HashKey::Cookie(name)) => format!("hash=cookie:{name}"),
                Some(HashKey::SourceAddress) => "hash=source".to_owned(),
            });
        }
        (!parts.is_empty()).then(|| parts.join(","))
    }

    /// What a request is tried again after, as Envoy reads it.
    pub fn retry_on_text(&self) -> String {
        let names: Vec<&str> = self.retry_on.iter().map(|on| on.as_str()).collect();
        names.join(",")
    }
}

impl RetryOn {
    /// Envoy's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ConnectFailure => "connect-failure",
            Self::RefusedStream => "refused-stream",
            Self::ResetBeforeRequest => "reset-before-request",
            Self::Reset => "reset",
            Self::GatewayError => "gateway-error",
            Self::ServerError => "5xx",
            Self::Retriable4xx => "retriable-4xx",
            Self::Cancelled => "cancelled",
            Self::DeadlineExceeded => "deadline-exceeded",
            Self::Internal => "internal",
            Self::ResourceExhausted => "resource-exhausted",
            Self::Unavailable => "unavailable",
        }
    }
}
