//! What a client is told when no target answers: why, and of which target, but nothing of where it lives.

use http::{Method, StatusCode};
use sidetrack_tests::{
    Answer, Behaviour, Client, ConfigFile, Envoy, PATIENCE, Ports, Protocol, RawServer, Request, Services, Sidetrack,
    SilentPort, Stats, config_text, free_port, get, poll_until, render, until_served_by,
};
use tokio::task::JoinSet;

/// A target in trouble, and what is said of it.
struct Trouble {
    target: &'static str,
    fields: &'static str,
    reason: &'static str,
    status: StatusCode,
}

const fn trouble(target: &'static str, fields: &'static str, reason: &'static str, status: StatusCode) -> Trouble {
    Trouble {
        target,
        fields,
        reason,
        status,
    }
}

/// What a gRPC client gets for all of them.
const GRPC_UNAVAILABLE: &str = "14";

const UNAVAILABLE: StatusCode = StatusCode::SERVICE_UNAVAILABLE;

const TROUBLES: [Trouble; 10] = [
    trouble(
        "full",
        "circuitBreaker: {maxRequests: 1}, requestTimeout: 0s",
        "overloaded",
        UNAVAILABLE,
    ),
    trouble("unwell", "healthCheck: {tcp: true}", "no_healthy_endpoint", UNAVAILABLE),
    trouble("refusing", "", "connection_failed", UNAVAILABLE),
    trouble("silent", "connectTimeout: 300ms", "connection_failed", UNAVAILABLE),
    trouble("closing", "", "connection_broken", UNAVAILABLE),
    trouble(
        "closing-reset",
        "retries: {attempts: 2, on: [reset]}",
        "connection_broken",
        UNAVAILABLE,
    ),
    trouble("slow", "perTryTimeout: 300ms", "timeout", StatusCode::GATEWAY_TIMEOUT),
    trouble("babbling", "", "protocol_error", StatusCode::BAD_GATEWAY),
    trouble(
        "http1-only",
        "protocol: http2",
        "protocol_error",
        StatusCode::BAD_GATEWAY,
    ),
    trouble(
        "http2-only",
        "protocol: http1",
        "protocol_error",
        StatusCode::BAD_GATEWAY,
    ),
];

/// The targets' processes and ports.
struct Targets {
    services: Services,
    _others: [RawServer; 4],
    _silent: SilentPort,
}

