//! The protocol state of one aggregated stream, state of the world, without the stream.
//!
//! Requests and snapshots go in, at most one push comes out of each. The rules, from the xDS protocol and from how Envoy
//! was seen to behave:
//!
//! - Types are pushed in the order of [`ResourceType::ALL`], each once the ones before it are ACKed. So clusters and
//!   their endpoints are there before the table that names them. Only endpoints may overtake the ACK of clusters: Envoy
//!   asks for the endpoints of a new cluster first, and ACKs clusters when it has them.
//! - What a new snapshot no longer has stays in the pushes until everything that could name it is ACKed in its new
//!   form. Then it goes, in one more push.
//! - Of a type one push is under way at a time. Snapshots that come meanwhile wait, and only the newest counts.
//! - After a NACK nothing is pushed until the content of that type changes.
//! - Equal content is no push: versions are hashes of content. A proxy that comes back and names a version it has is
//!   believed.
//! - A cluster that changed waits for its endpoints, even if they are the same. So endpoints follow such clusters.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::render::{Resource, ResourceSet, ResourceType, Snapshot, version};

/// What a proxy says about one type.
#[derive(Clone, Debug, Default)]
pub(super) struct Request {
    /// The version it has, empty if none.
    pub(super) version: String,
    /// The push it answers, empty if none.
    pub(super) nonce: String,
    /// The names it wants; none at all means every name there is.
    pub(super) names: Vec<String>,
    /// Why it refuses the push it answers.
    pub(super) error: Option<String>,
}

/// What to send.
#[derive(Clone, Debug)]
pub(super) struct Push {
    pub(super) kind: ResourceType,
    pub(super) version: String,
    pub(super) nonce: String,
    pub(super) resources: Vec<Arc<Resource>>,
}

/// What one proxy has, wants and was sent.
#[derive(Debug, Default)]
pub(super) struct Stream {
    snapshot: Option<Arc<Snapshot>>,
    /// What the proxy may still use although the snapshot has it no more.
    held: [ResourceSet; ResourceType::ALL.len()],
    types: [Type; ResourceType::ALL.len()],
    pushes: u64,
}

#[derive(Debug, Default)]
struct Type {
    /// `None` until the proxy asks for this type.
    subscription: Option<Subscription>,
    /// The version of the push that isn't answered yet.
    under_way: Option<String>,
    /// The nonce of the last push, and what was in it.
    nonce: String,
    sent: Vec<Arc<Resource>>,
    accepted: Option<String>,
    refused: Option<String>,
}

#[derive(Debug, PartialEq, Eq)]
enum Subscription {
    All,
    Names(BTreeSet<String>),
}

/// How a proxy stands to the snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It has accepted all of it.
    InForce,
    /// It hasn't answered everything yet.
    Pending,
    /// It has refused a part of it.
    Refused,
}

impl Stream {
    /// The proxy asks, accepts or refuses.
    pub(super) fn request(&mut self, kind: ResourceType, request: Request) -> Option<Push> {
        let state = &mut self.types[kind as usize];
        if request.nonce.is_empty() {
            // The first request of this type on this stream. It may know a version from an earlier stream.
            state.accepted = Some(request.version).filter(|version| !version.is_empty());
        } else if request.nonce != state.nonce {
            // It answers a push that another has followed; its answer to that one is on the way.
            return None;
        } else if let Some(version) = state.under_way.take() {
            match request.error {
                Some(_) => state.refused = Some(version),
                None => {
                    state.accepted = Some(version);
                    state.refused = None;
                }
            }
        }
        let state = &mut self.types[kind as usize];
        state.subscribe(kind, request.names);
        self.next()
    }

    /// There is a new snapshot.
    pub(super) fn snapshot(&mut self, snapshot: Arc<Snapshot>) -> Option<Push> {
        for kind in ResourceType::ALL {
            // What the proxy refused it doesn't use.
            if let Some(old) = self.snapshot.as_ref().filter(|_| !self.is_refused(kind)) {
                let old = old
                    .resources(kind)
                    .iter()
                    .map(|(name, resource)| (name.clone(), Arc::clone(resource)));
                self.held[kind as usize].extend(old);
            }
        }
        self.snapshot = Some(snapshot);
        self.next()
    }

    /// How the proxy stands to the newest snapshot.
    pub(super) fn standing(&self) -> Standing {
        if ResourceType::ALL.into_iter().any(|kind| self.is_refused(kind)) {
            Standing::Refused
        } else if self.has_all() && self.types.iter().any(|state| state.accepted.is_some()) {
            Standing::InForce
        } else {
            Standing::Pending
        }
    }

    fn next(&mut self) -> Option<Push> {
        self.snapshot.as_ref()?;
        if let Some(push) = self.next_of_held_and_new() {
            return Some(push);
        }
        if self.held.iter().all(ResourceSet::is_empty) || !self.has_all() {
            return None;
        }
        // Nothing names what was held any more.
        self.held = Default::default();
        self.next_of_held_and_new()
    }

    fn next_of_held_and_new(&mut self) -> Option<Push> {
        for kind in ResourceType::ALL {
            if kind == ResourceType::FilterConfig && self.types[ResourceType::Cluster as usize].subscription.is_none() {
                return None;
            }
            let state = &self.types[kind as usize];
            if let Some((version, resources)) = self.content(kind).filter(|_| state.under_way.is_none()) {
                if state.refused.as_ref() == Some(&version) {
                    return None;
                }
                if state.accepted.as_ref() != Some(&version) {
                    return Some(self.push(kind, version, resources));
                }
            }
            // Endpoints may overtake clusters, which aren't ACKed without them. All else waits for what comes before it.
            if kind != ResourceType::Cluster && (!self.clusters_are_there() || state.under_way.is_some()) {
                return None;
            }
        }
        None
    }

