//! Two hundred proxies, one that hardly reads, and five hundred that come at once.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sidetrack_tests::{
    AdsClient, AdsOptions, AdsType, Agent, Api, ConfigFile, Durations, PATIENCE, Passing, Ports, Process, Relay,
    Services, Variant, config_text, figure, poll_until, suite,
};

const ROUTING: &str = "routing: {defaultTarget: baseline}";

const PROXIES: usize = 200;
const RULES: usize = 500;

/// How often the others are compared, with the slow one and without.
const ROUNDS: usize = 5;
const UPDATES: usize = 10;

/// How much longer a push may take because one proxy is slow.
const DELAYED: f64 = 1.2;

/// Comparisons that a busy machine may spoil.
const ATTEMPTS: usize = 3;

/// After which time a proxy is dropped that doesn't read, and what a busy machine may add.
const DROPPED: Duration = Duration::from_secs(30);
const SLACK: Duration = Duration::from_secs(30);

struct Setup {
    ports: Ports,
    agent: Agent,
    api: Api,
    updates: usize,
    _running: (ConfigFile, Services),
}

impl Setup {
    async fn start() -> Self {
        let ports = Ports::free();
        let services = Services::start(&["baseline", "service-a", "service-b"]).await;
        let file = ConfigFile::new(&config_text(&ports, &services, ROUTING));
        let agent = Agent::start_release(&file.path(), &ports).await;
        let mut api = Api::new(ports.api);
        let rules = (0..RULES).map(|index| {
            let target = ["service-a", "service-b"][index % 2];
            json!({"routeKey": format!("sandbox-{index}"), "targetService": target, "pathPrefixes": ["/api/v1"]})
        });
        let written = api.put_all(&Value::Array(rules.collect()), None).await.unwrap();
        assert_eq!(written.status, 200, "{written:?}");
        Self {
            ports,
            agent,
            api,
            updates: 0,
            _running: (file, services),
        }
    }

    fn client(&self, port: u16, node: &str) -> AdsClient {
        AdsClient::start(port, AdsOptions::new(node, Variant::Delta))
    }

    async fn clients(&self, count: usize) -> Vec<AdsClient> {
        let clients: Vec<_> = (0..count)
            .map(|index| self.client(self.ports.xds, &format!("proxy-{index}")))
            .collect();
        for client in &clients {
            client.has_table().await;
        }
        clients
    }

    /// Changes one rule; how long it takes from the call until the new table is at each client.
    async fn update(&mut self, clients: &[AdsClient]) -> Vec<Duration> {
        let tables: Vec<_> = clients
            .iter()
            .map(|client| client.seen().pushes(AdsType::Filter))
            .collect();
        self.updates += 1;
        let target = ["service-b", "service-a"][self.updates % 2];
        let begun = Instant::now();
        let written = self
            .api
            .put("sandbox-0", &json!([{"targetService": target}]), None)
            .await
            .unwrap();
        assert_eq!(written.status, 200, "{written:?}");
        let mut took = Vec::new();
        for (client, tables) in clients.iter().zip(tables) {
            let next = client.until("the next table", |seen| {
                let mut pushes = seen.pushes.iter().filter(|push| push.kind == AdsType::Filter);
                pushes.nth(tables).map(|push| push.at)
            });
            took.push(next.await - begun);
        }
        took
    }

    async fn p99(&mut self, clients: &[AdsClient]) -> Duration {
        let mut took = Vec::new();
        for _ in 0..UPDATES {
            took.extend(self.update(clients).await);
        }
        took.into_iter().collect::<Durations>().quantile(0.99)
    }

    async fn connected(&mut self) -> Vec<String> {
        let proxies = self.api.get("/api/v1/proxies").await.unwrap();
        let listed = proxies["proxies"].as_array().into_iter().flatten();
        listed
            .map(|proxy| proxy["node"].as_str().unwrap_or_default().to_owned())
            .collect()
    }

