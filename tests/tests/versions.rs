//! Every supported version of Envoy, in short; `scripts/test --envoy-versions all` runs all tests on each.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use sidetrack_tests::{
    Agent, Authority, Client, ConfigFile, Envoy, PATIENCE, Ports, Process, Protocol, Services, Sidetrack, Stats,
    TlsFiles, artifacts, config_text, free_port, poll_until, render_for, sidetrack,
};
use tempfile::TempDir;

const VERSIONS: [&str; 4] = ["1.37", "1.38", "1.39", "1.40"];

/// Route key and path; who answers.
const REQUESTS: [(&str, &str, &str); 5] = [
    ("", "/api", "baseline"),
    ("k", "/api", "service-a"),
    ("k", "/elsewhere", "baseline"),
    ("unknown", "/api", "baseline"),
    ("down", "/", "baseline"),
];

/// Of each version: started by `up`, from a whole configuration, and from a bootstrap without and with its agent.
async fn check(version: &str) {
    let envoy = artifacts::envoy_of(version);
    let services = Services::start(&["baseline", "service-a", "service-b"]).await;
    let routing = format!(
        "routing:\n  defaultTarget: baseline\n  rules:\n    \
         - {{routeKey: k, name: routed, targetService: service-a, pathPrefixes: [/api]}}\n    \
         - {{routeKey: down, name: falls, targetService: \"127.0.0.1:{}\"}}\n",
        free_port()
    );
    let stage = || {
        let ports = Ports::free();
        let config = ConfigFile::new(&config_text(&ports, &services, &routing));
        (ports, config)
    };

    let (ports, config) = stage();
    let sidetrack = Sidetrack::up_on(&envoy, &config.path(), &ports).await;
    assert_serves(&ports).await;
    let proxy = &ready(&ports).await["proxies"][0];
    assert_eq!(proxy["release"], artifacts::release(&envoy), "{proxy}");
    assert_counts(&ports).await;
    config.replace(&config_text(
        &ports,
        &services,
        &routing.replace("service-a", "service-b"),
    ));
    until_served_by(&ports, "service-b").await;
    assert_understands(&ports).await;
    drop(sidetrack);

    let (ports, config) = stage();
    let whole = Envoy::start_on(&envoy, &render_for(&envoy, &config.path(), &[]));
    until_served_by(&ports, "service-a").await;
    assert_serves(&ports).await;
    assert_understands(&ports).await;
    drop(whole);

    let (ports, config) = stage();
    let _envoy = Envoy::start_on(&envoy, &render_for(&envoy, &config.path(), &["--bootstrap"]));
    until_served_by(&ports, "baseline").await;
    let _agent = Agent::start(&config.path(), &ports).await;
    until_served_by(&ports, "service-a").await;
    assert_serves(&ports).await;
    assert_understands(&ports).await;
}

/// Nothing that can be configured has a form that this version refuses, ignores or wants no more.
async fn check_every_setting(version: &str) {
    let envoy = artifacts::envoy_of(version);
    let ports = Ports::free();
    let Ports {
        http,
        grpc,
        metrics,
        admin,
        api,
        xds,
    } = ports;
    let authority = Authority::new("authority");
    let files = TlsFiles::new(&authority.issue(&["proxy.example"]));
    let (cert, key) = (files.path("tls.crt"), files.path("tls.key"));
    let (cert, key) = (cert.display(), key.display());
    let sections = include_str!("../configs/everything.yaml")
        .replacen(
            "services:",
            &format!("services:\n  over-tls: {{tls: {{ca: {cert}, clientCert: {cert}, clientKey: {key}}}}}"),
            1,
        )
        .replacen(
            "  rules:",
            "  rules:\n    - {routeKey: tls, targetService: over-tls, fallback: none}",
            1,
        );
    let text = format!(
        "server: {{httpPort: {http}, grpcPort: {grpc}, metricsPort: {metrics}, adminPort: {admin}, mode: gateway}}\n\
         agent: {{apiPort: {api}, xdsPort: {xds}}}\n\
         {sections}"
    );
    let config = ConfigFile::new(&files.in_config(&text));
    for arguments in [&[] as &[&str], &["--bootstrap"]] {
        let rendered = config.path().with_file_name("envoy.yaml");
        fs::write(&rendered, render_for(&envoy, &config.path(), arguments)).unwrap();
        let mut command = Command::new(&envoy);
        command
            .args(["--mode", "validate", "--log-level", "warning", "-c"])
            .arg(&rendered);
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && !said.contains("eprecated"),
            "{arguments:?}: {said}"
        );
    }
    let _sidetrack = Sidetrack::up_on(&envoy, &config.path(), &ports).await;
    assert_understands(&ports).await;
}

