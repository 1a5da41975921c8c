//! Copies of requests, of which the client notices nothing.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use sidetrack_routing::INTERNAL_HEADERS;
use sidetrack_tests::{
    Client, ConfigFile, PATIENCE, Ports, Protocol, Services, Sidetrack, Stats, config_text, free_port, get, poll_until,
};

const REQUESTS: u64 = 200;

/// Many enough that a share of 30 % is within 6 % of them: four standard deviations.
const SHARED: u64 = 1_000;

fn routing(down: u16, silent: u16) -> String {
    format!(
        r#"
routing:
  defaultTarget: baseline
  rules:
    - {{routeKey: all, targetService: target, mirror: {{service: shadow-all, percent: 100}}}}
    - {{routeKey: none, targetService: target, mirror: {{service: shadow-none, percent: 0}}}}
    - {{routeKey: some, targetService: target, mirror: {{service: shadow-some, percent: 30}}}}
    - {{routeKey: without, targetService: target}}
    - {{routeKey: down, targetService: target, mirror: {{service: "127.0.0.1:{down}", percent: 100}}}}
    - {{routeKey: silent, targetService: target, mirror: {{service: "127.0.0.1:{silent}", percent: 100}}}}
    - {{routeKey: nowhere, targetService: target, mirror: {{service: no-such-host.invalid, percent: 100}}}}
"#
    )
}

const SERVICES: [&str; 5] = ["baseline", "target", "shadow-all", "shadow-none", "shadow-some"];

/// Waits until `name` has got exactly `count` requests.
async fn until_requests(services: &Services, name: &str, count: u64) {
    poll_until(PATIENCE, &format!("{count} requests at {name}"), async || {
        let found = services.requests(name);
        (found == count).then_some(()).ok_or_else(|| found.to_string())
    })
    .await;
}

/// Sends `count` requests with this key, each of which the target answers; returns how long the slowest took.
async fn send(port: u16, key: &str, count: u64) -> Duration {
    send_bodies(port, key, count, 0).await
}

/// The same with bodies of so many bytes.
async fn send_bodies(port: u16, key: &str, count: u64, length: usize) -> Duration {
    let mut client = Client::new(Protocol::Http1, port);
    let mut slowest = Duration::ZERO;
    for _ in 0..count {
        let mut request = get("/", &[("x-route-key", key)]);
        *request.body_mut() = vec![b'x'; length].into();
        let sent = Instant::now();
        let answer = client.send(request).await.unwrap();
        assert_eq!(answer.served_by(), "target", "{key}");
        slowest = slowest.max(sent.elapsed());
    }
    slowest
}

