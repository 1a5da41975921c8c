//! A key crosses a service that knows nothing of it: Envoy puts it into `baggage`, the OpenTelemetry SDK carries it on.
//!
//! client ─► Envoy ─► service `first` ─► Envoy ─► service `second`, or its sandbox. The services are
//! `tests/otel/service.js` under Node with the real SDK, which instruments them from outside.

use std::fs;
use std::process::Command;
use std::time::Duration;

use sidetrack_tests::{
    Client, ConfigFile, Echo, Ports, Process, Protocol, Sidetrack, artifacts, free_port, poll_until,
};

const BASELINE: &str = "second";
const SANDBOX: &str = "second-sandbox";

/// The first hop has no rule: its part is to find the key and to hand it on.
const FIRST_HOP: &str = r#"
routing:
  defaultTarget: first
  keySources: [{header: X-Route-Key}, {cookie: route-key}, {query: route-key}]
  propagate: {baggage: sd-routing-key}
"#;

const SECOND_HOP: &str = r#"
routing:
  defaultTarget: second
  keySources: [{header: X-Route-Key}, {baggage: sd-routing-key}]
  rules:
    - {routeKey: K, targetService: second-sandbox}
    - {routeKey: "checkout/pr;17=50%", targetService: second-sandbox}
"#;

/// What all requests carry.
const TRACE_ID: &str = "0af7651916cd43dd8448eb211c80319c";
const TRACE: [(&str, &str); 2] = [
    ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ("tracestate", "vendor=opaque"),
];

/// Loading the SDK takes Node seconds on a busy machine.
const START: Duration = Duration::from_secs(120);

