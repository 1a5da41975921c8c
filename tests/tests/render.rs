//! What `sidetrack render` prints, in an Envoy that has no agent.

use std::collections::BTreeMap;
use std::process::Command;

use sidetrack_tests::{
    Client, ConfigFile, Envoy, PATIENCE, Ports, Process, Protocol, Services, Sidetrack, artifacts, config_text,
    free_port, poll_until, render,
};

const SERVICES: [&str; 6] = ["main", "canary", "service-a", "service-b", "service-c", "shadow"];

fn routing(refusing: u16) -> String {
    format!(
        r#"
routing:
  defaultTarget: [{{service: main, weight: 80}}, {{service: canary, weight: 20}}]
  debugHeader: true
  propagate: {{baggage: sd-routing-key}}
  keySources:
    - header: X-Route-Key
    - baggage: sd-routing-key
    - tracestate: sd-routing-key
    - cookie: route-key
    - query: route-key
    - host: "*.preview.example.com"
  rules:
    - {{routeKey: k, name: api, targetService: service-a, pathPrefixes: [/api], additionalHeaders: {{X-Environment: sandbox}}}}
    - {{routeKey: k, name: post, targetService: service-b, methods: [POST, PUT], removeHeaders: [X-Debug]}}
    - {{routeKey: k, name: regex, targetService: service-c, paths: [{{regex: "/v[0-9]+/.*"}}], mirror: {{service: shadow, percent: 100}}}}
    - {{routeKey: k, name: query, targetService: service-c, queryMatchers: {{debug: "1"}}}}
    - {{routeKey: sticky, stickyBy: {{header: X-User}}, targets: [{{service: service-a, weight: 50}}, {{service: service-b, weight: 50}}]}}
    - {{routeKey: refusing, targetService: "127.0.0.1:{refusing}"}}
    - {{routeKey: refusing-none, targetService: "127.0.0.1:{refusing}", fallback: none}}
    - {{routeKey: unresolved, targetService: no-such-host.invalid}}
    - {{routeKey: unresolved-none, targetService: no-such-host.invalid, fallback: none}}
    - {{routeKey: expired, targetService: service-a, expiresAt: 2001-01-01T00:00:00Z}}
"#
    )
}

/// Method, path, headers; who answers, `baseline` being any of the default targets.
type Case = (
    &'static str,
    &'static str,
    &'static [(&'static str, &'static str)],
    &'static str,
);

const CASES: [Case; 24] = [
    ("GET", "/api/x", &[("x-route-key", "k")], "service-a"),
    ("GET", "/api/x", &[("baggage", "a=b,sd-routing-key=k")], "service-a"),
    ("GET", "/api/x", &[("tracestate", "sd-routing-key=k")], "service-a"),
    ("GET", "/api/x", &[("cookie", "route-key=k")], "service-a"),
    ("GET", "/api/x?route-key=k", &[], "service-a"),
    ("GET", "/api/x", &[("host", "k.preview.example.com")], "service-a"),
    ("GET", "/api/x", &[], "baseline"),
    ("GET", "/api/x", &[("x-route-key", "nobody")], "baseline"),
    ("GET", "/apix", &[("x-route-key", "k")], "baseline"),
    ("POST", "/apix", &[("x-route-key", "k"), ("x-debug", "1")], "service-b"),
    (
        "PUT",
        "/v1/orders",
        &[("x-route-key", "k"), ("x-debug", "1")],
        "service-b",
    ),
    (
        "GET",
        "/v1/orders",
        &[("x-route-key", "k"), ("x-debug", "1")],
        "service-c",
    ),
    ("GET", "/v/orders", &[("x-route-key", "k")], "baseline"),
    ("GET", "/v?debug=1", &[("x-route-key", "k")], "service-c"),
    ("GET", "/v?debug=2", &[("x-route-key", "k")], "baseline"),
    ("GET", "/", &[("x-route-key", "refusing")], "baseline"),
    ("POST", "/", &[("x-route-key", "refusing")], "baseline"),
    ("GET", "/", &[("x-route-key", "refusing-none")], "503"),
    ("GET", "/", &[("x-route-key", "unresolved")], "baseline"),
    ("GET", "/", &[("x-route-key", "unresolved-none")], "503"),
    ("GET", "/", &[("x-route-key", "expired")], "baseline"),
    ("GET", "/", &[("x-route-cluster", "service-a:80")], "baseline"),
    ("GET", "/", &[("x-route-explain", "1")], "baseline"),
    (
        "GET",
        "/api",
        &[("x-route-key", "k"), ("x-route-explain", "1")],
        "service-a",
    ),
];

/// Keyless requests, for the shares of the default targets.
const KEYLESS: usize = 500;
const USERS: usize = 40;

/// What an Envoy answers: of each case who and with which headers at the target, of each user which target, and how many
/// keyless requests went to the second default target.
struct Observed {
    cases: Vec<String>,
    users: BTreeMap<usize, String>,
    canary: usize,
}

