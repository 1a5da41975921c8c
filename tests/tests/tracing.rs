//! Headers of traces, and spans for an OpenTelemetry collector.

use std::time::Duration;

use sidetrack_tests::{
    Client, Collector, ConfigFile, PATIENCE, Ports, Protocol, Services, Sidetrack, Span, config_text, free_port,
    poll_until,
};

const ROUTING: &str = r#"
routing:
  defaultTarget: baseline
  keySources: [{header: X-Route-Key}, {baggage: sd-routing-key}]
  rules:
    - {routeKey: sandbox, targetService: service-a}
"#;

const TRACE_ID: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT_ID: &str = "b7ad6b7169203331";
const SAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const NOT_SAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

/// Headers of W3C, B3 in both forms, Jaeger, Datadog, AWS X-Ray, and names of one's own.
const HEADERS: [(&str, &str); 18] = [
    ("traceparent", SAMPLED),
    ("tracestate", "vendor=opaque,other=1"),
    ("baggage", "userId=alice;secret,name=J%C3%BCrgen"),
    (
        "b3",
        "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1-05e3ac9a4f6e3b90",
    ),
    ("x-b3-traceid", "80f198ee56343ba864fe8b2a57d3eff7"),
    ("x-b3-spanid", "e457b5a2e4d86bd1"),
    ("x-b3-parentspanid", "05e3ac9a4f6e3b90"),
    ("x-b3-sampled", "1"),
    ("x-b3-flags", "1"),
    ("x-request-id", "8c0a1f6e-made-by-the-client"),
    ("x-client-trace-id", "client"),
    ("uber-trace-id", "a:b:0:1"),
    ("x-datadog-trace-id", "123"),
    ("x-datadog-sampling-priority", "2"),
    ("x-amzn-trace-id", "Root=1-67891233-abcdef012345678912345678"),
    ("x-cloud-trace-context", "105445aa7843bc8bf206b12000100000/1;o=1"),
    ("x-trace-id", "t"),
    ("x-span-id", "s"),
];

const KEYS: [(Option<&str>, &str); 3] = [
    (None, "baseline"),
    (Some("unknown"), "baseline"),
    (Some("sandbox"), "service-a"),
];

/// What Envoy's tracer writes anew.
const REWRITTEN: [&str; 2] = ["traceparent", "tracestate"];

async fn check_headers(ports: &Ports, is_traced: bool) {
    for (protocol, port) in [
        (Protocol::Http1, ports.http),
        (Protocol::Http2, ports.http),
        (Protocol::Http2, ports.grpc),
    ] {
        let mut client = Client::new(protocol, port);
        for (key, expected) in KEYS {
            let mut headers = HEADERS.to_vec();
            headers.extend(key.map(|key| ("x-route-key", key)));
            let echo = client.get("/", &headers).await.unwrap().echo();
            let case = format!("{protocol:?} on {port}, key {key:?}, traced: {is_traced}");
            assert_eq!(echo.service, expected, "{case}");
            for (name, value) in HEADERS {
                if !(is_traced && REWRITTEN.contains(&name)) {
                    assert_eq!(echo.header(name), [value], "{case}: {name}");
                }
            }
            if is_traced {
                let parent = echo.header("traceparent");
                assert!(
                    parent[0].starts_with(&format!("00-{TRACE_ID}-")) && parent[0].ends_with("-01"),
                    "{parent:?}"
                );
                assert!(!parent[0].contains(PARENT_ID), "{case}: a span of its own: {parent:?}");
                assert_eq!(echo.header("tracestate"), ["vendor=opaque,other=1"], "{case}");
            }
            let none = client.get("/", &[]).await.unwrap().echo();
            for (name, _) in HEADERS {
                if !(is_traced && REWRITTEN.contains(&name)) {
                    assert!(
                        none.header(name).is_empty(),
                        "{case}: {name} was made up: {:?}",
                        none.header(name)
                    );
                }
            }
        }
    }
}

