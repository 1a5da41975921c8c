//! `upstream` and `services`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::time::Duration;

use super::Check;
use crate::duration;
use crate::names::{HeaderName, Host, PathPrefix, Target};
use crate::problem::Path;
use crate::upstream::{HashKey, HealthCheck, Probe, ValidUpstream, ValidUpstreamTls};
use crate::valid::ValidService;
use crate::wire::{self, LoadBalancer, Protocol, Services};

/// Few enough that a failing target isn't buried under tries.
const MAX_RETRY_ATTEMPTS: u32 = 10;

impl Check {
    pub(super) fn services(
        &mut self,
        services: &Services,
        defaults: &ValidUpstream,
        path: &Path,
    ) -> BTreeMap<Target, ValidService> {
        let mut valid = BTreeMap::new();
        for (name, service) in services {
            let path = path.key(name);
            let target = self.ok(path.clone(), Target::parse(name));
            let endpoints = match &service.endpoints {
                Some(endpoints) => self.endpoints(endpoints, &path.key("endpoints")),
                None => Vec::new(),
            };
            let upstream = self.upstream(&service.upstream(), defaults, &path);
            let Some(target) = target else { continue };
            let tls = service.tls.as_ref();
            let tls = tls.and_then(|tls| self.upstream_tls(tls, &target, &path.key("tls")));
            let asks_grpc = upstream
                .health_check
                .as_ref()
                .is_some_and(|check| check.probe == Probe::Grpc);
            if asks_grpc && upstream.protocol == Protocol::Http1 {
                let message =
                    "asks by gRPC, which the protocol http1 can't carry: set `protocol: http2`, or ask a path";
                self.problem(path.key("healthCheck"), message);
            }
            let port = target.port();
            let service = ValidService {
                endpoints,
                upstream,
                tls,
            };
            if valid.insert(target, service).is_some() {
                let message = format!("is given twice: without a port a service has port 80, here it is {port}");
                self.problem(path, message);
            }
        }
        valid
    }

    fn endpoints(&mut self, endpoints: &[String], path: &Path) -> Vec<Target> {
        if endpoints.is_empty() {
            self.problem(
                path.clone(),
                "is empty: list HOST:PORT, or leave `endpoints` out to reach the service by DNS",
            );
        }
        let mut seen = BTreeSet::new();
        let mut valid = Vec::new();
        for (index, endpoint) in endpoints.iter().enumerate() {
            let path = path.index(index);
            let Some(endpoint) = self.ok(path.clone(), Target::parse(endpoint)) else {
                continue;
            };
            if seen.insert(endpoint.clone()) {
                valid.push(endpoint);
            } else {
                self.problem(path, format!("{endpoint} is listed twice"));
            }
        }
        valid
    }

    /// What is given in `wire`, and for the rest what `defaults` has.
    pub(super) fn upstream(&mut self, wire: &wire::Upstream, defaults: &ValidUpstream, path: &Path) -> ValidUpstream {
        let mut valid = defaults.clone();
        set(&mut valid.protocol, wire.protocol);
        self.set_time(
            &mut valid.connect_timeout,
            &wire.connect_timeout,
            path.key("connectTimeout"),
        );
        if let Some(text) = &wire.request_timeout {
            set(
                &mut valid.route.request_timeout,
                self.ok(path.key("requestTimeout"), duration::parse(text)),
            );
        }
        if let Some(text) = &wire.per_try_timeout {
            valid.route.per_try_timeout = self.ok(path.key("perTryTimeout"), duration::parse_positive(text));
        }
        self.compare_timeouts(&valid, wire, path);
        if let Some(pool) = &wire.connection_pool {
            let path = path.key("connectionPool");
            self.set_count(
                &mut valid.pool.max_connections,
                pool.max_connections,
                path.key("maxConnections"),
            );
            self.set_time(
                &mut valid.pool.idle_timeout,
                &pool.idle_timeout,
                path.key("idleTimeout"),
            );
        }
        if let Some(wire) = &wire.circuit_breaker {
            let (path, breaker) = (path.key("circuitBreaker"), &mut valid.circuit_breaker);
            self.set_count(
                &mut breaker.max_connections,
                wire.max_connections,
                path.key("maxConnections"),
            );
            let pending = path.key("maxPendingRequests");
            self.set_count(&mut breaker.max_pending_requests, wire.max_pending_requests, pending);
            self.set_count(&mut breaker.max_requests, wire.max_requests, path.key("maxRequests"));
            set(&mut breaker.max_retries, wire.max_retries);
        }
        if let Some(wire) = &wire.outlier_detection {
            let (path, outliers) = (path.key("outlierDetection"), &mut valid.outlier_detection);
            set(&mut outliers.consecutive_5xx, wire.consecutive5xx);
            self.set_time(&mut outliers.interval, &wire.interval, path.key("interval"));
            self.set_time(
                &mut outliers.base_ejection_time,
                &wire.base_ejection_time,
                path.key("baseEjectionTime"),
            );
        }
        if let Some(wire) = &wire.health_check {
            valid.health_check = self.health_check(wire, &path.key("healthCheck"));
        }
        if let Some(wire) = &wire.retries {
            let path = path.key("retries");
            if wire.attempts.is_some_and(|attempts| attempts > MAX_RETRY_ATTEMPTS) {
                let message =
                    format!("must be at most {MAX_RETRY_ATTEMPTS}: each one is more work for a target in trouble");
                self.problem(path.key("attempts"), message);
            }
            set(&mut valid.route.attempts, wire.attempts);
            if let Some(on) = &wire.on {
                let on: BTreeSet<_> = on.iter().copied().collect();
                valid.route.retry_on = on.into_iter().collect();
                if valid.route.retry_on.is_empty() {
                    self.problem(path.key("on"), "is empty: for no retries set `attempts: 0`");
                }
            }
        }
        self.balance(&mut valid, wire, path);
        valid
    }

