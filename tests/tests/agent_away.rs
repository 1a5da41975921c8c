//! The agent is killed, comes back, or isn't there yet.

use std::time::{Duration, Instant};

use sidetrack_tests::{
    Agent, Client, ConfigFile, Envoy, PATIENCE, Ports, Protocol, Services, Signal, Traffic, config_text, get,
    poll_until, render,
};

const ROUTING: &str = r#"
routing:
  defaultTarget: baseline
  rules:
    - {routeKey: sandbox, targetService: service-a, pathPrefixes: [/api]}
"#;

/// How soon an Envoy that starts without its agent serves the baseline, on a machine that does other things, too. With
/// Envoy's own defaults it would wait for the agent for 15 s.
const AT_ONCE: Duration = Duration::from_secs(10);

const AWAY: Duration = Duration::from_secs(3);

/// Waits until a request with the key is served by `expected`.
async fn until_served_by(port: u16, expected: &str) {
    let mut client = Client::new(Protocol::Http1, port);
    poll_until(PATIENCE, &format!("{expected} serving"), async || {
        let answer = client.get("/api", &[("x-route-key", "sandbox")]).await;
        let served_by = answer.map_err(|error| format!("{error:#}"))?.served_by();
        (served_by == expected).then_some(()).ok_or(served_by)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn traffic_goes_on_while_the_agent_is_away() {
    let ports = Ports::free();
    let services = Services::start(&["baseline", "service-a", "service-b"]).await;
    let config = ConfigFile::new(&config_text(&ports, &services, ROUTING));
    let mut agent = Agent::start(&config.path(), &ports).await;
    let _envoy = Envoy::start(&render(&config.path(), &["--bootstrap"]));
    until_served_by(ports.http, "service-a").await;

    let requests = [("/api", "service-a"), ("/", "baseline")];
    let traffic = Traffic::start(
        ports.http,
        200,
        requests
            .map(|(path, _)| get(path, &[("x-route-key", "sandbox")]))
            .to_vec(),
    );
    agent.signal(Signal::KILL);
    agent.exit(PATIENCE).await;
    let killed = Instant::now();
    while killed.elapsed() < AWAY {
        traffic.flow(50).await;
    }
    let agent = Agent::start(&config.path(), &ports).await;
    let mut api = Client::new(Protocol::Http1, ports.api);
    poll_until(PATIENCE, "the agent ready again", async || {
        let ready = api.get("/readyz", &[]).await.map_err(|error| format!("{error:#}"))?;
        (ready.status == 200).then_some(()).ok_or_else(|| ready.text())
    })
    .await;
    traffic.flow(200).await;
    let (outcomes, _) = traffic.stop().await;
    for outcome in outcomes {
        assert_eq!(outcome.served_by, requests[outcome.request].1);
    }

    config.replace(&config_text(
        &ports,
        &services,
        &ROUTING.replace("service-a", "service-b"),
    ));
    until_served_by(ports.http, "service-b").await;
    drop(agent);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_envoy_started_while_the_agent_is_away_serves_the_baseline_then_the_rules() {
    let ports = Ports::free();
    let services = Services::start(&["baseline", "service-a"]).await;
    let config = ConfigFile::new(&config_text(&ports, &services, ROUTING));
    let bootstrap = render(&config.path(), &["--bootstrap"]);

    let started = Instant::now();
    let envoy = Envoy::start(&bootstrap);
    for (protocol, port) in [(Protocol::Http1, ports.http), (Protocol::Http2, ports.grpc)] {
        let mut client = Client::new(protocol, port);
        poll_until(AT_ONCE, "the baseline", async || {
            let answer = client.get("/api", &[("x-route-key", "sandbox")]).await;
            let served_by = answer.map_err(|error| format!("{error:#}"))?.served_by();
            (served_by == "baseline").then_some(()).ok_or(served_by)
        })
        .await;
    }
    println!("the baseline was served after {:?}", started.elapsed());
    assert!(started.elapsed() < AT_ONCE, "{}", envoy.output());

    let _agent = Agent::start(&config.path(), &ports).await;
    until_served_by(ports.http, "service-a").await;
}

/// Each agent that comes knows nothing of what the one before has sent: Envoy tells it. What no rule names any more goes
/// when the table that named it is gone, so no request meets a table without its cluster.
#[tokio::test(flavor = "multi_thread")]
async fn a_rule_that_goes_while_the_agent_is_away_costs_no_request() {
    const ROUNDS: usize = 6;
    let ports = Ports::free();
    let services = Services::start(&["baseline", "service-a", "service-b"]).await;
    let with_rule = |key: &str, target: &str| {
        let routing = format!(
            "routing:\n  defaultTarget: baseline\n  rules: [{{routeKey: {key}, targetService: {target}, fallback: none}}]\n"
        );
        config_text(&ports, &services, &routing)
    };
    let (one, other) = (with_rule("one", "service-a"), with_rule("other", "service-b"));
    let config = ConfigFile::new(&one);
    let mut agent = Agent::start(&config.path(), &ports).await;
    let _envoy = Envoy::start(&render(&config.path(), &["--bootstrap"]));
    sidetrack_tests::until_served_by(ports.http, "one", "service-a").await;

    let requests = [("one", "service-a"), ("other", "service-b"), ("nobody", "baseline")];
    let with_key = requests.map(|(key, _)| get("/", &[("x-route-key", key)]));
    let traffic = Traffic::start(ports.http, 200, with_key.to_vec());
    for round in 1..=ROUNDS {
        agent.signal(Signal::KILL);
        agent.exit(PATIENCE).await;
        let (text, key, target, gone) = match round % 2 {
            0 => (&one, "one", "service-a", "service-b"),
            _ => (&other, "other", "service-b", "service-a"),
        };
        config.replace(text);
        agent = Agent::start(&config.path(), &ports).await;
        sidetrack_tests::until_served_by(ports.http, key, target).await;
        let mut admin = Client::new(Protocol::Http1, ports.admin);
        poll_until(PATIENCE, &format!("{gone} gone"), async || {
            let clusters = admin
                .get("/clusters", &[])
                .await
                .map_err(|error| format!("{error:#}"))?
                .text();
            let is_gone = !clusters.contains(gone);
            is_gone.then_some(()).ok_or(clusters)
        })
        .await;
        traffic.flow(50).await;
    }
    let (outcomes, rate) = traffic.stop().await;
    for outcome in &outcomes {
        let (_, target) = requests[outcome.request];
        assert!(["baseline", target].contains(&&*outcome.served_by), "{outcome:?}");
    }
    println!(
        "{ROUNDS} agents, each without a rule that was: {} requests at {rate:.0}/s, none failed",
        outcomes.len()
    );
}
