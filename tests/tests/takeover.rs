//! One Envoy takes the place of another while requests flow.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use http::Method;
use sidetrack_tests::{
    Agent, Client, ConfigFile, Outcome, PATIENCE, Ports, Process, Protocol, Services, Signal, Traffic, artifacts,
    config_text, free_port, get, poll_until, render,
};

const ROUTING: &str = r#"
routing:
  defaultTarget: baseline
  rules:
    - {routeKey: sandbox, targetService: service-a, pathPrefixes: [/api]}
"#;

const RATE: u32 = 250;

/// Path, who answers.
const REQUESTS: [(&str, &str); 2] = [("/api", "service-a"), ("/", "baseline")];

fn envoy(name: &str, bootstrap: &Path, arguments: &[&str]) -> Process {
    let mut command = Command::new(artifacts::envoy());
    command
        .args(["--concurrency", "2", "--log-level", "warning"])
        .args(arguments);
    Process::spawn(name, command.arg("-c").arg(bootstrap))
}

fn traffic(port: u16) -> Traffic {
    let requests = REQUESTS.map(|(path, _)| get(path, &[("x-route-key", "sandbox")]));
    Traffic::start(port, RATE, requests.to_vec())
}

/// Those that weren't answered by whom they must be.
fn failed(outcomes: &[Outcome]) -> Vec<&Outcome> {
    let is_right = |outcome: &&Outcome| outcome.served_by == REQUESTS[outcome.request].1;
    outcomes.iter().filter(|outcome| !is_right(outcome)).collect()
}

/// Waits until the Envoy with this admin port has started, and is the process of this epoch.
async fn until_live(admin: u16, epoch: u32) {
    poll_until(PATIENCE, &format!("Envoy {epoch} live"), async || {
        let mut admin = Client::new(Protocol::Http1, admin);
        let info = admin
            .get("/server_info", &[])
            .await
            .map_err(|error| format!("{error:#}"))?;
        let info = info.text();
        let is_live = info.contains("\"state\": \"LIVE\"") && info.contains(&format!("\"restart_epoch\": {epoch}"));
        is_live.then_some(()).ok_or(info)
    })
    .await;
}

async fn until_ruled(port: u16) {
    poll_until(PATIENCE, "the rules in force", async || {
        let answer = Client::new(Protocol::Http1, port)
            .get("/api", &[("x-route-key", "sandbox")])
            .await;
        let served_by = answer.map_err(|error| format!("{error:#}"))?.served_by();
        (served_by == "service-a").then_some(()).ok_or(served_by)
    })
    .await;
}

/// Ends with Envoy's own way: the new one gets the sockets from the old one.
#[tokio::test(flavor = "multi_thread")]
async fn a_hot_restart_loses_no_request() {
    let ports = Ports::free();
    let services = Services::start(&["baseline", "service-a"]).await;
    let config = ConfigFile::new(&config_text(&ports, &services, ROUTING));
    let _agent = Agent::start(&config.path(), &ports).await;
    let bootstrap = config.path().with_file_name("envoy.yaml");
    std::fs::write(&bootstrap, render(&config.path(), &["--bootstrap"])).unwrap();
    // What two Envoys share is found by this number.
    let base = ports.http.to_string();
    let times = [
        "--drain-time-s",
        "3",
        "--parent-shutdown-time-s",
        "5",
        "--base-id",
        &base,
    ];
    let start = |epoch| {
        envoy(
            &format!("epoch {epoch}"),
            &bootstrap,
            &[&times[..], &["--restart-epoch", epoch]].concat(),
        )
    };

    let mut old = start("0");
    until_live(ports.admin, 0).await;
    until_ruled(ports.http).await;
    let traffic = traffic(ports.http);
    traffic.flow(RATE as usize).await;
    let slow = tokio::spawn(async move {
        Client::new(Protocol::Http1, ports.http)
            .get("/?delay_ms=2000", &[])
            .await
    });
    let begun = Instant::now();
    let new = start("1");
    until_live(ports.admin, 1).await;
    let live = begun.elapsed();
    let status = old.exit(PATIENCE).await;
    let ended = begun.elapsed();
    traffic.flow(RATE as usize).await;
    let (outcomes, rate) = traffic.stop().await;

    let failed = failed(&outcomes);
    println!(
        "under {rate:.0} requests/s: the new Envoy live after {live:?}, the old one gone after {ended:?}; {} of {} failed",
        failed.len(),
        outcomes.len()
    );
    assert!(failed.is_empty(), "{failed:?}\n{}\n{}", old.output(), new.output());
    assert_eq!(status.code(), Some(0), "{}", old.output());
    assert_eq!(slow.await.unwrap().expect("what was under way").served_by(), "baseline");
    let after = outcomes.iter().filter(|outcome| outcome.sent > begun + ended).count();
    assert!(after > 0, "none by the new one alone");
}

