//! What the decision was: the header of an answer, `sidetrack explain`, `sidetrack check`.

use std::process::Output;

use serde_json::Value;
use sidetrack_tests::{Answer, Client, ConfigFile, Ports, Protocol, Services, Sidetrack, config_text, sidetrack};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

const DECISION: &str = "x-route-decision";

/// What a target says that has an X-Route-Decision of its own.
const LIAR: &[u8] =
    b"HTTP/1.1 200 OK\r\nx-route-decision: a lie\r\nx-route-decision: another\r\ncontent-length: 0\r\n\r\n";

fn routing(debug: bool, liar: u16) -> String {
    format!(
        r#"
routing:
  defaultTarget: baseline
  debugHeader: {debug}
  keySources: [{{header: X-Route-Key}}, {{cookie: key}}]
  rules:
    - {{routeKey: sandbox, name: api, targetService: service-a, pathPrefixes: [/api]}}
    - {{routeKey: sandbox, name: qa, targetService: service-b, headerMatchers: {{X-User: {{prefix: qa-}}}}}}
    - {{routeKey: alone, name: alone, targetService: service-a, fallback: none}}
    - {{routeKey: nowhere, name: nowhere, targetService: no-such-host.invalid, fallback: none}}
    - {{routeKey: liar, name: liar, targetService: "127.0.0.1:{liar}"}}
"#
    )
}

/// Path and headers of a request, and its decision.
type Case = (&'static str, &'static [(&'static str, &'static str)], &'static str);

const CASES: [Case; 8] = [
    (
        "/api/x?y",
        &[("x-route-key", "sandbox")],
        "rule=api; target=service-a:80; reason=matched",
    ),
    (
        "/api",
        &[("cookie", "a=b; key=sandbox")],
        "rule=api; target=service-a:80; reason=matched",
    ),
    (
        "/",
        &[("x-route-key", "sandbox"), ("x-user", "qa-7")],
        "rule=qa; target=service-b:80; reason=matched",
    ),
    (
        "/",
        &[("x-route-key", "alone")],
        "rule=alone; target=service-a:80; reason=matched",
    ),
    (
        "/apis",
        &[("x-route-key", "sandbox")],
        "rule=-; target=baseline; reason=no_match",
    ),
    (
        "/api",
        &[("x-route-key", "nobody")],
        "rule=-; target=baseline; reason=unknown_key",
    ),
    (
        "/api",
        &[("x-route-key", "no key")],
        "rule=-; target=baseline; reason=invalid_key",
    ),
    ("/api", &[("x-user", "qa-7")], "rule=-; target=baseline; reason=no_key"),
];

/// A server that answers each connection with these bytes.
async fn answering(bytes: &'static [u8]) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            let _ = connection.read(&mut [0; 8192]).await;
            let _ = connection.write_all(bytes).await;
        }
    });
    port
}

fn decisions(answer: &Answer) -> Vec<String> {
    let all = answer.headers.get_all(DECISION).iter();
    all.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        .collect()
}

