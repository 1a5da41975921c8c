//! Requests that a broken or hostile client may send: every one is answered, none harms the filter's VM.

use sidetrack_tests::{Client, ConfigFile, Ports, Protocol, RawConnection, Services, Sidetrack, Stats, config_text};
use tokio::task::JoinSet;

const OF_EACH: usize = 1_000;
const CONNECTIONS: usize = 8;

const ROUTING: &str = r#"
routing:
  defaultTarget: baseline
  rules:
    - {routeKey: sandbox, targetService: service-a, headerMatchers: {X-User: qa}}
"#;

/// What Envoy says to a request with too many headers, or too many bytes of them.
const TOO_LARGE: &str = "431";

/// What is sent below `GET / HTTP/1.1` and `host`; who answers, or the status.
fn requests() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let key = |length: usize| format!("x-route-key: {}\r\n", "k".repeat(length)).into_bytes();
    let filler = |count: usize| (0..count).map(|n| format!("x-{n}: {n}\r\n")).collect::<String>();
    let routed = |more: String| format!("x-route-key: sandbox\r\nx-user: qa\r\n{more}").into_bytes();
    vec![
        (
            "a key that isn't UTF-8",
            b"x-route-key: \xff\xfe\r\n".to_vec(),
            "baseline",
        ),
        (
            "a matched header that isn't UTF-8",
            b"x-route-key: sandbox\r\nx-user: \xff\r\n".to_vec(),
            "baseline",
        ),
        (
            "a header that isn't UTF-8 beside a match",
            b"x-route-key: sandbox\r\nx-user: \xff\r\nx-user: qa\r\n".to_vec(),
            "service-a",
        ),
        ("a key of 60 KB", key(60 * 1024), TOO_LARGE),
        ("a key of 50 KB", key(50 * 1024), "baseline"),
        ("1,000 headers", routed(filler(1_000)), TOO_LARGE),
        ("90 headers", routed(filler(90)), "service-a"),
        ("an empty key", b"x-route-key:\r\n".to_vec(), "baseline"),
        (
            "an empty matched header",
            b"x-route-key: sandbox\r\nx-user:\r\n".to_vec(),
            "baseline",
        ),
        (
            "a key sent twice",
            b"x-route-key: nobody\r\nx-route-key: sandbox\r\nx-user: qa\r\n".to_vec(),
            "baseline",
        ),
        (
            "a matched header sent twice",
            b"x-route-key: sandbox\r\nx-user: dev\r\nx-user: qa\r\n".to_vec(),
            "service-a",
        ),
        (
            "a header without a name",
            b"x-route-key: sandbox\r\n: qa\r\n".to_vec(),
            "400",
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_hostile_request_is_answered_and_the_vm_lives() {
    let ports = Ports::free();
    let services = Services::start(&["baseline", "service-a"]).await;
    let config = ConfigFile::new(&config_text(&ports, &services, ROUTING));
    let sidetrack = Sidetrack::up(&config.path(), &ports).await;
    let vms = async || Stats::read(ports.admin, "wasm").await;
    let before = vms().await;

    for (case, headers, expected) in requests() {
        let mut request = b"GET / HTTP/1.1\r\nhost: shop\r\n".to_vec();
        request.extend(headers);
        request.extend(b"\r\n");
        for served_by in send_all(ports.http, request).await {
            assert_eq!(served_by, expected, "{case}");
        }
    }

    let after = vms().await;
    let created = |stats: &Stats| stats.sum("wasm.runtime.v8.created");
    assert_eq!(created(&after), created(&before), "VMs were started: {after:?}");
    assert_eq!(after.not_zero("vm_reload"), []);
    assert!(!sidetrack.output().contains("panicked"));
    let mut client = Client::new(Protocol::Http1, ports.http);
    let routed = client.get("/", &[("x-route-key", "sandbox"), ("x-user", "qa")]).await;
    assert_eq!(routed.unwrap().served_by(), "service-a");
}

/// Who answered each of `OF_EACH` times this request.
async fn send_all(port: u16, request: Vec<u8>) -> Vec<String> {
    let mut senders = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let request = request.clone();
        senders.spawn(async move {
            let mut connection = RawConnection::new(port);
            let mut served_by = Vec::new();
            for _ in 0..OF_EACH / CONNECTIONS {
                let answer = connection.send(&request).await;
                served_by.push(answer.map_or_else(|error| error.to_string(), |answer| answer.served_by()));
            }
            served_by
        });
    }
    senders.join_all().await.into_iter().flatten().collect()
}
