//! Who is connected, and how each one stands to the configuration in force.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

/// Names that were given once only, as those of pods are, aren't kept for ever.
const MAX_REFUSED: usize = 100;

/// A connected Envoy.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Proxy {
    /// Its node id.
    pub node: String,
    /// Which release of Envoy it is, if it says so.
    pub release: Option<String>,
    /// The version of the configuration that it has accepted as a whole, the last one.
    pub in_force: Option<String>,
    /// Why it refuses the newest snapshot, if it does.
    pub nack: Option<Nack>,
}

/// A refused push.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Nack {
    /// The version of the configuration it was a part of.
    pub version: String,
    /// The type of the resources: CDS, EDS, LDS, RDS, ECDS.
    pub resources: String,
    /// What Envoy says.
    pub message: String,
}

/// All connected Envoys. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    connected: Arc<Mutex<BTreeMap<u64, Proxy>>>,
    next: Arc<AtomicU64>,
    refused: Arc<Mutex<BTreeMap<String, String>>>,
}

/// A connected Envoy's entry, gone with it.
#[derive(Debug)]
pub(super) struct Entry {
    proxies: Proxies,
    id: u64,
}

impl Proxies {
    /// The connected Envoys, the longest connected first.
    pub fn list(&self) -> Vec<Proxy> {
        self.lock().values().cloned().collect()
    }

    /// The node ids of Envoys that were turned away and haven't come back fit, each with the reason.
    pub fn refused(&self) -> BTreeMap<String, String> {
        self.lock_refused().clone()
    }

    /// Notes that an Envoy is turned away; whether that is new. It will come again and again.
    pub(super) fn refuse(&self, node: &str, reason: &str) -> bool {
        let mut refused = self.lock_refused();
        if refused.get(node).is_some_and(|before| before == reason) {
            return false;
        }
        if refused.len() >= MAX_REFUSED {
            refused.clear();
        }
        refused.insert(node.to_owned(), reason.to_owned());
        true
    }

    pub(super) fn enter(&self, node: String, release: Option<String>) -> Entry {
        self.lock_refused().remove(&node);
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        self.lock().insert(
            id,
            Proxy {
                node,
                release,
                ..Proxy::default()
            },
        );
        Entry {
            proxies: self.clone(),
            id,
        }
    }

    fn lock_refused(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Proxy>> {
        self.connected.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    pub(super) fn update(&self, change: impl FnOnce(&mut Proxy)) {
        if let Some(proxy) = self.proxies.lock().get_mut(&self.id) {
            change(proxy);
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.proxies.lock().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_new_once_and_ends_when_the_envoy_is_fit() {
        let proxies = Proxies::default();
        for (reason, is_new) in [("old", true), ("old", false), ("without Wasm", true)] {
            assert_eq!(proxies.refuse("a", reason), is_new, "{reason}");
        }
        assert_eq!(proxies.refused(), [("a".to_owned(), "without Wasm".to_owned())].into());
        let _entry = proxies.enter("a".to_owned(), None);
        assert_eq!(proxies.refused(), BTreeMap::new());
    }

    #[test]
    fn refusals_are_bounded() {
        let proxies = Proxies::default();
        for node in 0..10 * MAX_REFUSED {
            proxies.refuse(&node.to_string(), "old");
        }
        assert!(proxies.refused().len() <= MAX_REFUSED);
    }
}
