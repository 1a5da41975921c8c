//! From a change that the API has accepted to the first request that is routed by it, with 10,000 rules.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sidetrack_tests::{
    Agent, Api, Client, ConfigFile, Durations, EchoServer, Envoy, PATIENCE, Ports, Protocol, Services, config_text,
    figure, render, suite,
};

const ROUTING: &str = "routing: {defaultTarget: baseline}";

const RULES: usize = 10_000;

/// What performance.md wants, p50 and p99.
const BARS: [Duration; 2] = [Duration::from_millis(10), Duration::from_millis(25)];

/// The bars are printed beside what is measured; a test fails where it is far from them whatever the machine does besides.
const FAR: u32 = 20;

const WAIT: Option<Duration> = Some(Duration::from_secs(10));

struct Setup {
    api: Api,
    client: Client,
    sandbox_port: u16,
    /// From each call without `wait` to its answer.
    accepted: Vec<Duration>,
    _running: (Agent, Envoy, ConfigFile, Services, EchoServer),
}

impl Setup {
    async fn start() -> Self {
        let ports = Ports::free();
        let services = Services::start(&["baseline", "service-a", "service-b"]).await;
        let sandbox = EchoServer::bind("sandbox", (Ipv4Addr::UNSPECIFIED, 0).into())
            .await
            .unwrap();
        let file = ConfigFile::new(&config_text(&ports, &services, ROUTING));
        let agent = Agent::start_release(&file.path(), &ports).await;
        let envoy = Envoy::start(&render(&file.path(), &["--bootstrap"]));
        let mut api = Api::new(ports.api);
        let rules = (0..RULES).map(|index| {
            let target = ["service-a", "service-b"][index % 2];
            json!({
                "routeKey": format!("sandbox-{index}"),
                "targetService": target,
                "pathPrefixes": ["/api/v1"],
                "additionalHeaders": {"X-Environment": "sandbox"},
            })
        });
        let begun = Instant::now();
        let written = api
            .put_all(&Value::Array(rules.collect()), Some(PATIENCE))
            .await
            .unwrap();
        assert!(written.is_accepted(), "{written:?}");
        figure(format!(
            "{RULES} rules in one call: in force after {:.0?}",
            begun.elapsed()
        ));
        let setup = Self {
            api,
            client: Client::new(Protocol::Http1, ports.http),
            sandbox_port: sandbox.address().port(),
            accepted: Vec::new(),
            _running: (agent, envoy, file, services, sandbox),
        };
        setup.in_force().await
    }

    /// Once Envoy has all the rules.
    async fn in_force(mut self) -> Self {
        let (key, path) = (format!("sandbox-{}", RULES - 1), "/api/v1");
        sidetrack_tests::poll_until(PATIENCE, "all rules in Envoy", async || {
            match self.served_by(&key, path).await.as_str() {
                "service-b" => Ok(()),
                other => Err(other.to_owned()),
            }
        })
        .await;
        self
    }

    async fn served_by(&mut self, key: &str, path: &str) -> String {
        match self.client.get(path, &[("x-route-key", key)]).await {
            Ok(answer) => answer.served_by(),
            Err(error) => format!("{error:#}"),
        }
    }

    /// From the answer of the API to that of the first request that is routed.
    async fn until_routed(&mut self, key: &str, target: &str, service: &str) -> Duration {
        let begun = Instant::now();
        let written = self.api.put(key, &rule(target), None).await.unwrap();
        let accepted = Instant::now();
        assert_eq!(written.status, 200, "{written:?}");
        self.accepted.push(accepted - begun);
        while self.served_by(key, "/api/v1/x").await != service {
            assert!(accepted.elapsed() < PATIENCE, "{key} isn't routed");
        }
        accepted.elapsed()
    }

    /// From the call to its answer, which says that every Envoy has it.
    async fn until_in_force(&mut self, key: &str, target: &str, service: &str) -> Duration {
        let begun = Instant::now();
        let written = self.api.put(key, &rule(target), WAIT).await.unwrap();
        let took = begun.elapsed();
        assert!(written.is_in_force(), "{written:?}");
        assert_eq!(self.served_by(key, "/api/v1/x").await, service, "{key}");
        took
    }
}

fn rule(target: &str) -> Value {
    json!([{"targetService": target, "pathPrefixes": ["/api/v1"]}])
}

fn report(what: &str, measured: &Durations) {
    let [p50, p99] = BARS;
    figure(format!(
        "{what}, {RULES} rules: {measured} (bars: p50 {p50:?}, p99 {p99:?})"
    ));
    for (share, bar) in [(0.5, p50), (0.99, p99)] {
        let found = measured.quantile(share);
        assert!(found < FAR * bar, "{what}: {share} after {found:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_accepted_change_is_routable_at_once() {
    let changes = if suite::is_full() { 1_000 } else { 100 };
    let mut setup = Setup::start().await;
    // Of known targets: the table alone changes.
    let mut measured = Vec::new();
    for change in 0..changes {
        let (key, target) = (format!("new-{}", change / 2), ["service-a", "service-b"][change % 2]);
        measured.push(setup.until_routed(&key, target, target).await);
    }
    report("accepted → routed, known target", &measured.into_iter().collect());

    // Of targets that nobody has known: clusters first, then the table.
    let mut measured = Vec::new();
    for change in 0..changes {
        let [high, low] = u16::try_from(change).unwrap().to_be_bytes();
        let address = Ipv4Addr::new(127, 88, high, low);
        let target = format!("{address}:{}", setup.sandbox_port);
        measured.push(
            setup
                .until_routed(&format!("sandbox-{change}"), &target, "sandbox")
                .await,
        );
    }
    report("accepted → routed, new target", &measured.into_iter().collect());

    let accepted: Durations = std::mem::take(&mut setup.accepted).into_iter().collect();
    figure(format!("PUT without wait until its answer, {RULES} rules: {accepted}"));

    let mut measured = Vec::new();
    for change in 0..changes {
        let target = ["service-a", "service-b"][change % 2];
        measured.push(
            setup
                .until_in_force(&format!("wait-{}", change / 2), target, target)
                .await,
        );
    }
    report("PUT?wait, known target", &measured.into_iter().collect());
}
