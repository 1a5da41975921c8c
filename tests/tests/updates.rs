//! Rules change twenty times a second while a thousand requests a second flow.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sidetrack_tests::{
    Agent, Api, ConfigFile, Durations, Envoy, Outcome, Ports, Services, Traffic, config_text, figure, get, render,
    suite, until_served_by,
};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

const ROUTING: &str = r#"
routing:
  defaultTarget: baseline
  rules:
    - {routeKey: stays, targetService: stays}
"#;

const REQUESTS_A_SECOND: u32 = 1_000;
const UPDATES_A_SECOND: u32 = 20;

/// Each changes the rules of a key of its own, one change after the other: an answer may take as long as all of them have
/// between two of their changes.
const WRITERS: usize = 5;
const WAIT: Option<Duration> = Some(Duration::from_secs(10));

/// Who serves the key after each change, over and over. Nothing else has the targets of a writer, so with its rules their
/// clusters come and go, too.
const STATES: [&str; 5] = ["a", "address", "b", "baseline", "c"];

/// What a key's rules have been.
#[derive(Default)]
struct History(Vec<Change>);

struct Change {
    served_by: String,
    begun: Instant,
    /// When the agent said that every Envoy has it.
    in_force: Option<Instant>,
}

impl History {
    /// Whether the change that the request was served by could be in force when it was.
    fn allows(&self, outcome: &Outcome) -> bool {
        let first = self
            .0
            .iter()
            .rposition(|change| change.in_force.is_some_and(|at| at <= outcome.sent));
        let from = first.unwrap_or_default();
        let possible = self.0[from..].iter().filter(|change| change.begun <= outcome.answered);
        let mut possible = possible.map(|change| change.served_by.as_str());
        possible.any(|service| service == outcome.served_by) || first.is_none() && outcome.served_by == "baseline"
    }
}

fn service(writer: usize, state: &str) -> String {
    match state {
        "baseline" => state.to_owned(),
        _ => format!("{writer}-{state}"),
    }
}

/// Changes the rules of its key at its share of the rate.
async fn write(
    writer: usize,
    port: u16,
    address: String,
    updates: usize,
    history: Arc<Mutex<History>>,
) -> Vec<Duration> {
    let mut api = Api::new(port);
    let key = format!("moves-{writer}");
    let mut ticks = interval(Duration::from_secs(1) * WRITERS as u32 / UPDATES_A_SECOND);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut took = Vec::new();
    for update in 0..updates {
        ticks.tick().await;
        let state = STATES[update % STATES.len()];
        let served_by = service(writer, state);
        let begun = Instant::now();
        history.lock().unwrap().0.push(Change {
            served_by: served_by.clone(),
            begun,
            in_force: None,
        });
        let written = match state {
            "baseline" => api.delete(&key, WAIT).await,
            "address" => api.put(&key, &rules(&address), WAIT).await,
            _ => api.put(&key, &rules(&served_by), WAIT).await,
        };
        let written = written.expect("an answer");
        assert!(written.is_in_force(), "{key} to {state}: {written:?}");
        history.lock().unwrap().0.last_mut().unwrap().in_force = Some(Instant::now());
        took.push(begun.elapsed());
    }
    took
}

fn rules(target: &str) -> Value {
    json!([{"targetService": target, "pathPrefixes": ["/api"], "additionalHeaders": {"X-Environment": "sandbox"}}])
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_fails_or_sees_an_old_rule_after_the_new_one_was_said_to_be_in_force() {
    let updates = if suite::is_full() { 1_000 } else { 300 };
    let ports = Ports::free();
    let mut names = vec!["baseline".to_owned(), "stays".to_owned()];
    for writer in 0..WRITERS {
        names.extend(
            STATES
                .map(|state| service(writer, state))
                .into_iter()
                .filter(|name| name != "baseline"),
        );
    }
    let services = Services::start(&names.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let file = ConfigFile::new(&config_text(&ports, &services, ROUTING));
    let _agent = Agent::start(&file.path(), &ports).await;
    let _envoy = Envoy::start(&render(&file.path(), &["--bootstrap"]));
    until_served_by(ports.http, "stays", "stays").await;

    // Of each writer's key two requests, and one that no change is about.
    let mut requests = Vec::new();
    for writer in 0..WRITERS {
        let key = format!("moves-{writer}");
        for path in ["/api/1", "/api/2"] {
            requests.push(get(path, &[("x-route-key", &key)]));
        }
    }
    requests.push(get("/api", &[("x-route-key", "stays")]));
    let traffic = Traffic::start(ports.http, REQUESTS_A_SECOND, requests);
    traffic.flow(REQUESTS_A_SECOND as usize).await;

    let begun = Instant::now();
    let histories: [Arc<Mutex<History>>; WRITERS] = Default::default();
    let mut writers = JoinSet::new();
    for (writer, history) in histories.iter().enumerate() {
        let address = services.server(&service(writer, "address")).address().to_string();
        let history = Arc::clone(history);
        writers.spawn(write(writer, ports.api, address, updates / WRITERS, history));
    }
    let took: Durations = writers.join_all().await.into_iter().flatten().collect();
    let updates_rate = updates as f64 / begun.elapsed().as_secs_f64();
    traffic.flow(REQUESTS_A_SECOND as usize).await;
    let (outcomes, rate) = traffic.stop().await;

    let names_of = |outcome: &Outcome| match outcome.request.checked_div(2) {
        Some(writer) if writer < WRITERS => Some(writer),
        _ => None,
    };
    let (mut failed, mut misrouted) = (Vec::new(), Vec::new());
    for outcome in &outcomes {
        let right = match names_of(outcome) {
            Some(writer) => histories[writer].lock().unwrap().allows(outcome),
            None => outcome.served_by == "stays",
        };
        if !names.contains(&outcome.served_by) {
            failed.push(outcome);
        } else if !right {
            misrouted.push(outcome);
        }
    }
    figure(format!(
        "{updates} updates, {updates_rate:.1} a second, while {} requests flowed, {rate:.0} a second: {} failed, {} misrouted; \
         an update was in force everywhere after {took}",
        outcomes.len(),
        failed.len(),
        misrouted.len()
    ));
    assert!(failed.is_empty(), "{:#?}", &failed[..failed.len().min(10)]);
    assert!(misrouted.is_empty(), "{:#?}", &misrouted[..misrouted.len().min(10)]);
    let busiest = Duration::from_secs(1) * updates as u32 / UPDATES_A_SECOND;
    assert!(
        begun.elapsed() < 3 * busiest,
        "far from {UPDATES_A_SECOND} updates a second: {updates_rate}"
    );
}