fn traced(text: &str, otlp: &str, sampling: &str) -> String {
    format!("{text}tracing: {{otlp: \"{otlp}\"{sampling}}}\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_of_traces_pass_unchanged_without_tracing() {
    let ports = Ports::free();
    let services = Services::start(&["baseline", "service-a"]).await;
    let config = ConfigFile::new(&config_text(&ports, &services, ROUTING));
    let _sidetrack = Sidetrack::up(&config.path(), &ports).await;
    check_headers(&ports, false).await;
}

/// The spans of requests for `path`.
fn of(collector: &Collector, path: &str) -> Vec<Span> {
    let mut spans = collector.spans();
    spans.retain(|span| span.attribute("http.url").is_some_and(|url| url.contains(path)));
    spans
}

async fn span_of(collector: &Collector, path: &str) -> Span {
    poll_until(PATIENCE, &format!("the span of {path}"), async || {
        let spans = of(collector, path);
        spans
            .first()
            .cloned()
            .ok_or_else(|| format!("{} others", collector.spans().len()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_have_the_route_key_and_the_clients_decision_counts() {
    let ports = Ports::free();
    let services = Services::start(&["baseline", "service-a"]).await;
    let collector = Collector::start().await;
    let text = config_text(&ports, &services, ROUTING);
    let otlp = collector.address().to_string();
    let config = ConfigFile::new(&traced(&text, &otlp, ""));
    let _sidetrack = Sidetrack::up(&config.path(), &ports).await;
    let mut client = Client::new(Protocol::Http1, ports.http);

    check_headers(&ports, true).await;
    let sent = [
        ("/keyless", &[][..], None),
        ("/by-header", &[("x-route-key", "sandbox")], Some("sandbox")),
        (
            "/by-baggage",
            &[("baggage", "a=b,sd-routing-key=sandbox")],
            Some("sandbox"),
        ),
        ("/missed", &[("x-route-key", "unknown")], Some("unknown")),
    ];
    let mut parents = Vec::new();
    for (path, headers, _) in sent {
        let echo = client.get(path, headers).await.unwrap().echo();
        parents.push(echo.header("traceparent").concat());
    }
    client.get("/sampled", &[("traceparent", SAMPLED)]).await.unwrap();
    let declined = client.get("/declined", &[("traceparent", NOT_SAMPLED)]).await.unwrap();
    let declined = declined.echo().header("traceparent").concat();
    client.get("/after", &[]).await.unwrap();

    // Spans are sent in the order of the requests, together every five seconds.
    span_of(&collector, "/after").await;
    for ((path, _, key), parent) in sent.into_iter().zip(parents) {
        let span = span_of(&collector, path).await;
        assert_eq!(span.service, "sidetrack", "{path}");
        assert_eq!(span.attribute("sidetrack.route_key"), key, "{path}: {span:?}");
        assert_eq!(span.parent_id, "", "{path}: the trace begins here");
        assert_eq!(parent, format!("00-{}-{}-01", span.trace_id, span.span_id), "{path}");
    }
    let span = span_of(&collector, "/sampled").await;
    assert_eq!((span.trace_id.as_str(), span.parent_id.as_str()), (TRACE_ID, PARENT_ID));
    assert!(
        declined.starts_with(&format!("00-{TRACE_ID}-")) && declined.ends_with("-00"),
        "{declined}"
    );
    assert_eq!(of(&collector, "/declined"), []);

    // None of ours, and the clients' as before.
    config.replace(&traced(&text, &otlp, ", sampling: 0"));
    poll_until(PATIENCE, "no sampling", async || {
        let echo = client.get("/while-it-changes", &[]).await.unwrap().echo();
        let parent = echo.header("traceparent").concat();
        if parent.ends_with("-01") { Err(parent) } else { Ok(()) }
    })
    .await;
    for _ in 0..20 {
        client.get("/ours", &[]).await.unwrap();
    }
    client.get("/theirs", &[("traceparent", SAMPLED)]).await.unwrap();
    span_of(&collector, "/theirs").await;
    assert_eq!(of(&collector, "/ours"), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_makes_no_difference() {
    let ports = Ports::free();
    let services = Services::start(&["baseline", "service-a"]).await;
    let text = config_text(&ports, &services, ROUTING);
    for otlp in [
        format!("127.0.0.1:{}", free_port()),
        "no-such-host.invalid:4317".to_owned(),
    ] {
        let config = ConfigFile::new(&traced(&text, &otlp, ""));
        let _sidetrack = Sidetrack::up(&config.path(), &ports).await;
        let mut client = Client::new(Protocol::Http1, ports.http);
        let mut longest = Duration::ZERO;
        for _ in 0..200 {
            for (key, expected) in KEYS {
                let headers: Vec<_> = key.map(|key| ("x-route-key", key)).into_iter().collect();
                let sent = std::time::Instant::now();
                let answer = client.get("/", &headers).await.unwrap();
                longest = longest.max(sent.elapsed());
                assert_eq!(answer.served_by(), expected, "{otlp}");
            }
        }
        println!("{otlp}: 600 requests, the longest took {longest:?}");
    }
}
