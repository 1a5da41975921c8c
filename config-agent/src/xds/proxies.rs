//! Who is connected, and how each one stands to the configuration in force.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

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

    pub(super) fn enter(&self, node: String, release: Option<String>) -> Entry {
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
