//! What a newcomer does: runs `scripts/run`, tries the requests that it prints, presses Ctrl-C.

use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

use sidetrack_tests::{Echo, FixedPorts, Process, Signal, artifacts, poll_until};

/// Who answers each of the requests, in the order they are printed.
const SERVED_BY: [&str; 3] = [
    "default-service",
    "service-a.sandbox-123.svc.cluster.local",
    "default-service",
];

/// It may have to build.
const READY: Duration = Duration::from_secs(600);
const END: Duration = Duration::from_secs(15);

#[tokio::test(flavor = "multi_thread")]
async fn the_requests_that_scripts_run_prints_work() {
    let _lock = FixedPorts::lock().await;
    let script = artifacts::workspace().join("scripts/run");
    let mut run = Process::spawn("scripts/run", &mut Command::new(script));
    let commands = poll_until(READY, "three commands to try", async || {
        if let Some(status) = run.exited() {
            panic!("it ended: {status}");
        }
        let commands: Vec<String> = run
            .stdout()
            .lines()
            .filter(|line| line.starts_with("  curl "))
            .map(str::to_owned)
            .collect();
        let count = commands.len();
        (count == SERVED_BY.len())
            .then_some(commands)
            .ok_or_else(|| format!("{count} so far"))
    })
    .await;

    for (command, expected) in commands.iter().zip(SERVED_BY) {
        let output = Command::new("sh").args(["-c", command]).output().unwrap();
        let echo: Echo = serde_json::from_slice(&output.stdout).expect(command);
        assert_eq!(echo.service, expected, "{command}");
    }

    let descendants = run.descendants();
    assert!(descendants.len() >= 3, "echo, sidetrack and Envoy run: {descendants:?}");
    run.signal(Signal::INT);
    let status = run.exit(END).await;
    assert_eq!(status.code(), Some(0));
    for descendant in descendants {
        assert!(!Process::exists(descendant), "{descendant} is left behind");
    }
    for port in [8080, 8081, 9101, 9902, 18_000] {
        TcpListener::bind(("127.0.0.1", port)).unwrap_or_else(|error| panic!("{port}: {error}"));
    }
}
