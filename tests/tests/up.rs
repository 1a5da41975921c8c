//! How `sidetrack up` ends.

use std::net::TcpListener;
use std::time::Duration;

use sidetrack_tests::{Client, ConfigFile, Ports, Process, Protocol, Services, Sidetrack, Signal};
use sidetrack_tests::{PATIENCE, config_text, poll_until};

const ROUTING: &str = r#"
routing:
  defaultTarget: baseline
"#;

/// Longer than the request in flight, shorter than a drain that waits for nobody.
const END: Duration = Duration::from_secs(15);

async fn stage() -> (Ports, Services, ConfigFile) {
    let ports = Ports::free();
    let services = Services::start(&["baseline"]).await;
    let config = ConfigFile::new(&config_text(&ports, &services, ROUTING));
    (ports, services, config)
}

async fn ends_well_by(signal: Signal) {
    let (ports, services, config) = stage().await;
    let mut sidetrack = Sidetrack::up(&config.path(), &ports).await;
    let children = sidetrack.descendants();
    assert!(!children.is_empty(), "Envoy is a child");

    let slow = tokio::spawn(async move {
        let mut client = Client::new(Protocol::Http1, ports.http);
        client.get("/?delay_ms=2000", &[]).await
    });
    poll_until(PATIENCE, "the slow request at its target", async || {
        (services.requests("baseline") == 1)
            .then_some(())
            .ok_or_else(|| "not yet".to_owned())
    })
    .await;
    sidetrack.signal(signal);
    let status = sidetrack.exit(END).await;

    assert_eq!(status.code(), Some(0), "{signal:?}");
    let answer = slow.await.unwrap().expect("the request in flight is answered");
    assert_eq!(answer.served_by(), "baseline");
    for child in children {
        assert!(!Process::exists(child), "{child} is left behind");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn control_c_ends_it_after_requests_in_flight() {
    ends_well_by(Signal::INT).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_ends_it_after_requests_in_flight() {
    ends_well_by(Signal::TERM).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_is_said() {
    let (ports, _services, config) = stage().await;
    for port in [ports.http, ports.grpc, ports.metrics, ports.admin, ports.api, ports.xds] {
        let _taken = TcpListener::bind(("127.0.0.1", port)).unwrap();
        assert_refuses(&config, &[port]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_one_on_the_same_ports_says_so_and_the_first_stays() {
    let (ports, _services, config) = stage().await;
    let _first = Sidetrack::up(&config.path(), &ports).await;
    assert_refuses(
        &config,
        &[ports.http, ports.grpc, ports.metrics, ports.admin, ports.api, ports.xds],
    )
    .await;
    let mut client = Client::new(Protocol::Http1, ports.http);
    assert_eq!(client.get("/", &[]).await.unwrap().served_by(), "baseline");
}

/// It ends with 1 and says which of these ports is taken.
async fn assert_refuses(config: &ConfigFile, taken: &[u16]) {
    let mut sidetrack = Sidetrack::spawn(&config.path());
    let status = sidetrack.exit(END).await;
    assert_eq!(status.code(), Some(1), "{taken:?}");
    let said = sidetrack.stderr();
    let last = said.lines().last().unwrap_or_default();
    let names_one = taken.iter().any(|port| last.contains(&format!(":{port} ")));
    assert!(
        names_one && last.contains("is taken"),
        "not said of {taken:?}: {last:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_death_of_envoy_is_said() {
    let (ports, _services, config) = stage().await;
    let mut sidetrack = Sidetrack::up(&config.path(), &ports).await;
    for child in sidetrack.descendants() {
        Process::kill(child);
    }
    let status = sidetrack.exit(END).await;
    assert_eq!(status.code(), Some(1));
    let said = sidetrack.stderr();
    let last = said.lines().last().unwrap_or_default();
    assert!(last.contains("Envoy") && last.contains("signal"), "{last:?}");
}