async fn observe(ports: &Ports) -> Observed {
    let mut cases = Vec::new();
    for (protocol, port) in [(Protocol::Http1, ports.http), (Protocol::Http2, ports.grpc)] {
        let mut client = Client::new(protocol, port);
        for (method, path, headers, expected) in CASES {
            if protocol == Protocol::Http2 && headers.iter().any(|(name, _)| *name == "host") {
                continue;
            }
            let mut request = sidetrack_tests::get(path, headers);
            *request.method_mut() = method.parse().unwrap();
            let answer = client.send(request).await.unwrap();
            let case = format!("{protocol:?} {method} {path} {headers:?}");
            let service = answer.served_by();
            let is_baseline = ["main", "canary"].contains(&service.as_str());
            let service = if is_baseline { "baseline".to_owned() } else { service };
            assert_eq!(service, expected, "{case}: {}", answer.text());
            let mut seen = String::new();
            if answer.status == 200 {
                let mut headers = answer.echo().headers;
                headers.retain(|(name, value)| {
                    !name.starts_with("x-envoy-") && name != "x-request-id" && !value.contains("127.0.0.1:")
                });
                headers.sort();
                seen = format!("{headers:?}");
            }
            cases.push(format!(
                "{case}: {service} {:?} {seen}",
                answer.headers.get("x-route-decision")
            ));
        }
    }
    let mut client = Client::new(Protocol::Http1, ports.http);
    let mut users = BTreeMap::new();
    for user in 0..USERS {
        let headers = [("x-route-key", "sticky"), ("x-user", &user.to_string())];
        users.insert(user, client.get("/", &headers).await.unwrap().served_by());
    }
    let mut canary = 0;
    for _ in 0..KEYLESS {
        canary += usize::from(client.get("/", &[]).await.unwrap().served_by() == "canary");
    }
    Observed { cases, users, canary }
}

/// Waits until the rules are in force on this port.
async fn until_ready(process: &mut Process, port: u16) {
    let mut client = Client::new(Protocol::Http1, port);
    poll_until(PATIENCE, "an answer of service-a", async || {
        if let Some(status) = process.exited() {
            panic!("it ended: {status}");
        }
        let answer = client.get("/api", &[("x-route-key", "k")]).await;
        let served_by = answer.map_err(|error| format!("{error:#}"))?.served_by();
        (served_by == "service-a").then_some(()).ok_or(served_by)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_envoy_without_an_agent_answers_as_one_with_it() {
    let services = Services::start(&SERVICES).await;
    let routing = routing(free_port());
    let (with_agent, bare) = (Ports::free(), Ports::free());
    let config = ConfigFile::new(&config_text(&with_agent, &services, &routing));
    let bare_config = ConfigFile::new(&config_text(&bare, &services, &routing));
    let mut sidetrack = Sidetrack::up(&config.path(), &with_agent).await;
    let mut envoy = Envoy::start(&render(&bare_config.path(), &[]));
    until_ready(&mut sidetrack, with_agent.http).await;
    until_ready(&mut envoy, bare.http).await;

    let up = observe(&with_agent).await;
    let alone = observe(&bare).await;
    assert_eq!(up.cases, alone.cases);
    assert_eq!(up.users, alone.users);
    let both: std::collections::BTreeSet<_> = alone.users.values().collect();
    assert_eq!(both.len(), 2, "{both:?}");
    // Five standard deviations.
    for canary in [up.canary, alone.canary] {
        assert!((55..=145).contains(&canary), "{canary} of {KEYLESS}");
    }
    println!(
        "{} cases and {USERS} users answered equally; second default target: {} and {} of {KEYLESS}",
        up.cases.len(),
        up.canary,
        alone.canary
    );
    poll_until(PATIENCE, "the copies of both", async || {
        let copies = services.requests("shadow");
        (copies == 4).then_some(()).ok_or_else(|| copies.to_string())
    })
    .await;
}

/// Where func-e isn't there, there is nothing to be seen.
#[tokio::test(flavor = "multi_thread")]
async fn func_e_runs_it() {
    if Command::new("func-e").arg("--version").output().is_err() {
        return;
    }
    let services = Services::start(&SERVICES).await;
    let ports = Ports::free();
    let config = ConfigFile::new(&config_text(&ports, &services, &routing(free_port())));
    let path = config.path().with_file_name("envoy.yaml");
    std::fs::write(&path, render(&config.path(), &[])).unwrap();
    let home = path.parent().unwrap();
    let mut command = Command::new("func-e");
    command.args(["run", "-c"]).arg(&path).args(["--log-level", "warning"]);
    command.env("ENVOY_PATH", artifacts::envoy()).env("HOME", home);
    command.env("FUNC_E_RUNTIME_DIR", home);
    let mut func_e = Process::spawn("func-e", &mut command);
    until_ready(&mut func_e, ports.http).await;
    let observed = observe(&ports).await;
    println!("func-e: {} cases as they must be", observed.cases.len());
}
