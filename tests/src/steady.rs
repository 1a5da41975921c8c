//! Traffic that must not notice what breaks around it.

use std::process::Command;

use http::Method;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::api_agent::body;
use crate::{
    Agent, Api, Client, ConfigFile, Envoy, PATIENCE, Ports, Protocol, Services, Traffic, config_text, get, poll_until,
    prometheus, render, sidetrack, until_served_by,
};

/// The rules of the file at first.
const ROUTING: &str = "
routing:
  defaultTarget: baseline
  rules:
    - {routeKey: from-file, targetService: service-a}
";

/// Who serves what is sent all the time.
const EXPECTED: [(&str, &str); 3] = [
    ("from-file", "service-a"),
    ("from-api", "service-b"),
    ("nobody", "baseline"),
];

const RATE: u32 = 100;

/// An agent, an Envoy of its own, and requests all the time: with a rule of the file, with one of the API, and with none.
pub struct Steady {
    /// The agent.
    pub agent: Agent,
    /// A client of its API.
    pub api: Api,
    /// The ports of both.
    pub ports: Ports,
    /// The targets: `baseline`, `service-a` and `service-b`.
    pub services: Services,
    /// The configuration.
    pub file: ConfigFile,
    agent_fields: String,
    traffic: Traffic,
    _envoy: Envoy,
}

/// What is different from the usual.
pub struct Setting<'s> {
    /// How the configuration is put in its place.
    pub file: fn(&str) -> ConfigFile,
    /// Further fields of the section `agent`, each with a comma after it.
    pub agent_fields: &'s str,
    /// What becomes of the agent's command.
    pub agent: &'s dyn Fn(Command) -> Command,
    /// What is done to Envoy's command.
    pub envoy: &'s dyn Fn(&mut Command),
}

impl Default for Setting<'_> {
    fn default() -> Self {
        Self {
            file: ConfigFile::new,
            agent_fields: "",
            agent: &|command| command,
            envoy: &|_| {},
        }
    }
}

impl Steady {
    /// Starts all of it and waits until every request is served as it must be.
    pub async fn start(setting: Setting<'_>) -> Self {
        let ports = Ports::free();
        let services = Services::start(&["baseline", "service-a", "service-b"]).await;
        let file = (setting.file)(&text(&ports, &services, setting.agent_fields, ""));
        let agent = Agent::start_by((setting.agent)(agent(&file)), &ports).await;
        let envoy = Envoy::start_with(&render(&file.path(), &["--bootstrap"]), setting.envoy);
        let mut api = Api::new(ports.api);
        let rules = json!([{"targetService": "service-b"}]);
        let written = api.put("from-api", &rules, None).await.unwrap();
        assert!(written.is_accepted(), "{written:?}");
        for (key, expected) in EXPECTED {
            until_served_by(ports.http, key, expected).await;
        }
        let requests = EXPECTED.map(|(key, _)| get("/", &[("x-route-key", key)]));
        Self {
            traffic: Traffic::start(ports.http, RATE, requests.to_vec()),
            agent,
            api,
            ports,
            services,
            file,
            agent_fields: setting.agent_fields.to_owned(),
            _envoy: envoy,
        }
    }

    /// The configuration with these further rules, each a line with what the first has before it.
    pub fn text_with(&self, rules: &str) -> String {
        text(&self.ports, &self.services, &self.agent_fields, rules)
    }

    /// Puts a rule for `key` by the API: the status of the answer, and its error.
    ///
    /// # Panics
    /// If there is no whole answer.
    pub async fn put(&mut self, key: &str, rule: Value) -> (u16, String) {
        let written = self.api.put(key, &json!([rule]), Some(PATIENCE)).await.unwrap();
        (
            written.status,
            written.body["error"].as_str().unwrap_or_default().to_owned(),
        )
    }

    /// The keys of all rules, in their order.
    ///
    /// # Panics
    /// If there is no whole answer.
    pub async fn keys(&mut self) -> Vec<String> {
        let rules = self.api.rules().await.unwrap().rules;
        rules
            .iter()
            .map(|rule| rule["routeKey"].as_str().unwrap().to_owned())
            .collect()
    }

    /// Who serves requests with this key.
    ///
    /// # Panics
    /// If there is no whole answer.
    pub async fn served_by(&self, key: &str) -> String {
        let mut client = Client::new(Protocol::Http1, self.ports.http);
        client.get("/", &[("x-route-key", key)]).await.unwrap().served_by()
    }