    /// A value that is inherited is no problem of who inherits it.
    fn compare_timeouts(&mut self, valid: &ValidUpstream, wire: &wire::Upstream, path: &Path) {
        let (whole, per_try) = (valid.route.request_timeout, valid.route.per_try_timeout);
        if whole.is_zero() || per_try.is_none_or(|per_try| per_try <= whole) {
            return;
        }
        if wire.per_try_timeout.is_some() {
            let message = format!(
                "is longer than requestTimeout, which is {}: make it shorter, or leave it out",
                duration::text(whole)
            );
            self.problem(path.key("perTryTimeout"), message);
        } else if wire.request_timeout.is_some() {
            let message =
                "is shorter than perTryTimeout of `upstream`: make it longer, or give a perTryTimeout here, too";
            self.problem(path.key("requestTimeout"), message);
        }
    }

    fn balance(&mut self, valid: &mut ValidUpstream, wire: &wire::Upstream, path: &Path) {
        set(&mut valid.load_balancer, wire.load_balancer);
        let hash_by = wire.hash_by.as_ref();
        let hash_by = hash_by.and_then(|hash_by| self.hash_key(hash_by, &path.key("hashBy")));
        let hashes = matches!(valid.load_balancer, LoadBalancer::RingHash | LoadBalancer::Maglev);
        if wire.hash_by.is_some() && !hashes {
            let message = "is for load balancers that hash: set `loadBalancer: ringHash` or `maglev`, or leave it out";
            self.problem(path.key("hashBy"), message);
        }
        let inherited = valid.route.hash_by.take();
        valid.route.hash_by = hashes.then(|| hash_by.or(inherited).unwrap_or(HashKey::SourceAddress));
    }

    fn hash_key(&mut self, wire: &wire::HashBy, path: &Path) -> Option<HashKey> {
        match (&wire.header, &wire.cookie, wire.source_address) {
            (Some(name), None, None) => self
                .ok(path.key("header"), HeaderName::parse(name))
                .map(HashKey::Header),
            (None, Some(name), None) => self.member_name(name, path.key("cookie")).map(HashKey::Cookie),
            (None, None, Some(true)) => Some(HashKey::SourceAddress),
            _ => {
                let message = "must have exactly one of header: NAME, cookie: NAME, sourceAddress: true";
                self.problem(path.clone(), message);
                None
            }
        }
    }

    fn health_check(&mut self, wire: &wire::HealthCheck, path: &Path) -> Option<HealthCheck> {
        let probe = match (&wire.path, wire.grpc, wire.tcp) {
            (Some(probe), None, None) => self
                .ok(path.key("path"), PathPrefix::parse(probe))
                .map(|probe| Probe::Http(probe.as_str().to_owned())),
            (None, Some(true), None) => Some(Probe::Grpc),
            (None, None, Some(true)) => Some(Probe::Tcp),
            _ => {
                self.problem(
                    path.clone(),
                    "must have exactly one of path: PATH, grpc: true, tcp: true",
                );
                None
            }
        };
        let (mut interval, mut timeout) = (Duration::from_secs(5), Duration::from_secs(1));
        let (mut unhealthy_threshold, mut healthy_threshold) = (3, 1);
        self.set_time(&mut interval, &wire.interval, path.key("interval"));
        self.set_time(&mut timeout, &wire.timeout, path.key("timeout"));
        self.set_count(
            &mut unhealthy_threshold,
            wire.unhealthy_threshold,
            path.key("unhealthyThreshold"),
        );
        self.set_count(
            &mut healthy_threshold,
            wire.healthy_threshold,
            path.key("healthyThreshold"),
        );
        Some(HealthCheck {
            probe: probe?,
            interval,
            timeout,
            unhealthy_threshold,
            healthy_threshold,
        })
    }