    fn push(&mut self, kind: ResourceType, version: String, resources: Vec<Arc<Resource>>) -> Push {
        if kind == ResourceType::Cluster && self.changes_a_cluster_with_endpoints(&resources) {
            self.types[ResourceType::Endpoints as usize].accepted = None;
        }
        self.pushes += 1;
        let nonce = self.pushes.to_string();
        let state = &mut self.types[kind as usize];
        state.nonce.clone_from(&nonce);
        state.under_way = Some(version.clone());
        state.sent.clone_from(&resources);
        Push {
            kind,
            version,
            nonce,
            resources,
        }
    }

    fn changes_a_cluster_with_endpoints(&self, clusters: &[Arc<Resource>]) -> bool {
        let sent = &self.types[ResourceType::Cluster as usize].sent;
        let sent: BTreeMap<&str, u64> = sent
            .iter()
            .map(|cluster| (cluster.name.as_str(), cluster.hash))
            .collect();
        let changed = |cluster: &Arc<Resource>| {
            sent.get(cluster.name.as_str())
                .is_some_and(|hash| *hash != cluster.hash)
        };
        clusters.iter().any(|cluster| cluster.has_endpoints && changed(cluster))
    }

    /// Whether the proxy has accepted the snapshot, and what is held.
    fn has_all(&self) -> bool {
        let has = |kind| {
            self.content(kind)
                .is_none_or(|(version, _)| self.types[kind as usize].accepted == Some(version))
        };
        self.clusters_are_there() && self.secrets_are_asked_for() && ResourceType::ALL.into_iter().all(has)
    }

    /// A proxy that has got a listener with TLS asks for the certificate then. One with listeners of its own doesn't.
    fn secrets_are_asked_for(&self) -> bool {
        let has_listeners = self.types[ResourceType::Listener as usize].subscription.is_some();
        let secrets = self
            .snapshot
            .iter()
            .flat_map(|snapshot| snapshot.resources(ResourceType::Secret).keys());
        let subscription = self.types[ResourceType::Secret as usize].subscription.as_ref();
        let is_asked_for = |name: &String| subscription.is_some_and(|subscription| subscription.has(name));
        !has_listeners || { secrets }.all(is_asked_for)
    }

    /// Whether no clusters are under way and the proxy has asked for the endpoints of all it has.
    fn clusters_are_there(&self) -> bool {
        let endpoints = self.types[ResourceType::Endpoints as usize].subscription.as_ref();
        let clusters = self.selected(ResourceType::Cluster).unwrap_or_default();
        let mut wanted = clusters.iter().filter(|(_, cluster)| cluster.has_endpoints);
        self.types[ResourceType::Cluster as usize].under_way.is_none()
            && wanted.all(|(name, _)| endpoints.is_some_and(|subscription| subscription.has(name)))
    }

    /// Whether the proxy has refused what it is to have of this type.
    fn is_refused(&self, kind: ResourceType) -> bool {
        let refused = &self.types[kind as usize].refused;
        refused.is_some() && *refused == self.content(kind).map(|(version, _)| version)
    }

    /// What the proxy is to have of this type, and its version; `None` if it doesn't ask for any.
    fn content(&self, kind: ResourceType) -> Option<(String, Vec<Arc<Resource>>)> {
        let resources: Vec<_> = self
            .selected(kind)?
            .into_iter()
            .map(|(_, resource)| Arc::clone(resource))
            .collect();
        Some((version(resources.iter().map(|resource| resource.hash)), resources))
    }

    /// The snapshot's resources of this type and those held, of the names the proxy asks for, in order.
    fn selected(&self, kind: ResourceType) -> Option<Vec<(&String, &Arc<Resource>)>> {
        let subscription = self.types[kind as usize].subscription.as_ref()?;
        let new = self.snapshot.as_ref()?.resources(kind);
        let held = self.held[kind as usize]
            .iter()
            .filter(|(name, _)| !new.contains_key(*name));
        let mut selected: Vec<_> = new
            .iter()
            .chain(held)
            .filter(|(name, _)| subscription.has(name))
            .collect();
        selected.sort_unstable_by_key(|(name, _)| *name);
        Some(selected)
    }
}

impl Type {
    /// Only clusters and listeners are ever asked for without names (xDS protocol, "How the client specifies what
    /// resources to return"), and only by a proxy that hasn't named any before.
    fn subscribe(&mut self, kind: ResourceType, names: Vec<String>) {
        let wildcard = matches!(kind, ResourceType::Cluster | ResourceType::Listener);
        let named_before = matches!(self.subscription, Some(Subscription::Names(_)));
        let all = names.is_empty() && !named_before || names.iter().any(|name| name == "*");
        self.subscription = Some(match wildcard && all {
            true => Subscription::All,
            false => Subscription::Names(names.into_iter().collect()),
        });
    }
}

impl Subscription {
    fn has(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Names(names) => names.contains(name),
        }
    }
}

#[cfg(test)]
#[path = "stream_tests.rs"]
mod tests;