/// One request and what becomes of it.
struct Case {
    fact: &'static str,
    path: &'static str,
    headers: &'static [(&'static str, &'static str)],
    /// The key that both services are told.
    key: Option<&'static str>,
    served_by: &'static str,
    /// `baggage` at both services. Between them is the SDK, which encodes values in a way of its own.
    baggage: [Option<&'static str>; 2],
}

const CASES: &[Case] = &[
    Case {
        fact: "a key in the header selects the sandbox",
        path: "/",
        headers: &[("x-route-key", "K")],
        key: Some("K"),
        served_by: SANDBOX,
        baggage: [Some("sd-routing-key=K"); 2],
    },
    Case {
        fact: "a key in a cookie selects the sandbox",
        path: "/",
        headers: &[("cookie", "session=1; route-key=K")],
        key: Some("K"),
        served_by: SANDBOX,
        baggage: [Some("sd-routing-key=K"); 2],
    },
    Case {
        fact: "a key in the query selects the sandbox",
        path: "/orders?page=2&route-key=K",
        headers: &[],
        key: Some("K"),
        served_by: SANDBOX,
        baggage: [Some("sd-routing-key=K"); 2],
    },
    Case {
        fact: "without a key the baseline answers",
        path: "/",
        headers: &[],
        key: None,
        served_by: BASELINE,
        baggage: [None; 2],
    },
    Case {
        fact: "the baseline answers to a key without rules, which is handed on all the same",
        path: "/",
        headers: &[("x-route-key", "unknown")],
        key: Some("unknown"),
        served_by: BASELINE,
        baggage: [Some("sd-routing-key=unknown"); 2],
    },
    Case {
        fact: "without a key baggage stays as it was",
        path: "/",
        headers: &[("baggage", "userId=alice;secret;ttl=5,name=J%C3%BCrgen%2C%20QA")],
        key: None,
        served_by: BASELINE,
        baggage: [Some("userId=alice;secret;ttl=5,name=J%C3%BCrgen%2C%20QA"); 2],
    },
    Case {
        fact: "other members survive, with properties and encoding",
        path: "/",
        headers: &[
            ("x-route-key", "K"),
            ("baggage", "userId=alice;secret;ttl=5,name=J%C3%BCrgen%2C%20QA"),
        ],
        key: Some("K"),
        served_by: SANDBOX,
        baggage: [Some("sd-routing-key=K,userId=alice;secret;ttl=5,name=J%C3%BCrgen%2C%20QA"); 2],
    },
    Case {
        fact: "members of several lines survive",
        path: "/",
        headers: &[("x-route-key", "K"), ("baggage", "a=1 , b=%22"), ("baggage", "c=3;p")],
        key: Some("K"),
        served_by: SANDBOX,
        baggage: [Some("sd-routing-key=K,a=1,b=%22,c=3;p"); 2],
    },
    Case {
        fact: "the key found takes the place of one in baggage",
        path: "/",
        headers: &[
            ("x-route-key", "K"),
            ("baggage", "a=1,sd-routing-key=old;p,b=2,sd-routing-key=older"),
        ],
        key: Some("K"),
        served_by: SANDBOX,
        baggage: [Some("a=1,sd-routing-key=K,b=2"); 2],
    },
    Case {
        fact: "a key of any characters arrives as it was",
        path: "/",
        headers: &[("x-route-key", "checkout/pr;17=50%")],
        key: Some("checkout/pr;17=50%"),
        served_by: SANDBOX,
        baggage: [
            Some("sd-routing-key=checkout/pr%3B17=50%25"),
            Some("sd-routing-key=checkout%2Fpr%3B17%3D50%25"),
        ],
    },
    Case {
        fact: "a key of any characters arrives from an encoded query as it was",
        path: "/?route-key=checkout%2Fpr%3B17=50%25",
        headers: &[],
        key: Some("checkout/pr;17=50%"),
        served_by: SANDBOX,
        baggage: [
            Some("sd-routing-key=checkout/pr%3B17=50%25"),
            Some("sd-routing-key=checkout%2Fpr%3B17%3D50%25"),
        ],
    },
];

#[tokio::test(flavor = "multi_thread")]
async fn a_key_crosses_a_service_that_knows_nothing_of_it() {
    let (second, sandbox) = tokio::join!(Service::start(BASELINE, None), Service::start(SANDBOX, None));
    let second_hop = Hop::start(SECOND_HOP, &[&second, &sandbox]).await;
    let first = Service::start("first", Some(second_hop.port)).await;
    let first_hop = Hop::start(FIRST_HOP, &[&first]).await;

    for case in CASES {
        check(case, first_hop.port).await;
    }
    // Nothing but baggage brings the key to the second hop: past the first Envoy, the header alone gets nowhere.
    for (headers, served_by) in [
        (("x-route-key", "K"), BASELINE),
        (("baggage", "sd-routing-key=K"), SANDBOX),
    ] {
        let hops = ask(first.port, "/", &[headers]).await.unwrap();
        assert_eq!(names(&hops), ["first", served_by], "past the first Envoy: {headers:?}");
    }
}

async fn check(case: &Case, port: u16) {
    let Case { fact, .. } = case;
    let sent = [case.headers, &TRACE].concat();
    let hops = ask(port, case.path, &sent).await.expect(fact);
    assert_eq!(names(&hops), ["first", case.served_by], "{fact}");
    assert_eq!([hops[0].path.as_str(), &hops[1].path], [case.path, "/"], "{fact}");

    for (hop, baggage) in hops.iter().zip(case.baggage) {
        let at = format!("{fact}, at {}", hop.service);
        assert_eq!(hop.header("x-route-key"), Vec::from_iter(case.key), "{at}");
        assert_eq!(hop.header("baggage"), Vec::from_iter(baggage), "{at}");
        assert_eq!(hop.header("tracestate"), ["vendor=opaque"], "{at}");
    }
    let [first, second] = [0, 1].map(|hop| parent(&hops[hop]));
    assert_eq!((first.trace, second.trace), (TRACE_ID, TRACE_ID), "{fact}");
    assert_ne!(first.span, second.span, "{fact}: the SDK makes a span of its own");
}

/// The parts of a `traceparent`.
struct Parent<'h> {
    trace: &'h str,
    span: &'h str,
}

fn parent(hop: &Echo) -> Parent<'_> {
    let found = hop.header("traceparent");
    let [value] = found[..] else {
        panic!("{}: traceparent is {found:?}", hop.service)
    };
    match value.split('-').collect::<Vec<_>>()[..] {
        ["00", trace, span, _flags] => Parent { trace, span },
        _ => panic!("{}: traceparent is {value}", hop.service),
    }
}

