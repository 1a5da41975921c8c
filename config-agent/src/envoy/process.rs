//! The process.

use std::future::Future;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use super::admin::Admin;
use super::find::EnvoyCommand;

/// How long requests under way may take when Envoy is stopped.
const DRAIN_TIME: Duration = Duration::from_secs(30);

/// How long Envoy may take to exit after that.
const EXIT_TIME: Duration = Duration::from_secs(5);

/// A running Envoy. It is killed when this is dropped.
#[derive(Debug)]
pub struct Envoy {
    child: Child,
    admin: Admin,
}

impl Envoy {
    /// Starts `command` with the bootstrap file, in a process group of its own: a Ctrl-C in the terminal is for us, and we
    /// stop Envoy gently.
    ///
    /// # Errors
    ///
    /// The program can't be started.
    pub fn start(command: &EnvoyCommand, bootstrap: &Path, log_level: &str, admin: Admin) -> anyhow::Result<Self> {
        let child = Command::new(&command.program)
            .args(command.is_func_e.then_some("run"))
            .arg("-c")
            .arg(bootstrap)
            .args(["--log-level", log_level])
            // The access log's buffer is written out that often; by default every ten seconds.
            .args(["--file-flush-interval-msec", "1000"])
            // Hot restart would share memory with any other Envoy on this machine.
            .arg("--disable-hot-restart")
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{} can't be started", command.program.display()))?;
        Ok(Self { child, admin })
    }

    /// The process id, while it runs.
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Waits until it exits by itself.
    ///
    /// # Errors
    ///
    /// The system can't tell.
    pub async fn exited(&mut self) -> std::io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Passes a signal on.
    pub fn signal(&self, signal: Signal) {
        let pid = self
            .child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .and_then(Pid::from_raw);
        if let Some(error) = pid.and_then(|pid| kill_process(pid, signal).err()) {
            warn!(%error, "Envoy can't be signalled");
        }
    }

    /// Stops it: no new connections, requests under way are finished, then it exits. `hurry` cuts the wait short.
    pub async fn stop(&mut self, hurry: impl Future<Output = ()>) {
        tokio::select! {
            () = drain(self.admin) => {}
            () = hurry => info!("not waiting for requests under way"),
            _ = self.child.wait() => return,
        }
        self.signal(Signal::TERM);
        if timeout(EXIT_TIME, self.child.wait()).await.is_err() {
            warn!("Envoy doesn't exit, it is killed");
            let _ = self.child.kill().await;
        }
    }
}

async fn drain(admin: Admin) {
    if let Err(error) = admin.drain().await {
        warn!(%error, "requests under way can't be waited for");
        return;
    }
    let deadline = Instant::now() + DRAIN_TIME;
    let mut said = 0;
    loop {
        match admin.active_requests().await {
            Ok(0) | Err(_) => return,
            Ok(active) if Instant::now() >= deadline => {
                warn!(active, "requests are still under way, they are broken off");
                return;
            }
            Ok(active) if active != said => {
                info!(active, "waiting for requests under way");
                said = active;
            }
            Ok(_) => {}
        }
        sleep(Duration::from_millis(50)).await;
    }
}
