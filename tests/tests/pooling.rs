//! Connections to a target are kept, shared and limited.

use sidetrack_tests::suite::is_full;
use sidetrack_tests::{
    Behaviour, Client, ConfigFile, PATIENCE, Ports, Protocol, Services, Sidetrack, Stats, config_text, poll_until,
};
use tokio::task::JoinSet;

const MAX_CONNECTIONS: u64 = 5;

/// Each of Envoy's workers has at least one connection to a target, whatever the limit is.
const WORKERS: u64 = 2;

fn requests() -> usize {
    if is_full() { 10_000 } else { 1_000 }
}

const ROUTING: &str = r#"
routing:
  defaultTarget: baseline
  rules:
    - {routeKey: kept, targetService: kept}
    - {routeKey: http2, targetService: http2}
    - {routeKey: brief, targetService: brief}
    - {routeKey: capped, targetService: capped}
"#;

async fn connections_made(ports: &Ports, name: &str) -> u64 {
    let stats = Stats::read(ports.admin, &format!("^cluster.{name}_80.upstream_cx_total")).await;
    stats.sum("upstream_cx_total")
}

async fn send_in_turn(port: u16, key: &str, count: usize) {
    let mut client = Client::new(Protocol::Http1, port);
    for _ in 0..count {
        let answer = client.get("/", &[("x-route-key", key)]).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_kept_closed_when_idle_and_never_too_many() {
    let ports = Ports::free();
    let mut services = Services::start(&["baseline", "kept", "brief", "capped"]).await;
    services.start_speaking("http2", Some(Protocol::Http2)).await;
    for (name, fields) in [
        ("http2", "protocol: http2".to_owned()),
        ("brief", "connectionPool: {idleTimeout: 300ms}".to_owned()),
        (
            "capped",
            format!("connectionPool: {{maxConnections: {MAX_CONNECTIONS}}}, requestTimeout: 0s"),
        ),
    ] {
        services.configure(name, &[name], &fields);
    }
    let config = ConfigFile::new(&config_text(&ports, &services, ROUTING));
    let _sidetrack = Sidetrack::up(&config.path(), &ports).await;

    for (key, name) in [("kept", "kept"), ("nobody", "baseline"), ("http2", "http2")] {
        send_in_turn(ports.http, key, requests()).await;
        let made = connections_made(&ports, name).await;
        println!("{name}: {} requests in turn over {made} connections", requests());
        assert!((1..=2 * WORKERS).contains(&made), "{made}");
        assert_eq!(services.server(name).connections(), made, "{name}: they are kept");
    }

    let mut at_once = JoinSet::new();
    for _ in 0..200 {
        at_once.spawn(send_in_turn(ports.http, "http2", 20));
    }
    at_once.join_all().await;
    let made = connections_made(&ports, "http2").await;
    println!("http2: 200 clients at once share {made} connections");
    assert!(made <= 2 * WORKERS, "{made}");

    send_in_turn(ports.http, "brief", 10).await;
    assert!(connections_made(&ports, "brief").await >= 1);
    let brief = services.server("brief");
    poll_until(PATIENCE, "idle connections closed", async || {
        let open = brief.connections();
        (open == 0).then_some(()).ok_or_else(|| open.to_string())
    })
    .await;
    println!(
        "brief: idle connections are closed; those of others are kept: {}",
        services.server("kept").connections()
    );
    assert!(services.server("kept").connections() > 0);

    let capped = services.server("capped");
    let mut at_once = JoinSet::new();
    for _ in 0..100 {
        at_once.spawn(send_in_turn(ports.http, "capped", 20));
    }
    at_once.join_all().await;
    capped.behave(Behaviour::Hang);
    let mut at_once = JoinSet::new();
    for _ in 0..50 {
        at_once.spawn(send_in_turn(ports.http, "capped", 1));
    }
    poll_until(PATIENCE, "all requests under way or waiting", async || {
        let stats = Stats::read(ports.admin, "^cluster.capped_80.upstream_rq_").await;
        let found = capped.in_flight() + stats.sum(".upstream_rq_pending_active");
        (found == 50).then_some(()).ok_or_else(|| found.to_string())
    })
    .await;
    let (at_target, open) = (capped.in_flight(), capped.connections());
    println!(
        "capped at {MAX_CONNECTIONS}: of 50 requests {at_target} at the target over {open} connections, at most {} at any time",
        capped.most_in_flight()
    );
    let allowed = MAX_CONNECTIONS..MAX_CONNECTIONS + WORKERS;
    assert!(
        allowed.contains(&at_target) && allowed.contains(&open),
        "{at_target} over {open}"
    );
    assert!(capped.most_in_flight() < MAX_CONNECTIONS + WORKERS);
    capped.behave(Behaviour::Echo);
    at_once.join_all().await;
}
