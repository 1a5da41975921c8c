//! What continuous integration does: a sandbox is created, used the moment it is there, and deleted.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use serde_json::json;
use sidetrack_tests::{
    Agent, Api, Client, ConfigFile, Durations, EchoServer, Envoy, Ports, Protocol, Services, config_text, figure,
    render, suite, until_served_by,
};

const ROUTING: &str = r#"
routing:
  defaultTarget: baseline
  rules:
    - {routeKey: stays, targetService: stays}
"#;

const WAIT: Option<Duration> = Some(Duration::from_secs(10));

/// Another address of loopback each time, so that each sandbox is a target nobody has known before.
fn address(cycle: usize) -> Ipv4Addr {
    let [high, low] = u16::try_from(cycle).unwrap().to_be_bytes();
    Ipv4Addr::new(127, 77, high, low)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_is_there_when_it_is_said_to_be_and_gone_when_it_is_said_to_be() {
    let cycles = if suite::is_full() { 1_000 } else { 200 };
    let ports = Ports::free();
    let services = Services::start(&["baseline", "stays"]).await;
    let sandbox = EchoServer::bind("sandbox", SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))).await;
    let sandbox = sandbox.unwrap();
    let port = sandbox.address().port();
    let file = ConfigFile::new(&config_text(&ports, &services, ROUTING));
    let _agent = Agent::start(&file.path(), &ports).await;
    let _envoy = Envoy::start(&render(&file.path(), &["--bootstrap"]));
    until_served_by(ports.http, "stays", "stays").await;

    let mut api = Api::new(ports.api);
    // One connection for each of Envoy's workers, more or less: both must have what is said to be in force.
    let mut clients: Vec<_> = (0..8).map(|_| Client::new(Protocol::Http1, ports.http)).collect();
    let (mut created, mut deleted, mut wrong) = (Vec::new(), Vec::new(), Vec::new());
    for cycle in 0..cycles {
        let key = format!("pr-{cycle}");
        let rules = json!([{"targetService": format!("{}:{port}", address(cycle)), "fallback": "none"}]);
        let begun = Instant::now();
        let written = api.put(&key, &rules, WAIT).await.unwrap();
        assert!(written.is_in_force(), "{key}: {written:?}");
        created.push(begun.elapsed());
        for client in &mut clients {
            let served_by = served_by(client, &key).await;
            if served_by != "sandbox" {
                wrong.push(format!("{key} after its creation: {served_by}"));
            }
        }
        let begun = Instant::now();
        let written = api.delete(&key, WAIT).await.unwrap();
        assert!(written.is_in_force(), "{key}: {written:?}");
        deleted.push(begun.elapsed());
        for client in &mut clients {
            let served_by = served_by(client, &key).await;
            if served_by != "baseline" {
                wrong.push(format!("{key} after its deletion: {served_by}"));
            }
        }
    }
    let (created, deleted): (Durations, Durations) = (created.into_iter().collect(), deleted.into_iter().collect());
    figure(format!(
        "{cycles} cycles: {} wrong answers of {}; created after {created}; deleted after {deleted}",
        wrong.len(),
        2 * cycles * clients.len()
    ));
    assert!(wrong.is_empty(), "{:#?}", &wrong[..wrong.len().min(10)]);
    let rules = api.rules().await.unwrap().rules;
    assert_eq!(rules.len(), 1, "{rules:?}");
}

async fn served_by(client: &mut Client, key: &str) -> String {
    match client.get("/", &[("x-route-key", key)]).await {
        Ok(answer) => answer.served_by(),
        Err(error) => format!("{error:#}"),
    }
}
