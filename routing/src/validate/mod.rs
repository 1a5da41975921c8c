//! From wire types to types that can only hold what is right, reporting every problem at once.

mod agent;
mod hosts;
mod routing;
mod rule;
mod upstream;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use crate::names::{Host, Target};
use crate::problem::{Path, Problem};
use crate::upstream::ValidUpstream;
use crate::valid::{
    ServerTls, ValidConfig, ValidRouting, ValidRule, ValidServer, ValidService, ValidTracing, WeightedTarget,
};
use crate::wire::{self, Mode};

/// Checks a whole configuration.
///
/// # Errors
///
/// Every problem, in the order of the fields.
pub fn validate(config: &wire::Config) -> Result<ValidConfig, Vec<Problem>> {
    let mut check = Check::default();
    let server = check.server(&config.server, &Path::root().key("server"));
    let agent = check.agent(&config.agent, &Path::root().key("agent"));
    check.ports(config);
    let routing = check.routing(&config.routing, &Path::root().key("routing"));
    let upstream = check.upstream(
        &config.upstream,
        &ValidUpstream::default(),
        &Path::root().key("upstream"),
    );
    let mut services = check.services(&config.services, &upstream, &Path::root().key("services"));
    let tracing = config
        .tracing
        .as_ref()
        .map(|tracing| check.tracing(tracing, &Path::root().key("tracing")));
    if let (Some(Mode::Sidecar), Some(routing)) = (config.server.mode, &routing) {
        check.sidecar(routing, &upstream, &mut services);
    }
    match (server, agent, routing) {
        (Some(server), Some(agent), Some(mut routing)) if check.problems.is_empty() => {
            let policies = services.iter().filter_map(|(target, service)| {
                let difference = service.upstream.route.difference(&upstream.route)?;
                Some((target.clone(), difference))
            });
            routing.route_policies = Arc::new(policies.collect());
            let config = ValidConfig {
                server,
                agent,
                routing,
                upstream,
                services: Arc::new(services),
                tracing: tracing.flatten(),
            };
            check.shared_baseline(&config);
            if check.problems.is_empty() {
                Ok(config)
            } else {
                Err(check.problems)
            }
        }
        _ => Err(check.problems),
    }
}

/// Checks `routing` alone, the form in which the filter can be configured by hand.
///
/// # Errors
///
/// Every problem, in the order of the fields.
pub fn validate_routing(routing: &wire::Routing) -> Result<ValidRouting, Vec<Problem>> {
    let mut check = Check::default();
    match check.routing(routing, &Path::root()) {
        Some(valid) if check.problems.is_empty() => Ok(valid),
        _ => Err(check.problems),
    }
}

/// Checks the rules of one key that are to be added to `config`, after those that it has for this key.
///
/// # Errors
///
/// Every problem, in the order of the fields; the first rule is `[0]`.
pub fn validate_rules(rules: &[wire::Rule], config: &ValidConfig) -> Result<Vec<Arc<ValidRule>>, Vec<Problem>> {
    let mut check = Check::default();
    let routing = &config.routing;
    let key = rules.first().map(|rule| rule.route_key.as_str());
    let before = routing.rules.iter().filter(|rule| Some(rule.route_key.as_str()) == key);
    let names = before.map(|rule| (rule.route_key.as_str().to_owned(), rule.name.clone()));
    let valid = check.rules_after(names, rules, &Path::root());
    let valid = check.with_baselines(valid, rules, &routing.hosts, &Path::root());
    check.keep_route_key_header(&routing.route_key_header, rules, &Path::root());
    if check.problems.is_empty() {
        Ok(valid)
    } else {
        Err(check.problems)
    }
}

/// What has been found so far. Every method says what is wrong and goes on; `None` stands for what couldn't be made.
#[derive(Default)]
struct Check {
    problems: Vec<Problem>,
}

