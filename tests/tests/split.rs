//! Requests divided over targets by weight.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use sidetrack_tests::{Client, ConfigFile, PATIENCE, Ports, Protocol, Services, Sidetrack, config_text, poll_until};
use tokio::task::JoinSet;

const CONNECTIONS: usize = 8;
const USERS: usize = 1_000;
const ROUNDS: usize = 3;

/// Of the default target's shares, which Envoy divides by chance: five times the standard deviation of a share of 10 %
/// among 5,000 requests.
const BY_ENVOY: f64 = 0.22;

/// Of a rule's shares, which the filter divides, among 100,000 requests.
const BY_FILTER: f64 = 0.01;

/// The ways to be sticky, and the key of their rule. Each user has a route key of its own where that is the way.
const STICKY: [&str; 3] = ["header", "cookie", "routeKey"];

/// A request's path and headers.
type Head = (String, Vec<(String, String)>);

/// Sends these requests over several HTTP/2 connections, each of them once the config `version` is in force for it, and
/// returns who served each.
async fn served_by(port: u16, version: &str, requests: Vec<Head>) -> Vec<String> {
    let each = requests.len().div_ceil(CONNECTIONS);
    let mut senders = JoinSet::new();
    for (index, part) in requests.chunks(each).enumerate() {
        let part = part.to_vec();
        let mut client = client_in(port, version).await;
        senders.spawn(async move {
            let mut served_by = Vec::new();
            for (path, headers) in part {
                let headers: Vec<_> = headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
                served_by.push(client.get(&path, &headers).await.unwrap().served_by());
            }
            (index, served_by)
        });
    }
    let mut parts: Vec<_> = senders.join_all().await;
    parts.sort_unstable();
    parts.into_iter().flat_map(|(_, served_by)| served_by).collect()
}

/// A connection for which the config `version` is in force: it is one worker's, which has one table.
async fn client_in(port: u16, version: &str) -> Client {
    let mut client = Client::new(Protocol::Http2, port);
    poll_until(PATIENCE, &format!("version {version} in force"), async || {
        let answer = client.get("/", &[("x-route-key", "version")]).await;
        let echo = answer.map_err(|error| format!("{error:#}"))?.echo();
        let found = echo.header("x-version").concat();
        (found == version).then_some(()).ok_or(found)
    })
    .await;
    client
}

/// Tells the version by the header that its target gets.
fn version_rule(version: &str) -> String {
    format!("    - {{routeKey: version, targetService: main, additionalHeaders: {{X-Version: \"{version}\"}}}}\n")
}

fn share(served_by: &[String], service: &str) -> f64 {
    let count = served_by.iter().filter(|name| *name == service).count();
    count as f64 / served_by.len() as f64
}

