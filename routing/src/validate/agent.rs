//! `agent`.

use std::collections::BTreeSet;

use super::Check;
use crate::matchers::HostPattern;
use crate::problem::Path;
use crate::valid::{ValidAgent, ValidScope};
use crate::wire;

impl Check {
    pub(super) fn agent(&mut self, agent: &wire::Agent, path: &Path) -> Option<ValidAgent> {
        let bind_address = self.address(&agent.bind_address, path.key("bindAddress"));
        let (api_text, api_field) = match &agent.api_bind_address {
            Some(text) => (text, "apiBindAddress"),
            None => (&agent.bind_address, "bindAddress"),
        };
        let api_bind_address = match &agent.api_bind_address {
            Some(text) => self.address(text, path.key("apiBindAddress")),
            None => bind_address,
        };
        if agent.tokens_file.is_none() && api_bind_address.is_some_and(|address| !address.is_loopback()) {
            let message = format!(
                "{api_text} opens the REST API to the network, where everybody could change the rules: give `tokensFile`, or \
                 keep the API on this machine by `apiBindAddress: 127.0.0.1`"
            );
            self.problem(path.key(api_field), message);
        }
        for (file, field) in [(&agent.tokens_file, "tokensFile"), (&agent.state_file, "stateFile")] {
            if file.as_ref().is_some_and(|file| file.is_empty() || file.ends_with('/')) {
                self.problem(path.key(field), "must be the path of a file");
            }
        }
        let scopes = self.scopes(&agent.scopes, &path.key("scopes"));
        Some(ValidAgent {
            bind_address: bind_address?,
            api_bind_address: api_bind_address?,
            api_port: agent.api_port,
            xds_port: agent.xds_port,
            tokens_file: agent.tokens_file.clone(),
            state_file: agent.state_file.clone(),
            scopes,
        })
    }

    fn scopes(&mut self, scopes: &[wire::Scope], path: &Path) -> Vec<ValidScope> {
        let mut names = BTreeSet::new();
        let mut valid = Vec::new();
        for (index, scope) in scopes.iter().enumerate() {
            let path = path.index(index);
            if scope.name.is_empty() {
                self.problem(path.key("name"), "is empty");
            } else if !names.insert(&scope.name) {
                let message = format!("{:?} is another scope's name already, must be another", scope.name);
                self.problem(path.key("name"), message);
            }
            if scope.r#match.cluster.is_none() && scope.r#match.metadata.is_empty() {
                let message = "is empty: give `cluster` or `metadata` of the proxies that are meant";
                self.problem(path.key("match"), message);
            }
            if scope.hosts.is_empty() {
                self.problem(path.key("hosts"), "is empty: list the hosts that these proxies serve");
            }
            valid.push(ValidScope {
                name: scope.name.clone(),
                cluster: scope.r#match.cluster.clone(),
                metadata: scope.r#match.metadata.clone(),
                hosts: self.each(&scope.hosts, &path.key("hosts"), HostPattern::parse),
            });
        }
        valid
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::decode::decode;
    use crate::validate::validate;

    #[track_caller]
    fn check(agent: &Value, expected: &[&str]) {
        let config = json!({"agent": agent, "routing": {"defaultTarget": "d"}});
        let problems = decode(&config, validate).err().unwrap_or_default();
        assert_eq!(problems.iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn the_api_is_on_loopback_or_has_tokens() {
        const OPEN: &str = "0.0.0.0 opens the REST API to the network, where everybody could change the rules: give \
                            `tokensFile`, or keep the API on this machine by `apiBindAddress: 127.0.0.1`";
        check(
            &json!({"bindAddress": "0.0.0.0"}),
            &[&format!("agent.bindAddress: {OPEN}")],
        );
        check(
            &json!({"apiBindAddress": "0.0.0.0"}),
            &[&format!("agent.apiBindAddress: {OPEN}")],
        );
        check(&json!({"bindAddress": "0.0.0.0", "tokensFile": "/etc/tokens"}), &[]);
        check(&json!({"bindAddress": "0.0.0.0", "apiBindAddress": "::1"}), &[]);
        check(
            &json!({"stateFile": "state/"}),
            &["agent.stateFile: must be the path of a file"],
        );
    }

    #[test]
    fn of_scopes_every_problem_is_reported() {
        let scope = json!({"name": "edge", "match": {"cluster": "edge"}, "hosts": ["a.example"]});
        check(&json!({"scopes": [scope]}), &[]);
        check(
            &json!({"scopes": [scope, scope, {"name": "", "match": {}, "hosts": []},
                {"name": "x", "match": {"metadata": {"team": "a"}}, "hosts": ["*"]}]}),
            &[
                "agent.scopes[1].name: \"edge\" is another scope's name already, must be another",
                "agent.scopes[2].name: is empty",
                "agent.scopes[2].match: is empty: give `cluster` or `metadata` of the proxies that are meant",
                "agent.scopes[2].hosts: is empty: list the hosts that these proxies serve",
                "agent.scopes[3].hosts[0]: \"*\" matches every host: leave `hosts` out, or write *.HOST",
            ],
        );
    }
}