fn names(hops: &[Echo]) -> Vec<&str> {
    hops.iter().map(|hop| hop.service.as_str()).collect()
}

/// The requests that the services saw, in the order of the way.
async fn ask(port: u16, path: &str, headers: &[(&str, &str)]) -> anyhow::Result<Vec<Echo>> {
    let answer = Client::new(Protocol::Http1, port).get(path, headers).await?;
    anyhow::ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
    Ok(serde_json::from_slice(&answer.body)?)
}

/// `tests/otel/service.js`, running.
struct Service {
    name: &'static str,
    port: u16,
    _process: Process,
}

impl Service {
    /// Starts it and waits until it answers; it asks what listens on the port `next`.
    async fn start(name: &'static str, next: Option<u16>) -> Self {
        let port = free_port();
        let mut process = Process::spawn(name, &mut node(name, port, next));
        poll_until(START, &format!("an answer of {name}"), async || {
            if let Some(status) = process.exited() {
                panic!("{name} ended before it was ready: {status}");
            }
            ask(port, "/", &[]).await.map_err(|error| format!("{error:#}"))
        })
        .await;
        Self {
            name,
            port,
            _process: process,
        }
    }
}

/// The command of a service.
///
/// # Panics
/// If Node or the SDK is missing, or the SDK isn't the one of the lock file.
fn node(name: &str, port: u16, next: Option<u16>) -> Command {
    const NEEDED: &str = "install Node.js 20.6 or later, then run scripts/install-tools otel";
    let files = artifacts::workspace().join("tests/otel");
    let installed = artifacts::workspace().join(".tools/otel");
    let lock = fs::read(files.join("package-lock.json")).unwrap();
    assert!(
        fs::read(installed.join("package-lock.json")).is_ok_and(|installed| installed == lock),
        "the OpenTelemetry SDK isn't in {}, or an old one: {NEEDED}",
        installed.display()
    );
    let version = Command::new("node").arg("--version").output();
    assert!(version.is_ok(), "no program is called node: {NEEDED}");

    let mut command = Command::new("node");
    // Without the environment of who runs the test: it may configure the SDK. The propagators are the SDK's defaults.
    command
        .env_clear()
        .envs(std::env::vars_os().filter(|(variable, _)| variable == "PATH"));
    // An exporter that sends nothing; with none the SDK makes no spans.
    command.env("OTEL_TRACES_EXPORTER", "console");
    command
        .envs(["METRICS_EXPORTER", "LOGS_EXPORTER", "NODE_RESOURCE_DETECTORS"].map(|n| (format!("OTEL_{n}"), "none")));
    command.current_dir(installed);
    command.args(["--require", "@opentelemetry/auto-instrumentations-node/register"]);
    command.arg(files.join("service.js")).args([name, &port.to_string()]);
    command.args(next.map(|port| format!("http://127.0.0.1:{port}/")));
    command
}

/// An Envoy with its agent.
struct Hop {
    port: u16,
    _sidetrack: Sidetrack,
    _config: ConfigFile,
}

impl Hop {
    /// Starts it and waits until it is ready; each service is the target of its name.
    async fn start(routing: &str, services: &[&Service]) -> Self {
        let ports = Ports::free();
        let Ports {
            http,
            grpc,
            metrics,
            admin,
            api,
            xds,
        } = ports;
        let endpoints = services.iter();
        let endpoints =
            endpoints.map(|Service { name, port, .. }| format!("  {name}: {{endpoints: [\"127.0.0.1:{port}\"]}}\n"));
        let config = ConfigFile::new(&format!(
            "server: {{httpPort: {http}, grpcPort: {grpc}, metricsPort: {metrics}, adminPort: {admin}, \
             bindAddress: 127.0.0.1}}\n\
             agent: {{apiPort: {api}, xdsPort: {xds}}}\n\
             services:\n{}\
             {routing}",
            endpoints.collect::<String>()
        ));
        Self {
            port: http,
            _sidetrack: Sidetrack::up(&config.path(), &ports).await,
            _config: config,
        }
    }
}