/// The shares are `expected`, up to this part of each.
fn assert_shares(what: &str, served_by: &[String], expected: &[(&str, f64)], tolerance: f64) {
    let mut counts = BTreeMap::<&str, usize>::new();
    for name in served_by {
        *counts.entry(name).or_default() += 1;
    }
    println!("{what}: {} requests: {counts:?}", served_by.len());
    for (service, expected) in expected {
        let found = share(served_by, service);
        assert!(
            (found - expected).abs() < tolerance * expected,
            "{what}: {found} instead of {expected} for {service}: {counts:?}"
        );
    }
    assert_eq!(counts.len(), expected.len(), "{what}: {counts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn shares_are_those_of_the_weights() {
    let ports = Ports::free();
    let services = Services::start(&["main", "canary", "a", "b"]).await;
    let routing = format!(
        "routing:\n  defaultTarget: [{{service: main, weight: 90}}, {{service: canary, weight: 10}}]\n  rules:\n{}{}",
        version_rule("1"),
        "    - {routeKey: split, pathPrefixes: [/split], targets: [{service: a, weight: 90}, {service: b, weight: 10}]}\n"
    );
    let config = ConfigFile::new(&config_text(&ports, &services, &routing));
    let _sidetrack = Sidetrack::up(&config.path(), &ports).await;

    let key = |key: &str| vec![("x-route-key".to_owned(), key.to_owned())];
    let requests = vec![("/split".to_owned(), key("split")); 100_000];
    let served = served_by(ports.http, "1", requests).await;
    assert_shares("a rule's targets", &served, &[("a", 0.9), ("b", 0.1)], BY_FILTER);
    for (what, path, headers, expected) in [
        ("no key", "/split", vec![], [("main", 0.9), ("canary", 0.1)]),
        ("unknown key", "/split", key("nobody"), [("main", 0.9), ("canary", 0.1)]),
        ("no rule matches", "/", key("split"), [("main", 0.9), ("canary", 0.1)]),
    ] {
        let requests = vec![(path.to_owned(), headers); 5_000];
        assert_shares(what, &served_by(ports.http, "1", requests).await, &expected, BY_ENVOY);
    }
}

/// The whole routing section with these weights of old and new.
fn sticky_routing(version: &str, old: u32, new: u32) -> String {
    let targets = format!("targets: [{{service: old, weight: {old}}}, {{service: new, weight: {new}}}]");
    let mut routing = format!("routing:\n  defaultTarget: main\n  rules:\n{}", version_rule(version));
    let _ = writeln!(
        routing,
        "    - {{routeKey: header, {targets}, stickyBy: {{header: X-User}}}}"
    );
    let _ = writeln!(
        routing,
        "    - {{routeKey: cookie, {targets}, stickyBy: {{cookie: user}}}}"
    );
    for user in 0..USERS {
        let _ = writeln!(
            routing,
            "    - {{routeKey: u{user}, {targets}, stickyBy: {{routeKey: true}}}}"
        );
    }
    routing
}

fn requests_of_users(by: &str) -> Vec<Head> {
    let request = |user| {
        let (key, name, value) = match by {
            "header" => ("header".to_owned(), "x-user", format!("u{user}")),
            "cookie" => ("cookie".to_owned(), "cookie", format!("a=b; user=u{user}; c=d")),
            _ => (format!("u{user}"), "x-user", "somebody".to_owned()),
        };
        let headers = vec![("x-route-key".to_owned(), key), (name.to_owned(), value)];
        ("/".to_owned(), headers)
    };
    (0..USERS).map(request).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_stays_and_moves_only_to_what_has_grown() {
    let ports = Ports::free();
    let services = Services::start(&["main", "old", "new"]).await;
    let file = ConfigFile::new(&config_text(&ports, &services, &sticky_routing("1", 90, 10)));
    let _sidetrack = Sidetrack::up(&file.path(), &ports).await;

    let mut first = BTreeMap::new();
    for by in STICKY {
        let chosen = served_by(ports.http, "1", requests_of_users(by)).await;
        for round in 1..ROUNDS {
            let again = served_by(ports.http, "1", requests_of_users(by)).await;
            let moved = chosen.iter().zip(&again).filter(|(before, after)| before != after);
            assert_eq!(moved.count(), 0, "by {by}: users moved in round {round}");
        }
        first.insert(by, chosen);
    }
    file.replace(&config_text(&ports, &services, &sticky_routing("2", 80, 20)));
    for by in STICKY {
        let before = &first[by];
        let after = served_by(ports.http, "2", requests_of_users(by)).await;
        let moves: Vec<_> = before
            .iter()
            .zip(&after)
            .filter(|(before, after)| before != after)
            .collect();
        let elsewhere = moves.iter().filter(|(_, after)| *after != "new").count();
        let (was, is) = (share(before, "new"), share(&after, "new"));
        println!(
            "sticky by {by}: share of the grown target {was} then {is}; {} of {USERS} moved to it, {elsewhere} elsewhere",
            moves.len()
        );
        assert_eq!(elsewhere, 0, "by {by}");
        // Five standard deviations of 1,000 users.
        assert!(
            (was - 0.1).abs() < 0.048 && (is - 0.2).abs() < 0.064,
            "by {by}: {was}, {is}"
        );
        assert!(after.iter().all(|name| name == "old" || name == "new"), "by {by}");
    }
}
