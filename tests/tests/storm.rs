//! Ten thousand writes a second.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sidetrack_routing::{Destination, Request, RouteTable, decide};
use sidetrack_tests::prometheus::scrape;
use sidetrack_tests::{
    Acks, AdsClient, AdsOptions, AdsType, Agent, Api, Client, ConfigFile, Envoy, Flood, Flooded, PATIENCE, Ports,
    Process, Protocol, Services, Variant, config_text, figure, poll_until, render, suite, until_served_by,
};
use tokio::task::JoinSet;

const ROUTING: &str = "routing: {defaultTarget: baseline}";

/// As many a second.
const WRITES: u32 = 10_000;

/// Each changes keys of its own, so that there is an order of their changes. HTTP/1.1 has one request at a time of each
/// connection answered, so as many changes wait together as there are connections.
const CONNECTIONS: usize = 512;
const KEYS: usize = 4;
const DEPTH: usize = 4;

const TARGETS: [&str; 3] = ["service-a", "service-b", "service-c"];

/// How long the slow ones take to accept anything. They have the end after twice that: they are told of it when they have
/// accepted what is under way.
const SLOW: Duration = Duration::from_millis(250);

/// All must have the end a second after it, says the figure; so much more passes, since others use the machine, too.
const SETTLED: Duration = Duration::from_secs(5);

/// How long the storm before it lasts.
const TASTE: Duration = Duration::from_secs(3);

/// How many ask Envoy at a time.
const CLIENTS: usize = 16;

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

/// The keys, by connection, with their targets at the beginning.
fn first_targets() -> Vec<Vec<&'static str>> {
    vec![(0..KEYS).map(|index| TARGETS[index % TARGETS.len()]).collect(); CONNECTIONS]
}

