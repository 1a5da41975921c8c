//! What `server.metricsPort` shows of requests, as Prometheus reads it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};
use sidetrack_tests::prometheus::{Prometheus, scrape};
use sidetrack_tests::{
    Api, Client, ConfigFile, Envoy, PATIENCE, Ports, Protocol, RawConnection, Services, Sidetrack, artifacts,
    config_text, free_port, get, poll_until, render,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// A name that would end a label, and a line, were it printed as it is.
const HOSTILE_NAME: &str = r#"a "b\ {c="d"} le="5000"} 7"#;

/// Where buckets end: those of Prometheus's client libraries, and two below.
const BUCKETS: [&str; 14] = [
    "0.001", "0.0025", "0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "5", "10", "+Inf",
];

/// Longer than the bucket that ends at 25 ms.
const SLOW: Duration = Duration::from_millis(40);

/// Distinct ones, of which there must not be a trace.
const PATHS: usize = 100_000;
const KEYS: usize = 10_000;
const CONNECTIONS: usize = 8;
const PIPELINED: usize = 50;

/// Times, path, key; status, and what the request is counted under.
type Expected = (u32, &'static str, &'static str, u16, &'static str);

const REQUESTS: [Expected; 13] = [
    (5, "/any", "", 200, "baseline"),
    (1, "/any", "nobody", 200, "baseline"),
    (1, "/elsewhere", "paths", 200, "baseline"),
    (1, "/any", "hostile", 200, HOSTILE_NAME),
    (2, "/named/x", "named", 200, "checkout-pr-17"),
    (3, "/api/x", "paths", 200, "/api"),
    (2, "/shop", "paths", 200, "/shop"),
    (2, "/exactly", "paths", 200, "/exactly"),
    (1, "/v1/orders/7", "paths", 200, r"/v\d+/orders/.*"),
    (1, "/any", "all", 200, "all@alive:80"),
    (2, "/falling", "down", 200, "falls"),
    (4, "/failing", "stays-down", 503, "fails"),
    (1, "/any?delay_ms=40", "slow", 200, "slow"),
];

fn routing() -> String {
    let down = free_port();
    format!(
        r#"
routing:
  defaultTarget: baseline
  rules:
    - {{routeKey: hostile, targetService: alive, name: {HOSTILE_NAME:?}}}
    - {{routeKey: named, targetService: alive, name: checkout-pr-17, pathPrefixes: [/named]}}
    - {{routeKey: paths, targetService: alive, pathPrefixes: [/api, /shop], paths: [{{exact: /exactly}}, {{regex: '/v\d+/orders/.*'}}]}}
    - {{routeKey: all, targetService: alive}}
    - {{routeKey: slow, targetService: alive, name: slow}}
    - {{routeKey: down, targetService: "127.0.0.1:{down}", name: falls}}
    - {{routeKey: stays-down, targetService: "127.0.0.1:{down}", name: fails, fallback: none}}
"#
    )
}

struct Stage {
    ports: Ports,
    sidetrack: Sidetrack,
    _services: Services,
    _config: ConfigFile,
}

impl Stage {
    async fn new() -> Self {
        let ports = Ports::free();
        let services = Services::start(&["baseline", "alive"]).await;
        let config = ConfigFile::new(&config_text(&ports, &services, &routing()));
        Self {
            ports,
            sidetrack: Sidetrack::up(&config.path(), &ports).await,
            _services: services,
            _config: config,
        }
    }

    /// Sends all of [`REQUESTS`]: over HTTP/1.1 and HTTP/2 in turn.
    async fn send_all(&self) {
        let mut clients = [
            Client::new(Protocol::Http1, self.ports.http),
            Client::new(Protocol::Http2, self.ports.grpc),
        ];
        for (times, path, key, status, _) in REQUESTS {
            for time in 0..times {
                let headers: &[(&str, &str)] = if key.is_empty() { &[] } else { &[("x-route-key", key)] };
                let answer = clients[time as usize % 2].get(path, headers).await.unwrap();
                assert_eq!(answer.status, status, "{path} {key}");
            }
        }
    }

    /// The metrics, once their histograms, which follow with the next of Envoy's flushes, have this many requests.
    async fn scraped(&self, requests: f64) -> (String, Prometheus) {
        poll_until(PATIENCE, "the durations of all requests", async || {
            let text = scrape(self.ports.metrics).await;
            let counts = text
                .lines()
                .filter(|line| line.starts_with("proxy_request_duration_seconds_count{"));
            let counted: f64 = counts
                .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
                .sum();
            if counted == requests {
                let read = Prometheus::read(&[(0, &text)], &[], "");
                Ok((text, read))
            } else {
                Err(format!("{counted} of {requests}"))
            }
        })
        .await
    }
}

fn sent() -> f64 {
    REQUESTS.iter().map(|(times, ..)| f64::from(*times)).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_are_those_of_what_was_sent() {
    let stage = Stage::new().await;
    stage.send_all().await;
    let (text, read) = stage.scraped(sent()).await;
    assert_eq!(read.problems, [""; 0], "{text}");
    println!("{} series, no objections", read.series.len());

    let types: Vec<(&str, &str)> = read
        .families
        .iter()
        .map(|(name, kind)| (name.as_str(), kind.as_str()))
        .collect();
    assert_eq!(
        types,
        [
            ("envoy_control_plane_connected_state", "gauge"),
            ("envoy_http_downstream_cx_active", "gauge"),
            ("envoy_http_downstream_rq_active", "gauge"),
            ("proxy_request_duration_seconds", "histogram"),
            ("proxy_requests_total", "counter"),
            ("proxy_routing_errors_total", "counter"),
            ("sidetrack_requests_total", "counter"),
        ]
    );
    let mut expected = BTreeMap::new();
    for (times, _, _, status, path) in REQUESTS {
        *expected.entry([path.to_owned(), status.to_string()]).or_insert(0.0) += f64::from(times);
    }
    assert_eq!(read.values("proxy_requests_total", ["path", "status_code"]), expected);
    let by_path: BTreeMap<_, _> = expected.into_iter().map(|([path, _], count)| ([path], count)).collect();
    assert_eq!(read.values("proxy_request_duration_seconds_count", ["path"]), by_path);
    assert_eq!(
        read.values("proxy_routing_errors_total", ["error_type"]),
        [(["connection_failed".to_owned()], 4.0)].into()
    );

    let buckets = read.values("proxy_request_duration_seconds_bucket", ["path", "le"]);
    for [path] in by_path.keys() {
        let counts: Vec<f64> = BUCKETS.map(|le| buckets[&[path.clone(), le.to_owned()]]).to_vec();
        assert!(counts.is_sorted(), "{path}: {counts:?}");
        assert_eq!(counts.last(), by_path.get(std::slice::from_ref(path)), "{path}");
    }
    assert_eq!(buckets.len(), by_path.len() * BUCKETS.len());
    assert_eq!(buckets[&["slow".to_owned(), "0.025".to_owned()]], 0.0, "it took 40 ms");
    // Envoy counts in steps of at most a tenth.
    let sum = read
        .value("proxy_request_duration_seconds_sum", &[("path", "slow")])
        .unwrap();
    assert!(
        sum > SLOW.as_secs_f64() * 0.95 && sum < PATIENCE.as_secs_f64(),
        "{sum} s"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_without_an_answer_is_counted_too() {
    let stage = Stage::new().await;
    let mut client = Client::new(Protocol::Http1, stage.ports.http);
    let answer = client.get("/any?delay_ms=60000", &[("x-route-key", "all")]);
    assert!(tokio::time::timeout(Duration::from_millis(300), answer).await.is_err());
    drop(client);
    let mut raw = RawConnection::new(stage.ports.http);
    assert_eq!(raw.send(b"nonsense\r\n\r\n").await.unwrap().status, 400);

    let (text, read) = stage.scraped(2.0).await;
    let expected = [
        (["all@alive:80".to_owned(), "0".to_owned()], 1.0),
        (["baseline".to_owned(), "400".to_owned()], 1.0),
    ];
    assert_eq!(
        read.values("proxy_requests_total", ["path", "status_code"]),
        expected.into()
    );
    let took = read.value("proxy_request_duration_seconds_sum", &[("path", "all@alive:80")]);
    assert!(took.is_some_and(|took| (0.2..30.0).contains(&took)), "{took:?}");
    assert!(
        !text.contains("proxy_routing_errors_total"),
        "these are errors of clients"
    );
    let said = stage.sidetrack.stderr();
    assert!(!said.contains("Stats access logger"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_breaks_off_is_an_error_and_cannot_say_which() {
    let ports = Ports::free();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let breaking = tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            let _ = connection.read(&mut [0; 4096]).await;
            let half = b"HTTP/1.1 200 OK\r\nx-route-error: forged\r\ncontent-length: 100\r\n\r\nhalf";
            let _ = connection.write_all(half).await;
        }
    });
    let services = Services::start(&["baseline"]).await;
    let routing = format!(
        "routing:\n  defaultTarget: baseline\n  rules:\n    - {{routeKey: k, name: breaking, targetService: \"{address}\"}}\n"
    );
    let config = ConfigFile::new(&config_text(&ports, &services, &routing));
    let _sidetrack = Sidetrack::up(&config.path(), &ports).await;
    let mut client = Client::new(Protocol::Http1, ports.http);
    assert!(
        client.send(get("/", &[("x-route-key", "k")])).await.is_err(),
        "it has no end"
    );
    breaking.abort();

    let read = poll_until(PATIENCE, "the error", async || {
        let read = Prometheus::read(&[(0, &scrape(ports.metrics).await)], &[], "");
        let errors = read.values("proxy_routing_errors_total", ["error_type"]);
        if errors.is_empty() {
            Err("none yet".to_owned())
        } else {
            Ok(read)
        }
    })
    .await;
    assert_eq!(read.problems, [""; 0]);
    assert_eq!(
        read.values("proxy_routing_errors_total", ["error_type"]),
        [(["upstream_protocol_error".to_owned()], 1.0)].into()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_but_metrics_is_reachable() {
    let stage = Stage::new().await;
    let mut raw = RawConnection::new(stage.ports.metrics);
    for (method, path, expected) in [
        ("GET", "/", 404),
        ("GET", "/metrics/", 404),
        ("GET", "/metricsx", 404),
        ("GET", "/METRICS", 404),
        ("GET", "//metrics", 404),
        ("GET", "/metrics;x", 404),
        ("GET", "/metrics#x", 404),
        ("GET", "/metrics?filter=server", 404),
        ("GET", "/metrics?", 404),
        ("GET", "/metrics%3Ffilter=server", 404),
        ("GET", "/metrics/../config_dump", 404),
        ("GET", "/metrics/..%2Fconfig_dump", 404),
        ("GET", "/metrics%2F..%2Fconfig_dump", 404),
        ("GET", "/x/../metrics", 404),
        ("GET", "/config_dump", 404),
        ("GET", "/stats", 404),
        ("GET", "/stats/prometheus", 404),
        ("POST", "/metrics/quitquitquit", 404),
        ("POST", "/quitquitquit", 404),
        ("POST", "/drain_listeners", 404),
        ("POST", "/metrics", 405),
        ("PUT", "/metrics", 405),
        ("OPTIONS", "/metrics", 405),
    ] {
        let request = format!("{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n");
        let answer = raw.send(request.as_bytes()).await.unwrap();
        // A fragment isn't part of a request; Envoy refuses it or takes it off, and either is well.
        let expected = if path.contains('#') { answer.status } else { expected };
        assert_eq!(answer.status, expected, "{method} {path}");
        if answer.status != 200 {
            assert!(answer.body.is_empty(), "{method} {path}: {}", answer.text());
        }
    }
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let mut client = Client::new(protocol, stage.ports.metrics);
        let mut head = get("/metrics", &[]);
        *head.method_mut() = http::Method::HEAD;
        let answer = client.send(head).await.unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (200, ""), "{protocol:?}");
        // Headers are no way round.
        let forged = [
            ("x-envoy-original-path", "/config_dump"),
            ("x-forwarded-for", "127.0.0.1"),
        ];
        let answer = client.get("/metrics", &forged).await.unwrap();
        assert!(
            answer.status == 200 && answer.text().starts_with("# HELP "),
            "{protocol:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn traffic_adds_no_series() {
    let stage = Stage::new().await;
    stage.send_all().await;
    let names = |read: &Prometheus| -> BTreeSet<_> { read.series.iter().map(|sample| sample.labels.clone()).collect() };
    let (_, before) = stage.scraped(sent()).await;

    let mut senders = JoinSet::new();
    for sender in 0..CONNECTIONS {
        let port = stage.ports.http;
        senders.spawn(async move { send_distinct(port, sender).await.unwrap() });
    }
    while let Some(sender) = senders.join_next().await {
        sender.unwrap();
    }
    let (text, after) = stage.scraped(sent() + PATHS as f64).await;
    assert_eq!(names(&after), names(&before));
    println!("{} series, {} bytes", after.series.len(), text.len());
    let labels = [("path", "baseline"), ("status_code", "200")];
    let count = |read: &Prometheus| read.value("proxy_requests_total", &labels).unwrap();
    assert_eq!(count(&after) - count(&before), PATHS as f64);
}

/// Envoy hands it on in pieces that end anywhere in a line.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_answer_is_translated_whole() {
    const RULES: u32 = 500;
    let ports = Ports::free();
    let services = Services::start(&["baseline"]).await;
    let rule = |rule| format!("    - {{routeKey: k, targetService: baseline, pathPrefixes: [/service-{rule}]}}\n");
    let rules: String = (0..RULES).map(rule).collect();
    let routing = format!("routing:\n  defaultTarget: baseline\n  rules:\n{rules}");
    let config = ConfigFile::new(&config_text(&ports, &services, &routing));
    let sidetrack = Sidetrack::up(&config.path(), &ports).await;
    let stage = Stage {
        ports,
        sidetrack,
        _services: services,
        _config: config,
    };
    let mut client = Client::new(Protocol::Http1, ports.http);
    for rule in 0..RULES {
        let answer = client.get(&format!("/service-{rule}"), &[("x-route-key", "k")]).await;
        assert_eq!(answer.unwrap().status, 200);
    }
    let (text, read) = stage.scraped(f64::from(RULES)).await;
    assert_eq!(read.problems, [""; 0]);
    let requests = read.values("proxy_requests_total", ["path", "status_code"]);
    assert!(
        requests.len() == RULES as usize && requests.values().all(|count| *count == 1.0),
        "{requests:?}"
    );
    let buckets = read.values("proxy_request_duration_seconds_bucket", ["path", "le"]);
    assert_eq!(buckets.len(), RULES as usize * BUCKETS.len());
    assert!(!text.contains("_us"), "all of it");
    println!("{} series, {} bytes", read.series.len(), text.len());
}

/// With a whole configuration, and with a bootstrap whose agent isn't there: that is an alert.
#[tokio::test(flavor = "multi_thread")]
async fn an_envoy_without_an_agent_shows_them_too() {
    let services = Services::start(&["baseline", "alive"]).await;
    for (arguments, firing) in [(&[][..], 0), (&["--bootstrap"], 1)] {
        let ports = Ports::free();
        let config = ConfigFile::new(&config_text(&ports, &services, &routing()));
        let _envoy = Envoy::start(&render(&config.path(), arguments));
        let mut client = Client::new(Protocol::Http1, ports.http);
        poll_until(PATIENCE, "an answer", async || match client.get("/", &[]).await {
            Ok(answer) if answer.status == 200 => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
        let text = scrape(ports.metrics).await;
        let read = Prometheus::read(&[(0, &text)], &[], &document("alerts.yaml"));
        assert_eq!(read.problems, [""; 0], "{arguments:?}");
        let served = read.value("proxy_requests_total", &[("path", "baseline"), ("status_code", "200")]);
        assert_eq!(served, Some(1.0), "{arguments:?}");
        let away = &read.alerts[0];
        let found = (away.name.as_str(), away.firing.samples.len());
        assert_eq!(found, ("SidetrackAgentAway", firing), "{arguments:?}");
    }
}

/// What can be seen of the second of two minutes, in each of which all requests were sent.
#[tokio::test(flavor = "multi_thread")]
async fn every_panel_and_every_alert_finds_its_metrics() {
    let stage = Stage::new().await;
    stage.send_all().await;
    let (before, _) = stage.scraped(sent()).await;
    let before = before + &scrape(stage.ports.api).await;
    stage.send_all().await;
    let mut api = Api::new(stage.ports.api);
    let rules = json!([{"targetService": "alive"}]);
    assert!(api.put("new", &rules, Some(PATIENCE)).await.unwrap().is_in_force());
    let (after, _) = stage.scraped(2.0 * sent()).await;
    let after = after + &scrape(stage.ports.api).await;

    let dashboard = document("grafana-dashboard.json");
    let dashboard: Value = serde_json::from_str(&dashboard).unwrap();
    let queries = expressions(&dashboard);
    assert!(queries.len() > 10, "{queries:?}");
    let queries: Vec<String> = queries
        .iter()
        .map(|query| query.replace("$__rate_interval", "5m"))
        .collect();
    let queries: Vec<&str> = queries.iter().map(String::as_str).collect();
    let read = Prometheus::read(&[(0, &before), (60, &after)], &queries, &document("alerts.yaml"));
    assert_eq!(read.problems, [""; 0]);

    assert_eq!(read.results.len(), queries.len());
    for (query, result) in queries.iter().zip(&read.results) {
        assert_eq!(result.error, "", "{query}");
        let values: Vec<f64> = result.samples.iter().map(|sample| sample.value).collect();
        assert!(
            !values.is_empty() && values.iter().all(|value| value.is_finite()),
            "{query}: {values:?}"
        );
        println!("{query}: {values:?}");
    }
    for alert in &read.alerts {
        assert_eq!(
            (alert.firing.error.as_str(), alert.compared.error.as_str()),
            ("", ""),
            "{}",
            alert.name
        );
        assert!(!alert.compared.samples.is_empty(), "{} compares nothing", alert.name);
    }
    let firing: Vec<(&str, Vec<&str>)> = read
        .alerts
        .iter()
        .map(|alert| {
            let of = alert.firing.samples.iter();
            (alert.name.as_str(), of.map(|sample| sample.label("path")).collect())
        })
        .collect();
    assert_eq!(
        firing,
        [
            ("SidetrackAgentAway", vec![]),
            ("SidetrackRoutingErrors", vec![""]),
            ("SidetrackServerErrors", vec!["fails"]),
            ("SidetrackSandboxDown", vec![""]),
            ("SidetrackSlow", vec![]),
            ("SidetrackConfigRejected", vec![]),
            ("SidetrackProxiesBehind", vec![]),
            ("SidetrackStateNotWritten", vec![]),
            ("SidetrackAgentsDisagree", vec![]),
        ]
    );
}

fn document(name: &str) -> String {
    std::fs::read_to_string(artifacts::workspace().join("docs").join(name)).unwrap()
}

/// All queries in it.
fn expressions(dashboard: &Value) -> Vec<&str> {
    match dashboard {
        Value::Array(elements) => elements.iter().flat_map(expressions).collect(),
        Value::Object(fields) => {
            let own = fields.get("expr").and_then(Value::as_str);
            own.into_iter().chain(fields.values().flat_map(expressions)).collect()
        }
        _ => Vec::new(),
    }
}

/// Sends one sender's share of the paths, each once, and of the keys: pipelined, so that sending isn't what takes the time.
async fn send_distinct(port: u16, sender: usize) -> std::io::Result<()> {
    let mut connection = TcpStream::connect(("127.0.0.1", port)).await?;
    let (mut requests, mut chunk) = (Vec::new(), [0; 65_536]);
    let mine: Vec<usize> = (sender..PATHS).step_by(CONNECTIONS).collect();
    for batch in mine.chunks(PIPELINED) {
        requests.clear();
        for index in batch {
            let path = if index % 2 == 0 { "api" } else { "other" };
            requests.extend(format!("GET /{path}/{index} HTTP/1.1\r\nhost: x\r\n").into_bytes());
            if *index < KEYS {
                requests.extend(format!("x-route-key: key-{index}\r\n").into_bytes());
            }
            requests.extend(b"\r\n");
        }
        connection.write_all(&requests).await?;
        // An echo has one closing brace: its last.
        let mut answers = 0;
        while answers < batch.len() {
            let length = connection.read(&mut chunk).await?;
            if length == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            answers += chunk[..length].iter().filter(|byte| **byte == b'}').count();
        }
    }
    Ok(())
}
