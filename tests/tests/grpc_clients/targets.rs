//! How gRPC clients speak to targets.

use sidetrack_tests::{Behaviour, Call, PATIENCE, Ports, Proxyless, Services, poll_until};

use crate::mesh::{Mesh, until_served};

/// `alike` are two targets that differ in a time limit only, `unlike` two that differ in their retries.
const ROUTING: &str = r#"
routing:
  defaultTarget: baseline
  rules:
    - {routeKey: narrow, targetService: narrow, fallback: none}
    - {routeKey: tries, targetService: tries, fallback: none}
    - {routeKey: alike, targets: [{service: tries, weight: 1}, {service: slow, weight: 1}], fallback: none}
    - {routeKey: unlike, targets: [{service: tries, weight: 1}, {service: once, weight: 1}], fallback: none}
"#;

async fn mesh() -> Mesh {
    let mut services = Services::start(&["baseline", "sandbox", "other", "host-baseline", "host-sandbox"]).await;
    let retries = "retries: {attempts: 2, on: [cancelled, internal, unavailable]}";
    services.configure("tries", &["other"], retries);
    services.configure("slow", &["other"], &format!("{retries}, perTryTimeout: 9s"));
    services.configure("once", &["other"], "retries: {attempts: 0}");
    services.configure("narrow", &["host-sandbox"], "circuitBreaker: {maxRequests: 1}");
    Mesh::start_with(Ports::free(), services, ROUTING).await
}

/// How often a call with this key arrives at a target that breaks it.
async fn tries(mesh: &Mesh, client: &Proxyless, key: &str) -> u64 {
    let other = mesh.services.server("other");
    let before = other.requests();
    let answer = client.call(Call::to("xds:///baseline").key(key)).await;
    assert_ne!(answer, "other", "{}: {key}", client.node);
    other.requests() - before
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_are_tried_again_as_often_as_targets_agree_on() {
    let mesh = mesh().await;
    for client in &mesh.clients {
        for key in ["tries", "alike", "unlike"] {
            until_served(client, key, "other").await;
        }
    }
    mesh.services.server("other").behave(Behaviour::Break);
    for client in &mesh.clients {
        for (key, expected) in [("tries", 3), ("alike", 3), ("unlike", 1)] {
            assert_eq!(tries(&mesh, client, key).await, expected, "{}: {key}", client.node);
        }
    }
    mesh.assert_all_accepted().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_keeps_to_the_limit_of_calls_under_way() {
    let mesh = mesh().await;
    let narrow = mesh.services.server("host-sandbox");
    let call = || Call::to("xds:///baseline").key("narrow");
    for client in &mesh.clients {
        until_served(client, "narrow", "host-sandbox").await;
        let before = narrow.requests();
        narrow.behave(Behaviour::Hang);
        let one_more = async {
            poll_until(PATIENCE, "the first call", async || {
                (narrow.requests() > before).then_some(()).ok_or_else(String::new)
            })
            .await;
            client.call(call()).await
        };
        let (first, second) = tokio::join!(client.call(call().timeout(4)), one_more);
        assert!(first.starts_with("DEADLINE_EXCEEDED"), "{}: {first}", client.node);
        assert!(second.starts_with("UNAVAILABLE"), "{}: {second}", client.node);
        assert_eq!(narrow.requests(), before + 1, "{}", client.node);
        narrow.behave(Behaviour::Echo);
        until_served(client, "narrow", "host-sandbox").await;
    }
}