async fn assert_serves(ports: &Ports) {
    for (protocol, port) in [(Protocol::Http1, ports.http), (Protocol::Http2, ports.grpc)] {
        let mut client = Client::new(protocol, port);
        for (key, path, expected) in REQUESTS {
            let headers: &[(&str, &str)] = if key.is_empty() { &[] } else { &[("x-route-key", key)] };
            let answer = client.get(path, headers).await.unwrap();
            assert_eq!(answer.served_by(), expected, "{protocol:?} {key} {path}");
        }
    }
}

/// Waits until a request that matches the rule is served by `expected`.
async fn until_served_by(ports: &Ports, expected: &str) {
    let mut client = Client::new(Protocol::Http1, ports.http);
    poll_until(PATIENCE, &format!("{expected} serving"), async || {
        let answer = client.get("/api", &[("x-route-key", "k")]).await;
        let served_by = answer.map_err(|error| format!("{error:#}"))?.served_by();
        (served_by == expected).then_some(()).ok_or(served_by)
    })
    .await;
}

/// What the agent sends and an Envoy doesn't know, it ignores without a word; what it has replaced, it only logs.
async fn assert_understands(ports: &Ports) {
    let stats = Stats::read(ports.admin, "unknown_fields|deprecated_feature_use").await;
    for counter in [
        "server.static_unknown_fields",
        "server.dynamic_unknown_fields",
        "runtime.deprecated_feature_use",
    ] {
        assert_eq!(stats.sum(counter), 0, "{counter}");
    }
}

/// Names and labels are the same everywhere, whatever the field is called that says them.
async fn assert_counts(ports: &Ports) {
    let mut admin = Client::new(Protocol::Http1, ports.admin);
    let line = "sidetrack_requests_total{rule=\"routed\",role=\"\"} 2";
    poll_until(PATIENCE, line, async || {
        let text = admin
            .get("/stats/prometheus?filter=sidetrack_requests_total", &[])
            .await;
        let text = text.map_err(|error| format!("{error:#}"))?.text();
        text.lines().any(|found| found == line).then_some(()).ok_or(text)
    })
    .await;
}

