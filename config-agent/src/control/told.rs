//! What the log tells of changes.

use tracing::info;

use super::View;
use crate::rules::{Change, Prepared};

/// Of a batch with more changes there is one line in the log.
const LOGGED_CHANGES: usize = 16;

/// A change as the log tells it.
pub(super) struct Told {
    what: &'static str,
    pub(super) key: Option<String>,
    rules: usize,
}

impl Told {
    pub(super) fn of(change: &Change) -> Self {
        let count = |prepared: &Prepared| prepared.keys.values().map(|rules| rules.valid().len()).sum();
        match change {
            Change::Put(prepared) => Self {
                what: "rules of a key put",
                key: prepared.keys.keys().next().map(ToString::to_string),
                rules: count(prepared),
            },
            Change::Replace(prepared) => Self {
                what: "all rules of the API replaced",
                key: None,
                rules: count(prepared),
            },
            Change::Delete(key) => Self {
                what: "rules of a key removed",
                key: Some(key.clone()),
                rules: 0,
            },
        }
    }
}

/// One line for each change, now that they are in force as in `view`.
pub(super) fn log(told: &[Told], view: &View) {
    let (revision, version, all) = (view.snapshots.revision(), view.snapshots.version(), view.rules.len());
    if told.len() > LOGGED_CHANGES {
        info!(
            source = "api",
            changes = told.len(),
            revision,
            version,
            all,
            "rules changed"
        );
        return;
    }
    for Told { what, key, rules } in told {
        info!(source = "api", key, rules, revision, version, all, "{what}");
    }
}
