//! A rule's end at gRPC clients, which can't tell the time: the agent does.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use humantime::format_rfc3339_millis;
use sidetrack_tests::{Call, PATIENCE, poll_until};

use crate::mesh::{Mesh, print, until_served};

/// Time enough for a busy machine to put rules in force.
const AHEAD: Duration = Duration::from_secs(8);
const LATER: Duration = Duration::from_secs(2);

fn with_ends(first: SystemTime, second: SystemTime) -> String {
    let (first, second) = (format_rfc3339_millis(first), format_rfc3339_millis(second));
    format!(
        "routing:\n  defaultTarget: baseline\n  rules:\n    \
         - {{routeKey: alone, targetService: sandbox, expiresAt: {first}}}\n    \
         - {{routeKey: followed, targetService: sandbox, expiresAt: {second}}}\n    \
         - {{routeKey: followed, targetService: other}}\n    \
         - {{routeKey: past, targetService: sandbox, expiresAt: 2001-01-01T00:00:00Z}}\n    \
         - {{routeKey: stays, targetService: sandbox}}\n"
    )
}

/// Looks in turn what each client does with each key, until all rules with an end are gone: by themselves, and not before.
async fn end_in_time(mesh: &Mesh, ends: &[(&str, SystemTime, &str)]) {
    let mut there = BTreeSet::new();
    let mut gone = BTreeSet::new();
    let deadline = ends.iter().map(|(_, end, _)| *end).max().unwrap() + PATIENCE;
    while gone.len() < ends.len() * mesh.clients.len() {
        for client in &mesh.clients {
            for (key, end, then) in ends {
                let served_by = client.call(Call::to("xds:///baseline").key(key)).await;
                let answered = SystemTime::now();
                let rule = (&client.node, *key);
                assert!(answered < deadline, "{rule:?} doesn't end");
                if served_by == "sandbox" {
                    assert!(!gone.contains(&rule), "{rule:?} is back");
                    there.insert(rule);
                    continue;
                }
                assert_eq!(served_by, *then, "{rule:?}");
                assert!(answered >= *end, "{rule:?} ended before its moment");
                assert!(there.contains(&rule), "{rule:?} was never there");
                if gone.insert(rule) {
                    let late = answered.duration_since(*end).unwrap();
                    print(&format!(
                        "{:?}: {key} ended {late:?} after its moment at most",
                        client.library
                    ));
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_rule_goes_by_itself() {
    let mesh = Mesh::start("routing: {defaultTarget: baseline}").await;
    // No client has connected: what is rendered for the first has rules with an end.
    let first = SystemTime::now() + AHEAD;
    mesh.change(&with_ends(first, first + LATER));
    poll_until(PATIENCE, "the change in force", async || {
        let output = mesh.agent.output();
        (output.contains("revision=2 rules=5") && !output.contains("proxy connected"))
            .then_some(())
            .ok_or(output)
    })
    .await;
    for client in &mesh.clients {
        until_served(client, "alone", "sandbox").await;
        until_served(client, "followed", "sandbox").await;
        until_served(client, "past", "baseline").await;
    }
    end_in_time(
        &mesh,
        &[("alone", first, "baseline"), ("followed", first + LATER, "other")],
    )
    .await;
    for client in &mesh.clients {
        until_served(client, "stays", "sandbox").await;
    }

    // Now they come with a change.
    let second = SystemTime::now() + AHEAD;
    mesh.change(&with_ends(second, second));
    for client in &mesh.clients {
        until_served(client, "alone", "sandbox").await;
        until_served(client, "followed", "sandbox").await;
    }
    end_in_time(&mesh, &[("alone", second, "baseline"), ("followed", second, "other")]).await;
    mesh.assert_all_accepted().await;
    // One line for each moment: nothing is rendered over and over.
    let told = mesh
        .agent
        .output()
        .matches("expired rules are taken from gRPC clients")
        .count();
    assert!((3..=4).contains(&told), "{told}: {}", mesh.agent.output());
}