    /// Waits until `node` is among the connected, or isn't.
    async fn until(&mut self, node: &str, is_connected: bool) {
        poll_until(
            DROPPED + SLACK,
            &format!("{node} connected: {is_connected}"),
            async || {
                let connected = self.connected().await;
                let is_there = connected.iter().any(|other| other == node);
                (is_there == is_connected)
                    .then_some(())
                    .ok_or_else(|| format!("{} are", connected.len()))
            },
        )
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_reads_a_byte_a_second_delays_no_other() {
    let rounds = if suite::is_full() { 3 * ROUNDS } else { ROUNDS };
    let mut setup = Setup::start().await;
    let clients = setup.clients(PROXIES).await;
    setup.p99(&clients).await;
    for attempt in 1..=ATTEMPTS {
        let (mut alone, mut beside) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            alone.push(setup.p99(&clients).await);
            let relay = Relay::start(setup.ports.xds, Passing::ByteASecond).await;
            let slow = setup.client(relay.port(), "slow");
            setup.until("slow", true).await;
            beside.push(setup.p99(&clients).await);
            assert_eq!(slow.seen().pushes.len(), 0, "it isn't slow");
            drop((slow, relay));
            setup.until("slow", false).await;
        }
        let [alone, beside] = [alone, beside].map(|p99s| p99s.into_iter().collect::<Durations>().median());
        let ratio = beside.as_secs_f64() / alone.as_secs_f64();
        figure(format!(
            "{PROXIES} proxies, {RULES} rules: p99 from call to table {alone:.1?}, beside one that reads a byte a second \
             {beside:.1?}: {ratio:.2} × (medians of {rounds} rounds; attempt {attempt})"
        ));
        if ratio <= DELAYED {
            break;
        }
        assert!(attempt < ATTEMPTS, "others wait {ratio} times as long for a slow proxy");
    }
    for client in &clients {
        let seen = client.seen();
        assert!(seen.problems.is_empty() && seen.disconnected.is_empty(), "{seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn proxies_that_dont_read_or_are_gone_without_a_word_are_dropped() {
    let mut setup = Setup::start().await;
    let well = setup.clients(1).await;
    let slow_relay = Relay::start(setup.ports.xds, Passing::ByteASecond).await;
    let dead_relay = Relay::start(setup.ports.xds, Passing::All).await;
    let _slow = setup.client(slow_relay.port(), "slow");
    let dead = setup.client(dead_relay.port(), "dead");
    dead.has_table().await;
    // It accepts all it gets, but hasn't for a while: a push to it is never answered.
    let deaf = AdsOptions {
        acks: sidetrack_tests::Acks::Never,
        ..AdsOptions::new("deaf", Variant::Delta)
    };
    let _deaf = AdsClient::start(setup.ports.xds, deaf);
    for node in ["slow", "dead", "deaf"] {
        setup.until(node, true).await;
    }
    let begun = Instant::now();
    dead_relay.pass(Passing::Nothing);
    let mut dropped = Vec::new();
    for node in ["dead", "slow", "deaf"] {
        setup.until(node, false).await;
        dropped.push(format!("{node} {:.1} s", begun.elapsed().as_secs_f64()));
        setup.update(&well).await;
    }
    figure(format!("dropped at the latest after: {}", dropped.join(", ")));
    assert_eq!(setup.connected().await, ["proxy-0"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_that_come_back_at_once_get_the_table_again() {
    let mut setup = Setup::start().await;
    let before = Process::memory(setup.agent.pid());
    let mut took = Vec::new();
    for _ in 0..3 {
        let begun = Instant::now();
        let clients = setup.clients(500).await;
        took.push(begun.elapsed());
        for client in &clients {
            let rules = client.seen().held.table().expect("a table").rules();
            assert_eq!(rules, RULES);
        }
        // They are gone at once, and come at once in the next round.
        drop(clients);
    }
    let peak = Process::peak_memory(setup.agent.pid());
    let clients = setup.clients(500).await;
    let update: Durations = setup.update(&clients).await.into_iter().collect();
    let after = Process::memory(setup.agent.pid());
    figure(format!(
        "500 streams at once, {RULES} rules: all have the table after {:.0?}; an update is everywhere: {update}; RSS \
         {:.1} MB before, {:.1} MB at most, {:.1} MB with them",
        took,
        before as f64 / 1e6,
        peak as f64 / 1e6,
        after as f64 / 1e6
    ));
    drop(clients);
    poll_until(PATIENCE, "nobody connected", async || {
        let connected = setup.connected().await.len();
        (connected == 0).then_some(()).ok_or_else(|| connected.to_string())
    })
    .await;
}
