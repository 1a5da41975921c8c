//! What calls meet while rules change, and while the agent is away.

use std::time::Duration;

use sidetrack_tests::{
    Agent, Call, CallOutcome, ConfigFile, Library, PATIENCE, Ports, Proxyless, Services, Signal, config_text,
};

use crate::mesh::{Mesh, assert_fails, print, seconds_since_1970, until_served};

/// Who answers to each key in the state that `is_odd` and in the other.
const KEYS: [(&str, [&str; 2]); 4] = [
    ("stays", ["sandbox", "sandbox"]),
    ("moves", ["host-sandbox", "other"]),
    ("comes", ["baseline", "host-baseline"]),
    ("none", ["baseline", "baseline"]),
];

/// Calls in a second, by each client.
const RATE: u32 = 200;
const CHANGES: usize = 40;

/// Each target but `sandbox` is another rule's in each state, so its cluster comes and goes with it.
fn state(is_odd: bool) -> String {
    let rule = |(key, targets): &(&str, [&str; 2])| match targets[usize::from(is_odd)] {
        "baseline" => String::new(),
        target => format!("    - {{routeKey: {key}, targetService: {target}}}\n"),
    };
    let rules: String = KEYS.iter().map(rule).collect();
    format!("routing:\n  defaultTarget: baseline\n  rules:\n{rules}")
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_change_under_calls() {
    let mesh = Mesh::start(&state(false)).await;
    let calls = KEYS.map(|(key, _)| Call::to("xds:///baseline").key(key));
    for client in &mesh.clients {
        until_served(client, "moves", "host-sandbox").await;
        client.begin(RATE, &calls).await;
    }
    let mut seen = vec![Vec::new(); mesh.clients.len()];
    for change in 1..=CHANGES {
        let is_odd = change % 2 == 1;
        let changed = seconds_since_1970();
        mesh.change(&state(is_odd));
        for (client, seen) in mesh.clients.iter().zip(&mut seen) {
            for (key, targets) in KEYS {
                until_served(client, key, targets[usize::from(is_odd)]).await;
            }
            seen.push((changed, seconds_since_1970()));
        }
        // So that calls flow in each state.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for (client, seen) in mesh.clients.iter().zip(&seen) {
        let outcomes = client.stop().await;
        let mut wrong: Vec<_> = outcomes.iter().filter(|outcome| !is_right(outcome, seen)).collect();
        let failed = wrong.len();
        if client.library == Library::Go {
            wrong.retain(|outcome| !is_between(outcome, seen, "UNAVAILABLE: unknown cluster selected for RPC"));
        }
        let mut delays: Vec<f64> = seen.iter().map(|(changed, seen)| seen - changed).collect();
        delays.sort_unstable_by(f64::total_cmp);
        print(&format!(
            "{:?}: {} calls while rules changed {CHANGES} times, {} failed or misrouted; a change was seen by all after {:.0} ms, {:.0} ms at most",
            client.library,
            outcomes.len(),
            failed,
            delays[CHANGES / 2] * 1e3,
            delays[CHANGES - 1] * 1e3,
        ));
        assert!(
            wrong.is_empty(),
            "{}: {:#?}",
            client.node,
            &wrong[..wrong.len().min(10)]
        );
        assert!(outcomes.len() > CHANGES * 20, "{} calls", outcomes.len());
    }
    mesh.assert_all_accepted().await;
}

/// The state that was there before the call holds, or one that came while it was under way, or that wasn't seen yet.
fn is_right(outcome: &CallOutcome, changes: &[(f64, f64)]) -> bool {
    let targets = KEYS[outcome.call].1;
    states(outcome, changes).any(|state| targets[state % 2] == outcome.served_by)
}

/// Whether a call of a rule whose target changes failed with this status while it did. Go's library takes routes before it
/// knows their new clusters; and an agent that starts again with other rules doesn't have the clusters that clients still use.
fn is_between(outcome: &CallOutcome, changes: &[(f64, f64)], status: &str) -> bool {
    let targets = KEYS[outcome.call].1;
    targets[0] != targets[1] && states(outcome, changes).count() > 1 && outcome.served_by.starts_with(status)
}

/// Those that may have been there during a call.
fn states(outcome: &CallOutcome, changes: &[(f64, f64)]) -> std::ops::RangeInclusive<usize> {
    let before = changes.iter().take_while(|(_, seen)| *seen < outcome.sent).count();
    let until = changes
        .iter()
        .take_while(|(changed, _)| *changed < outcome.answered)
        .count();
    before..=until
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_go_on_without_the_agent_and_follow_the_next_one() {
    let mut mesh = Mesh::start(&state(false)).await;
    let calls = KEYS.map(|(key, _)| Call::to("xds:///baseline").key(key));
    for client in &mesh.clients {
        until_served(client, "moves", "host-sandbox").await;
        client.begin(RATE, &calls).await;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    mesh.agent.signal(Signal::KILL);
    mesh.agent.exit(PATIENCE).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let changed = seconds_since_1970();
    mesh.change(&state(true));
    mesh.agent = Agent::start(&mesh.file.path(), &mesh.ports).await;
    let mut seen = Vec::new();
    for client in &mesh.clients {
        for (key, targets) in KEYS {
            until_served(client, key, targets[1]).await;
        }
        seen.push([(changed, seconds_since_1970())]);
    }
    for (client, seen) in mesh.clients.iter().zip(&seen) {
        let outcomes = client.stop().await;
        let mut wrong: Vec<_> = outcomes.iter().filter(|outcome| !is_right(outcome, seen)).collect();
        let failed = wrong.len();
        wrong.retain(|outcome| !is_between(outcome, seen, "UNAVAILABLE"));
        print(&format!(
            "{:?}: {} calls while the agent was killed and started with other rules, {} failed or misrouted; they were seen {:.0} ms after its start",
            client.library,
            outcomes.len(),
            failed,
            (seen[0].1 - changed) * 1e3,
        ));
        assert!(
            wrong.is_empty(),
            "{}: {:#?}",
            client.node,
            &wrong[..wrong.len().min(10)]
        );
    }
    mesh.assert_all_accepted().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_starts_without_the_agent_fails_calls_until_it_comes() {
    let ports = Ports::free();
    let services = Services::start(&["baseline", "sandbox"]).await;
    let routing = "routing: {defaultTarget: baseline, rules: [{routeKey: k, targetService: sandbox}]}";
    let file = ConfigFile::new(&config_text(&ports, &services, routing));
    let mut clients = Vec::new();
    for library in Library::ALL {
        let client = Proxyless::start(library, ports.xds).await;
        for call in [Call::to("xds:///baseline"), Call::to("xds:///baseline").key("k")] {
            assert_fails(&client, call).await;
        }
        clients.push(client);
    }
    assert_eq!(services.requests("baseline") + services.requests("sandbox"), 0);
    let _agent = Agent::start(&file.path(), &ports).await;
    for client in &clients {
        until_served(client, "k", "sandbox").await;
        until_served(client, "other", "baseline").await;
    }
}
