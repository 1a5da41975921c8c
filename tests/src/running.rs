//! The programs under test, running.

use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::{Client, PATIENCE, Ports, Process, Protocol, artifacts, poll_until};

/// `sidetrack` with these arguments.
pub fn sidetrack(arguments: &[&str]) -> Command {
    let mut command = Command::new(artifacts::sidetrack());
    command.args(arguments).env("ENVOY_BIN", artifacts::envoy());
    command
}

/// The configuration that `sidetrack render` prints for the Envoy of the tests.
///
/// # Panics
/// If it prints none.
pub fn render(config: &Path, arguments: &[&str]) -> String {
    render_for(&artifacts::envoy(), config, arguments)
}

/// The same for this Envoy.
///
/// # Panics
/// If it prints none.
pub fn render_for(envoy: &Path, config: &Path, arguments: &[&str]) -> String {
    let mut command = sidetrack(&["render", "--envoy-version", &artifacts::release(envoy), "-c"]);
    let output = command.arg(config).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// `sidetrack up`: the agent and its Envoy.
pub struct Sidetrack(Process);

/// `sidetrack agent`: the agent alone.
pub struct Agent(Process);

/// An Envoy of its own.
pub struct Envoy {
    process: Process,
    _bootstrap: TempDir,
}

impl Sidetrack {
    /// Starts it, without waiting for anything.
    pub fn spawn(config: &Path) -> Self {
        Self::spawn_on(&artifacts::envoy(), config)
    }

    /// The same with this Envoy.
    pub fn spawn_on(envoy: &Path, config: &Path) -> Self {
        let mut command = sidetrack(&["up", "-c"]);
        command.arg(config).arg("--envoy").arg(envoy);
        Self(Process::spawn("sidetrack up", &mut command))
    }

    /// Starts it and waits until its Envoy serves the config; the ports are those of the config.
    pub async fn up(config: &Path, ports: &Ports) -> Self {
        Self::up_on(&artifacts::envoy(), config, ports).await
    }

    /// The same with this Envoy.
    pub async fn up_on(envoy: &Path, config: &Path, ports: &Ports) -> Self {
        let mut started = Self::spawn_on(envoy, config);
        ready(&mut started.0, ports.api, "/readyz").await;
        started
    }
}

impl Agent {
    /// Starts it, without waiting for anything.
    pub fn spawn(config: &Path) -> Self {
        let mut command = sidetrack(&["agent", "-c"]);
        Self(Process::spawn("sidetrack agent", command.arg(config)))
    }

    /// Starts it and waits until it is alive.
    pub async fn start(config: &Path, ports: &Ports) -> Self {
        let mut started = Self::spawn(config);
        ready(&mut started.0, ports.api, "/healthz").await;
        started
    }

    /// The same as it is released.
    pub async fn start_release(config: &Path, ports: &Ports) -> Self {
        let mut command = Command::new(artifacts::sidetrack_release());
        command.args(["agent", "-c"]).arg(config);
        Self::start_by(command, ports).await
    }

    /// The same by this command.
    pub async fn start_by(mut command: Command, ports: &Ports) -> Self {
        let mut process = Process::spawn("sidetrack agent", &mut command);
        ready(&mut process, ports.api, "/healthz").await;
        Self(process)
    }
}

impl Envoy {
    /// Starts an Envoy with this bootstrap (YAML), without waiting for anything.
    pub fn start(bootstrap: &str) -> Self {
        Self::start_on(&artifacts::envoy(), bootstrap)
    }

    /// The same with this Envoy.
    pub fn start_on(envoy: &Path, bootstrap: &str) -> Self {
        Self::spawn(envoy, bootstrap, |_| {})
    }

    /// The same, but `change` may change the command before.
    pub fn start_with(bootstrap: &str, change: impl FnOnce(&mut Command)) -> Self {
        Self::spawn(&artifacts::envoy(), bootstrap, change)
    }

    fn spawn(envoy: &Path, bootstrap: &str, change: impl FnOnce(&mut Command)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path: PathBuf = directory.path().join("bootstrap.yaml");
        std::fs::write(&path, bootstrap).unwrap();
        let mut command = Command::new(envoy);
        command.args([
            "--disable-hot-restart",
            "--concurrency",
            "2",
            "--log-level",
            "warning",
            "-c",
        ]);
        change(command.arg(path));
        Self {
            process: Process::spawn("envoy", &mut command),
            _bootstrap: directory,
        }
    }
}

/// Waits until `path` on this port answers 200.
pub(crate) async fn ready(process: &mut Process, port: u16, path: &str) {
    let mut client = Client::new(Protocol::Http1, port);
    poll_until(PATIENCE, &format!("200 from {path}"), async || {
        if let Some(status) = process.exited() {
            panic!("it ended before it was ready: {status}");
        }
        match client.get(path, &[]).await {
            Ok(answer) if answer.status == 200 => Ok(()),
            Ok(answer) => Err(format!("{} {}", answer.status, answer.text())),
            Err(error) => Err(format!("{error:#}")),
        }
    })
    .await;
}

impl Deref for Sidetrack {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.0
    }
}

impl DerefMut for Sidetrack {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.0
    }
}

impl Deref for Agent {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.0
    }
}

impl DerefMut for Agent {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.0
    }
}

impl Deref for Envoy {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

impl DerefMut for Envoy {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.process
    }
}
