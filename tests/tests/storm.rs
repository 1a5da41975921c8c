//! Ten thousand writes a second.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sidetrack_routing::{Destination, Request, RouteTable, decide};
use sidetrack_tests::{
    Acks, AdsClient, AdsOptions, AdsType, Agent, Api, Client, ConfigFile, Envoy, Flood, Flooded, PATIENCE, Ports,
    Process, Protocol, Services, Variant, config_text, figure, poll_until, render, suite,
};

const ROUTING: &str = "routing: {defaultTarget: baseline}";

/// A second.
const WRITES: u32 = 10_000;

/// Each changes keys of its own, so that there is an order of their changes.
const CONNECTIONS: usize = 64;
const KEYS: usize = 32;
const DEPTH: usize = 16;

const TARGETS: [&str; 3] = ["service-a", "service-b", "service-c"];

/// How long the slow one takes to accept anything.
const SLOW: Duration = Duration::from_millis(500);

/// The bound is 1 s; what other processes on the machine take comes on top.
const SETTLED: Duration = Duration::from_secs(5);

fn key(connection: usize, key: usize) -> String {
    format!("storm-{connection}-{key}")
}

/// What the request of this number on its connection is about: a key, and its new target.
fn change(number: usize) -> (usize, &'static str) {
    (number % KEYS, TARGETS[number / KEYS % TARGETS.len()])
}

