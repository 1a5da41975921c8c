//! From wire types to types that can only hold what is right, reporting every problem at once.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::IpAddr;

use crate::names::{HeaderName, HeaderValue, PathPrefix, RouteKey, Target};
use crate::problem::{Path, Problem};
use crate::wire;

/// A configuration with nothing wrong in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidConfig {
    /// Where Envoy listens.
    pub server: ValidServer,
    /// Where the agent listens.
    pub agent: ValidAgent,
    /// Which request goes where.
    pub routing: ValidRouting,
    /// Where targets live that are no DNS names of their own.
    pub services: BTreeMap<Target, ValidService>,
}

/// Envoy's addresses. The ports are distinct and not 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidServer {
    /// The address of the three public ports.
    pub bind_address: IpAddr,
    /// HTTP/1.1 and HTTP/2.
    pub http_port: u16,
    /// HTTP/2 only.
    pub grpc_port: u16,
    /// Prometheus metrics.
    pub metrics_port: u16,
    /// Envoy's admin interface, on loopback.
    pub admin_port: u16,
}

/// The agent's addresses. The ports differ from each other and from the server's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidAgent {
    /// The address of both ports.
    pub bind_address: IpAddr,
    /// REST API.
    pub api_port: u16,
    /// Discovery service.
    pub xds_port: u16,
}

/// Which request goes where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidRouting {
    /// The header that carries the route key.
    pub route_key_header: HeaderName,
    /// The baseline.
    pub default_target: Target,
    /// In the order of precedence.
    pub rules: Vec<ValidRule>,
}

/// A rule. Its name is its alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidRule {
    /// Unique among all rules.
    pub name: String,
    /// The key it is for.
    pub route_key: RouteKey,
    /// Where its requests go.
    pub target: Target,
    /// One of these must match; empty: any path does.
    pub path_prefixes: Vec<PathPrefix>,
    /// All of these must match. Sorted by name.
    pub header_matchers: Vec<(HeaderName, HeaderValue)>,
    /// Set on the request to the target. Sorted by name.
    pub additional_headers: Vec<(HeaderName, HeaderValue)>,
}

