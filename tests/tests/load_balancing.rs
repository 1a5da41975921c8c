//! How the endpoints of a target share its requests.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use sidetrack_tests::suite::is_full;
use sidetrack_tests::{Client, ConfigFile, PATIENCE, Ports, Protocol, Services, Sidetrack, config_text, poll_until};
use tokio::task::JoinSet;

const CONNECTIONS: usize = 16;
const USERS: usize = 400;
const ENDPOINTS: [&str; 3] = ["a", "b", "c"];

/// How many requests each load balancer gets.
fn requests() -> usize {
    if is_full() { 30_000 } else { 3_000 }
}

/// How much an endpoint's share may be away from a third that is by chance: five standard deviations.
fn by_chance() -> f64 {
    5.0 * (2.0 / requests() as f64).sqrt()
}

const POLICIES: [(&str, &str); 3] = [
    ("roundRobin", "loadBalancer: roundRobin"),
    ("random", "loadBalancer: random"),
    // Of two by chance the one with fewer requests: with few at a time it is chance.
    ("leastRequest", "loadBalancer: leastRequest"),
];

/// Load balancers that hash: how uneven the parts of the ring may be, and a few hundred values on them.
const BY_HASH: f64 = 0.5;

const HASHING: [(&str, &str); 3] = [
    ("ringHash", "loadBalancer: ringHash, hashBy: {header: X-User}"),
    ("maglev", "loadBalancer: maglev, hashBy: {header: X-User}"),
    ("cookie", "loadBalancer: ringHash, hashBy: {cookie: user}"),
];

/// By the client's address; there is one client.
const SOURCE: &str = "loadBalancer: maglev, hashBy: {sourceAddress: true}";

fn configure(services: &mut Services, endpoints: &[&str]) {
    for (name, fields) in POLICIES.iter().chain(&HASHING) {
        services.configure(name, endpoints, fields);
    }
    services.configure("source", endpoints, SOURCE);
}

fn routing() -> String {
    let names = POLICIES.iter().chain(&HASHING).map(|(name, _)| *name);
    let rules = names.chain(["source"]).flat_map(|name| {
        ["baseline", "none"].map(|fallback| {
            format!("    - {{routeKey: {name}-{fallback}, targetService: {name}, fallback: {fallback}}}\n")
        })
    });
    format!(
        "routing:\n  defaultTarget: ringHash\n  rules:\n{}",
        rules.collect::<String>()
    )
}

/// Who serves each of these requests, given as the user of each, sent over several connections.
async fn served_by(port: u16, key: &str, users: Vec<usize>) -> Vec<String> {
    let mut senders = JoinSet::new();
    for (index, part) in users.chunks(users.len().div_ceil(CONNECTIONS)).enumerate() {
        let (part, key) = (part.to_vec(), key.to_owned());
        senders.spawn(async move {
            let mut client = Client::new(Protocol::Http1, port);
            let mut served_by = Vec::with_capacity(part.len());
            for user in part {
                let (name, cookie) = (format!("u{user}"), format!("a=b; user=u{user}"));
                let headers = [("x-route-key", key.as_str()), ("x-user", &name), ("cookie", &cookie)];
                served_by.push(client.get("/", &headers).await.unwrap().served_by());
            }
            (index, served_by)
        });
    }
    let mut parts: Vec<_> = senders.join_all().await;
    parts.sort_unstable();
    parts.into_iter().flat_map(|(_, served_by)| served_by).collect()
}