    fn upstream_tls(&mut self, wire: &wire::UpstreamTls, target: &Target, path: &Path) -> Option<ValidUpstreamTls> {
        let name = match &wire.sni {
            None => Some(target.host().clone()),
            Some(name) => self.ok(path.key("sni"), Host::parse(name).map_err(|_| NoHost(name.clone()))),
        };
        for (file, field) in [
            (&wire.ca, "ca"),
            (&wire.client_cert, "clientCert"),
            (&wire.client_key, "clientKey"),
        ] {
            self.file(file.as_deref(), path.key(field));
        }
        let client = match (&wire.client_cert, &wire.client_key) {
            (Some(cert), Some(key)) => Some((cert.clone(), key.clone())),
            (None, None) => None,
            (Some(_), None) => {
                self.problem(
                    path.clone(),
                    "`clientKey` is missing: a certificate is no use without its key",
                );
                None
            }
            (None, Some(_)) => {
                self.problem(
                    path.clone(),
                    "`clientCert` is missing: a key is no use without its certificate",
                );
                None
            }
        };
        Some(ValidUpstreamTls {
            name: name?,
            ca: wire.ca.clone(),
            client,
        })
    }

    /// Files are Envoy's to open, perhaps on another machine, so a relative path would mean something else there.
    pub(super) fn file(&mut self, file: Option<&str>, path: Path) {
        if file.is_some_and(|file| !file.starts_with('/') || file.ends_with('/')) {
            self.problem(path, "must be the whole path of a file, beginning with a slash");
        }
    }

    pub(super) fn set_time(&mut self, place: &mut Duration, text: &Option<String>, path: Path) {
        if let Some(text) = text {
            set(place, self.ok(path, duration::parse_positive(text)));
        }
    }

    fn set_count(&mut self, place: &mut u32, count: Option<u32>, path: Path) {
        if count == Some(0) {
            self.problem(path, "is 0, must be at least 1");
        }
        set(place, count);
    }
}

fn set<T>(place: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *place = value;
    }
}

struct NoHost(String);

