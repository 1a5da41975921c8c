//! The config.yaml that the project began with, byte for byte, on its own ports.

use sidetrack_tests::Protocol::{Http1, Http2};
use sidetrack_tests::{Client, ConfigFile, FixedPorts, Services, Sidetrack};

const CONFIG: &str = include_str!("../configs/seed.yaml");

const DEFAULT: &str = "default-service";
const A: &str = "service-a.sandbox-123.svc.cluster.local";
const B: &str = "service-b.sandbox-456.svc.cluster.local";

const JSON: Option<&str> = Some("application/json");
const TEXT: Option<&str> = Some("text/plain");

/// Route key, path, content type; who answers.
const CASES: &[(Option<&str>, &str, Option<&str>, &str)] = &[
    (Some("sandbox-123"), "/api/v1/x", None, A),
    (Some("sandbox-123"), "/api/v1", None, A),
    (Some("sandbox-123"), "/api/v1?page=2", JSON, A),
    (Some("sandbox-123"), "/other", None, DEFAULT),
    (Some("sandbox-123"), "/api/v10", None, DEFAULT),
    (Some("sandbox-123"), "/api/v2/y", JSON, DEFAULT),
    (Some("sandbox-456"), "/api/v2/y", JSON, B),
    (Some("sandbox-456"), "/api/v2/y", None, DEFAULT),
    (Some("sandbox-456"), "/api/v2/y", TEXT, DEFAULT),
    (Some("sandbox-456"), "/api/v1/x", JSON, DEFAULT),
    (Some("unknown"), "/api/v1/x", JSON, DEFAULT),
    (None, "/api/v1/x", JSON, DEFAULT),
    (None, "/", None, DEFAULT),
];

const TRACE: [(&str, &str); 3] = [
    ("x-trace-id", "Trace-0815"),
    ("x-span-id", "Span-4711"),
    ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_rule_holds_on_every_port() {
    let _lock = FixedPorts::lock().await;
    let services = Services::start(&[DEFAULT, A, B]).await;
    let config = ConfigFile::new(&format!("{CONFIG}{}", services.yaml()));
    let _sidetrack = Sidetrack::up(&config.path(), &FixedPorts::PORTS).await;

    for (protocol, port) in [(Http1, 8080), (Http2, 8080), (Http2, 8081)] {
        let mut client = Client::new(protocol, port);
        for &(key, path, content_type, expected) in CASES {
            let mut sent = TRACE.to_vec();
            sent.extend(key.map(|key| ("x-route-key", key)));
            sent.extend(content_type.map(|value| ("content-type", value)));

            let case = format!("{protocol:?} on {port}: {key:?} {path} {content_type:?}");
            let answer = client.get(path, &sent).await.expect(&case);
            let echo = answer.echo();
            assert_eq!((echo.service.as_str(), echo.path.as_str()), (expected, path), "{case}");
            let environment: &[&str] = if expected == A { &["sandbox"] } else { &[] };
            assert_eq!(echo.header("x-environment"), environment, "{case}");
            for (name, value) in sent {
                assert_eq!(echo.header(name), [value], "{case}: {name}");
            }
        }
    }
}