async fn start() -> Targets {
    let mut services = Services::start(&["baseline", "full", "slow"]).await;
    let closing = RawServer::start(b"").await;
    let babbling = RawServer::start(b"what do you want?\r\n\r\n").await;
    let http1 = RawServer::start(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
    // The settings that a server of HTTP/2 begins with.
    let http2 = RawServer::start(b"\0\0\0\x04\0\0\0\0\0").await;
    let silent = SilentPort::take().await;
    let (refusing, unwell) = (free_port(), free_port());
    for Trouble { target, fields, .. } in &TROUBLES {
        let port = match *target {
            "refusing" => refusing,
            "unwell" => unwell,
            "silent" => silent.port(),
            "closing" | "closing-reset" => closing.port(),
            "babbling" => babbling.port(),
            "http1-only" => http1.port(),
            "http2-only" => http2.port(),
            server => services.server(server).address().port(),
        };
        services.configure_at(target, vec![([127, 0, 0, 1], port).into()], fields);
    }
    services.server("full").behave(Behaviour::Hang);
    services.server("slow").behave(Behaviour::Hang);
    Targets {
        services,
        _others: [closing, babbling, http1, http2],
        _silent: silent,
    }
}

fn request(key: &str, is_grpc: bool) -> Request {
    let mut request = get("/shop.Cart/Add", &[("x-route-key", key)]);
    if is_grpc {
        *request.method_mut() = Method::POST;
        let grpc = http::HeaderValue::from_static("application/grpc");
        request.headers_mut().insert("content-type", grpc);
        *request.body_mut() = [0, 0, 0, 0, 0].as_slice().into();
    }
    request
}

/// Nothing of where anything lives, or of what is beside it, is in it.
fn assert_discreet(answer: &Answer, services: &Services) {
    let told = format!("{:?} {} {:?}", answer.headers, answer.text(), answer.trailers);
    assert!(!told.contains("127.0.0.1"), "{told}");
    for other in ["baseline", "#", "|", "envoy"] {
        assert!(!told.contains(other), "{other:?} in {told}");
    }
    for line in services.yaml().lines().skip(1) {
        let port = line.split_once("127.0.0.1:").and_then(|(_, rest)| rest.split_once('"'));
        let (port, _) = port.unwrap();
        assert!(!told.contains(port), "{port} in {told}");
    }
}

/// Whoever asks for this key is told of the trouble, in words that a program can read, by both ports.
async fn assert_told(ports: &Ports, key: &str, trouble: &Trouble, services: &Services) {
    let target = format!("{}:80", trouble.target);
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let answer = Client::new(protocol, ports.http)
            .send(request(key, false))
            .await
            .unwrap();
        assert_eq!(answer.status, trouble.status, "{key} {protocol:?}: {}", answer.text());
        assert_eq!(answer.header("x-route-error"), trouble.reason, "{key} {protocol:?}");
        assert_eq!(answer.header("content-type"), "application/json", "{key}");
        let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(body["error"], trouble.reason, "{key}");
        assert_eq!(body["target"], target, "{key}");
        let message = body["message"].as_str().unwrap();
        assert!(!message.is_empty(), "{key}");
        assert_eq!(body.as_object().unwrap().len(), 3, "{body}");
        assert_discreet(&answer, services);
        if protocol == Protocol::Http1 {
            print!("{key}: {}", answer.text());
        }
    }
    let mut client = Client::new(Protocol::Http2, ports.grpc);
    let answer = client.send(request(key, true)).await.unwrap();
    assert_eq!(answer.status, 200, "{key}: {}", answer.text());
    assert_eq!(answer.header("grpc-status"), GRPC_UNAVAILABLE, "{key}");
    assert_eq!(answer.header("x-route-error"), trouble.reason, "{key} by gRPC");
    let message = answer.header("grpc-message");
    assert!(
        message.starts_with(&format!("{}: ", trouble.reason)),
        "{key}: {message}"
    );
    assert!(message.ends_with(&format!("(target {target})")), "{key}: {message}");
    assert_discreet(&answer, services);
    println!("{key}: grpc-status {GRPC_UNAVAILABLE}: {message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_says_why_and_of_which_target_and_nothing_else() {
    let ports = Ports::free();
    let Targets { services, .. } = &start().await;
    let rules: String = TROUBLES
        .iter()
        .map(|trouble| trouble.target)
        .map(|target| format!("    - {{routeKey: {target}, targetService: {target}, fallback: none}}\n"))
        .collect();
    let falling_back = "    - {routeKey: full-baseline, targetService: full}\n";
    let nowhere = "    - {routeKey: nowhere, targetService: no-such-host.invalid, fallback: none}\n";
    let routing = format!("routing:\n  defaultTarget: baseline\n  rules:\n{rules}{falling_back}{nowhere}");
    let config = ConfigFile::new(&config_text(&ports, services, &routing));
    let _sidetrack = Sidetrack::up(&config.path(), &ports).await;
    // One is all that the target may get.
    let mut under_way = JoinSet::new();
    under_way.spawn(async move {
        let mut client = Client::new(Protocol::Http2, ports.grpc);
        client.send(request("full", false)).await
    });
    poll_until(PATIENCE, "a request at the target", async || {
        let found = services.server("full").in_flight();
        (found == 1).then_some(()).ok_or_else(|| found.to_string())
    })
    .await;

    let nowhere = trouble("no-such-host.invalid", "", "no_healthy_endpoint", UNAVAILABLE);
    let cases = TROUBLES.iter().map(|trouble| (trouble.target, trouble));
    let cases = cases.chain([("full-baseline", &TROUBLES[0]), ("nowhere", &nowhere)]);
    for (key, trouble) in cases {
        assert_told(&ports, key, trouble, services).await;
    }
    let ordinary = Client::new(Protocol::Http1, ports.http).get("/", &[]).await.unwrap();
    assert_eq!(ordinary.served_by(), "baseline");
    assert!(ordinary.header("x-route-error").is_empty());
    services.server("full").behave(Behaviour::Echo);
    let served = under_way.join_next().await.unwrap().unwrap().unwrap();
    assert_eq!(served.served_by(), "full");
}

/// The agent never lets a table name a cluster that the proxy hasn't accepted. Who changes a rendered configuration by hand
/// can.
#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_envoy_does_not_have_is_unknown() {
    let ports = Ports::free();
    let services = Services::start(&["baseline", "gone"]).await;
    let rule = "    - {routeKey: gone, targetService: gone, fallback: none}\n";
    let routing = format!("routing:\n  defaultTarget: baseline\n  rules:\n{rule}");
    let config = ConfigFile::new(&config_text(&ports, &services, &routing));
    let rendered = render(&config.path(), &[]);
    let changed = rendered.replace("name: \"gone:80\"", "name: \"elsewhere:80\"");
    assert_ne!(changed, rendered);
    let _envoy = Envoy::start(&changed);
    until_served_by(ports.http, "nobody", "baseline").await;
    let unknown = trouble("gone", "", "unknown_target", UNAVAILABLE);
    assert_told(&ports, "gone", &unknown, &services).await;
    assert_eq!(services.requests("gone"), 0);
}

