//! A rule's end, at its moment, whoever is there.

use std::time::{Duration, SystemTime};

use humantime::format_rfc3339_millis;
use sidetrack_tests::{
    Agent, Client, ConfigFile, Envoy, PATIENCE, Ports, Protocol, Services, Sidetrack, Signal, config_text, poll_until,
    render,
};

/// Time enough for a busy machine to put the rule in force.
const AHEAD: Duration = Duration::from_secs(8);
const TOLERANCE: Duration = Duration::from_secs(1);

const BEFORE: &str = "routing:\n  defaultTarget: baseline\n  rules:\n    - {routeKey: never, targetService: target}\n    \
                      - {routeKey: never, targetService: next}\n";

/// One key is then unknown, the other goes to its next rule.
fn with_end(end: SystemTime) -> String {
    format!(
        "{BEFORE}    - {{routeKey: alone, targetService: target, expiresAt: {end}}}\n    \
         - {{routeKey: followed, targetService: target, expiresAt: {end}}}\n    \
         - {{routeKey: followed, targetService: next}}\n    \
         - {{routeKey: past, targetService: target, expiresAt: 2001-01-01T00:00:00Z}}\n",
        end = format_rfc3339_millis(end)
    )
}

/// Waits until the request with this key is served by `expected`, and returns when it was sent.
async fn until_served_by(client: &mut Client, key: &str, expected: &str) -> SystemTime {
    poll_until(PATIENCE, &format!("{key} served by {expected}"), async || {
        let sent = SystemTime::now();
        let answer = client.get("/", &[("x-route-key", key)]).await;
        let served_by = answer.map_err(|error| format!("{error:#}"))?.served_by();
        (served_by == expected).then_some(sent).ok_or(served_by)
    })
    .await
}

/// Puts rules with an end in force, does `then`, and looks at when they end.
async fn ends_in_time(ports: &Ports, services: &Services, file: &ConfigFile, then: impl AsyncFnOnce()) {
    let end = SystemTime::now() + AHEAD;
    file.replace(&config_text(ports, services, &with_end(end)));
    let mut alone = Client::new(Protocol::Http1, ports.http);
    let mut followed = Client::new(Protocol::Http1, ports.http);
    until_served_by(&mut alone, "alone", "target").await;
    until_served_by(&mut followed, "followed", "target").await;
    assert_eq!(
        alone.get("/", &[("x-route-key", "past")]).await.unwrap().served_by(),
        "baseline"
    );
    then().await;
    let (alone, followed) = tokio::join!(
        until_served_by(&mut alone, "alone", "baseline"),
        until_served_by(&mut followed, "followed", "next")
    );
    for (key, ended) in [("alone", alone), ("followed", followed)] {
        match ended.duration_since(end) {
            Ok(late) => println!("{key}: ended {late:?} after its moment"),
            Err(early) => println!("{key}: ended {:?} before its moment", early.duration()),
        }
        assert!(
            ended > end - TOLERANCE && ended < end + TOLERANCE,
            "{key}: ended at {ended:?} instead of {end:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_stops_at_its_moment() {
    let ports = Ports::free();
    let services = Services::start(&["baseline", "target", "next"]).await;
    let file = ConfigFile::new(&config_text(&ports, &services, BEFORE));
    let _sidetrack = Sidetrack::up(&file.path(), &ports).await;
    ends_in_time(&ports, &services, &file, async || {}).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_stops_at_its_moment_without_the_agent() {
    let ports = Ports::free();
    let services = Services::start(&["baseline", "target", "next"]).await;
    let file = ConfigFile::new(&config_text(&ports, &services, BEFORE));
    let mut agent = Agent::start(&file.path(), &ports).await;
    let _envoy = Envoy::start(&render(&file.path(), &["--bootstrap"]));
    let mut client = Client::new(Protocol::Http1, ports.http);
    until_served_by(&mut client, "never", "target").await;
    ends_in_time(&ports, &services, &file, async || {
        agent.signal(Signal::KILL);
        agent.exit(PATIENCE).await;
    })
    .await;
}
