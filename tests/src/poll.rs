//! Waiting for something to become true.

use std::time::{Duration, Instant};

/// How long anything may take that has no deadline of its own: generous, for a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

const PAUSE: Duration = Duration::from_millis(5);

/// Asks `attempt` until it answers `Ok`, and returns that.
///
/// # Panics
/// If that takes longer than `deadline`: with `what` was waited for and the last `Err`, which says why not yet.
#[track_caller]
pub fn poll_until<T>(
    deadline: Duration,
    what: &str,
    mut attempt: impl AsyncFnMut() -> Result<T, String>,
) -> impl Future<Output = T> {
    let caller = std::panic::Location::caller();
    async move {
        let end = Instant::now() + deadline;
        let mut last = "nothing was tried".to_owned();
        loop {
            match tokio::time::timeout_at(end.into(), attempt()).await {
                Ok(Ok(value)) => return value,
                Ok(Err(reason)) => last = reason,
                Err(_) => {}
            }
            assert!(
                Instant::now() < end,
                "{caller}: not within {deadline:?}: {what}: {last}"
            );
            tokio::time::sleep(PAUSE).await;
        }
    }
}