fn request(connection: usize, number: usize) -> Vec<u8> {
    let (index, target) = change(number);
    let body = json!([{"targetService": target}]).to_string();
    let key = key(connection, index);
    format!(
        "PUT /api/v1/rules/{key} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

fn requests() -> Vec<Vec<Vec<u8>>> {
    let all = KEYS * TARGETS.len();
    (0..CONNECTIONS)
        .map(|connection| (0..all).map(|number| request(connection, number)).collect())
        .collect()
}

/// The target of each key in the end.
fn expected(flooded: &Flooded) -> Vec<(String, &'static str)> {
    let mut expected = Vec::new();
    for (connection, sent) in flooded.sent.iter().enumerate() {
        assert!(
            *sent >= KEYS,
            "connection {connection} changed {sent} of its {KEYS} keys only"
        );
        let last = (sent - KEYS..*sent).map(change);
        expected.extend(last.map(|(index, target)| (key(connection, index), target)));
    }
    expected
}

fn wrong_in(table: &RouteTable, expected: &[(String, &str)]) -> Option<String> {
    expected.iter().find_map(|(key, target)| {
        match decide(table, &Request::new(&[("x-route-key", key.as_str()), (":path", "/")])).destination {
            Destination::Target { rule, .. } if rule.targets().any(|(cluster, _)| cluster.starts_with(target)) => None,
            other => Some(format!("{key} isn't {target}: {other:?}")),
        }
    })
}

/// Waits until the client's table is right.
async fn until_right(client: &AdsClient, expected: &[(String, &str)]) {
    poll_until(PATIENCE, "the final table", async || {
        let held = client.seen().held.clone();
        let table = held.table().map_err(|error| format!("{error:#}"))?;
        wrong_in(&table, expected).map_or(Ok(()), Err)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pushes_are_bounded_by_answers_and_the_end_is_right() {
    let lasts = Duration::from_secs(if suite::is_full() { 30 } else { 5 });
    let ports = Ports::free();
    let services = Services::start(&["baseline", TARGETS[0], TARGETS[1], TARGETS[2]]).await;
    let file = ConfigFile::new(&config_text(&ports, &services, ROUTING));
    let agent = Agent::start_release(&file.path(), &ports).await;
    let _envoy = Envoy::start(&render(&file.path(), &["--bootstrap"]));
    let observer = |name: &str, variant, acks| {
        let options = AdsOptions {
            acks,
            ..AdsOptions::new(name, variant)
        };
        AdsClient::start(ports.xds, options)
    };
    let observers = [
        observer("delta", Variant::Delta, Acks::AtOnce),
        observer("sotw", Variant::Sotw, Acks::AtOnce),
        observer("slow delta", Variant::Delta, Acks::After(SLOW)),
        observer("slow sotw", Variant::Sotw, Acks::After(SLOW)),
    ];

    // As many rules and clusters as there will be, and a taste of the storm.
    let all = (0..CONNECTIONS).flat_map(|connection| {
        (0..KEYS).map(move |index| json!({"routeKey": key(connection, index), "targetService": TARGETS[index % 3]}))
    });
    let mut api = Api::new(ports.api);
    let written = api.put_all(&Value::Array(all.collect()), Some(PATIENCE)).await.unwrap();
    assert!(written.is_in_force(), "{written:?}");
    let flood = Flood {
        port: ports.api,
        depth: DEPTH,
        rate: WRITES,
        lasts: Duration::from_secs(1),
    };
    let warm = flood.send(requests()).await;
    assert_eq!(warm.refused, 0, "{:?}", warm.refusals);
    for observer in &observers {
        until_right(observer, &expected(&warm)).await;
    }
    let before = Process::memory(agent.pid());
    let pushes_before: Vec<_> = observers.iter().map(|observer| observer.seen().pushes.len()).collect();

    Process::forget_peak(agent.pid());
    let flooded = Flood { lasts, ..flood }.send(requests()).await;
    let ended = Instant::now();
    let expected = expected(&flooded);
    let (_, in_envoy) = tokio::join!(until_right(&observers[0], &expected), in_envoy(ports.http, &expected));
    let settled = ended.elapsed();
    for observer in &observers {
        until_right(observer, &expected).await;
    }
    let (after, peak) = (Process::memory(agent.pid()), Process::peak_memory(agent.pid()));

    let writes: usize = flooded.sent.iter().sum();
    let ratio = |bytes: u64| bytes as f64 / before as f64;
    figure(format!(
        "storm: {writes} writes in {:.1} s, {:.0} a second, {} refused; right everywhere after {settled:.0?} (Envoy: \
         {in_envoy:.0?}); RSS {:.1} MB before, {:.2} × after, {:.2} × at most",
        flooded.took.as_secs_f64(),
        writes as f64 / flooded.took.as_secs_f64(),
        flooded.refused,
        before as f64 / 1e6,
        ratio(after),
        ratio(peak)
    ));
    for (observer, before) in observers.iter().zip(pushes_before) {
        let seen = observer.seen();
        let pushes = &seen.pushes[before..];
        let tables = pushes.iter().filter(|push| push.kind == AdsType::Filter).count();
        figure(format!("storm: {tables} tables, {} pushes", pushes.len()));
        assert!(seen.problems.is_empty(), "{seen:?}");
    }
    assert_eq!(flooded.refused, 0, "{:?}", flooded.refusals);
    let rounds = (ended.elapsed() + flooded.took).as_secs_f64() / SLOW.as_secs_f64();
    for slow in &observers[2..] {
        let tables = slow.seen().pushes(AdsType::Filter);
        assert!(
            (tables as f64) < 2.0 * rounds + 10.0,
            "{tables} tables in {rounds} round trips"
        );
    }
    assert!(settled < SETTLED, "{settled:?}");
    assert!(ratio(after) <= 1.5, "the agent has {} times the memory", ratio(after));
}

/// How long it took until Envoy serves every key by its last target.
async fn in_envoy(port: u16, expected: &[(String, &str)]) -> Duration {
    let begun = Instant::now();
    let mut client = Client::new(Protocol::Http1, port);
    for (key, target) in expected.iter().rev() {
        poll_until(PATIENCE, key, async || {
            let answer = client.get("/", &[("x-route-key", key)]).await;
            let served_by = answer.map_err(|error| format!("{error:#}"))?.served_by();
            (served_by == *target).then_some(()).ok_or(served_by)
        })
        .await;
    }
    begun.elapsed()
}
