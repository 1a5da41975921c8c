//! An agent whose API a test calls.

use http::Method;
use http::header::HeaderName;
use serde_json::Value;

use crate::{Agent, Answer, Api, ConfigFile, PATIENCE, Ports, Signal, config_with};

/// The routing of its configuration: two keys.
pub const ROUTING: &str = "routing: {defaultTarget: d, rules: [{routeKey: file, targetService: a}, {routeKey: both, \
                           targetService: a}]}";

/// An agent without Envoy.
pub struct ApiAgent {
    /// The agent.
    pub agent: Agent,
    /// Its configuration.
    pub file: ConfigFile,
    /// Its ports.
    pub ports: Ports,
    /// A client of its API.
    pub api: Api,
}

impl ApiAgent {
    /// Starts one and waits until it is alive.
    pub async fn start() -> Self {
        let ports = Ports::free();
        let file = ConfigFile::new(&config_with(&ports, ROUTING));
        let agent = Agent::start(&file.path(), &ports).await;
        let api = Api::new(ports.api);
        Self {
            agent,
            file,
            ports,
            api,
        }
    }

    /// Kills it and starts it again.
    pub async fn restart(&mut self) {
        self.agent.signal(Signal::KILL);
        self.agent.exit(PATIENCE).await;
        self.agent = Agent::start(&self.file.path(), &self.ports).await;
    }

    /// Calls anything.
    ///
    /// # Panics
    /// If there is no whole answer.
    pub async fn call(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(HeaderName, &str)],
        body: Option<&Value>,
    ) -> Answer {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        self.api.call(method, path, headers, body).await.unwrap()
    }

    /// All rules by key and owner, and their version.
    ///
    /// # Panics
    /// If there is no whole answer.
    pub async fn all(&mut self) -> (Vec<String>, String) {
        let rules = self.api.rules().await.unwrap();
        let names = rules.rules.iter();
        let names = names.map(|rule| {
            format!(
                "{}:{}",
                rule["routeKey"].as_str().unwrap(),
                rule["source"].as_str().unwrap()
            )
        });
        (names.collect(), rules.etag)
    }
}

/// The JSON of an answer.
///
/// # Panics
/// If it has none.
#[track_caller]
pub fn body(answer: &Answer) -> Value {
    assert_eq!(answer.header("content-type"), "application/json", "{}", answer.text());
    serde_json::from_slice(&answer.body).unwrap()
}

/// What an answer says that is an error: a line for it and one for each problem.
///
/// # Panics
/// If it is none.
#[track_caller]
pub fn said(answer: &Answer) -> String {
    let body = body(answer);
    let problems = body["problems"].as_array().unwrap().iter();
    let problems = problems.map(|problem| {
        format!(
            "{}: {}",
            problem["path"].as_str().unwrap(),
            problem["message"].as_str().unwrap()
        )
    });
    [body["error"].as_str().unwrap().to_owned()]
        .into_iter()
        .chain(problems)
        .collect::<Vec<_>>()
        .join("\n")
}