impl Check {
    fn problem(&mut self, path: Path, message: impl Into<String>) {
        self.problems.push(Problem {
            path,
            message: message.into(),
        });
    }

    fn ok<T, E: Display>(&mut self, path: Path, result: Result<T, E>) -> Option<T> {
        result.map_err(|error| self.problem(path, error.to_string())).ok()
    }

    fn server(&mut self, server: &wire::Server, path: &Path) -> Option<ValidServer> {
        let bind_address = self.address(&server.bind_address, path.key("bindAddress"));
        let tls = server.tls.as_ref().map(|tls| {
            let path = path.key("tls");
            self.file(Some(&tls.cert), path.key("cert"));
            self.file(Some(&tls.key), path.key("key"));
            ServerTls {
                cert: tls.cert.clone(),
                key: tls.key.clone(),
            }
        });
        let mut drain_time = Duration::ZERO;
        self.set_time(&mut drain_time, &Some(server.drain_time.clone()), path.key("drainTime"));
        Some(ValidServer {
            bind_address: bind_address?,
            mode: server.mode,
            tls,
            drain_time,
            http_port: server.http_port,
            grpc_port: server.grpc_port,
            metrics_port: server.metrics_port,
            admin_port: server.admin_port,
        })
    }

    fn address(&mut self, text: &str, path: Path) -> Option<IpAddr> {
        let address = text
            .parse()
            .map_err(|_| format!("{text:?} is no IP address, must be one such as 127.0.0.1"));
        self.ok(path, address)
    }

    fn ports(&mut self, config: &wire::Config) {
        let (server, agent) = (Path::root().key("server"), Path::root().key("agent"));
        let mut taken: BTreeMap<u16, Path> = BTreeMap::new();
        for (port, path) in [
            (config.server.http_port, server.key("httpPort")),
            (config.server.grpc_port, server.key("grpcPort")),
            (config.server.metrics_port, server.key("metricsPort")),
            (config.server.admin_port, server.key("adminPort")),
            (config.agent.api_port, agent.key("apiPort")),
            (config.agent.xds_port, agent.key("xdsPort")),
        ] {
            if port == 0 {
                self.problem(path, "is 0, must be a number from 1 to 65535");
            } else if let Some(other) = taken.get(&port) {
                let message = format!("{port} is the port of {other} already, must be another");
                self.problem(path, message);
            } else {
                taken.insert(port, path);
            }
        }
    }

    fn tracing(&mut self, tracing: &wire::Tracing, path: &Path) -> Option<ValidTracing> {
        let otlp = self.ok(path.key("otlp"), Target::parse(&tracing.otlp));
        let per_million = self.per_million(tracing.sampling, path.key("sampling"));
        Some(ValidTracing {
            otlp: otlp?,
            per_million: per_million?,
        })
    }

    /// The baseline of a sidecar is the service beside it.
    fn sidecar(
        &mut self,
        routing: &ValidRouting,
        upstream: &ValidUpstream,
        services: &mut BTreeMap<Target, ValidService>,
    ) {
        const WHY: &str = "a sidecar's baseline is the one service beside it";
        let path = Path::root().key("routing");
        if !routing.hosts.is_empty() {
            self.problem(
                path.key("hosts"),
                format!("{WHY}: leave the hosts out, or set `server.mode: gateway`"),
            );
        }
        for WeightedTarget { target, .. } in &routing.default_targets {
            let service = services.entry(target.clone()).or_insert_with(|| ValidService {
                endpoints: Vec::new(),
                upstream: upstream.clone(),
                tls: None,
            });
            if service.endpoints.is_empty() && matches!(target.host(), Host::Name(_)) {
                service.endpoints = vec![Target::on(Ipv4Addr::LOCALHOST.into(), target.port())];
            }
            let endpoints = if service.endpoints.is_empty() {
                std::slice::from_ref(target)
            } else {
                &service.endpoints
            };
            let is_away = |endpoint: &&Target| !matches!(endpoint.host(), Host::Ip(ip) if ip.is_loopback());
            if let Some(away) = endpoints.iter().find(is_away) {
                let message = format!("{away} isn't on loopback: {WHY}");
                self.problem(path.key("defaultTarget"), message);
            }
        }
    }

