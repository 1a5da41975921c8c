//! The config file is edited while requests flow.

use std::time::{Duration, Instant};

use sidetrack_tests::{
    Agent, Client, ConfigFile, Envoy, Outcome, PATIENCE, Ports, Protocol, Services, Sidetrack, Stats, Traffic,
    config_text, get, poll_until, render, until_served_by,
};

const RATE: u32 = 250;
const IN_FORCE: Duration = Duration::from_secs(1);

/// Between two changes that are to be one update: much less than the 100 ms that the agent gives them, and more than it
/// takes it to act.
const APART: Duration = Duration::from_millis(30);

/// How often the filter has been given another route table.
const RELOADS: &str = "extension_config_discovery";

const OLD: &str = r#"
routing:
  defaultTarget: baseline
  rules:
    - {routeKey: moves, targetService: old, pathPrefixes: [/a]}
    - {routeKey: goes, targetService: old}
    - {routeKey: stays, targetService: other}
"#;

const NEW: &str = r#"
routing:
  defaultTarget: baseline
  rules:
    - {routeKey: moves, targetService: new, pathPrefixes: [/a]}
    - {routeKey: comes, targetService: new}
    - {routeKey: stays, targetService: other}
"#;

/// Route key, path; who answers under the old table, and under the new one.
const REQUESTS: [(&str, &str, &str, &str); 6] = [
    ("moves", "/a/1", "old", "new"),
    ("moves", "/b", "baseline", "baseline"),
    ("goes", "/", "old", "baseline"),
    ("comes", "/", "baseline", "new"),
    ("stays", "/", "other", "other"),
    ("nobody", "/a", "baseline", "baseline"),
];

async fn check(create: fn(&str) -> ConfigFile, edit: fn(&ConfigFile, &str)) {
    let ports = Ports::free();
    let services = Services::start(&["baseline", "old", "new", "other"]).await;
    let file = create(&config_text(&ports, &services, OLD));
    let _sidetrack = Sidetrack::up(&file.path(), &ports).await;
    check_edit(&ports, || edit(&file, &config_text(&ports, &services, NEW))).await;
}

/// Requests get what they should while `edit` brings the new table.
async fn check_edit(ports: &Ports, edit: impl FnOnce()) {
    let requests = REQUESTS.map(|(key, path, ..)| get(path, &[("x-route-key", key)]));
    let traffic = Traffic::start(ports.http, RATE, requests.to_vec());
    traffic.flow(RATE as usize).await;
    let edited = Instant::now();
    edit();
    traffic.flow(4 * RATE as usize).await;
    let (outcomes, rate) = traffic.stop().await;

    assert!(rate >= 200.0, "{rate} requests a second");
    let wrong = outcomes.iter().filter(|outcome| !is_right(outcome, edited));
    let wrong: Vec<String> = wrong.map(|outcome| describe(outcome, edited)).collect();
    let shown = &wrong[..wrong.len().min(20)];
    assert!(
        wrong.is_empty(),
        "{} of {} are wrong: {shown:#?}",
        wrong.len(),
        outcomes.len()
    );
    let last = outcomes.iter().map(|outcome| outcome.sent).max();
    assert!(last > Some(edited + 2 * IN_FORCE), "the new table was hardly tested");
}

/// Before the edit the old table holds, after it must be in force the new one, and between them either.
fn is_right(outcome: &Outcome, edited: Instant) -> bool {
    let (_, _, old, new) = REQUESTS[outcome.request];
    (outcome.served_by == old && outcome.sent < edited + IN_FORCE)
        || (outcome.served_by == new && outcome.answered > edited)
}

fn describe(outcome: &Outcome, edited: Instant) -> String {
    let (key, path, ..) = REQUESTS[outcome.request];
    let after = outcome.sent.saturating_duration_since(edited);
    format!("{key} {path} after {after:?}: {}", outcome.served_by)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_file_is_in_force_within_a_second() {
    check(ConfigFile::new, ConfigFile::replace).await;
}

/// As those do that were started with a bootstrap of their own.
#[tokio::test(flavor = "multi_thread")]
async fn an_envoy_that_is_told_the_state_of_the_world_follows_too() {
    let ports = Ports::free();
    let services = Services::start(&["baseline", "old", "new", "other"]).await;
    let file = ConfigFile::new(&config_text(&ports, &services, OLD));
    let _agent = Agent::start(&file.path(), &ports).await;
    let bootstrap = render(&file.path(), &["--bootstrap"]);
    let _envoy = Envoy::start(&bootstrap.replace("DELTA_GRPC", "GRPC"));
    until_served_by(ports.http, "goes", "old").await;
    check_edit(&ports, || file.replace(&config_text(&ports, &services, NEW))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_written_in_place_is_in_force_within_a_second() {
    check(ConfigFile::new, ConfigFile::write_in_place).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_remounted_file_is_in_force_within_a_second() {
    check(ConfigFile::mounted, ConfigFile::remount).await;
}

/// The targets of the first change have no other way to get a request.
#[tokio::test(flavor = "multi_thread")]
async fn two_changes_within_100_ms_are_one_update() {
    let ports = Ports::free();
    let services = Services::start(&["baseline", "old", "between", "new", "other"]).await;
    let file = ConfigFile::new(&config_text(&ports, &services, OLD));
    let _sidetrack = Sidetrack::up(&file.path(), &ports).await;
    let updates = async || Stats::read(ports.admin, RELOADS).await.sum(".config_reload");
    let before = updates().await;

    let traffic = Traffic::start(ports.http, RATE, vec![get("/a", &[("x-route-key", "moves")])]);
    file.replace(&config_text(
        &ports,
        &services,
        &NEW.replace("targetService: new", "targetService: between"),
    ));
    tokio::time::sleep(APART).await;
    file.replace(&config_text(&ports, &services, NEW));
    let mut client = Client::new(Protocol::Http1, ports.http);
    poll_until(PATIENCE, "the second change in force", async || {
        let answer = client.get("/", &[("x-route-key", "comes")]).await;
        match answer.map_err(|error| error.to_string())?.served_by() {
            service if service == "new" => Ok(()),
            other => Err(other),
        }
    })
    .await;
    traffic.stop().await;

    assert_eq!(services.requests("between"), 0);
    assert_eq!(updates().await, before + 1, "updates of the route table");
}
