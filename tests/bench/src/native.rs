//! Envoy and the reverse proxy as they run in earnest, each on a processor that the load doesn't take.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use rustix::thread::{CpuSet, sched_setaffinity};
use sidetrack_tests::{Pid, Process, artifacts, free_port};
use tempfile::TempDir;

use crate::arms::{Arm, Listener, MAIN_SIZE};
use crate::connection::Connection;
use crate::listeners::Bootstrap;
use crate::materials::Materials;
use crate::sandboxes::Sandboxes;

/// The processor of what is measured, and that of the load and the services.
const MEASURED: usize = 1;
const LOAD: usize = 0;

/// What arms are measured on.
pub(crate) struct Native {
    bootstrap: Bootstrap,
    /// The file that says how long Envoy's worker has run.
    worker: PathBuf,
    proxy: Process,
    proxy_port: u16,
    _envoy: Process,
    _directory: TempDir,
}

impl Native {
    /// Starts both and waits until they are ready; the load stays off their processor from here on.
    pub(crate) fn start(arms: &[Arm], materials: &Materials) -> anyhow::Result<Self> {
        let cpus = std::thread::available_parallelism()?.get();
        ensure!(
            cpus > MEASURED,
            "time is measured on two processors at least, and here is {cpus}"
        );
        let directory = tempfile::tempdir()?;
        let bootstrap = Bootstrap::of(arms, materials)?;
        let mut envoy = bootstrap.spawn(on_its_own(&artifacts::envoy()), directory.path())?;
        let plain = bootstrap.port(Arm::PLAIN).context("no plain listener")?;
        Connection::when_ready(plain, Arm::PLAIN, &mut envoy)?;
        let (mut proxy, proxy_port) = reverse_proxy(materials, directory.path())?;
        Connection::when_ready(proxy_port, Arm::PLAIN, &mut proxy)?;
        let native = Self {
            bootstrap,
            worker: worker(envoy.pid())?,
            proxy,
            proxy_port,
            _envoy: envoy,
            _directory: directory,
        };
        keep_to(LOAD)?;
        Ok(native)
    }

    /// A connection for an arm's requests.
    pub(crate) fn connect(&self, arm: Arm) -> anyhow::Result<Connection> {
        Connection::open(self.bootstrap.port(arm).unwrap_or(self.proxy_port), arm)
    }

    /// What the reverse proxy was built with, which it says when it begins.
    pub(crate) fn go_version(&self) -> String {
        self.proxy.stdout().trim().to_owned()
    }

    /// How many nanoseconds what answers an arm's requests has run so far.
    pub(crate) fn nanoseconds(&self, arm: Arm) -> anyhow::Result<u64> {
        match arm.listener {
            Listener::ReverseProxy(_) => tasks(self.proxy.pid())?
                .iter()
                .map(|task| ran(&task.join("schedstat")))
                .sum(),
            _ => ran(&self.worker),
        }
    }
}

/// Starts the Go program with as many threads at work as Envoy has workers.
fn reverse_proxy(materials: &Materials, directory: &Path) -> anyhow::Result<(Process, u16)> {
    let program = artifacts::workspace().join(".tools/reverseproxy/reverseproxy");
    ensure!(
        program.is_file(),
        "no reverse proxy: run scripts/install-tools reverseproxy"
    );
    let rules = directory.join("rules");
    fs::write(&rules, Sandboxes(MAIN_SIZE).lines())?;
    let port = free_port();
    let mut command = on_its_own(&program);
    command.arg("-rules").arg(rules).env("GOMAXPROCS", "1");
    for (flag, value) in [
        ("-listen", format!("127.0.0.1:{port}")),
        ("-baseline", materials.baseline.to_string()),
        ("-sandbox", materials.sandbox.to_string()),
    ] {
        command.args([flag, &value]);
    }
    Ok((Process::spawn("reverse proxy", &mut command), port))
}

/// `program` on the processor that is for it alone.
fn on_its_own(program: &Path) -> Command {
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", &MEASURED.to_string()]).arg(program);
    command
}

/// Keeps all threads of this program to one processor, also those that they start.
fn keep_to(cpu: usize) -> anyhow::Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(cpu);
    for task in tasks(rustix::process::getpid())? {
        let id = task
            .file_name()
            .and_then(|name| name.to_str()?.parse().ok())
            .and_then(Pid::from_raw);
        // A thread may have ended since.
        let _ = sched_setaffinity(Some(id.context("a thread's id is a number")?), &cpus);
    }
    Ok(())
}

/// The threads of a process, as directories in /proc.
pub(crate) fn tasks(process: Pid) -> anyhow::Result<Vec<PathBuf>> {
    let directory = fs::read_dir(format!("/proc/{}/task", process.as_raw_pid()))?;
    directory.map(|task| Ok(task?.path())).collect()
}

fn worker(envoy: Pid) -> anyhow::Result<PathBuf> {
    let is_worker =
        |task: &PathBuf| fs::read_to_string(task.join("comm")).is_ok_and(|name| name.starts_with("wrk:worker_0"));
    let worker = tasks(envoy)?.into_iter().find(is_worker);
    Ok(worker.context("Envoy has no worker")?.join("schedstat"))
}

/// The first number in a schedstat: nanoseconds on a processor.
pub(crate) fn ran(schedstat: &Path) -> anyhow::Result<u64> {
    let text = fs::read_to_string(schedstat)?;
    text.split(' ')
        .next()
        .and_then(|number| number.parse().ok())
        .with_context(|| format!("{schedstat:?}: {text}"))
}