/// Where a target lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidService {
    /// At least one, each one once.
    pub endpoints: Vec<Target>,
}

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
    let services = check.services(&config.services, &Path::root().key("services"));
    match (server, agent, routing, services) {
        (Some(server), Some(agent), Some(routing), Some(services)) if check.problems.is_empty() => Ok(ValidConfig {
            server,
            agent,
            routing,
            services,
        }),
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
        Some(ValidServer {
            bind_address: self.address(&server.bind_address, path.key("bindAddress"))?,
            http_port: server.http_port,
            grpc_port: server.grpc_port,
            metrics_port: server.metrics_port,
            admin_port: server.admin_port,
        })
    }

    fn agent(&mut self, agent: &wire::Agent, path: &Path) -> Option<ValidAgent> {
        Some(ValidAgent {
            bind_address: self.address(&agent.bind_address, path.key("bindAddress"))?,
            api_port: agent.api_port,
            xds_port: agent.xds_port,
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

    fn routing(&mut self, routing: &wire::Routing, path: &Path) -> Option<ValidRouting> {
        let route_key_header = self.ok(path.key("routeKeyHeader"), HeaderName::parse(&routing.route_key_header));
        let default_target = self.ok(path.key("defaultTarget"), Target::parse(&routing.default_target));
        let rules = self.rules(&routing.rules, &path.key("rules"));
        Some(ValidRouting {
            route_key_header: route_key_header?,
            default_target: default_target?,
            rules,
        })
    }

    fn rules(&mut self, rules: &[wire::Rule], path: &Path) -> Vec<ValidRule> {
        let mut given: BTreeMap<&str, usize> = BTreeMap::new();
        for (index, rule) in rules.iter().enumerate() {
            let Some(name) = &rule.name else { continue };
            let path = path.index(index).key("name");
            if name.is_empty() || name.len() > 128 || name.chars().any(char::is_control) {
                self.problem(path, "must be 1 to 128 characters without control characters");
            } else if let Some(first) = given.get(name.as_str()) {
                let message = format!("{name:?} is the name of rules[{first}] already, must be another");
                self.problem(path, message);
            } else {
                given.insert(name, index);
            }
        }
        let mut names: BTreeMap<String, usize> = given.into_keys().map(|name| (name.to_owned(), 1)).collect();
        rules
            .iter()
            .enumerate()
            .filter_map(|(index, rule)| self.rule(rule, &path.index(index), &mut names))
            .collect()
    }

    fn rule(&mut self, rule: &wire::Rule, path: &Path, names: &mut BTreeMap<String, usize>) -> Option<ValidRule> {
        let route_key = self.ok(path.key("routeKey"), RouteKey::parse(&rule.route_key));
        let target = self.ok(path.key("targetService"), Target::parse(&rule.target_service));
        let prefixes = path.key("pathPrefixes");
        let path_prefixes = rule
            .path_prefixes
            .iter()
            .enumerate()
            .filter_map(|(index, prefix)| self.ok(prefixes.index(index), PathPrefix::parse(prefix)))
            .collect();
        let header_matchers = self.headers(&rule.header_matchers, &path.key("headerMatchers"));
        let additional_headers = self.headers(&rule.additional_headers, &path.key("additionalHeaders"));
        let (route_key, target) = (route_key?, target?);
        let name = rule
            .name
            .clone()
            .unwrap_or_else(|| derived_name(&route_key, &target, names));
        Some(ValidRule {
            name,
            route_key,
            target,
            path_prefixes,
            header_matchers,
            additional_headers,
        })
    }

    fn headers(&mut self, headers: &BTreeMap<String, String>, path: &Path) -> Vec<(HeaderName, HeaderValue)> {
        let mut valid = BTreeMap::new();
        for (name, value) in headers {
            let path = path.key(name);
            let parsed = self.ok(path.clone(), HeaderName::parse(name));
            let value = self.ok(path.clone(), HeaderValue::parse(value));
            let (Some(parsed), Some(value)) = (parsed, value) else {
                continue;
            };
            if valid.insert(parsed, value).is_some() {
                self.problem(
                    path,
                    "is given twice: upper and lower case make no difference in a header's name",
                );
            }
        }
        valid.into_iter().collect()
    }

    fn services(
        &mut self,
        services: &BTreeMap<String, wire::Service>,
        path: &Path,
    ) -> Option<BTreeMap<Target, ValidService>> {
        let mut valid = BTreeMap::new();
        for (name, service) in services {
            let path = path.key(name);
            let target = self.ok(path.clone(), Target::parse(name));
            let endpoints = self.endpoints(&service.endpoints, &path.key("endpoints"));
            let Some(target) = target else { continue };
            let port = target.port();
            if valid.insert(target, ValidService { endpoints }).is_some() {
                let message = format!("is given twice: without a port a service has port 80, here it is {port}");
                self.problem(path, message);
            }
        }
        Some(valid)
    }

    fn endpoints(&mut self, endpoints: &[String], path: &Path) -> Vec<Target> {
        if endpoints.is_empty() {
            self.problem(
                path.clone(),
                "is empty: list HOST:PORT, or leave the service out to reach it by DNS",
            );
        }
        let mut valid = Vec::new();
        for (index, endpoint) in endpoints.iter().enumerate() {
            let path = path.index(index);
            match self.ok(path.clone(), Target::parse(endpoint)) {
                Some(endpoint) if valid.contains(&endpoint) => {
                    self.problem(path, format!("{endpoint} is listed twice"));
                }
                Some(endpoint) => valid.push(endpoint),
                None => {}
            }
        }
        valid
    }
}

/// `KEY@TARGET`, and `#2`, `#3`, … where a key has several rules for one target: the same on every start and every
/// agent, whatever other keys there are.
fn derived_name(key: &RouteKey, target: &Target, names: &mut BTreeMap<String, usize>) -> String {
    let base = format!("{}@{target}", key.as_str());
    let mut count = names.get(&base).copied().unwrap_or(0) + 1;
    let mut name = if count == 1 {
        base.clone()
    } else {
        format!("{base}#{count}")
    };
    while count > 1 && names.contains_key(&name) {
        count += 1;
        name = format!("{base}#{count}");
    }
    names.insert(base, count);
    names.entry(name.clone()).or_insert(1);
    name
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
                "routing.rules[1].name: \"n\" is the name of rules[0] already, must be another",
                "routing.rules[0].routeKey: has the character ',', must be visible ASCII characters other than a comma",
                "routing.rules[2].targetService: \"y\" is no port, must be a number from 1 to 65535",
                "routing.rules[2].pathPrefixes[1]: \"no\" must begin with a slash: \"/no\"",
                "routing.rules[2].headerMatchers.X-A: the header value has the control character '\\n', which HTTP forbids",
                "routing.rules[2].headerMatchers[\"bad name\"]: the header name has the character ' ', must be letters, \
                 digits and - only, as in X-User",
                "routing.rules[2].additionalHeaders.x-B: is given twice: upper and lower case make no difference in a \
                 header's name",
                "services.s.endpoints: is empty: list HOST:PORT, or leave the service out to reach it by DNS",
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
        ]});
        let rules = decode(&routing, validate_routing).unwrap().rules;
        let names: Vec<String> = rules.into_iter().map(|rule| rule.name).collect();
        assert_eq!(names, ["k@a:80", "k@a:80#2", "j@a:80#2", "j@a:80"]);
    }
}
