//! What gRPC clients can't follow goes to the baseline, and is said.

use serde_json::{Value, json};
use sidetrack_tests::{Authority, Call, PATIENCE, Ports, Services, TlsServer, poll_until};

use crate::mesh::{Mesh, assert_fails, until_served};

/// The rules that clients get only in part or not at all; `TLS` is a target with TLS.
const ROUTING: &str = r#"
routing:
  defaultTarget: baseline
  hosts: {"*.wide.example": host-baseline}
  keySources: [{header: X-Route-Key}, {cookie: key}]
  debugHeader: true
  rules:
    - {routeKey: tls, name: tls, targetService: secure, fallback: none}
    - {routeKey: next, name: next, targetService: secure, fallback: none}
    - {routeKey: next, targetService: other, fallback: none}
    - routeKey: sticky
      name: sticky
      targets: [{service: sandbox, weight: 1}, {service: other, weight: 1}]
      stickyBy: {header: X-User}
      fallback: none
    - {routeKey: one, targets: [{service: sandbox, weight: 1}, {service: other, weight: 0}], stickyBy: {header: X-User}, fallback: none}
    - {routeKey: mirror, name: mirror, targetService: sandbox, fallback: none, mirror: {service: host-sandbox, percent: 100}}
    - {routeKey: regex, name: regex, targetService: sandbox, fallback: none, paths: [{regex: "(?i)/shop.cart/get"}]}
    - {routeKey: get, name: get, targetService: sandbox, fallback: none, methods: [GET]}
    - {routeKey: strict, targetService: strict, fallback: none}
"#;

const PLAIN: &str = "routing: {defaultTarget: baseline, rules: [{routeKey: plain, targetService: sandbox}]}";

fn expected() -> Value {
    let list = [
        (
            "key source {cookie: key}",
            "left out: gRPC clients compare whole headers; calls that may have a key here get none from later sources",
        ),
        ("routing.debugHeader", "left out: gRPC clients answer with no decision"),
        (
            "tls",
            "left out: TLS to secure:80 is up to the client's own credentials, which routes can't choose",
        ),
        (
            "next",
            "left out: TLS to secure:80 is up to the client's own credentials, which routes can't choose",
        ),
        (
            "sticky",
            "left out: gRPC clients choose among several targets anew for each call, not by stickyBy",
        ),
        ("mirror", "without its mirror: gRPC clients send no copies"),
        (
            "regex",
            r#"left out: not every gRPC client can read the regular expression "(?i)/shop.cart/get""#,
        ),
        (
            "get",
            "left out: it isn't for the method POST, and that is every gRPC call's",
        ),
        (
            "xds:///*.wide.example",
            "left out: gRPC clients ask for whole names; those to be dialed must be in routing.hosts",
        ),
        (
            r#"services["strict:80"].connectTimeout"#,
            "left out: gRPC clients can't, or mean something else by it",
        ),
    ];
    list.iter()
        .map(|(name, reason)| json!({"name": name, "reason": reason}))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_clients_cannot_follow_goes_to_the_baseline_and_is_said() {
    let mut services = Services::start(&["baseline", "sandbox", "other", "host-baseline", "host-sandbox"]).await;
    let identity = Authority::new("test").issue(&["secure"]);
    let tls = TlsServer::start(services.server("sandbox").address(), &identity, &["h2"], None).await;
    services.configure_at("secure", vec![tls.address()], "protocol: http2, tls: {}");
    services.configure("strict", &["sandbox"], "connectTimeout: 1s");
    let mesh = Mesh::start_with(Ports::free(), services, ROUTING).await;
    for client in &mesh.clients {
        until_served(client, "strict", "sandbox").await;
        for (key, served_by) in [
            ("tls", "baseline"),
            ("next", "other"),
            ("sticky", "baseline"),
            ("one", "sandbox"),
            ("mirror", "sandbox"),
            ("regex", "baseline"),
            ("get", "baseline"),
        ] {
            let call = Call::to("xds:///baseline").key(key).with("x-user", "qa").times(10);
            let counts = &client.call_all(&[call]).await[0];
            assert_eq!(counts.get(served_by), Some(&10), "{}: {key}: {counts:?}", client.node);
        }
        assert_eq!(mesh.said_of(client).await["leftOut"], expected(), "{}", client.node);
    }
    assert_eq!(mesh.services.requests("host-sandbox"), 0, "copies were sent");
    assert_eq!(tls.handshakes(), []);
    let said = "gRPC clients don't get the whole configuration";
    let output = mesh.agent.output();
    let lines: Vec<_> = output.lines().filter(|line| line.contains(said)).collect();
    // One for all clients.
    assert_eq!(lines.len(), 1, "{output}");
    assert!(
        lines[0].contains("parts=10") && lines[0].contains("key source {cookie: key}"),
        "{output}"
    );

    mesh.change(PLAIN);
    for client in &mesh.clients {
        until_served(client, "plain", "sandbox").await;
        poll_until(PATIENCE, "nothing is left out", async || {
            let proxy = mesh.said_of(client).await;
            proxy["leftOut"]
                .is_null()
                .then_some(())
                .ok_or_else(|| proxy.to_string())
        })
        .await;
    }
    let output = mesh.agent.output();
    assert!(
        output.contains("gRPC clients get the whole configuration again"),
        "{output}"
    );
    assert_eq!(output.matches(said).count(), 1, "{output}");
    mesh.assert_all_accepted().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_whose_baseline_has_tls_cannot_be_dialed() {
    let mut services = Services::start(&["baseline", "sandbox", "other", "host-baseline", "host-sandbox"]).await;
    services.configure("secure", &["host-baseline"], "protocol: http2, tls: {}");
    let routing = "routing: {defaultTarget: baseline, hosts: {tls.example: secure}}";
    let mesh = Mesh::start_with(Ports::free(), services, routing).await;
    for client in &mesh.clients {
        until_served(client, "any", "baseline").await;
        assert_fails(client, Call::to("xds:///tls.example")).await;
        let said = mesh.said_of(client).await["leftOut"].clone();
        let reason = "left out: TLS to secure:80 is up to the client's own credentials, which routes can't choose";
        let names = ["xds:///secure", "xds:///tls.example"];
        let names: Value = names
            .map(|name| json!({"name": name, "reason": reason}))
            .into_iter()
            .collect();
        assert_eq!(said, names, "{}", client.node);
    }
    assert_eq!(mesh.services.requests("host-baseline"), 0);
}
