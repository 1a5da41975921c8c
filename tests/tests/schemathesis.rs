//! The API by calls that Schemathesis makes of its description: each is answered as the description says.

use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::process::Command;
use std::time::Duration;

use serde::Deserialize;
use sidetrack_tests::{ApiAgent, Process, artifacts, suite};

/// How many calls it tries of each kind.
const EXAMPLES: &str = "30";

/// The same calls each time.
const SEED: &str = "1";

/// All calls on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// The report of a run.
#[derive(Deserialize)]
struct Report {
    complete: bool,
    operations: Operations,
    test_cases: Cases,
}

#[derive(Deserialize)]
struct Operations {
    tested: u64,
    errored: u64,
}

#[derive(Deserialize)]
struct Cases {
    generated: u64,
    errored: u64,
    unique_failures: u64,
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_is_answered_as_described() {
    let api = ApiAgent::start().await;
    let directory = tempfile::tempdir().unwrap();
    let report = directory.path().join("report.json");
    let packages = suite::installed("schemathesis", "schemathesis");
    let mut command = Command::new("python3");
    command.env("PYTHONPATH", packages.parent().map_or(OsStr::new(""), AsRef::as_ref));
    command
        .current_dir(&directory)
        .args(["-m", "schemathesis.cli", "--config-file"]);
    command.arg(artifacts::workspace().join("tests/schemathesis/schemathesis.toml"));
    command
        .arg("run")
        .arg(format!("http://localhost:{}/openapi.json", api.ports.api));
    command.args([
        "--checks",
        "all",
        "--continue-on-failure",
        "--no-color",
        "--generation-database",
        "none",
    ]);
    command
        .args(["--max-examples", EXAMPLES, "--seed", SEED, "--report-json-path"])
        .arg(&report);
    let mut run = Process::spawn("schemathesis", &mut command);
    let status = run.exit(DEADLINE).await;
    let report = fs::read(&report).unwrap_or_else(|error| panic!("{error}\n{}", run.output()));
    let report: Report = serde_json::from_slice(&report).unwrap();
    let (operations, cases) = (report.operations, report.test_cases);
    // A test's standard error isn't captured if it is written to like this.
    let _ = writeln!(
        std::io::stderr(),
        "Schemathesis: {} operations, {} cases, {} failures",
        operations.tested,
        cases.generated,
        cases.unique_failures
    );
    assert!(
        report.complete && operations.tested >= 11 && cases.generated >= 500,
        "{}",
        run.output()
    );
    let failed = (cases.unique_failures, cases.errored, operations.errored);
    assert!(status.success() && failed == (0, 0, 0), "{status}\n{}", run.output());
}