async fn ready(ports: &Ports) -> Value {
    let mut api = Client::new(Protocol::Http1, ports.api);
    let answer = api.get("/readyz", &[]).await.unwrap();
    serde_json::from_str(&answer.text()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn envoy_1_37() {
    check("1.37").await;
    check_every_setting("1.37").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn envoy_1_38() {
    check("1.38").await;
    check_every_setting("1.38").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn envoy_1_39() {
    check("1.39").await;
    check_every_setting("1.39").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn envoy_1_40() {
    check("1.40").await;
    check_every_setting("1.40").await;
}

#[test]
fn these_are_all_that_are_installed() {
    let script = artifacts::workspace().join("scripts/install-tools");
    let output = Command::new(script).arg("envoy-versions").output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    assert_eq!(printed.split_whitespace().collect::<Vec<_>>(), VERSIONS);
}

#[tokio::test(flavor = "multi_thread")]
async fn envoys_of_several_versions_share_an_agent() {
    let services = Services::start(&["baseline", "service-a", "service-b"]).await;
    let routing = "routing:\n  defaultTarget: baseline\n  rules:\n    - {routeKey: k, targetService: service-a, fallback: none}\n";
    let agents = Ports::free();
    let config = ConfigFile::new(&config_text(&agents, &services, routing));
    let _agent = Agent::start(&config.path(), &agents).await;
    let mut envoys = Vec::new();
    for version in VERSIONS {
        let envoy = artifacts::envoy_of(version);
        // The same agent, and ports of its own.
        let ports = Ports {
            api: agents.api,
            xds: agents.xds,
            ..Ports::free()
        };
        let own = ConfigFile::new(&config_text(&ports, &services, routing));
        let bootstrap = render_for(&envoy, &own.path(), &["--bootstrap", "--node", version]);
        envoys.push((Envoy::start_on(&envoy, &bootstrap), ports));
    }
    for (_, ports) in &envoys {
        until_served_by(ports, "service-a").await;
    }
    config.replace(&config_text(
        &agents,
        &services,
        &routing.replace("service-a", "service-b"),
    ));
    for (_, ports) in &envoys {
        until_served_by(ports, "service-b").await;
        assert_understands(ports).await;
    }
    poll_until(PATIENCE, "all of them in force", async || {
        let body = ready(&agents).await;
        let proxies = body["proxies"].as_array().map_or(0, Vec::len);
        (body["ready"] == true && proxies == VERSIONS.len())
            .then_some(())
            .ok_or_else(|| body.to_string())
    })
    .await;
}

/// A program in this directory that does what these lines of sh say.
fn script(directory: &TempDir, name: &str, lines: &str) -> PathBuf {
    let program = directory.path().join(name);
    fs::write(&program, format!("#!/bin/sh\n{lines}\n")).unwrap();
    fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
    program
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_envoy_isnt_started() {
    let directory = tempfile::tempdir().unwrap();
    let ports = Ports::free();
    let services = Services::start(&["baseline"]).await;
    let config = ConfigFile::new(&config_text(&ports, &services, "routing: {defaultTarget: baseline}\n"));
    let says = "echo 'envoy  version: 0123abc/1.36.4/Clean/RELEASE/BoringSSL'";
    let program = script(&directory, "envoy", says);
    let mut sidetrack = Sidetrack::spawn_on(&program, &config.path());
    assert_eq!(sidetrack.exit(PATIENCE).await.code(), Some(1));
    let expected = format!(
        "sidetrack: {}: Envoy 1.36 isn't supported: 1.37 to 1.40 are, and later ones as 1.40\n",
        program.display()
    );
    assert_eq!(sidetrack.stderr(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn func_e_is_asked_which_envoy_it_runs() {
    let directory = tempfile::tempdir().unwrap();
    let ports = Ports::free();
    let services = Services::start(&["baseline"]).await;
    let config = ConfigFile::new(&config_text(&ports, &services, "routing: {defaultTarget: baseline}\n"));
    let envoy = artifacts::envoy();
    let envoy = envoy.display();
    let lines = format!("case $1 in which) echo {envoy} ;; run) shift && exec {envoy} \"$@\" ;; *) exit 1 ;; esac");
    script(&directory, "func-e", &lines);
    let mut command = sidetrack(&["up", "-c"]);
    command
        .arg(config.path())
        .env_remove("ENVOY_BIN")
        .env("PATH", directory.path());
    let mut up = Process::spawn("sidetrack up", &mut command);
    poll_until(PATIENCE, "that it is ready", async || {
        assert!(up.exited().is_none(), "it ended");
        let said = up.stdout();
        said.contains("ready: ").then_some(()).ok_or(said)
    })
    .await;
    assert!(up.stderr().contains("func-e version=1."), "{}", up.stderr());
}