/// Its last answer is the client's, with its own headers but for the one that is ours; and it is no error of routing.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_target_answers_after_the_last_retry_is_passed_on() {
    let ports = Ports::free();
    let mut services = Services::start(&["baseline", "failing"]).await;
    let address = services.server("failing").address();
    services.configure_at("failing", vec![address], "retries: {attempts: 1, on: [5xx]}");
    let rule =
        |key: &str, target: &str| format!("    - {{routeKey: {key}, targetService: \"{target}\", fallback: none}}\n");
    let rules = rule("k", "failing") + &rule("refused", &format!("127.0.0.1:{}", free_port()));
    let routing = &format!("routing:\n  defaultTarget: baseline\n  rules:\n{rules}");
    let config = ConfigFile::new(&config_text(&ports, &services, routing));
    let _sidetrack = Sidetrack::up(&config.path(), &ports).await;

    services.server("failing").behave(Behaviour::Status(500));
    let mut client = Client::new(Protocol::Http1, ports.http);
    let answer = client.send(request("k", false)).await.unwrap();
    assert_eq!(answer.status, 500);
    assert!(answer.text().contains("\"service\": \"failing\""), "{}", answer.text());
    assert!(answer.header("x-route-error").is_empty());
    assert_eq!(services.requests("failing"), 2, "it was tried again");

    let refused = client.send(request("refused", false)).await.unwrap();
    assert_eq!(refused.header("x-route-error"), "connection_failed");
    let counted = async || {
        let stats = Stats::read(ports.admin, "proxy_routing_errors_total").await;
        let counts = stats.not_zero("proxy_routing_errors_total");
        counts
            .iter()
            .map(|(name, count)| format!("{name}: {count}"))
            .collect::<Vec<_>>()
    };
    let expected = ["wasmcustom.proxy_routing_errors_total.error_type.connection_failed: 1"];
    poll_until(PATIENCE, "the one error of routing", async || {
        let found = counted().await;
        (found == expected).then_some(()).ok_or_else(|| format!("{found:?}"))
    })
    .await;
}