/// What became of them.
fn change_all(targets: &mut [Vec<&'static str>], flooded: &Flooded) {
    for (targets, sent) in targets.iter_mut().zip(&flooded.sent) {
        for (index, target) in (sent.saturating_sub(KEYS)..*sent).map(change) {
            targets[index] = target;
        }
    }
}

/// Each key and its target.
fn by_key(targets: &[Vec<&'static str>]) -> Vec<(String, &'static str)> {
    let of_connection = |(connection, targets): (usize, &Vec<&'static str>)| {
        let targets = targets.iter().enumerate();
        let pairs = targets.map(|(index, target)| (key(connection, index), *target));
        pairs.collect::<Vec<_>>()
    };
    targets.iter().enumerate().flat_map(of_connection).collect()
}

fn wrong_in(table: &RouteTable, expected: &[(String, &str)]) -> Option<String> {
    expected.iter().find_map(|(key, target)| {
        match decide(table, &Request::new(&[("x-route-key", key.as_str()), (":path", "/")])).destination {
            Destination::Target { rule, .. } if rule.targets().any(|(cluster, _)| cluster.starts_with(target)) => None,
            other => Some(format!("{key} isn't {target}: {other:?}")),
        }
    })
}

/// What is wrong with the table that the client holds.
fn wrong_at(client: &AdsClient, expected: &[(String, &str)]) -> Option<String> {
    let held = client.seen().held.clone();
    match held.table() {
        Ok(table) => wrong_in(&table, expected),
        Err(error) => Some(format!("{error:#}")),
    }
}

/// Returns when every proxy has accepted all there is: a change that changes nothing is answered then.
async fn until_accepted(port: u16, expected: &[(String, &str)]) {
    let (key, target) = &expected[0];
    let same = json!([{"targetService": target}]);
    let answer = Api::new(port).put(key, &same, Some(PATIENCE)).await.unwrap();
    assert!(answer.is_in_force(), "{answer:?}");
}

/// How long it takes to see each key at its last target in Envoy.
async fn walk_through_envoy(port: u16, expected: &[(String, &'static str)]) -> Duration {
    let begun = Instant::now();
    // Envoy accepts a table before each of its workers has it.
    poll_until(PATIENCE, "every key at its last target", async || {
        let wrong = wrong_in_envoy(port, expected).await;
        wrong.into_iter().next().map_or(Ok(()), Err)
    })
    .await;
    begun.elapsed()
}

async fn wrong_in_envoy(port: u16, expected: &[(String, &'static str)]) -> Vec<String> {
    let mut clients = JoinSet::new();
    for keys in expected.chunks(expected.len().div_ceil(CLIENTS)) {
        let keys = keys.to_vec();
        clients.spawn(async move {
            let mut client = Client::new(Protocol::Http1, port);
            let mut wrong = Vec::new();
            for (key, target) in keys {
                let served_by = client.get("/", &[("x-route-key", &key)]).await.unwrap().served_by();
                if served_by != target {
                    wrong.push(format!("{key} is {served_by}, not {target}"));
                }
            }
            wrong
        });
    }
    clients.join_all().await.concat()
}

/// How often the agent has done this, and how long it took.
fn count_and_mean(metrics: &str, what: &str) -> (f64, Duration) {
    let value = |ending: &str| {
        let name = format!("sidetrack_agent_{what}_duration_seconds_{ending} ");
        let value = metrics.lines().find_map(|line| line.strip_prefix(&name));
        value.expect(&name).parse::<f64>().unwrap()
    };
    (value("count"), Duration::from_secs_f64(value("sum") / value("count")))
}

#[tokio::test(flavor = "multi_thread")]
async fn pushes_are_bounded_by_answers_and_the_end_is_right() {
    let lasts = Duration::from_secs(if suite::is_full() { 30 } else { 5 });
    let ports = Ports::free();
    let services = Services::start(&["baseline", TARGETS[0], TARGETS[1], TARGETS[2]]).await;
    let file = ConfigFile::new(&config_text(&ports, &services, ROUTING));
    let agent = Agent::start_release(&file.path(), &ports).await;
    let envoy = Envoy::start(&render(&file.path(), &["--bootstrap"]));
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
    for observer in &observers {
        observer.has_table().await;
    }
    until_served_by(ports.http, "unknown", "baseline").await;

    // As many rules and clusters as there will be, and a taste of the storm: an agent that has been through one has its
    // buffers, and what it needs more than that is what counts.
    let mut targets = first_targets();
    let all = by_key(&targets).into_iter();
    let all = all.map(|(key, target)| json!({"routeKey": key, "targetService": target}));
    let mut api = Api::new(ports.api);
    let written = api.put_all(&Value::Array(all.collect()), Some(PATIENCE)).await.unwrap();
    assert!(written.is_in_force(), "{written:?}");
    let flood = Flood {
        port: ports.api,
        depth: DEPTH,
        rate: WRITES,
        lasts: TASTE,
    };
    let warm = flood.send(requests()).await;
    assert_eq!(warm.refused, 0, "{:?}", warm.refusals);
    change_all(&mut targets, &warm);
    until_accepted(ports.api, &by_key(&targets)).await;

    let own = rustix::process::getpid();
    let cpu_times = || [agent.pid(), envoy.pid(), own].map(Process::cpu_time);
    let (before, busy_before) = (Process::memory(agent.pid()), cpu_times());
    let pushes_before: Vec<_> = observers.iter().map(|observer| observer.seen().pushes.len()).collect();
    Process::forget_peak(agent.pid());
    let begun = Instant::now();
    let flooded = Flood { lasts, ..flood }.send(requests()).await;
    let ended = Instant::now();
    change_all(&mut targets, &flooded);
    let expected = by_key(&targets);
    until_accepted(ports.api, &expected).await;
    let settled = ended.elapsed();
    let lasted = begun.elapsed();
    let pushes: Vec<_> = observers
        .iter()
        .zip(pushes_before)
        .map(|(observer, before)| observer.seen().pushes[before..].to_vec())
        .collect();
    let busy = cpu_times();
    let walked = walk_through_envoy(ports.http, &expected).await;
    let wrong: Vec<_> = observers.iter().map(|observer| wrong_at(observer, &expected)).collect();
    let (after, peak) = (Process::memory(agent.pid()), Process::peak_memory(agent.pid()));

    let writes: usize = flooded.sent.iter().sum();
    let ratio = |bytes: u64| bytes as f64 / before as f64;
    figure(format!(
        "storm: {writes} writes in {:.1} s: {:.0} a second of the {WRITES} asked for, {} refused; accepted everywhere {settled:.0?} \
         after the last answer; every key asked of Envoy in {walked:.0?} more",
        flooded.took.as_secs_f64(),
        writes as f64 / flooded.took.as_secs_f64(),
        flooded.refused,
    ));
    figure(format!(
        "storm: RSS {:.1} MB before, {:.2} × after, {:.2} × at most",
        before as f64 / 1e6,
        ratio(after),
        ratio(peak)
    ));
    let busy = |index: usize| busy[index] - busy_before[index];
    let share = |index| busy(index).as_secs_f64() / lasted.as_secs_f64();
    figure(format!(
        "storm: {:.0?} of processor time for a write in the agent, which had {:.2} processors of {}; Envoy had {:.2}, this test \
         with its clients and writers {:.2}",
        busy(0) / u32::try_from(writes).unwrap(),
        share(0),
        std::thread::available_parallelism().unwrap(),
        share(1),
        share(2)
    ));
    let measured = scrape(ports.api).await;
    let (batches, kept) = count_and_mean(&measured, "state_write");
    let (_, rendered) = count_and_mean(&measured, "render");
    figure(format!(
        "storm: {batches} batches of changes since the start; at a time {kept:.1?} to keep one and {rendered:.1?} to render it"
    ));
    assert_eq!(flooded.refused, 0, "{:?}", flooded.refusals);
    assert_eq!(wrong, [const { None }; 4], "what has been accepted is the end");
    for (observer, pushes) in observers.iter().zip(&pushes) {
        let tables = pushes.iter().filter(|push| push.kind == AdsType::Filter).count();
        let last = pushes.last().map(|push| push.at.saturating_duration_since(ended));
        figure(format!(
            "storm: {tables} tables, {} pushes, the last {:.0?} after the last answer",
            pushes.len(),
            last.unwrap_or_default()
        ));
        // Among them: a push before the one of its type was answered.
        assert!(observer.seen().problems.is_empty(), "{:?}", observer.seen());
    }
    for slow in &pushes[2..] {
        let tables = slow.iter().filter(|push| push.kind == AdsType::Filter).count();
        let answers = (lasted.as_secs_f64() / SLOW.as_secs_f64()).ceil() as usize;
        assert!(tables <= answers + 1, "{tables} tables and {answers} answers");
    }
    assert!(settled < SETTLED, "{settled:?}");
    assert!(ratio(after) <= 1.5, "the agent has {} times the memory", ratio(after));
}