/// Runs `sidetrack` with these arguments.
fn run(arguments: &[&str], config: &ConfigFile) -> Output {
    sidetrack(arguments).arg("-c").arg(config.path()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The decision in the words of the header, out of what `sidetrack explain --json` says.
fn explained(config: &ConfigFile, path: &str, headers: &[(&str, &str)]) -> String {
    let headers: Vec<String> = headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    let mut arguments = vec!["explain", "--json", "--path", path];
    arguments.extend(headers.iter().flat_map(|header| ["-H", header.as_str()]));
    let output = run(&arguments, config);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    let part = |name: &str| json[name].as_str().unwrap_or_default().to_owned();
    match part("decision").as_str() {
        "target" => {
            let cluster = part("cluster");
            let target = cluster.split(['|', '#']).next().unwrap();
            format!("rule={}; target={target}; reason=matched", part("rule"))
        }
        decision => format!("rule=-; target={decision}; reason={}", part("reason")),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_is_told_and_explain_says_the_same() {
    let ports = Ports::free();
    let services = Services::start(&["baseline", "service-a", "service-b"]).await;
    let config = ConfigFile::new(&config_text(&ports, &services, &routing(true, answering(LIAR).await)));
    let _sidetrack = Sidetrack::up(&config.path(), &ports).await;

    for (protocol, port) in [(Protocol::Http1, ports.http), (Protocol::Http2, ports.grpc)] {
        let mut client = Client::new(protocol, port);
        for (path, headers, expected) in CASES {
            let case = format!("{protocol:?} {path} {headers:?}");
            let asking = [headers, &[("X-Route-Explain", "1")]].concat();
            let asked = client.get(path, &asking).await.unwrap();
            let silent = client.get(path, headers).await.unwrap();
            assert_eq!(decisions(&asked), [expected], "{case}");
            assert!(decisions(&silent).is_empty(), "{case}: {:?}", decisions(&silent));
            assert_eq!(asked.served_by(), silent.served_by(), "{case}");
            let named = if expected.contains("target=baseline") {
                "baseline:80"
            } else {
                expected
            };
            assert!(
                named.contains(&format!("{}:80", asked.served_by())),
                "{case}: {}",
                asked.served_by()
            );
            // The decision of a client is its own affair.
            let forged = [headers, &[(DECISION, "forged")]].concat();
            assert!(
                decisions(&client.get(path, &forged).await.unwrap()).is_empty(),
                "{case}"
            );
        }
    }
    for (path, headers, expected) in CASES {
        assert_eq!(explained(&config, path, headers), expected, "{path} {headers:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_header_of_a_target_is_overwritten() {
    let ports = Ports::free();
    let services = Services::start(&["baseline", "service-a", "service-b"]).await;
    let liar = answering(LIAR).await;
    let config = ConfigFile::new(&config_text(&ports, &services, &routing(true, liar)));
    let _sidetrack = Sidetrack::up(&config.path(), &ports).await;

    let mut client = Client::new(Protocol::Http1, ports.http);
    let asking = [("x-route-key", "liar"), ("x-route-explain", "1")];
    let answer = client.get("/", &asking).await.unwrap();
    let expected = format!("rule=liar; target=127.0.0.1:{liar}; reason=matched");
    assert_eq!(decisions(&answer), [expected]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_is_told_even_if_the_target_is_nowhere() {
    let ports = Ports::free();
    let services = Services::start(&["baseline", "service-a", "service-b"]).await;
    let config = ConfigFile::new(&config_text(&ports, &services, &routing(true, 1)));
    let _sidetrack = Sidetrack::up(&config.path(), &ports).await;

    let mut client = Client::new(Protocol::Http1, ports.http);
    let asking = [("x-route-key", "nowhere"), ("x-route-explain", "1")];
    let answer = client.get("/", &asking).await.unwrap();
    assert_eq!(answer.status, 503);
    assert_eq!(
        decisions(&answer),
        ["rule=nowhere; target=no-such-host.invalid:80; reason=matched"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_debug_header_nobody_is_told() {
    let ports = Ports::free();
    let services = Services::start(&["baseline", "service-a", "service-b"]).await;
    let config = ConfigFile::new(&config_text(&ports, &services, &routing(false, answering(LIAR).await)));
    let _sidetrack = Sidetrack::up(&config.path(), &ports).await;

    let mut client = Client::new(Protocol::Http1, ports.http);
    for (path, headers, _) in CASES {
        let asking = [headers, &[("X-Route-Explain", "1")]].concat();
        let answer = client.get(path, &asking).await.unwrap();
        assert_eq!(answer.status, 200, "{path} {headers:?}");
        assert!(decisions(&answer).is_empty(), "{path} {headers:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_says_why_to_a_person() {
    let services = Services::start(&["baseline", "service-a", "service-b"]).await;
    let config = ConfigFile::new(&config_text(&Ports::free(), &services, &routing(false, 1)));
    for (arguments, lines) in [
        (
            ["--path=/x", "-Hx-route-key: sandbox", "-HX-User: qa-7"],
            &[
                "goes to service-b:80, or to the baseline (baseline:80) if that can't take it",
                "by the rule qa",
                "✗ api",
                "✗ path: must be /api or below; is /x",
                "✓ qa",
                "✓ header x-user: must be qa-…; is qa-7",
            ] as &[&str],
        ),
        (
            ["--path=/x", "-HX-User: qa-7", "-HA: b"],
            &[
                "goes to the baseline (baseline:80)",
                "no_key",
                "header x-route-key: nothing there",
                "cookie key: nothing there",
            ],
        ),
        (
            ["--path=/x", "-HX-Route-Key: alone", "-HCookie: key=sandbox"],
            &["goes to service-a:80\n", "by the rule alone", "the sources disagree"],
        ),
    ] {
        let output = run(&[["explain"].as_slice(), &arguments].concat(), &config);
        let said = text(&output.stdout);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", text(&output.stderr));
        for line in lines {
            assert!(said.contains(line), "{arguments:?}: no {line:?} in\n{said}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn check_says_ok_or_every_problem() {
    let services = Services::start(&["baseline", "service-a", "service-b"]).await;
    let good = config_text(&Ports::free(), &services, &routing(false, 1));
    let config = ConfigFile::new(&good);
    let output = run(&["check"], &config);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "ok: 5 rules, 5 targets\n");

    let bad = good
        .replace("[/api]", "[api]")
        .replace("routeKey: alone", "routeKey: 17");
    let config = ConfigFile::new(&bad);
    for arguments in [&["check"] as &[&str], &["explain", "--path", "/"], &["render"]] {
        let output = run(arguments, &config);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert_eq!(text(&output.stdout), "", "{arguments:?}");
        let said = text(&output.stderr);
        for path in ["routing.rules[0].pathPrefixes[0]", "routing.rules[2].routeKey"] {
            let line = said.lines().find(|line| line.contains(path));
            let begin = format!("{}:", config.path().display());
            assert!(
                line.is_some_and(|line| line.starts_with(&begin)),
                "{arguments:?}: {path}: {said}"
            );
        }
    }
}
