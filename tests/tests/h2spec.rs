//! HTTP/2 by the cases of h2spec: the verdicts are the same through a bare Envoy and through us.

use std::fs;
use std::process::Command;
use std::time::Duration;

use sidetrack_tests::suite::{self, Verdict, Verdicts};
use sidetrack_tests::{BareEnvoy, EchoServer, Front, Process, Way};
use tempfile::TempDir;

/// All sections, in parts that run at the same time: h2spec waits for most of its time.
const PARTS: [&[&str]; 5] = [
    &["generic", "hpack", "http2/3", "http2/4", "http2/7"],
    &["http2/5.1"],
    &[
        "http2/5.3",
        "http2/5.4",
        "http2/5.5",
        "http2/6.1",
        "http2/6.2",
        "http2/6.3",
        "http2/6.4",
    ],
    &["http2/6.5", "http2/6.7", "http2/6.8", "http2/6.9", "http2/6.10"],
    &["http2/8"],
];

/// How many cases there are in version 2.2.1.
const CASES: usize = 145;

/// How long a case waits for a connection to be closed, in seconds. Envoy takes one.
const PATIENCE_OF_A_CASE: &str = "3";

/// All parts on a busy machine.
const DEADLINE: Duration = Duration::from_secs(300);

/// One way to the server.
struct Target<'t> {
    name: &'t str,
    port: u16,
    path: String,
}

#[tokio::test(flavor = "multi_thread")]
async fn verdicts_are_those_of_a_bare_envoy() {
    let server = EchoServer::bind("echo", ([127, 0, 0, 1], 0).into()).await.unwrap();
    let server = server.address().port();
    let front = Front::start(server).await;
    let bare = BareEnvoy::start(server, "AUTO").await;
    let bare_http2 = BareEnvoy::start(server, "HTTP2").await;
    let target = |name, port, path: &str| Target {
        name,
        port,
        path: path.to_owned(),
    };
    let (http, grpc) = (front.ports.http, front.ports.grpc);
    let ours = |name, port, way: Way| target(name, port, &way.path());

    tokio::join!(
        compare(
            target("through a bare Envoy", bare.port, "/"),
            vec![
                ours("through us, Routed", http, Way::Routed),
                ours("through us, Missed", http, Way::Missed),
                ours("through us, Keyless", http, Way::Keyless),
            ],
        ),
        compare(
            target("through a bare Envoy, only HTTP/2", bare_http2.port, "/"),
            vec![
                ours("by grpcPort, Routed", grpc, Way::Routed),
                ours("by grpcPort, Keyless", grpc, Way::Keyless),
            ],
        ),
    );
    let (sandbox, baseline) = front.requests().await;
    assert!(sandbox > 100 && baseline > 100, "{sandbox} and {baseline} requests");
}

/// Each of `ours` has the verdicts of `bare`.
async fn compare(bare: Target<'_>, ours: Vec<Target<'_>>) {
    let all = std::iter::once(&bare).chain(&ours);
    let runs = all.map(|target| (target, target.start(&PARTS))).collect::<Vec<_>>();
    let mut verdicts = Vec::new();
    for (target, run) in runs {
        let found = run.verdicts().await;
        found.print("h2spec", target.name);
        assert_eq!(found.len(), CASES, "{}", target.name);
        verdicts.push(found);
    }
    let expected = verdicts.remove(0);
    for (target, found) in ours.iter().zip(verdicts) {
        let again = async |cases: &[&str]| {
            let sections: Vec<_> = cases.iter().map(|case| section(case)).collect();
            let runs = (bare.start(&[&sections]), target.start(&[&sections]));
            (runs.0.verdicts().await, runs.1.verdicts().await)
        };
        suite::assert_same(target.name, expected.clone(), found, again).await;
    }
}

/// h2spec at work.
struct Run(Vec<(Process, TempDir)>);

impl Target<'_> {
    /// Starts a process for each part.
    fn start(&self, parts: &[&[&str]]) -> Run {
        let parts = parts.iter().map(|sections| {
            let directory = tempfile::tempdir().unwrap();
            let mut command = Command::new(suite::installed("h2spec", "h2spec"));
            command.args(["--port", &self.port.to_string(), "--path", &self.path]);
            command.args(["--timeout", PATIENCE_OF_A_CASE, "--junit-report"]);
            command.arg(directory.path().join("report.xml"));
            command.args(*sections);
            (Process::spawn(self.name, &mut command), directory)
        });
        Run(parts.collect())
    }
}

impl Run {
    async fn verdicts(self) -> Verdicts {
        let mut verdicts = Verdicts::default();
        for (mut process, directory) in self.0 {
            process.exit(DEADLINE).await;
            let report = fs::read(directory.path().join("report.xml"));
            let report = report.unwrap_or_else(|error| panic!("{error}\n{}", process.output()));
            verdicts.replace(read_report(&String::from_utf8_lossy(&report)));
        }
        verdicts
    }
}

/// The verdicts in a JUnit report, as h2spec writes it: `<testcase package="SECTION" classname="TITLE" …>…</testcase>`.
fn read_report(report: &str) -> Verdicts {
    let cases = report.split("<testcase ").skip(1);
    cases
        .map(|case| {
            let [section, title] = ["package", "classname"].map(|name| attribute(case, name));
            let passed = ["<failure", "<error", "<skipped"].iter().all(|tag| !case.contains(tag));
            (format!("{section}: {title}"), Verdict::plain(passed))
        })
        .collect()
}

fn attribute<'c>(element: &'c str, name: &str) -> &'c str {
    let value = element.split_once(&format!("{name}=\"")).map(|(_, rest)| rest);
    let value = value.and_then(|rest| rest.split_once('"')).map(|(value, _)| value);
    value.unwrap_or_else(|| panic!("no {name} in {element}"))
}

fn section(case: &str) -> &str {
    case.split_once(": ").map_or(case, |(section, _)| section)
}