    /// A route has one policy, so targets that share the requests of one route must agree.
    fn shared_baseline(&mut self, config: &ValidConfig) {
        let mut targets = config.routing.default_targets.iter().map(|weighted| &weighted.target);
        let Some(first) = targets.next() else { return };
        let policy = &config.upstream_of(first).route;
        for other in targets {
            if let Some(difference) = config.upstream_of(other).route.difference(policy) {
                let message = format!(
                    "{first} and {other} share the baseline's requests, but {other} has {difference}: give both the same \
                     timeouts, retries and hashBy"
                );
                self.problem(Path::root().key("routing").key("defaultTarget"), message);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::decode::decode;

    #[track_caller]
    fn check(config: Value, expected: &[&str]) {
        let problems: Vec<String> = match decode(&config, validate) {
            Ok(_) => Vec::new(),
            Err(problems) => problems.iter().map(ToString::to_string).collect(),
        };
        assert_eq!(problems, expected);
    }

    #[test]
    fn every_problem_is_reported_with_its_path() {
        check(
            json!({
                "server": {"httpPort": 0, "grpcPort": 9090, "bindAddress": "localhost"},
                "routing": {"routeKeyHeader": "Host", "defaultTarget": "", "rules": [
                    {"routeKey": "a,b", "targetService": "x", "name": "n"},
                    {"routeKey": "k", "targetService": "x", "name": "n"},
                    {"routeKey": "k", "targetService": "x:y", "pathPrefixes": ["/ok", "no"],
                     "headerMatchers": {"bad name": "v", "X-A": "a\nb"}, "additionalHeaders": {"X-b": "", "x-B": ""}},
                ]},
                "services": {"s": {"endpoints": []}, "s:80": {"endpoints": ["a:1", "a:1", "b:0"]}},
            }),
            &[
                "server.bindAddress: \"localhost\" is no IP address, must be one such as 127.0.0.1",
                "server.httpPort: is 0, must be a number from 1 to 65535",
                "server.metricsPort: 9090 is the port of server.grpcPort already, must be another",
                "routing.routeKeyHeader: this header can't be used here: it belongs to HTTP's framing",
                "routing.defaultTarget: is empty, must be HOST or HOST:PORT",
                "routing.rules[0].routeKey: has the character ',', must be visible ASCII characters other than a comma",
                "routing.rules[2].targetService: \"y\" is no port, must be a number from 1 to 65535",
                "routing.rules[2].pathPrefixes[1]: \"no\" must begin with a slash: \"/no\"",
                "routing.rules[2].headerMatchers.X-A: the header value has the control character '\\n', which HTTP forbids",
                "routing.rules[2].headerMatchers[\"bad name\"]: the header name has the character ' ', must be letters, \
                 digits and - only, as in X-User",
                "routing.rules[2].additionalHeaders.x-B: is given twice: upper and lower case make no difference in a \
                 header's name",
                "services.s.endpoints: is empty: list HOST:PORT, or leave `endpoints` out to reach the service by DNS",
                "services[\"s:80\"].endpoints[1]: a:1 is listed twice",
                "services[\"s:80\"].endpoints[2]: \"0\" is no port, must be a number from 1 to 65535",
                "services[\"s:80\"]: is given twice: without a port a service has port 80, here it is 80",
            ],
        );
    }

    #[test]
    fn a_derived_name_is_key_and_target() {
        let rule = |key: &str, target: &str| json!({"routeKey": key, "targetService": target});
        let routing = json!({"defaultTarget": "d", "rules": [
            rule("k", "a"), rule("k", "a:80"), rule("j", "a"),
            {"routeKey": "q", "targetService": "z", "name": "j@a:80"},
            rule("p", "a"), {"routeKey": "p", "targetService": "z", "name": "p@a:80"}, rule("p", "a"),
        ]});
        let rules = decode(&routing, validate_routing).unwrap().rules;
        let names: Vec<String> = rules.iter().map(|rule| rule.name.clone()).collect();
        assert_eq!(
            names,
            ["k@a:80", "k@a:80#2", "j@a:80", "j@a:80", "p@a:80", "p@a:80", "p@a:80#2"]
        );
    }

    #[test]
    fn a_sidecars_baseline_is_on_loopback() {
        let sidecar = |target: Value, services: Value, hosts: Value| {
            json!({"server": {"mode": "sidecar"}, "routing": {"defaultTarget": target, "hosts": hosts},
                   "services": services})
        };
        let named = decode(&sidecar(json!("shop:3000"), json!({}), json!({})), validate).unwrap();
        let endpoints: Vec<String> = named
            .services
            .values()
            .flat_map(|service| &service.endpoints)
            .map(ToString::to_string)
            .collect();
        assert_eq!(endpoints, ["127.0.0.1:3000"]);
        check(sidecar(json!("127.0.0.1:3000"), json!({}), json!({})), &[]);
        check(
            sidecar(json!("shop"), json!({"shop": {"endpoints": ["[::1]:1"]}}), json!({})),
            &[],
        );
        check(
            sidecar(json!("10.0.0.1"), json!({}), json!({"a.example": "b"})),
            &[
                "routing.hosts: a sidecar's baseline is the one service beside it: leave the hosts out, or set `server.mode: \
                 gateway`",
                "routing.defaultTarget: 10.0.0.1:80 isn't on loopback: a sidecar's baseline is the one service beside it",
            ],
        );
        check(
            sidecar(
                json!("shop"),
                json!({"shop": {"endpoints": ["127.0.0.1:1", "shop.example:1"]}}),
                json!({}),
            ),
            &[
                "routing.defaultTarget: shop.example:1 isn't on loopback: a sidecar's baseline is the one service beside it",
            ],
        );
    }

    #[test]
    fn targets_that_share_the_baseline_must_agree() {
        check(
            json!({"routing": {"defaultTarget": [{"service": "a", "weight": 1}, {"service": "b", "weight": 1}]},
                   "services": {"b": {"requestTimeout": "5s", "connectTimeout": "1s"}}}),
            &[
                "routing.defaultTarget: a:80 and b:80 share the baseline's requests, but b:80 has timeout=5s: give both the \
                 same timeouts, retries and hashBy",
            ],
        );
    }

    #[test]
    fn of_server_and_tracing_every_problem_is_reported() {
        check(
            json!({"server": {"drainTime": "0s", "tls": {"cert": "a.pem", "key": "/b/"}, "mode": "mesh"},
                   "routing": {"defaultTarget": "a", "hosts": {"a:80": "b", "*": "c", "ok.example": "x:y"}},
                   "tracing": {"otlp": "http://a", "sampling": 101}}),
            &[
                "server.mode: is \"mesh\", must be one of sidecar, gateway",
                "server.tls.cert: must be the whole path of a file, beginning with a slash",
                "server.tls.key: must be the whole path of a file, beginning with a slash",
                "server.drainTime: is \"0s\", must be more than 0",
                "routing.hosts[\"*\"]: \"*\" matches every host: leave `hosts` out, or write *.HOST",
                "routing.hosts[\"a:80\"]: \"a:80\" has a port, which isn't compared: leave it out",
                "routing.hosts[\"ok.example\"]: \"y\" is no port, must be a number from 1 to 65535",
                "tracing.otlp: \"http://a\" is a URL, must be HOST or HOST:PORT: write \"a\"",
                "tracing.sampling: is 101, must be a number from 0 to 100",
            ],
        );
    }
}
