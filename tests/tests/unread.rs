//! What pushes cost that nobody reads.

use std::fmt::Write as _;

use serde_json::Value;
use sidetrack_tests::{
    AdsClient, AdsOptions, Agent, Client, ConfigFile, PATIENCE, Passing, Ports, Process, Protocol, Relay, Services,
    Variant, config_text, figure, poll_until,
};

const RULES: usize = 5_000;
const PROXIES: usize = 200;

/// How much the agent may grow by all of them, in bytes. Each is sent megabytes.
const GROWTH: u64 = 80 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn pushes_that_nobody_reads_are_not_copied() {
    let ports = Ports::free();
    let services = Services::start(&["baseline"]).await;
    let mut routing = String::from("routing:\n  defaultTarget: baseline\n  rules:\n");
    for i in 0..RULES {
        let _ = writeln!(
            routing,
            "    - {{routeKey: sandbox-{i}, targetService: service-{i}.sandbox.svc.cluster.local}}"
        );
    }
    let config = ConfigFile::new(&config_text(&ports, &services, &routing));
    let agent = Agent::start(&config.path(), &ports).await;
    // What is rendered for the first one is rendered for all.
    let first = AdsClient::start(ports.xds, AdsOptions::new("first", Variant::Delta));
    first.has_table().await;
    let before = Process::memory(agent.pid());

    let mut unread = Vec::new();
    for i in 0..PROXIES {
        let relay = Relay::start(ports.xds, Passing::ByteASecond).await;
        let variant = [Variant::Delta, Variant::Sotw][i % 2];
        let client = AdsClient::start(relay.port(), AdsOptions::new(&format!("unread-{i}"), variant));
        unread.push((relay, client));
    }
    let mut api = Client::new(Protocol::Http1, ports.api);
    poll_until(PATIENCE, "all of them connected", async || {
        let answer = api.get("/readyz", &[]).await.map_err(|error| format!("{error:#}"))?;
        let body: Value = serde_json::from_slice(&answer.body).map_err(|error| error.to_string())?;
        let connected = body["proxies"].as_array().map_or(0, Vec::len);
        (connected > PROXIES).then_some(()).ok_or(connected.to_string())
    })
    .await;
    let after = Process::memory(agent.pid());
    let pushed: usize = first.seen().pushes.iter().map(|push| push.bytes).sum();
    figure(format!(
        "{RULES} rules, {PROXIES} proxies that read nothing: the agent has {} MB, {} MB more than before; each is sent {pushed} bytes",
        after >> 20,
        after.saturating_sub(before) >> 20,
    ));
    assert!(after < before + GROWTH, "{before} bytes before, {after} after");
}
