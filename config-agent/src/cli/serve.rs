//! Running until a signal.

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Runs `work` on a runtime, with the signals that stop it.
pub(super) fn serve(work: impl AsyncFnOnce(Stop) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("no runtime")?;
    let result = runtime.block_on(async { work(Stop::new()?).await });
    // Streams of Envoys may be open; they end with the process.
    runtime.shutdown_background();
    result
}

/// The signals that stop a server: Ctrl-C, SIGTERM, and the terminal's end.
pub(super) struct Stop {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Stop {
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    pub(super) async fn signalled(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hang_up.recv() => {}
        }
    }
}

/// Runs `work`, a client of the agent, on this thread.
pub(super) fn ask(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("no runtime")?.block_on(work)
}
