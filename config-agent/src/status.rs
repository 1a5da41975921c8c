//! How the agent is doing: what is in force, what was rejected, and who has what.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use sidetrack_routing::ValidConfig;
use tokio::sync::watch;

use crate::render::Snapshots;
use crate::xds::{Nack, Proxies, Proxy};

/// The agent's state, to look at. Clones share it.
#[derive(Clone, Debug)]
pub struct Status {
    snapshots: watch::Receiver<Arc<Snapshots>>,
    proxies: Proxies,
    rejected: Arc<Mutex<Vec<String>>>,
    own_envoy: Option<OwnEnvoy>,
}

/// The Envoy that must be connected, where the agent has one of its own.
#[derive(Clone, Debug)]
struct OwnEnvoy {
    node: String,
    live: Arc<AtomicBool>,
}

/// The state at one moment.
#[derive(Clone, Debug)]
pub struct Report {
    /// The version of the configuration in force.
    pub version: String,
    /// How many rules it has.
    pub rules: usize,
    /// Why Envoys don't serve it yet, if one doesn't.
    pub waiting_for: Option<String>,
    /// What is wrong with the newest configuration, if it was rejected.
    pub rejected: Vec<String>,
    /// The connected Envoys.
    pub proxies: Vec<Proxy>,
    /// The node ids of those that were turned away, each with the reason.
    pub refused: BTreeMap<String, String>,
}

impl Status {
    /// The state behind `snapshots` and `proxies`; with `own_envoy`, only ready when the Envoy of this node id is.
    pub fn new(snapshots: watch::Receiver<Arc<Snapshots>>, proxies: Proxies, own_envoy: Option<String>) -> Self {
        let own_envoy = own_envoy.map(|node| OwnEnvoy {
            node,
            live: Arc::default(),
        });
        Self {
            snapshots,
            proxies,
            rejected: Arc::default(),
            own_envoy,
        }
    }

    /// Notes what is wrong with the newest configuration; nothing, if it is in force.
    pub fn set_rejected(&self, problems: Vec<String>) {
        *self.rejected.lock().unwrap_or_else(PoisonError::into_inner) = problems;
    }

    /// Notes that the agent's own Envoy has its listeners open.
    pub fn set_own_envoy_live(&self) {
        if let Some(own) = &self.own_envoy {
            own.live.store(true, Ordering::Relaxed);
        }
    }

    /// Why the agent has turned its own Envoy away, or why that refuses what it is to start with.
    pub fn own_envoy_refused(&self) -> Option<String> {
        let own = self.own_envoy.as_ref()?;
        let nack = |proxy: Proxy| Some(refusal(&proxy.node, proxy.nack.as_ref()?));
        self.proxies.refused().remove(&own.node).or_else(|| {
            let found = self.proxies.list().into_iter().find(|proxy| proxy.node == own.node);
            found.and_then(nack)
        })
    }

    /// The configuration in force.
    pub fn config(&self) -> ValidConfig {
        self.snapshots.borrow().config().clone()
    }

    /// The state now.
    pub fn report(&self) -> Report {
        let (version, rules) = {
            let snapshots = self.snapshots.borrow();
            (snapshots.version().to_owned(), snapshots.config().routing.rules.len())
        };
        let proxies = self.proxies.list();
        Report {
            waiting_for: self.waiting_for(&version, &proxies),
            rejected: self.rejected.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            version,
            rules,
            proxies,
            refused: self.proxies.refused(),
        }
    }

    fn waiting_for(&self, version: &str, proxies: &[Proxy]) -> Option<String> {
        if let Some(own) = &self.own_envoy {
            if !proxies.iter().any(|proxy| proxy.node == own.node) {
                return Some(format!("Envoy {} isn't connected", own.node));
            }
            if !own.live.load(Ordering::Relaxed) {
                return Some(format!("Envoy {} is starting", own.node));
            }
        }
        // Envoy may refuse a part after it has accepted all it had asked for until then.
        let is_behind = |proxy: &&Proxy| {
            let refuses = proxy.nack.as_ref().is_some_and(|nack| nack.version == version);
            refuses || proxy.in_force.as_deref() != Some(version)
        };
        let behind = proxies.iter().find(is_behind)?;
        Some(match &behind.nack {
            Some(nack) => refusal(&behind.node, nack),
            None => format!("Envoy {} hasn't accepted version {version} yet", behind.node),
        })
    }
}

fn refusal(node: &str, nack: &Nack) -> String {
    format!("Envoy {node} refuses {}: {}", nack.resources, nack.message)
}
