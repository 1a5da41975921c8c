//! How long a request may take, and how often it is tried.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full};
use sidetrack_tests::{
    Answer, Behaviour, Client, ConfigFile, Envoy, PATIENCE, Ports, Protocol, RawConnection, Services, Sidetrack,
    SilentPort, config_text, free_port, get, poll_until, render, sidetrack,
};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Longer than any time limit of these tests, and shorter than what they wait for.
const LONG: &str = "/?delay_ms=2500";
const LONG_TIME: Duration = Duration::from_millis(2_500);

/// A time limit, and that of a service of its own.
const LIMIT: Duration = Duration::from_millis(500);
const OWN_LIMIT: Duration = Duration::from_millis(1_500);

async fn send(ports: &Ports, key: &str, path: &str) -> (Duration, Answer) {
    let mut client = Client::new(Protocol::Http1, ports.http);
    client.connect().await.unwrap();
    let sent = Instant::now();
    let answer = client.get(path, &[("x-route-key", key)]).await.unwrap();
    (sent.elapsed(), answer)
}

fn assert_timed_out(what: &str, answer: &Answer) {
    assert_eq!(
        (answer.status, answer.header("x-route-error")),
        (504, "timeout"),
        "{what}: {}",
        answer.text()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_takes_as_long_as_its_target_is_given_and_a_stream_any_time() {
    let ports = Ports::free();
    let names = ["baseline", "target", "own", "unlimited"];
    let mut services = Services::start(&names).await;
    for (name, fields) in [("own", "requestTimeout: 1500ms"), ("unlimited", "requestTimeout: 0s")] {
        services.configure(name, &[name], fields);
    }
    let rules: String = names
        .iter()
        .flat_map(|name| ["baseline", "none"].map(|fallback| (name, fallback)))
        .map(|(name, fallback)| {
            format!("    - {{routeKey: {name}-{fallback}, targetService: {name}, fallback: {fallback}}}\n")
        })
        .collect();
    let routing =
        format!("upstream: {{requestTimeout: 500ms}}\nrouting:\n  defaultTarget: baseline\n  rules:\n{rules}");
    let config = ConfigFile::new(&config_text(&ports, &services, &routing));
    let _sidetrack = Sidetrack::up(&config.path(), &ports).await;

    let mut sent = JoinSet::new();
    for (name, limit) in [
        ("baseline", Some(LIMIT)),
        ("target", Some(LIMIT)),
        ("own", Some(OWN_LIMIT)),
        ("unlimited", None),
    ] {
        for fallback in ["baseline", "none"] {
            sent.spawn(async move {
                let what = format!("{name}-{fallback}");
                let (time, answer) = send(&ports, &what, LONG).await;
                println!("{what}: limit {limit:?}, {} after {time:?}", answer.served_by());
                let Some(limit) = limit else {
                    assert_eq!(answer.served_by(), name);
                    return;
                };
                assert_timed_out(&what, &answer);
                assert!(time > limit * 9 / 10, "{what}: {time:?}");
            });
        }
    }
    sent.join_all().await;
    let (_, keyless) = send(&ports, "nobody", LONG).await;
    assert_timed_out("without a rule", &keyless);
    for name in names {
        assert!(services.requests(name) <= 3, "{name} was tried again");
    }

    // The limit is for the whole of a response, and not for streams.
    let events = "/?chunks=6&chunk_bytes=10&every_ms=500";
    let mut streams = JoinSet::new();
    for (port, protocol) in [
        (ports.http, Protocol::Http1),
        (ports.http, Protocol::Http2),
        (ports.grpc, Protocol::Http2),
    ] {
        for key in ["nobody", "target-baseline", "own-none"] {
            for (stream, header) in [
                ("none", None),
                ("events", Some(("accept", "text/html, text/event-stream"))),
                ("gRPC", Some(("content-type", "application/grpc+proto"))),
            ] {
                let is_whole = stream != "none" || port == ports.grpc;
                let what = format!("stream {stream}, {key}, {protocol:?}, grpcPort {}", port == ports.grpc);
                streams.spawn(async move {
                    let headers: Vec<_> = header.into_iter().chain([("x-route-key", key)]).collect();
                    let answer = Client::new(protocol, port).get(events, &headers).await;
                    let found = answer.is_ok_and(|answer| answer.status == 200 && answer.body.len() == 60);
                    assert_eq!(found, is_whole, "{what}");
                });
            }
        }
    }
    streams.join_all().await;
    println!("responses of 2.5 s: cut off after {LIMIT:?} on httpPort, whole for event streams, gRPC and on grpcPort");

    // An upload may take any time, as long as something comes: the limit begins with its end.
    let (mut sender, body) = http_body_util::Channel::new(1);
    tokio::spawn(async move {
        for _ in 0..6 {
            sender.send_data("x".into()).await.unwrap();
            tokio::time::sleep(LONG_TIME / 6).await;
        }
    });
    let request = get("/", &[("x-route-key", "target-none")]).map(|_: Full<_>| body.boxed_unsync());
    let response = Client::new(Protocol::Http2, ports.http).begin(request).await.unwrap();
    assert_eq!(Answer::read(response).await.unwrap().served_by(), "target");
}

/// How often the target was tried, and what came of it in the end.
struct Tries {
    key: &'static str,
    fields: &'static str,
    behaviour: Behaviour,
    tries: u64,
    with_baseline: &'static str,
    without: &'static str,
}

const TRIES: [Tries; 9] = [
    Tries {
        key: "5xx",
        fields: "retries: {attempts: 3, on: [5xx]}",
        behaviour: Behaviour::Status(500),
        tries: 4,
        with_baseline: "baseline",
        without: "500",
    },
    Tries {
        key: "gateway-error",
        fields: "retries: {attempts: 2, on: [gateway-error]}",
        behaviour: Behaviour::Status(502),
        tries: 3,
        with_baseline: "baseline",
        without: "502",
    },
    Tries {
        key: "gateway-error-only",
        fields: "retries: {attempts: 2, on: [gateway-error]}",
        behaviour: Behaviour::Status(500),
        tries: 1,
        with_baseline: "500",
        without: "500",
    },
    Tries {
        key: "conflict",
        fields: "retries: {attempts: 1, on: [retriable-4xx]}",
        behaviour: Behaviour::Status(409),
        tries: 2,
        with_baseline: "baseline",
        without: "409",
    },
    Tries {
        key: "default",
        fields: "",
        behaviour: Behaviour::Status(503),
        tries: 1,
        with_baseline: "503",
        without: "503",
    },
    Tries {
        key: "reset",
        fields: "retries: {attempts: 2, on: [reset]}",
        behaviour: Behaviour::Break,
        tries: 3,
        with_baseline: "baseline",
        without: "503",
    },
    Tries {
        key: "slow-tries",
        fields: "perTryTimeout: 300ms, retries: {attempts: 2, on: [reset]}",
        behaviour: Behaviour::Hang,
        tries: 3,
        with_baseline: "baseline",
        without: "504",
    },
    Tries {
        key: "one-try",
        fields: "retries: {attempts: 0}",
        behaviour: Behaviour::Break,
        tries: 1,
        with_baseline: "baseline",
        without: "503",
    },
    Tries {
        key: "one-slow-try",
        fields: "perTryTimeout: 300ms, retries: {attempts: 0}",
        behaviour: Behaviour::Hang,
        tries: 1,
        with_baseline: "baseline",
        without: "504",
    },
];

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_tried_as_often_as_its_target_is_given() {
    let ports = Ports::free();
    let names: Vec<&str> = TRIES.iter().map(|tries| tries.key).chain(["baseline"]).collect();
    let mut services = Services::start(&names).await;
    let mut rules = String::new();
    for Tries { key, fields, .. } in &TRIES {
        services.configure(key, &[key], fields);
        for fallback in ["baseline", "none"] {
            rules += &format!("    - {{routeKey: {key}-{fallback}, targetService: {key}, fallback: {fallback}}}\n");
        }
    }
    // One that is nowhere, and one that nothing says of whether it is somewhere.
    let (refusing, silent) = (free_port(), SilentPort::take().await);
    let nowhere = ([127, 0, 0, 1], refusing).into();
    services.configure_at("nowhere", vec![nowhere], "retries: {attempts: 0}");
    let silent = ([127, 0, 0, 1], silent.port()).into();
    services.configure_at("silent", vec![silent], "connectTimeout: 300ms, retries: {attempts: 0}");
    for key in ["nowhere", "silent"] {
        for fallback in ["baseline", "none"] {
            rules += &format!("    - {{routeKey: {key}-{fallback}, targetService: {key}, fallback: {fallback}}}\n");
        }
    }
    services.configure("baseline", &["baseline"], "retries: {attempts: 2, on: [5xx]}");
    // Failures are counted here, not their endpoints left out.
    let routing = format!(
        "upstream: {{outlierDetection: {{consecutive5xx: 0}}}}\nrouting:\n  defaultTarget: baseline\n  rules:\n{rules}"
    );
    let config = ConfigFile::new(&config_text(&ports, &services, &routing));
    let _sidetrack = Sidetrack::up(&config.path(), &ports).await;

    for tries in &TRIES {
        let target = services.server(tries.key);
        target.behave(tries.behaviour);
        for (fallback, expected) in [("baseline", tries.with_baseline), ("none", tries.without)] {
            let before = target.requests();
            let (_, answer) = send(&ports, &format!("{}-{fallback}", tries.key), "/").await;
            let tried = target.requests() - before;
            println!(
                "{:18} fallback {fallback:8} {:?}: {tried} tries, then {} {}",
                tries.key,
                tries.behaviour,
                answer.served_by(),
                answer.header("x-route-error"),
            );
            assert_eq!(answer.served_by(), expected, "{} {fallback}", tries.key);
            if fallback == "none" {
                assert_eq!(tried, tries.tries, "{}", tries.key);
            }
        }
    }
    for key in ["nowhere", "silent"] {
        for (fallback, expected) in [("baseline", "baseline"), ("none", "503")] {
            let (time, answer) = send(&ports, &format!("{key}-{fallback}"), "/").await;
            assert_eq!(answer.served_by(), expected, "{key} {fallback}: {}", answer.text());
            println!("{key} fallback {fallback}: {expected} after {time:?}");
            assert!(time < PATIENCE, "{key} {fallback}: {time:?}");
        }
    }

    let baseline = services.server("baseline");
    baseline.behave(Behaviour::Status(500));
    for key in ["nobody", "another"] {
        let before = baseline.requests();
        let (_, answer) = send(&ports, key, "/").await;
        assert_eq!(
            (answer.served_by().as_str(), baseline.requests() - before),
            ("500", 3),
            "{key}"
        );
    }
    println!("baseline, retries after 5xx: 3 tries");
}

/// Whatever becomes of a request: a client that stops in the middle of its body doesn't keep it for ever. (A stream, whose
/// body may pause, is kept.)
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_stops_in_its_body_ends_after_the_idle_time() {
    let ports = Ports::free();
    let services = Services::start(&["baseline", "target"]).await;
    let routing = "routing: {defaultTarget: baseline, rules: [{routeKey: known, targetService: target}]}";
    let config = ConfigFile::new(&config_text(&ports, &services, routing));
    // Envoy's own idle time is five minutes.
    let rendered = render(&config.path(), &[]);
    let mut quick = String::new();
    for line in rendered.lines() {
        if let Some(indent) = line.strip_suffix("generate_request_id: false") {
            writeln!(quick, "{indent}stream_idle_timeout: 1s").unwrap();
        }
        writeln!(quick, "{line}").unwrap();
    }
    assert_ne!(quick, rendered);
    let _envoy = Envoy::start(&quick);
    let mut client = Client::new(Protocol::Http1, ports.http);
    poll_until(PATIENCE, "an answer", async || match client.get("/", &[]).await {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("{error:#}")),
    })
    .await;

    for key in ["", "unknown", "known"] {
        for (is_stream, head) in [(false, ""), (true, "accept: text/event-stream\r\n")] {
            let request =
                format!("POST /{key} HTTP/1.1\r\nhost: a\r\nx-route-key: {key}\r\n{head}content-length: 10\r\n\r\nabc");
            let mut connection = RawConnection::new(ports.http);
            let answer = timeout(Duration::from_secs(3), connection.send(request.as_bytes())).await;
            match answer {
                Ok(answer) => assert_eq!((answer.unwrap().status, is_stream), (408, false), "{key:?}"),
                Err(_) => assert!(is_stream, "{key:?}: nothing after 3 s"),
            }
        }
    }
}

/// What Envoy keeps with routes must be the same for all default targets: they share one.
#[test]
fn default_targets_of_different_policies_are_refused() {
    let config = ConfigFile::new(
        "routing: {defaultTarget: [{service: a, weight: 1}, {service: b, weight: 1}]}\n\
         services: {a: {requestTimeout: 5s}, b: {requestTimeout: 6s}}\n",
    );
    let checked = sidetrack(&["check", "-c"]).arg(config.path()).output().unwrap();
    let problems = String::from_utf8(checked.stderr).unwrap();
    println!("{}", problems.trim_end());
    assert_eq!(checked.status.code(), Some(1), "{problems}");
    assert!(problems.contains("routing.defaultTarget"), "{problems}");
}
