//! A target that can't take a request: the baseline does, or the client is told.

use std::process::Command;
use std::time::{Duration, Instant};

use http::Method;
use sidetrack_tests::{
    Client, ConfigFile, Outcome, PATIENCE, Ports, Process, Protocol, Request, Services, Sidetrack, Signal, Stats,
    Traffic, config_text, free_port, get, poll_until, until_served_by,
};

const RATE: u32 = 250;

/// How many slow requests are at the target when it is killed.
const SLOW: usize = 20;

/// Longer than it takes a busy machine to send them all.
const SLOW_PATH: &str = "/slow?delay_ms=5000";

/// A rule with the key `key`.
fn rule(key: &str, target: &str, fallback: &str) -> String {
    format!("    - {{routeKey: {key}, targetService: \"{target}\"{fallback}}}\n")
}

fn routing(rules: &[String]) -> String {
    format!("routing:\n  defaultTarget: baseline\n  rules:\n{}", rules.concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_cannot_take_a_request_is_replaced_by_the_baseline_unless_told_otherwise() {
    let ports = Ports::free();
    let services = Services::start(&["baseline", "alive"]).await;
    let refusing = format!("127.0.0.1:{}", free_port());
    let targets = [
        ("alive", "alive", "alive", "alive"),
        ("unresolved", "no-such-host.invalid", "baseline", "503"),
        ("refusing", refusing.as_str(), "baseline", "503"),
    ];
    let rules: Vec<String> = targets
        .iter()
        .flat_map(|(key, target, ..)| {
            [
                rule(&format!("{key}-default"), target, ""),
                rule(&format!("{key}-baseline"), target, ", fallback: baseline"),
                rule(&format!("{key}-none"), target, ", fallback: none"),
            ]
        })
        .collect();
    let config = ConfigFile::new(&config_text(&ports, &services, &routing(&rules)));
    let _sidetrack = Sidetrack::up(&config.path(), &ports).await;

    for (protocol, port) in [(Protocol::Http1, ports.http), (Protocol::Http2, ports.grpc)] {
        let mut client = Client::new(protocol, port);
        for (key, _, with_baseline, with_none) in targets {
            for (fallback, expected) in [
                ("default", with_baseline),
                ("baseline", with_baseline),
                ("none", with_none),
            ] {
                for method in [Method::GET, Method::POST] {
                    let key = format!("{key}-{fallback}");
                    let mut request = get("/", &[("x-route-key", &key)]);
                    if method == Method::POST {
                        // Envoy keeps as much of a body as it may have to send again, up to 1 MiB.
                        *request.body_mut() = vec![b'x'; 500_000].into();
                    }
                    *request.method_mut() = method.clone();
                    let answer = client.send(request).await.unwrap();
                    assert_eq!(answer.served_by(), expected, "{protocol:?} {method} {key}");
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_endpoint_among_living_ones_sends_nobody_to_the_baseline() {
    let ports = Ports::free();
    let services = Services::start(&["baseline", "alive"]).await;
    let text = config_text(&ports, &services, &routing(&[rule("k", "half", "")]));
    let yaml = services.yaml();
    let alive = yaml
        .lines()
        .find_map(|line| line.strip_prefix("  alive: {endpoints: [")?.strip_suffix("]}"))
        .unwrap();
    let half = format!(
        "services:\n  half: {{endpoints: [\"127.0.0.1:{}\", {alive}]}}",
        free_port()
    );
    let file = ConfigFile::new(&text.replace("services:", &half));
    let _sidetrack = Sidetrack::up(&file.path(), &ports).await;

    let mut client = Client::new(Protocol::Http1, ports.http);
    for request in 0..200 {
        let answer = client.get("/", &[("x-route-key", "k")]).await.unwrap();
        assert_eq!(answer.served_by(), "alive", "request {request}");
    }
}

/// Its rule goes, comes back, and then names a target that is nowhere.
#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_removed_is_replaced_by_the_baseline_without_a_failed_request() {
    let ports = Ports::free();
    let services = Services::start(&["baseline", "alive"]).await;
    let with = config_text(&ports, &services, &routing(&[rule("k", "alive", "")]));
    let without = config_text(&ports, &services, &routing(&[rule("other", "alive", "")]));
    let nowhere = config_text(&ports, &services, &routing(&[rule("k", "no-such-host.invalid", "")]));
    let file = ConfigFile::new(&with);
    let _sidetrack = Sidetrack::up(&file.path(), &ports).await;
    until_served_by(ports.http, "k", "alive").await;

    let traffic = Traffic::start(ports.http, RATE, vec![get("/", &[("x-route-key", "k")])]);
    for (text, expected) in [(&without, "baseline"), (&with, "alive"), (&nowhere, "baseline")] {
        traffic.flow(RATE as usize).await;
        file.replace(text);
        until_served_by(ports.http, "k", expected).await;
    }
    traffic.flow(RATE as usize).await;
    let (outcomes, _) = traffic.stop().await;
    let failed = failures(&outcomes);
    assert!(failed.is_empty(), "{} of {}: {failed:?}", failed.len(), outcomes.len());
}

/// Those of these outcomes that aren't an answer of a service.
fn failures(outcomes: &[Outcome]) -> Vec<String> {
    let failed = outcomes
        .iter()
        .filter(|outcome| !["baseline", "alive", "victim"].contains(&outcome.served_by.as_str()));
    failed.map(|outcome| outcome.served_by.clone()).collect()
}

/// A target that is a process of its own, and listens.
async fn victim(port: u16) -> Process {
    let mut command = Command::new(env!("CARGO_BIN_EXE_echo"));
    let process = Process::spawn("victim", command.arg(format!("victim=127.0.0.1:{port}")));
    let mut client = Client::new(Protocol::Http1, port);
    poll_until(PATIENCE, "the victim listening", async || {
        let answer = client.get("/", &[]).await;
        answer.map(drop).map_err(|error| format!("{error:#}"))
    })
    .await;
    process
}

fn idempotent() -> Vec<Request> {
    let request = |method: Method, path: &str| {
        let mut request = get(path, &[("x-route-key", "k")]);
        *request.method_mut() = method;
        request
    };
    let mut requests = vec![request(Method::GET, "/"); 17];
    requests.extend([
        request(Method::PUT, "/"),
        request(Method::DELETE, "/"),
        request(Method::GET, "/?delay_ms=100"),
    ]);
    requests
}

/// Sends a request that isn't answered soon, on a connection of its own.
fn slow(port: u16, method: Method) -> tokio::task::JoinHandle<String> {
    tokio::spawn(async move {
        let mut request = get(SLOW_PATH, &[("x-route-key", "k")]);
        *request.method_mut() = method;
        let answer = Client::new(Protocol::Http1, port).send(request).await;
        answer.map_or_else(|error| format!("{error:#}"), |answer| answer.served_by())
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn no_idempotent_request_fails_when_a_running_target_is_killed() {
    let ports = Ports::free();
    let services = Services::start(&["baseline"]).await;
    let port = free_port();
    let target = format!("127.0.0.1:{port}");
    let config = ConfigFile::new(&config_text(&ports, &services, &routing(&[rule("k", &target, "")])));
    let mut first = victim(port).await;
    let _sidetrack = Sidetrack::up(&config.path(), &ports).await;
    until_served_by(ports.http, "k", "victim").await;

    let traffic = Traffic::start(ports.http, RATE, idempotent());
    traffic.flow(RATE as usize).await;
    let slow_ones: Vec<_> = (0..SLOW).map(|_| slow(ports.http, Method::GET)).collect();
    let slow_post = slow(ports.http, Method::POST);
    poll_until(PATIENCE, "the slow requests at the target", async || {
        let active = Stats::read(ports.admin, &format!("cluster.127.0.0.1_{port}.upstream_rq_active")).await;
        let active = active.sum("upstream_rq_active");
        (active > SLOW as u64)
            .then_some(())
            .ok_or_else(|| format!("{active} are"))
    })
    .await;
    let posts_before = services.requests("baseline");
    assert_eq!(posts_before, 0, "nothing has gone to the baseline yet");
    let killed = Instant::now();
    first.signal(Signal::KILL);
    first.exit(PATIENCE).await;
    traffic.flow(3 * RATE as usize).await;
    let mut slow_failed = Vec::new();
    for slow in slow_ones {
        slow_failed.extend(Some(slow.await.unwrap()).filter(|served_by| served_by != "baseline"));
    }
    let post = slow_post.await.unwrap();
    let again = Instant::now();
    let _second = victim(port).await;
    until_served_by(ports.http, "k", "victim").await;
    traffic.flow(RATE as usize).await;
    let (outcomes, rate) = traffic.stop().await;

    let served = |name: &'static str| outcomes.iter().filter(move |outcome| outcome.served_by == name);
    let in_flight = |outcome: &&Outcome| outcome.sent < killed && outcome.answered > killed;
    let longest = outcomes
        .iter()
        .filter(|outcome| outcome.answered > killed && outcome.sent < again)
        .map(|outcome| outcome.answered - outcome.sent)
        .max();
    let first_by_baseline = served("baseline").map(|outcome| outcome.answered).min();
    let failed = failures(&outcomes);
    println!(
        "killed under {rate:.0} requests/s: {} requests, {} served by the baseline, {} + {SLOW} slow ones in flight at the \
         kill, first baseline answer after {:?}, slowest request while it was dead {longest:?}; failed: {} + {} slow \
         ones; a POST in flight: {post}",
        outcomes.len(),
        served("baseline").count(),
        outcomes.iter().filter(in_flight).count(),
        first_by_baseline.map(|first| first.saturating_duration_since(killed)),
        failed.len(),
        slow_failed.len(),
    );
    assert!(rate >= 200.0, "{rate} requests a second");
    assert!(failed.is_empty(), "{} fail: {:?}", failed.len(), &failed[..1]);
    assert!(slow_failed.is_empty(), "in flight at the kill: {slow_failed:?}");
    assert!(served("baseline").count() > RATE as usize, "the target was hardly dead");
    assert!(
        served("victim").any(|outcome| outcome.sent > again),
        "it isn't used again"
    );
    assert!(longest < Some(PATIENCE), "{longest:?}");
    assert_eq!(post, "503", "what may be done once only isn't sent again");
}

/// What a rule says that wants no other answer than its target's.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_fallback_a_killed_target_is_told() {
    let ports = Ports::free();
    let services = Services::start(&["baseline"]).await;
    let port = free_port();
    let rules = [rule("k", &format!("127.0.0.1:{port}"), ", fallback: none")];
    let config = ConfigFile::new(&config_text(&ports, &services, &routing(&rules)));
    let mut target = victim(port).await;
    let _sidetrack = Sidetrack::up(&config.path(), &ports).await;
    until_served_by(ports.http, "k", "victim").await;
    target.signal(Signal::KILL);
    target.exit(Duration::from_secs(10)).await;
    until_served_by(ports.http, "k", "503").await;
    assert_eq!(services.requests("baseline"), 0);
}