/// Without shared sockets: another Envoy listens on the same ports, and then the first closes them. A connection that the
/// kernel had given to the first, and which that hadn't taken yet, is reset.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_envoy_on_the_same_ports_takes_over_but_for_connections_that_wait_to_be_taken() {
    let ports = Ports::free();
    let second = Ports {
        admin: free_port(),
        ..ports
    };
    let services = Services::start(&["baseline", "service-a"]).await;
    let config = ConfigFile::new(&config_text(&ports, &services, ROUTING));
    let _agent = Agent::start(&config.path(), &ports).await;
    let other = ConfigFile::new(&config_text(&second, &services, ROUTING));
    let start = |config: &ConfigFile, node: &str| {
        let bootstrap = config.path().with_file_name("envoy.yaml");
        std::fs::write(&bootstrap, render(&config.path(), &["--bootstrap", "--node", node])).unwrap();
        envoy(node, &bootstrap, &["--disable-hot-restart"])
    };

    let mut first = start(&config, "first");
    until_live(ports.admin, 0).await;
    until_ruled(ports.http).await;
    let traffic = traffic(ports.http);
    traffic.flow(RATE as usize).await;
    let new = start(&other, "second");
    until_live(second.admin, 0).await;
    // It listens before it has the rules: it has them when the agent says so.
    poll_until(PATIENCE, "the second one ready", async || {
        let answer = Client::new(Protocol::Http1, ports.api).get("/readyz", &[]).await;
        let text = answer.map_err(|error| format!("{error:#}"))?.text();
        let is_ready = text.contains("\"ready\":true") && text.contains("\"node\":\"second\"");
        is_ready.then_some(()).ok_or(text)
    })
    .await;
    let ready = Instant::now();
    let mut admin = Client::new(Protocol::Http1, ports.admin);
    for call in ["/healthcheck/fail", "/drain_listeners"] {
        let mut request = get(call, &[]);
        *request.method_mut() = Method::POST;
        assert_eq!(admin.send(request).await.unwrap().status, 200);
    }
    let drained = Instant::now();
    poll_until(PATIENCE, "no connections at the first", async || {
        let open = sidetrack_tests::Stats::read(ports.admin, "http.http.downstream_cx_active").await;
        let open = open.sum("downstream_cx_active");
        (open == 0).then_some(()).ok_or_else(|| format!("{open} are open"))
    })
    .await;
    first.signal(Signal::TERM);
    let status = first.exit(PATIENCE).await;
    let ended = Instant::now();
    traffic.flow(RATE as usize).await;
    let (outcomes, rate) = traffic.stop().await;

    let failed = failed(&outcomes);
    println!(
        "under {rate:.0} requests/s: empty and gone {:?} after its listeners were closed; {} of {} failed: {failed:?}",
        ended - drained,
        failed.len(),
        outcomes.len()
    );
    assert_eq!(status.code(), Some(0));
    let unruled: Vec<_> = failed.iter().filter(|outcome| outcome.sent < ready).collect();
    println!("{} of them before the second had its rules", unruled.len());
    let late: Vec<_> = failed.iter().filter(|outcome| outcome.sent > drained).collect();
    assert!(late.is_empty(), "{late:?}\n{}", new.output());
    // At most one for each of the clients' connections.
    assert!(failed.len() - unruled.len() <= 8, "{failed:?}");
}
