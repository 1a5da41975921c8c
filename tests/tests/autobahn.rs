//! WebSocket (RFC 6455) by the cases of Autobahn: the verdicts are the same without a proxy, through a bare Envoy and
//! through us.

use std::ffi::OsStr;
use std::process::Command;
use std::time::Duration;

use serde::Deserialize;
use sidetrack_tests::suite::{self, Verdict, Verdicts};
use sidetrack_tests::{BareEnvoy, Front, PATIENCE, Process, Way, artifacts, free_port, poll_until};
use tokio::net::TcpStream;

/// Limits and performance, and compression of every kind and size: 270 cases that take minutes.
const LEFT_OUT_IN_SHORT: [&str; 3] = ["9.*", "12.*", "13.*"];

/// All cases on a busy machine.
const DEADLINE: Duration = Duration::from_secs(900);

#[tokio::test(flavor = "multi_thread")]
async fn verdicts_are_those_without_a_proxy() {
    let port = free_port();
    let _server = echo_server(port).await;
    let front = Front::start(port).await;
    let bare = BareEnvoy::start(port, "AUTO", false).await;

    let direct = verdicts("without a proxy", port, "/").await;
    assert!(direct.len() >= 240, "{} cases", direct.len());
    let through_bare = verdicts("through a bare Envoy", bare.port, "/").await;
    assert_same(&direct, &through_bare, "through a bare Envoy");
    for way in Way::ALL {
        let before = front.requests().await;
        let name = format!("through us, {way:?}");
        let ours = verdicts(&name, front.ports.http, &way.path()).await;
        assert_same(&direct, &ours, &name);

        let (sandbox, baseline) = front.requests().await;
        let arrived = (sandbox - before.0, baseline - before.1);
        let all = ours.len() as u64;
        let expected = if way == Way::Routed { (all, 0) } else { (0, all) };
        assert_eq!(
            arrived, expected,
            "{name}: connections to the sandbox and to the baseline"
        );
    }
}

#[track_caller]
fn assert_same(direct: &Verdicts, other: &Verdicts, name: &str) {
    let differences = direct.differences(other);
    assert!(differences.is_empty(), "{name}: {differences:#?}");
}

/// A line of `cases.py`.
#[derive(Deserialize)]
struct Line {
    case: String,
    passed: bool,
    behavior: String,
    close: String,
}

async fn verdicts(name: &str, port: u16, path: &str) -> Verdicts {
    let url = format!("ws://127.0.0.1:{port}{path}");
    let mut command = python("cases.py");
    command.arg(url);
    if !suite::is_full() {
        command.args(LEFT_OUT_IN_SHORT);
    }
    let mut cases = Process::spawn(name, &mut command);
    let status = cases.exit(DEADLINE).await;
    assert!(status.success(), "{name}: {status}\n{}", cases.output());
    let lines = cases.stdout();
    let lines = lines.lines().map(|line| serde_json::from_str(line).expect(line));
    let verdicts: Verdicts = lines
        .map(|line: Line| {
            let verdict = Verdict {
                passed: line.passed,
                grade: format!("{}, closing {}", line.behavior, line.close),
            };
            (line.case, verdict)
        })
        .collect();
    verdicts.print("Autobahn", name);
    verdicts
}

async fn echo_server(port: u16) -> Process {
    let mut server = Process::spawn("echo.py", python("echo.py").arg(port.to_string()));
    poll_until(PATIENCE, "the echo server", async || {
        assert!(server.exited().is_none(), "the echo server has ended");
        let connection = TcpStream::connect(("127.0.0.1", port)).await;
        connection.map(drop).map_err(|error| error.to_string())
    })
    .await;
    server
}

/// A script of `tests/autobahn/`.
fn python(script: &str) -> Command {
    let packages = suite::installed("autobahn", "kosoku");
    let mut command = Command::new("python3");
    command.env("PYTHONPATH", packages.parent().map_or(OsStr::new(""), AsRef::as_ref));
    command.arg(artifacts::workspace().join("tests/autobahn").join(script));
    command
}