/// The shares, each at most `tolerance` of a third away from a third.
fn assert_even(what: &str, served_by: &[String], tolerance: f64, begun: Instant) {
    let mut counts = BTreeMap::<&str, usize>::new();
    for name in served_by {
        *counts.entry(name).or_default() += 1;
    }
    println!(
        "{what}: {} requests: {counts:?} in {:?}",
        served_by.len(),
        begun.elapsed()
    );
    let third = served_by.len() as f64 / ENDPOINTS.len() as f64;
    for name in ENDPOINTS {
        let count = counts.get(name).copied().unwrap_or_default() as f64;
        assert!((count - third).abs() <= tolerance * third, "{what}: {counts:?}");
    }
    assert!(counts.keys().all(|name| ENDPOINTS.contains(name)), "{what}: {counts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_share_the_requests_as_their_load_balancer_says() {
    let ports = Ports::free();
    let mut services = Services::start(&ENDPOINTS).await;
    configure(&mut services, &ENDPOINTS);
    let config = ConfigFile::new(&config_text(&ports, &services, &routing()));
    let _sidetrack = Sidetrack::up(&config.path(), &ports).await;

    for (name, _) in POLICIES {
        let tolerance = if name == "roundRobin" { 0.01 } else { by_chance() };
        let begun = Instant::now();
        let served = served_by(ports.http, &format!("{name}-baseline"), vec![0; requests()]).await;
        assert_even(name, &served, tolerance, begun);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_values_go_to_one_endpoint_and_stay_when_another_leaves() {
    let ports = Ports::free();
    let mut services = Services::start(&ENDPOINTS).await;
    configure(&mut services, &ENDPOINTS);
    let config = ConfigFile::new(&config_text(&ports, &services, &routing()));
    let _sidetrack = Sidetrack::up(&config.path(), &ports).await;

    // Keys without a rule go to the baseline, which hashes, too.
    let keys = HASHING
        .iter()
        .flat_map(|(name, _)| ["baseline", "none"].map(|fallback| format!("{name}-{fallback}")));
    let keys: Vec<String> = keys.chain(["nobody".to_owned()]).collect();
    let users: Vec<usize> = (0..USERS).collect();
    let mut first = BTreeMap::new();
    for key in &keys {
        let begun = Instant::now();
        let served = served_by(ports.http, key, users.clone()).await;
        let mut backwards = served_by(ports.http, key, users.iter().rev().copied().collect()).await;
        backwards.reverse();
        assert_eq!(served, backwards, "{key}: users moved");
        assert_even(key, &served, BY_HASH, begun);
        first.insert(key.as_str(), served);
    }
    let of_one: BTreeSet<String> = served_by(ports.http, "source-baseline", users.clone())
        .await
        .into_iter()
        .collect();
    println!("by the client's address: {USERS} requests of one client at {of_one:?}");
    assert_eq!(of_one.len(), 1);

    for name in ["ringHash-baseline", "maglev-baseline"] {
        let begun = Instant::now();
        let many = (0..requests()).map(|request| request % USERS).collect();
        let served = served_by(ports.http, name, many).await;
        let of_users = &first[name];
        let moved = served
            .iter()
            .enumerate()
            .filter(|(request, by)| **by != of_users[request % USERS]);
        assert_eq!(moved.count(), 0, "{name}");
        assert_even(name, &served, BY_HASH, begun);
    }

    let left = &ENDPOINTS[..2];
    configure(&mut services, left);
    config.replace(&config_text(&ports, &services, &routing()));
    for key in &keys {
        let after = poll_until(PATIENCE, "an endpoint gone", async || {
            let served = served_by(ports.http, key, users.clone()).await;
            let at_gone = served.iter().filter(|name| !left.contains(&name.as_str())).count();
            (at_gone == 0)
                .then_some(served)
                .ok_or_else(|| format!("{at_gone} are at it"))
        })
        .await;
        let before = &first[key.as_str()];
        let were = |name: &str| before.iter().filter(|before| *before == name).count();
        let moved = |before: &String, after: &String| left.contains(&before.as_str()) && before != after;
        let moved = before
            .iter()
            .zip(&after)
            .filter(|(before, after)| moved(before, after))
            .count();
        let got = |name: &str| {
            let pairs = before.iter().zip(&after);
            pairs.filter(|(before, after)| *before == "c" && *after == name).count()
        };
        println!(
            "{key}: c leaves: its {} users go to a ({}) and b ({}); of the other {} users {moved} move",
            were("c"),
            got("a"),
            got("b"),
            were("a") + were("b"),
        );
        assert!(got("a") > 0 && got("b") > 0, "{key}");
        // Maglev gives up a little of that for being even.
        let may_move = if key.starts_with("maglev") { USERS / 5 } else { 0 };
        assert!(moved <= may_move, "{key}: {moved} move");
    }
}
