//! Waiting until every proxy has a change.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;
use tokio::time::timeout;

use crate::status::Status;

/// A proxy that hasn't what is waited for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Waiting {
    /// Its node id.
    node: String,
    /// Why: what it refuses, or hasn't asked for or answered yet, by type and name.
    reason: String,
}

/// Waits until every connected proxy has accepted `revision`, or one refuses it, or `limit` is over. Who hasn't it then.
pub(super) async fn until_in_force(status: &Status, revision: u64, limit: Duration) -> Vec<Waiting> {
    let proxies = status.proxies();
    let mut changes = proxies.changed();
    let settled = async {
        loop {
            changes.borrow_and_update();
            if status.behind(revision).is_empty() || proxies.is_refused(revision) || changes.changed().await.is_err() {
                return;
            }
        }
    };
    let _ = timeout(limit, settled).await;
    let behind = status.behind(revision).into_iter();
    behind.map(|(node, reason)| Waiting { node, reason }).collect()
}
