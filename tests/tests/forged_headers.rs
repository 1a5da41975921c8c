//! A client can't choose a cluster, whatever it sends.

use sidetrack_routing::INTERNAL_HEADERS;
use sidetrack_tests::{Client, ConfigFile, Ports, Protocol, Services, Sidetrack, config_text};

const ROUTING: &str = r#"
routing:
  defaultTarget: baseline
  rules:
    - {routeKey: sandbox, targetService: service-a, pathPrefixes: [/api]}
    - {routeKey: other, targetService: service-b}
"#;

/// Route key, path; who answers.
const CASES: [(Option<&str>, &str, &str); 4] = [
    (None, "/api", "baseline"),
    (Some("unknown"), "/api", "baseline"),
    (Some("sandbox"), "/", "baseline"),
    (Some("sandbox"), "/api", "service-a"),
];

/// What a client may try: a cluster that is there, one that isn't, nothing.
const FORGED: [&str; 4] = ["service-b:80", "service-b", "nowhere:80", ""];

#[tokio::test(flavor = "multi_thread")]
async fn internal_headers_of_a_client_have_no_effect() {
    let ports = Ports::free();
    let services = Services::start(&["baseline", "service-a", "service-b"]).await;
    let config = ConfigFile::new(&config_text(&ports, &services, ROUTING));
    let _sidetrack = Sidetrack::up(&config.path(), &ports).await;

    for (protocol, port) in [
        (Protocol::Http1, ports.http),
        (Protocol::Http2, ports.http),
        (Protocol::Http2, ports.grpc),
    ] {
        let mut client = Client::new(protocol, port);
        for (key, path, expected) in CASES {
            for forged in FORGED {
                let mut sent: Vec<_> = key.map(|key| ("x-route-key", key)).into_iter().collect();
                // Twice, so that removing one of them isn't enough.
                sent.extend(INTERNAL_HEADERS.map(|name| (name, forged)));
                sent.extend(INTERNAL_HEADERS.map(|name| (name, "service-b:80")));
                let case = format!("{protocol:?} on {port}: {sent:?} {path}");
                let answer = client.get(path, &sent).await.expect(&case);
                let echo = answer.echo();
                assert_eq!(echo.service, expected, "{case}");
                for name in INTERNAL_HEADERS {
                    assert!(echo.header(name).is_empty(), "{case}: the target sees {name}");
                    assert!(!answer.headers.contains_key(name), "{case}: the client sees {name}");
                }
            }
        }
    }
    assert_eq!(services.requests("service-b"), 0);
}
