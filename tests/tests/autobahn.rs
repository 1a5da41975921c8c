//! WebSocket (RFC 6455) by the cases of Autobahn: the verdicts are the same without a proxy, through a bare Envoy and
//! through us.

use std::ffi::OsStr;
use std::process::Command;
use std::time::Duration;

use serde::Deserialize;
use sidetrack_tests::suite::{self, Verdict, Verdicts};
use sidetrack_tests::{BareEnvoy, Front, PATIENCE, Process, Way, artifacts, free_port, poll_until};
use tokio::net::TcpStream;

/// Limits and performance, and compression of every kind and size: 270 cases that take minutes. A missed connection, which
/// differs from a keyless one by what the filter says and from a routed one by its target, never has them.
const LEFT_OUT_IN_SHORT: [&str; 3] = ["!9.*", "!12.*", "!13.*"];

/// All cases on a busy machine.
const DEADLINE: Duration = Duration::from_secs(1800);

#[tokio::test(flavor = "multi_thread")]
async fn verdicts_are_those_without_a_proxy() {
    let port = free_port();
    let _server = echo_server(port).await;
    let front = Front::start(port).await;
    let bare = BareEnvoy::start(port, "AUTO").await;

    let left_out: &[&str] = if suite::is_full() { &[] } else { &LEFT_OUT_IN_SHORT };
    let direct = all_verdicts("without a proxy", port, "/", left_out).await;
    assert!(direct.len() >= 240, "{} cases", direct.len());
    let assert_same = async |name: &str, found, through, path: &str| {
        let again = async |cases: &[&str]| (verdicts(port, "/", cases).await, verdicts(through, path, cases).await);
        suite::assert_same(name, direct.of_cases_in(&found), found, again).await;
    };
    let found = all_verdicts("through a bare Envoy", bare.port, "/", left_out).await;
    assert_eq!(found.len(), direct.len());
    assert_same("through a bare Envoy", found, bare.port, "/").await;
    for way in Way::ALL {
        let before = front.requests().await;
        let (name, path) = (format!("through us, {way:?}"), way.path());
        let left_out = if way == Way::Missed {
            &LEFT_OUT_IN_SHORT
        } else {
            left_out
        };
        let found = all_verdicts(&name, front.ports.http, &path, left_out).await;
        assert!(
            found.len() == direct.len() || way == Way::Missed,
            "{} cases",
            found.len()
        );
        let (sandbox, baseline) = front.requests().await;
        let arrived = (sandbox - before.0, baseline - before.1);
        let all = found.len() as u64;
        let expected = if way == Way::Routed { (all, 0) } else { (0, all) };
        assert_eq!(
            arrived, expected,
            "{name}: connections to the sandbox and to the baseline"
        );
        assert_same(&name, found, front.ports.http, &path).await;
    }
}

/// A line of `cases.py`.
#[derive(Deserialize)]
struct Line {
    case: String,
    passed: bool,
    behavior: String,
    close: String,
}

async fn all_verdicts(name: &str, port: u16, path: &str, left_out: &[&str]) -> Verdicts {
    let verdicts = verdicts(port, path, left_out).await;
    verdicts.print("Autobahn", name);
    verdicts
}

async fn verdicts(port: u16, path: &str, cases: &[&str]) -> Verdicts {
    let mut command = python("cases.py");
    command.arg(format!("ws://127.0.0.1:{port}{path}")).args(cases);
    let mut cases = Process::spawn("cases.py", &mut command);
    let status = cases.exit(DEADLINE).await;
    assert!(status.success(), "{status}\n{}", cases.output());
    let lines = cases.stdout();
    let lines = lines.lines().map(|line| serde_json::from_str(line).expect(line));
    lines
        .map(|line: Line| {
            let verdict = Verdict {
                passed: line.passed,
                grade: format!("{}, closing {}", line.behavior, line.close),
            };
            (line.case, verdict)
        })
        .collect()
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
