//! How the agent is doing: what is in force, what was rejected, and who has what.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use sidetrack_routing::ValidConfig;
use tokio::sync::watch;
use tracing::{error, info};

use crate::render::Snapshots;
use crate::xds::{Nack, Proxies, Proxy};

/// The agent's state, to look at. Clones share it.
#[derive(Clone, Debug)]
pub struct Status {
    snapshots: watch::Receiver<Arc<Snapshots>>,
    proxies: Proxies,
    rejected: Arc<Mutex<Vec<String>>>,
    unkept: Arc<Mutex<Option<String>>>,
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
    /// Why the API's last change couldn't be kept, and so wasn't made.
    pub unkept: Option<String>,
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
            unkept: Arc::default(),
            own_envoy,
        }
    }

    /// Who is connected.
    pub fn proxies(&self) -> &Proxies {
        &self.proxies
    }

    /// The nodes of the proxies that don't have the configuration of this `revision` or a later one, each with the reason.
    /// The agent's own Envoy is one of them while it isn't connected.
    pub fn behind(&self, revision: u64) -> Vec<(String, String)> {
        let mut behind = self.proxies.waiting_for(revision);
        if let Some(own) = &self.own_envoy
            && !self.proxies.list(revision).iter().any(|proxy| proxy.node == own.node)
        {
            behind.push((own.node.clone(), "isn't connected".to_owned()));
        }
        behind
    }

    /// Notes what is wrong with the newest configuration; nothing, if it is in force.
    pub fn set_rejected(&self, problems: Vec<String>) {
        *self.rejected.lock().unwrap_or_else(PoisonError::into_inner) = problems;
    }

    /// Notes why the API's last change couldn't be kept; nothing, if it was.
    pub fn set_unkept(&self, problem: Option<String>) {
        let mut unkept = self.unkept.lock().unwrap_or_else(PoisonError::into_inner);
        match &problem {
            Some(problem) if unkept.as_ref() != Some(problem) => error!("{problem}"),
            None if unkept.is_some() => info!("the rules of the API can be kept again"),
            _ => {}
        }
        *unkept = problem;
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
            let found = self.proxies.list(0).into_iter().find(|proxy| proxy.node == own.node);
            found.and_then(nack)
        })
    }

    /// The configuration in force.
    pub fn config(&self) -> Arc<ValidConfig> {
        Arc::clone(self.snapshots.borrow().config())
    }

    /// The state now.
    pub fn report(&self) -> Report {
        let (revision, version, rules) = {
            let snapshots = self.snapshots.borrow();
            let rules = snapshots.config().routing.rules.len();
            (snapshots.revision(), snapshots.version().to_owned(), rules)
        };
        let proxies = self.proxies.list(revision);
        Report {
            waiting_for: self.waiting_for(revision, &proxies),
            rejected: self.rejected.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            unkept: self.unkept.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            version,
            rules,
            proxies,
            refused: self.proxies.refused(),
        }
    }

    fn waiting_for(&self, revision: u64, proxies: &[Proxy]) -> Option<String> {
        if let Some(own) = &self.own_envoy {
            if !proxies.iter().any(|proxy| proxy.node == own.node) {
                return Some(format!("Envoy {} isn't connected", own.node));
            }
            if !own.live.load(Ordering::Relaxed) {
                return Some(format!("Envoy {} is starting", own.node));
            }
        }
        let (node, reason) = self.proxies.waiting_for(revision).into_iter().next()?;
        Some(format!("Envoy {node} {reason}"))
    }
}

fn refusal(node: &str, nack: &Nack) -> String {
    format!("Envoy {node} refuses {}: {}", nack.resources, nack.message)
}
