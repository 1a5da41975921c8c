//! What the tests of gRPC clients share: an agent, services, a client of each library.

use std::io::Write as _;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use sidetrack_tests::{
    Agent, Api, Call, ConfigFile, Library, PATIENCE, Ports, Proxyless, Services, config_with, poll_until,
};
use tokio::time::timeout;

/// What `client_status` of a resource that a client has accepted is.
const ACKED: i32 = 3;

const SERVICES: [&str; 5] = ["baseline", "sandbox", "other", "host-baseline", "host-sandbox"];

/// An agent, its services and a client of each library.
pub(crate) struct Mesh {
    pub(crate) ports: Ports,
    pub(crate) services: Services,
    pub(crate) file: ConfigFile,
    pub(crate) clients: Vec<Proxyless>,
    pub(crate) agent: Agent,
}

impl Mesh {
    pub(crate) async fn start(routing: &str) -> Self {
        let ports = Ports::free();
        let services = Services::start(&SERVICES).await;
        Self::start_with(ports, services, routing).await
    }

    pub(crate) async fn start_with(ports: Ports, mut services: Services, routing: &str) -> Self {
        let dead = ([127, 0, 0, 1], sidetrack_tests::free_port()).into();
        services.configure_at("dead", vec![dead], "");
        services.configure("least", &["sandbox"], "loadBalancer: leastRequest");
        services.configure("ring", &["sandbox"], "loadBalancer: ringHash, hashBy: {header: X-User}");
        let file = ConfigFile::new(&config(&ports, &services, routing));
        let agent = Agent::start(&file.path(), &ports).await;
        let mut clients = Vec::new();
        for library in Library::ALL {
            clients.push(Proxyless::start(library, ports.xds).await);
        }
        Self {
            ports,
            services,
            file,
            clients,
            agent,
        }
    }

    /// Puts another configuration in the file's place.
    pub(crate) fn change(&self, routing: &str) {
        self.file.replace(&config(&self.ports, &self.services, routing));
    }

    /// What the agent says of this client.
    pub(crate) async fn said_of(&self, client: &Proxyless) -> Value {
        let proxies = Api::new(self.ports.api).get("/api/v1/proxies").await.unwrap();
        let mut proxies = proxies["proxies"].as_array().unwrap().iter();
        let proxy = proxies.find(|proxy| proxy["node"] == client.node.as_str());
        proxy.expect("it is connected").clone()
    }

    /// No client has refused anything, by the agent's word and by their own.
    pub(crate) async fn assert_all_accepted(&self) {
        assert!(!self.agent.output().contains("refuses"), "{}", self.agent.output());
        let mut accepted = 0;
        for client in &self.clients {
            let proxy = self.said_of(client).await;
            assert!(proxy["nack"].is_null() && proxy["nacks"] == 0, "{proxy}");
            for resource in client.resources().await {
                assert_eq!(resource.status, ACKED, "{resource:?}");
                accepted += 1;
            }
        }
        print(&format!("{accepted} resources accepted, none refused"));
    }
}

/// The configuration with a target `named`, whose endpoint has a name, and `mixed`, which has both.
fn config(ports: &Ports, services: &Services, routing: &str) -> String {
    let [sandbox, other] = ["sandbox", "other"].map(|name| services.server(name).address().port());
    let named = format!("  named: {{endpoints: [\"localhost:{sandbox}\"]}}\n");
    let mixed = format!("  mixed: {{endpoints: [\"localhost:{other}\", \"127.0.0.1:{other}\"]}}\n");
    config_with(ports, &format!("{}{named}{mixed}{}", services.yaml(), routing.trim()))
}

/// A test's standard error isn't captured if it is written to like this.
pub(crate) fn print(line: &str) {
    let _ = writeln!(std::io::stderr(), "gRPC clients: {line}");
}

/// Waits until a call with the key is served by `expected`; returns how long that took.
pub(crate) async fn until_served(client: &Proxyless, key: &str, expected: &str) -> Duration {
    let begun = Instant::now();
    poll_until(
        PATIENCE,
        &format!("{}: {key} served by {expected}", client.node),
        async || {
            let served_by = client.call(Call::to("xds:///baseline").key(key)).await;
            (served_by == expected).then_some(()).ok_or(served_by)
        },
    )
    .await;
    begun.elapsed()
}

/// A call to this target fails: at once, or at its deadline.
pub(crate) async fn assert_fails(client: &Proxyless, call: Call) {
    let answer = timeout(PATIENCE, client.call(call.timeout(2))).await;
    let answer = answer.expect("an end of the call by its own deadline");
    let is_failure = ["DEADLINE_EXCEEDED", "UNAVAILABLE"]
        .iter()
        .any(|status| answer.starts_with(status));
    assert!(is_failure, "{}: {answer}", client.node);
}

pub(crate) fn seconds_since_1970() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}
