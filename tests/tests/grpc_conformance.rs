//! gRPC, gRPC-Web and Connect by the suite of Connect: what passes through a bare Envoy passes through us.
//!
//! The suite's client can't add headers. What it sends anyway and can be a key is the host: of `127.0.0.1`, the part in the
//! wildcard's place of `*.0.0.1`.

use std::process::Command;
use std::time::Duration;

use sidetrack_tests::suite::{self, Verdict, Verdicts};
use sidetrack_tests::{AS_THE_CLIENT, BareEnvoy, Front, Process, Way, artifacts, free_port, services};

/// Minutes of megabytes.
const LEFT_OUT_IN_SHORT: &str = "Server Message Size/**";

/// The kinds of calls, in each protocol: enough for a way that differs from another by what the filter says.
const BASIC: &str = "Basic/**";

/// At least so many cases there are in the short form, and so many that are basic.
const CASES: usize = 500;
const BASIC_CASES: usize = 40;

/// All cases on a busy machine.
const DEADLINE: Duration = Duration::from_secs(900);

const KEY_IN_HOST: &str = "keySources: [{host: \"*.0.0.1\"}]";
const KEY_IN_HEADER: &str = "keySources: [{header: X-Route-Key}]";

#[tokio::test(flavor = "multi_thread")]
async fn what_passes_through_a_bare_envoy_passes_routed() {
    check("through us, Routed", KEY_IN_HOST, "127", Way::Routed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_passes_through_a_bare_envoy_passes_without_a_key() {
    check("through us, Keyless", KEY_IN_HEADER, "127", Way::Keyless).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_passes_through_a_bare_envoy_passes_with_a_key_without_a_rule() {
    check("through us, Missed", KEY_IN_HOST, "128", Way::Missed).await;
}

/// All cases pass through us with a rule for `key`; those that don't, don't through a bare Envoy. They take this `way`.
async fn check(name: &str, key_sources: &str, key: &str, way: Way) {
    let server = free_port();
    let front = Front::with(&format!(
        "{AS_THE_CLIENT}\n\
         {}\n\
         routing:\n  \
           defaultTarget: baseline\n  \
           {key_sources}\n  \
           rules: [{{routeKey: \"{key}\", targetService: sandbox}}]",
        services(server)
    ))
    .await;

    let (only, cases): (&[&str], _) = match way {
        Way::Missed if !suite::is_full() => (&[BASIC], BASIC_CASES),
        _ => (&[], CASES),
    };
    let ours = verdicts(name, server, front.ports.http, only).await;
    assert!(ours.len() >= cases, "{} cases", ours.len());
    let (sandbox, baseline) = front.requests().await;
    let (expected, other) = match way {
        Way::Routed => (sandbox, baseline),
        Way::Missed | Way::Keyless => (baseline, sandbox),
    };
    assert!(
        other == 0 && expected as usize >= cases,
        "{sandbox} requests to the sandbox, {baseline} to the baseline"
    );

    let mut failing = ours;
    for _ in 0..suite::SECOND_LOOKS {
        if failing.failed().is_empty() {
            return;
        }
        failing = verdicts(name, server, front.ports.http, &failing.failed()).await;
    }
    let bare = BareEnvoy::start(server, "AUTO").await;
    let through_bare = verdicts("through a bare Envoy", server, bare.port, &failing.failed()).await;
    let differences = through_bare.differences(&failing);
    assert!(differences.is_empty(), "{name}: {differences:#?}");
}

/// Runs all cases, or `only` these, with the reference server on the port `server` and a proxy before it.
async fn verdicts(name: &str, server: u16, proxy: u16, only: &[&str]) -> Verdicts {
    let files = artifacts::workspace().join("tests/grpc-conformance");
    let mut command = Command::new(suite::installed("grpc-conformance", "connectconformance"));
    // All servers have one port, so there can't be two at a time.
    command.args(["--mode", "server", "--max-servers", "1", "--vv"]);
    if suite::is_full() {
        command.arg("--conf").arg(files.join("full.yaml"));
    } else {
        command.arg("--conf").arg(files.join("short.yaml"));
        command.args(["--skip", LEFT_OUT_IN_SHORT]);
    }
    command.args(only.iter().flat_map(|case| ["--run", case]));
    command.args(["--", "python3"]).arg(files.join("server.py"));
    command.arg(suite::installed("grpc-conformance", "referenceserver"));
    command.args([server, proxy].map(|port| port.to_string()));
    let mut conformance = Process::spawn(name, &mut command);
    conformance.exit(DEADLINE).await;
    let output = format!("{}{}", conformance.stdout(), conformance.stderr());
    let verdicts = read_output(&output);
    verdicts.print("gRPC conformance", name);
    assert!(
        output.contains(&format!("Total cases: {}\n", verdicts.len())),
        "{}",
        conformance.output()
    );
    verdicts
}

/// The verdicts in what connectconformance writes: each case that it begins, and again those that fail.
fn read_output(output: &str) -> Verdicts {
    let begun = output.lines().filter_map(|line| {
        let case = line.strip_prefix("Sending request for \"")?.strip_suffix("\"...")?;
        Some((case.to_owned(), Verdict::plain(true)))
    });
    let failed = output.lines().filter_map(|line| {
        let case = line.strip_prefix("FAILED: ")?.strip_suffix(':')?;
        Some((case.to_owned(), Verdict::plain(false)))
    });
    begun.chain(failed).collect()
}
