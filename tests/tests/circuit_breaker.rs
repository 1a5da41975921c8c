//! A target gets no more than it may: what is more waits for a connection, or is refused at once.

use std::time::{Duration, Instant};

use sidetrack_tests::{
    Answer, Behaviour, Client, ConfigFile, PATIENCE, Ports, Protocol, Services, Sidetrack, Stats, config_text,
    poll_until, until_served_by,
};
use tokio::task::JoinSet;

const MAX_REQUESTS: u64 = 4;
const MAX_CONNECTIONS: u64 = 2;
const MAX_PENDING: u64 = 3;

/// Each of Envoy's workers has at least one connection to a target, whatever the limit is.
const WORKERS: u64 = 2;

const ROUTING: &str = r#"
routing:
  defaultTarget: baseline
  rules:
    - {routeKey: full, targetService: full}
    - {routeKey: full-none, targetService: full, fallback: none}
    - {routeKey: queue, targetService: queue}
    - {routeKey: short, targetService: short, fallback: none}
    - {routeKey: other, targetService: other}
"#;

async fn start(ports: &Ports) -> (Services, ConfigFile, Sidetrack) {
    let mut services = Services::start(&["baseline", "full", "queue", "short", "other"]).await;
    for (name, fields) in [
        ("full", format!("circuitBreaker: {{maxRequests: {MAX_REQUESTS}}}")),
        (
            "queue",
            format!("connectionPool: {{maxConnections: {MAX_CONNECTIONS}}}"),
        ),
        (
            "short",
            format!("circuitBreaker: {{maxConnections: 1, maxPendingRequests: {MAX_PENDING}}}"),
        ),
    ] {
        services.configure(name, &[name], &fields);
    }
    let config = ConfigFile::new(&config_text(ports, &services, ROUTING));
    let sidetrack = Sidetrack::up(&config.path(), ports).await;
    (services, config, sidetrack)
}

/// A request that is under way, on a connection of its own.
fn send(requests: &mut JoinSet<(Duration, Answer)>, port: u16, key: &'static str) {
    requests.spawn(async move {
        let mut client = Client::new(Protocol::Http1, port);
        client.connect().await.unwrap();
        let sent = Instant::now();
        let answer = client.get("/", &[("x-route-key", key)]).await.unwrap();
        (sent.elapsed(), answer)
    });
}

/// How many requests to the cluster are under way and how many wait, by Envoy's own count.
async fn active(ports: &Ports, cluster: &str) -> (u64, u64) {
    let stats = Stats::read(ports.admin, &format!("^cluster.{cluster}.upstream_rq_")).await;
    let of = |name| stats.of_cluster(&format!("cluster.{cluster}.{name}"));
    (of("upstream_rq_active"), of("upstream_rq_pending_active"))
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_beyond_the_limit_are_refused_at_once_and_nobody_else_notices() {
    let ports = Ports::free();
    let (services, _config, _sidetrack) = start(&ports).await;
    let target = services.server("full");
    // The connections are there.
    until_served_by(ports.http, "full", "full").await;
    target.behave(Behaviour::Hang);

    let mut under_way = JoinSet::new();
    for count in 1..=MAX_REQUESTS {
        send(&mut under_way, ports.http, "full");
        poll_until(PATIENCE, "the request at the target", async || {
            let found = target.in_flight();
            (found == count).then_some(()).ok_or_else(|| format!("{found} are"))
        })
        .await;
    }
    let mut more = JoinSet::new();
    for key in ["full", "full-none"] {
        for _ in 0..50 {
            send(&mut more, ports.http, key);
        }
    }
    let mut times = Vec::new();
    for (time, answer) in more.join_all().await {
        assert_eq!(answer.status, 503, "{}", answer.text());
        assert_eq!(answer.header("x-route-error"), "overloaded");
        assert_eq!(answer.header("content-type"), "application/json");
        let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(body["error"], "overloaded");
        assert_eq!(body["target"], "full:80", "{body}");
        times.push(time);
    }
    for (key, expected) in [("other", "other"), ("nobody", "baseline")] {
        for _ in 0..50 {
            let answer = Client::new(Protocol::Http1, ports.http)
                .get("/", &[("x-route-key", key)])
                .await;
            assert_eq!(answer.unwrap().served_by(), expected);
        }
    }
    assert_eq!(target.in_flight(), MAX_REQUESTS);
    target.behave(Behaviour::Echo);
    for (_, answer) in under_way.join_all().await {
        assert_eq!(answer.served_by(), "full");
    }
    for _ in 0..50 {
        until_served_by(ports.http, "full", "full").await;
    }
    times.sort_unstable();
    println!(
        "maxRequests {MAX_REQUESTS}: at most {} at the target, {} refused at once: median {:?}, longest {:?}",
        target.most_in_flight(),
        times.len(),
        times[times.len() / 2],
        times[times.len() - 1],
    );
    assert_eq!(target.most_in_flight(), MAX_REQUESTS);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_beyond_the_connections_wait_for_one_and_those_beyond_the_queue_are_refused() {
    const COUNT: u64 = 20;
    let ports = Ports::free();
    let (services, _config, _sidetrack) = start(&ports).await;
    for (name, connections, may_wait) in [("queue", MAX_CONNECTIONS, COUNT), ("short", 1, MAX_PENDING)] {
        let target = services.server(name);
        target.behave(Behaviour::Hang);
        let mut requests = JoinSet::new();
        let mut refused = 0;
        let (mut at_target, mut waiting) = (0, 0);
        for sent in 1..=COUNT {
            send(&mut requests, ports.http, name);
            poll_until(PATIENCE, "the request at its place", async || {
                while let Some(ended) = requests.try_join_next() {
                    let (_, answer) = ended.unwrap();
                    assert_eq!(answer.header("x-route-error"), "overloaded", "{}", answer.text());
                    refused += 1;
                }
                at_target = target.in_flight();
                waiting = active(&ports, &format!("{name}_80")).await.1;
                let settled = at_target + waiting + refused == sent;
                let places = format!("{at_target} at the target, {waiting} wait, {refused} refused, of {sent}");
                settled.then_some(()).ok_or(places)
            })
            .await;
        }
        println!(
            "{name}: {connections} connections, {may_wait} may wait: of {COUNT} requests {at_target} at the target, {waiting} \
             wait, {refused} refused"
        );
        assert!(
            (connections..connections + WORKERS).contains(&at_target),
            "{at_target} at {name}"
        );
        assert_eq!(target.connections(), at_target, "connections to {name}");
        assert_eq!(waiting, may_wait.min(COUNT - at_target), "waiting for {name}");
        target.behave(Behaviour::Echo);
        for (_, answer) in requests.join_all().await {
            assert_eq!(answer.served_by(), name);
        }
    }
}