    /// What `/readyz` says under this name; null, if nothing.
    ///
    /// # Panics
    /// If there is no whole answer.
    pub async fn readiness(&mut self, name: &str) -> Value {
        let answer = self.api.call(Method::GET, "/readyz", &[], None).await.unwrap();
        body(&answer)[name].clone()
    }

    /// Waits until the configuration is rejected because of this: `/readyz`, a metric and the log say so, and the agent is
    /// ready all the same.
    ///
    /// # Panics
    /// If that takes longer than [`PATIENCE`].
    pub async fn until_rejected(&mut self, problem: &str) {
        poll_until(PATIENCE, "the problem in /readyz", async || {
            let rejected = self.readiness("rejected").await.to_string();
            rejected.contains(problem).then_some(()).ok_or(rejected)
        })
        .await;
        assert_eq!(self.readiness("ready").await, true);
        assert_eq!(self.metric("sidetrack_agent_config_rejected").await, 1.0);
        self.until_logged(problem).await;
    }

    /// Waits until the agent's log has this.
    ///
    /// # Panics
    /// If that takes longer than [`PATIENCE`].
    pub async fn until_logged(&self, text: &str) {
        poll_until(PATIENCE, &format!("{text} in the log"), async || {
            let log = self.agent.stderr();
            log.contains(text).then_some(()).ok_or(log)
        })
        .await;
    }

    /// Waits until the configuration isn't rejected any more.
    ///
    /// # Panics
    /// If that takes longer than [`PATIENCE`].
    pub async fn until_mended(&mut self) {
        poll_until(PATIENCE, "no problem in /readyz", async || {
            let rejected = self.readiness("rejected").await;
            rejected.is_null().then_some(()).ok_or_else(|| rejected.to_string())
        })
        .await;
        assert_eq!(self.metric("sidetrack_agent_config_rejected").await, 0.0);
    }

    /// The value of the agent's metric without labels.
    ///
    /// # Panics
    /// If it shows none of this name.
    pub async fn metric(&self, name: &str) -> f64 {
        let text = prometheus::scrape(self.ports.api).await;
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
            .unwrap_or_else(|| panic!("no {name} in\n{text}"));
        value.parse().unwrap()
    }

    /// Waits until every proxy has everything.
    ///
    /// # Panics
    /// If that takes longer than [`PATIENCE`].
    pub async fn settle(&mut self) {
        poll_until(PATIENCE, "all proxies up to date", async || {
            let proxies = self.api.get("/api/v1/proxies").await.unwrap();
            let mut listed = proxies["proxies"].as_array().into_iter().flatten().peekable();
            let in_force = listed.peek().is_some() && listed.all(|proxy| proxy["inForce"] == true);
            in_force.then_some(()).ok_or_else(|| proxies.to_string())
        })
        .await;
    }

    /// Kills the agent, starts it again, its command changed by `change`, and waits until every proxy has everything.
    ///
    /// # Panics
    /// If it doesn't start.
    pub async fn restart_agent(&mut self, change: &dyn Fn(Command) -> Command) {
        self.agent.signal(Signal::KILL);
        self.agent.exit(PATIENCE).await;
        self.agent = Agent::start_by(change(agent(&self.file)), &self.ports).await;
        self.api = Api::new(self.ports.api);
        self.settle().await;
    }

    /// Waits until some more requests were answered.
    ///
    /// # Panics
    /// If that takes longer than [`PATIENCE`].
    pub async fn flow(&self) {
        self.traffic.flow(RATE as usize / 2).await;
    }

    /// Ends the traffic.
    ///
    /// # Panics
    /// If a request was served by anything but what its key says, or the agent has ended.
    pub async fn unharmed(self) {
        let Self { traffic, mut agent, .. } = self;
        traffic.flow(RATE as usize / 2).await;
        let (outcomes, rate) = traffic.stop().await;
        let wrong: Vec<_> = outcomes
            .iter()
            .filter(|outcome| outcome.served_by != EXPECTED[outcome.request].1)
            .collect();
        println!("{} requests, {rate:.0} a second, {} wrong", outcomes.len(), wrong.len());
        assert!(wrong.is_empty(), "{:#?}", &wrong[..wrong.len().min(10)]);
        assert_eq!(agent.exited(), None, "the agent has ended: {}", agent.output());
    }
}

fn agent(file: &ConfigFile) -> Command {
    let mut command = sidetrack(&["agent", "-c"]);
    command.arg(file.path());
    command
}

fn text(ports: &Ports, services: &Services, agent_fields: &str, rules: &str) -> String {
    let text = config_text(ports, services, &format!("{ROUTING}{rules}"));
    text.replace("agent: {", &format!("agent: {{{agent_fields}"))
}