impl Display for NoHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} is no host name, must be one such as shop.example", self.0)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};

    use crate::decode::decode;
    use crate::names::Target;
    use crate::upstream::{HashKey, ValidUpstream};
    use crate::valid::ValidConfig;
    use crate::validate::validate;
    use crate::wire::{LoadBalancer, Protocol};

    fn config(upstream: Value, services: Value) -> Value {
        json!({"routing": {"defaultTarget": "d"}, "upstream": upstream, "services": services})
    }

    fn valid(upstream: Value, services: Value) -> ValidConfig {
        decode(&config(upstream, services), validate).unwrap()
    }

    #[track_caller]
    fn check(config: &Value, expected: &[&str]) {
        let problems: Vec<String> = match decode(config, validate) {
            Ok(_) => Vec::new(),
            Err(problems) => problems.iter().map(ToString::to_string).collect(),
        };
        assert_eq!(problems, expected);
    }

    #[test]
    fn what_the_documents_give_as_defaults_are_the_defaults() {
        let written = json!({
            "protocol": "http1", "connectTimeout": "5s", "requestTimeout": "30s", "loadBalancer": "roundRobin",
            "connectionPool": {"maxConnections": 100, "idleTimeout": "90s"},
            "circuitBreaker": {"maxConnections": 1024, "maxPendingRequests": 1024, "maxRequests": 1024, "maxRetries": 3},
            "outlierDetection": {"consecutive5xx": 5, "interval": "10s", "baseEjectionTime": "30s"},
            "retries": {"attempts": 2, "on": ["connect-failure", "refused-stream", "reset-before-request"]},
        });
        assert_eq!(valid(written, json!({})).upstream, ValidUpstream::default());
        assert_eq!(valid(json!({}), json!({})).upstream, ValidUpstream::default());
    }

    #[test]
    fn a_service_has_what_it_is_given_and_the_defaults_for_the_rest() {
        let upstream = json!({"protocol": "http2", "circuitBreaker": {"maxRequests": 7}, "loadBalancer": "maglev",
                              "hashBy": {"header": "X-User"}});
        let services = json!({
            "a": {"circuitBreaker": {"maxRetries": 9}, "requestTimeout": "0s"},
            "b": {"loadBalancer": "random", "connectTimeout": "250ms"},
            "c": {"loadBalancer": "ringHash"},
        });
        let config = valid(upstream, services);
        let of = |name: &str| config.upstream_of(&Target::parse(name).unwrap());
        assert_eq!(of("elsewhere"), &config.upstream);
        assert_eq!(
            (of("a").protocol, of("a").load_balancer),
            (Protocol::Http2, LoadBalancer::Maglev)
        );
        assert_eq!(
            (
                of("a").circuit_breaker.max_requests,
                of("a").circuit_breaker.max_retries
            ),
            (7, 9)
        );
        assert_eq!(
            (of("b").connect_timeout, &of("b").route.hash_by),
            (Duration::from_millis(250), &None)
        );
        let Some(HashKey::Header(name)) = &of("c").route.hash_by else {
            panic!("{:?}", of("c"));
        };
        assert_eq!(name.as_str(), "x-user");
        let words: Vec<_> = config.routing.route_policies.values().collect();
        assert_eq!(words, ["timeout=0s", "hash=none"]);
    }

    #[test]
    fn every_problem_is_reported_with_its_path() {
        check(
            &config(
                json!({"connectTimeout": "0s", "requestTimeout": "soon", "perTryTimeout": "1m", "hashBy": {"header": "a"},
                       "circuitBreaker": {"maxRequests": 0, "maxRetries": 0}, "retries": {"attempts": 11, "on": []},
                       "outlierDetection": {"interval": "0s", "consecutive5xx": 0}}),
                json!({
                    "a": {"healthCheck": {"grpc": true}, "hashBy": {"header": "a", "cookie": "b"}, "loadBalancer": "maglev"},
                    "b": {"healthCheck": {"path": "no", "unhealthyThreshold": 0}, "tls": {"ca": "relative.pem"}},
                    "c": {"healthCheck": {}, "tls": {"clientCert": "/c.pem", "sni": "a b"}},
                    "d": {"tls": {"clientKey": "/k.pem"}, "perTryTimeout": "0s"},
                }),
            ),
            &[
                "upstream.connectTimeout: is \"0s\", must be more than 0",
                "upstream.requestTimeout: \"soon\" is no duration, must be a whole number and a unit, as in 500ms, 30s, 5m, 1h",
                "upstream.perTryTimeout: is longer than requestTimeout, which is 30s: make it shorter, or leave it out",
                "upstream.circuitBreaker.maxRequests: is 0, must be at least 1",
                "upstream.outlierDetection.interval: is \"0s\", must be more than 0",
                "upstream.retries.attempts: must be at most 10: each one is more work for a target in trouble",
                "upstream.retries.on: is empty: for no retries set `attempts: 0`",
                "upstream.hashBy: is for load balancers that hash: set `loadBalancer: ringHash` or `maglev`, or leave it out",
                "services.a.hashBy: must have exactly one of header: NAME, cookie: NAME, sourceAddress: true",
                "services.a.healthCheck: asks by gRPC, which the protocol http1 can't carry: set `protocol: http2`, or ask a \
                 path",
                "services.b.healthCheck.path: \"no\" must begin with a slash: \"/no\"",
                "services.b.healthCheck.unhealthyThreshold: is 0, must be at least 1",
                "services.b.tls.ca: must be the whole path of a file, beginning with a slash",
                "services.c.healthCheck: must have exactly one of path: PATH, grpc: true, tcp: true",
                "services.c.tls.sni: \"a b\" is no host name, must be one such as shop.example",
                "services.c.tls: `clientKey` is missing: a certificate is no use without its key",
                "services.d.perTryTimeout: is \"0s\", must be more than 0",
                "services.d.tls: `clientCert` is missing: a key is no use without its certificate",
            ],
        );
    }

    #[test]
    fn names_of_fields_and_values_are_checked() {
        check(
            &config(
                json!({"protocl": "http1", "retries": {"on": ["connect-failure", "never"]}, "loadBalancer": "sticky"}),
                json!({"a": {"endpoint": ["b:1"], "protocol": 2}}),
            ),
            &[
                "services.a.endpoint: unknown field, did you mean `endpoints`?",
                "services.a.protocol: is the number 2, must be one of http1, http2, auto",
                "upstream.loadBalancer: is \"sticky\", must be one of roundRobin, leastRequest, random, ringHash, maglev",
                "upstream.protocl: unknown field, did you mean `protocol`?",
                "upstream.retries.on[1]: is \"never\", must be one of connect-failure, refused-stream, reset-before-request, \
                 reset, gateway-error, 5xx, retriable-4xx, cancelled, deadline-exceeded, internal, resource-exhausted, \
                 unavailable",
            ],
        );
    }
}
