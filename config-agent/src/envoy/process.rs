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

use super::admin::{Active, Admin};
use super::find::EnvoyCommand;

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

    /// Stops it: no new connections, requests under way are finished for at most `drain_time`, then it exits, which closes
    /// the connections that are left. `hurry` cuts the wait short.
    pub async fn stop(&mut self, drain_time: Duration, hurry: impl Future<Output = ()>) {
        tokio::select! {
            () = drain(self.admin, drain_time) => {}
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

/// WebSockets aren't waited for: they end when one side wants, which may be never.
async fn drain(admin: Admin, time: Duration) {
    if let Err(error) = admin.drain().await {
        warn!(%error, "requests under way can't be waited for");
        return;
    }
    let deadline = Instant::now() + time;
    let mut said = 0;
    loop {
        match admin.active().await {
            Err(_) => return,
            Ok(Active { requests: 0, upgraded }) => {
                if upgraded > 0 {
                    info!(upgraded, "WebSockets are closed");
                }
                return;
            }
            Ok(Active { requests, .. }) if Instant::now() >= deadline => {
                warn!(requests, "requests are still under way, they are broken off");
                return;
            }
            Ok(Active { requests, .. }) if requests != said => {
                info!(requests, "waiting for requests under way");
                said = requests;
            }
            Ok(_) => {}
        }
        sleep(Duration::from_millis(50)).await;
    }
}
