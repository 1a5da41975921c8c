//! What operators see of each request: a line of JSON, and a count of what became of those with a key.

use serde_json::{Value, json};
use sidetrack_tests::{
    Client, ConfigFile, PATIENCE, Ports, Protocol, Services, Sidetrack, Stats, config_text, free_port, poll_until,
};

/// Path, route key; rule, reason, role and status in the log.
type Expected = (&'static str, &'static str, Value, Value, Value, u16);

fn requests() -> [Expected; 6] {
    let baseline = || json!("baseline");
    [
        ("/routed", "k", json!("routed"), Value::Null, Value::Null, 200),
        ("/fallen-back", "down", json!("falls"), Value::Null, baseline(), 200),
        ("/failed", "stays-down", json!("fails"), Value::Null, Value::Null, 503),
        (
            "/unknown",
            "a\"},{\"b",
            Value::Null,
            json!("unknown_key"),
            baseline(),
            200,
        ),
        ("/unmatched", "other", Value::Null, json!("no_match"), baseline(), 200),
        ("/keyless", "", Value::Null, Value::Null, baseline(), 200),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_is_a_line_of_json_and_a_fallback_is_counted() {
    let ports = Ports::free();
    let services = Services::start(&["baseline", "alive"]).await;
    let down = format!("127.0.0.1:{}", free_port());
    let routing = format!(
        "routing:\n  defaultTarget: baseline\n  rules:\n    - {{routeKey: k, name: routed, targetService: alive}}\n    \
         - {{routeKey: down, name: falls, targetService: \"{down}\"}}\n    \
         - {{routeKey: stays-down, name: fails, targetService: \"{down}\", fallback: none}}\n    \
         - {{routeKey: other, targetService: alive, pathPrefixes: [/elsewhere]}}\n"
    );
    let config = ConfigFile::new(&config_text(&ports, &services, &routing));
    let sidetrack = Sidetrack::up(&config.path(), &ports).await;

    let mut client = Client::new(Protocol::Http1, ports.http);
    for (path, key, .., status) in requests() {
        let headers: &[(&str, &str)] = if key.is_empty() { &[] } else { &[("x-route-key", key)] };
        let answer = client.get(&format!("{path}?token=secret"), headers).await.unwrap();
        assert_eq!(answer.status, status, "{path}");
    }

    for (path, key, rule, reason, role, status) in requests() {
        let line = poll_until(PATIENCE, &format!("a line for {path}"), async || {
            let output = sidetrack.output();
            let mut lines = output
                .lines()
                .filter_map(|line| serde_json::from_str::<Value>(line).ok());
            lines
                .find(|line| line["path"] == path)
                .ok_or_else(|| "none yet".to_owned())
        })
        .await;
        let key = if key.is_empty() { Value::Null } else { json!(key) };
        let found = ["routeKey", "rule", "reason", "role", "status", "method"].map(|field| line[field].clone());
        assert_eq!(found, [key, rule, reason, role, json!(status), json!("GET")], "{line}");
        assert!(
            line["durationMs"].is_u64() && line["target"].is_string() && line["flags"].is_string(),
            "{line}"
        );
    }
    assert!(!sidetrack.output().contains("secret"), "a query may hold secrets");

    let stats = Stats::read(ports.admin, "sidetrack_requests_total").await;
    let mut counts = stats.not_zero("sidetrack_requests_total");
    counts.sort_unstable();
    println!("{counts:?}");
    let expected = [
        ("", "baseline", 2),
        ("fails", "", 1),
        ("falls", "baseline", 1),
        ("routed", "", 1),
    ]
    .map(|(rule, role, count)| {
        (
            format!("wasmcustom.sidetrack_requests_total.rule.{rule}.role.{role}"),
            count,
        )
    });
    let expected: Vec<(&str, u64)> = expected.iter().map(|(name, count)| (name.as_str(), *count)).collect();
    assert_eq!(counts, expected, "requests without a key aren't counted");
}