#[tokio::test(flavor = "multi_thread")]
async fn a_share_of_the_requests_is_copied_and_the_answer_is_the_targets() {
    let ports = Ports::free();
    let services = Services::start(&SERVICES).await;
    let config = ConfigFile::new(&config_text(&ports, &services, &routing(free_port(), free_port())));
    let _sidetrack = Sidetrack::up(&config.path(), &ports).await;

    for (key, count) in [
        ("none", REQUESTS),
        ("without", REQUESTS),
        ("some", SHARED),
        ("all", REQUESTS),
    ] {
        send(ports.http, key, count).await;
    }
    // The last copies are behind those of the rules before.
    until_requests(&services, "shadow-all", REQUESTS).await;
    assert_eq!(services.requests("target"), 3 * REQUESTS + SHARED);
    assert_eq!(services.requests("shadow-none"), 0);
    let some = services.requests("shadow-some");
    println!("30 % of {SHARED}: {some} copied; 100 % of {REQUESTS}: {REQUESTS}; 0 % of {REQUESTS}: 0");
    assert!((240..=360).contains(&some), "{some} of {SHARED}");
    assert_eq!(services.requests("baseline"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_does_not_wait_for_a_copy() {
    let ports = Ports::free();
    let services = Services::start(&SERVICES).await;
    let down = free_port();
    // The system accepts connections on its behalf; nobody answers.
    let silent = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let silent_port = silent.local_addr().unwrap().port();
    let config = ConfigFile::new(&config_text(&ports, &services, &routing(down, silent_port)));
    let _sidetrack = Sidetrack::up(&config.path(), &ports).await;

    for key in ["without", "down", "silent", "nowhere"] {
        let slowest = send(ports.http, key, 50).await;
        let with_body = send_bodies(ports.http, key, 10, 500_000).await;
        println!("mirror {key}: slowest of 50 {slowest:?}, of 10 with 500 kB {with_body:?}");
        assert!(
            slowest.max(with_body) < Duration::from_secs(5),
            "{key}: {slowest:?}, {with_body:?}"
        );
    }
    for (port, what) in [(silent_port, "upstream_rq_active"), (down, "upstream_cx_connect_fail")] {
        let stats = Stats::read(ports.admin, &format!("cluster.127.0.0.1_{port}.{what}$")).await;
        assert!(stats.sum(what) > 0, "nothing was copied: {stats:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_target_nor_mirror_sees_an_internal_header() {
    let ports = Ports::free();
    let services = Services::start(&SERVICES).await;
    let config = ConfigFile::new(&config_text(&ports, &services, &routing(free_port(), free_port())));
    let _sidetrack = Sidetrack::up(&config.path(), &ports).await;

    for (count, (protocol, port)) in [(Protocol::Http1, ports.http), (Protocol::Http2, ports.grpc)]
        .into_iter()
        .enumerate()
    {
        let sent = [("x-route-key", "all"), ("x-own", "1")];
        let answer = Client::new(protocol, port).get("/a?b=c", &sent).await.unwrap();
        until_requests(&services, "shadow-all", count as u64 + 1).await;
        let (target, copy) = (answer.echo(), services.last_request("shadow-all"));
        assert_eq!(target.service, "target");
        assert_eq!((copy.method, copy.path), (target.method.clone(), target.path.clone()));
        for echo in [&target.headers, &copy.headers] {
            for name in INTERNAL_HEADERS {
                assert!(!echo.iter().any(|(found, _)| found == name), "{name}: {echo:?}");
            }
            for (name, value) in sent {
                assert!(echo.contains(&(name.to_owned(), value.to_owned())), "{name}: {echo:?}");
            }
            assert!(
                echo.iter().all(|(_, value)| !value.contains("shadow")),
                "the mirror's name is in it: {echo:?}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_cannot_have_a_request_copied() {
    let ports = Ports::free();
    let services = Services::start(&SERVICES).await;
    let config = ConfigFile::new(&config_text(&ports, &services, &routing(free_port(), free_port())));
    let _sidetrack = Sidetrack::up(&config.path(), &ports).await;

    for (protocol, port) in [(Protocol::Http1, ports.http), (Protocol::Http2, ports.grpc)] {
        let mut client = Client::new(protocol, port);
        for key in [None, Some("nobody"), Some("without"), Some("none")] {
            for forged in ["shadow-all:80", "shadow-none:80"] {
                let mut headers: Vec<_> = key.map(|key| ("x-route-key", key)).into_iter().collect();
                headers.extend([
                    ("x-route-mirror", forged),
                    ("X-Route-Mirror", forged),
                    ("x-route-cluster", "target:80"),
                ]);
                let answer = client.get("/", &headers).await.unwrap();
                let expected = if matches!(key, None | Some("nobody")) {
                    "baseline"
                } else {
                    "target"
                };
                assert_eq!(answer.served_by(), expected, "{key:?} {forged}");
            }
        }
    }
    // Copies of those before would have arrived before this one.
    send(ports.http, "all", 1).await;
    until_requests(&services, "shadow-all", 1).await;
    assert_eq!(services.requests("shadow-none"), 0);
}
