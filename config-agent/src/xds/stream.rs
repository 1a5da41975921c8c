//! The protocol state of one aggregated stream, state of the world or delta, without the stream.
//!
//! Requests and snapshots go in; then [`Stream::next`] says what is to be sent, until that is nothing. The rules, from the
//! xDS protocol and from how Envoy was seen to behave:
//!
//! - Types are pushed in the order of [`ResourceType::ALL`], each once the ones before it are ACKed. So clusters and
//!   their endpoints are there before the table that names them. Only endpoints may overtake the ACK of clusters: Envoy
//!   asks for the endpoints of a new cluster first, and ACKs clusters when it has them.
//! - What a new snapshot no longer has stays until everything that could name it is ACKed in its new form. Then it goes, in
//!   one more push. The same is true of what a proxy brings with it that nobody here knows. A cluster that a proxy asks for
//!   by name stays until it asks no more.
//! - Of a type one push is under way at a time. Snapshots that come while one is on its way to the proxy wait until it is in
//!   force there, or refused, or until the proxy must ask first; then only the newest counts. So changes that never end don't
//!   keep a proxy from ever having one whole.
//! - After a NACK nothing is pushed until the content of that type changes; then everything of the refused push is sent
//!   again. A proxy that asks meanwhile gets what it asks for, unless that could name refused clusters.
//! - Equal content is no push: versions are hashes of content. A proxy that comes back and names a version it has is
//!   believed.
//! - A cluster that changed waits for its endpoints, even if they are the same. So endpoints follow such clusters.

mod missing;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::request::{Ask, MAX_NAMES};
use super::response::Push;
use super::state::{Answer, Due, TypeState, Variant};
use super::subscription::{Changes, Subscription};
use crate::render::{ResourceSet, ResourceType};

pub(super) use missing::Missing;

/// A configuration, as it is for this proxy.
#[derive(Clone, Debug)]
pub(super) struct Offer {
    /// Its number: a later one is greater.
    pub(super) revision: u64,
    /// Its version.
    pub(super) version: Arc<str>,
    /// The resources of each type.
    pub(super) resources: [ResourceSet; ResourceType::ALL.len()],
}

/// What one proxy has, wants and was sent.
#[derive(Debug)]
pub(super) struct Stream {
    types: [TypeState; ResourceType::ALL.len()],
    /// Clusters that the proxy has or was sent, and whose endpoints it hasn't asked for yet; whether it was sent them.
    awaited: BTreeMap<Arc<str>, bool>,
    /// What the proxy is brought to.
    offer: Option<Offer>,
    /// What comes after it.
    next_offer: Option<Offer>,
    /// What it has as a whole.
    in_force: Option<Offer>,
    pushes: u64,
}

/// How a proxy stands to the newest snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It has accepted all of it.
    InForce,
    /// It hasn't answered everything yet.
    Pending,
    /// It has refused a part of it.
    Refused,
}

/// How far a proxy is with what it is brought to.
enum Progress {
    /// This is due.
    Push(ResourceType, Due),
    /// An answer or a request must come first, or another snapshot.
    Waits,
    /// It has all that it asked for.
    HasAll,
}

/// There are too many names in a stream's subscriptions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooManyNames;

impl Stream {
    pub(super) fn new(variant: Variant) -> Self {
        Self {
            types: ResourceType::ALL.map(|kind| TypeState::new(kind, variant)),
            awaited: BTreeMap::new(),
            offer: None,
            next_offer: None,
            in_force: None,
            pushes: 0,
        }
    }

    /// The proxy accepts, refuses, asks.
    pub(super) fn request(
        &mut self,
        kind: ResourceType,
        nonce: &str,
        is_refusal: bool,
        ask: Ask,
    ) -> Result<Answer, TooManyNames> {
        let state = &mut self.types[kind as usize];
        let is_first = !state.is_subscribed();
        let mut clusters = Vec::new();
        if is_refusal && kind == ResourceType::Cluster {
            clusters.extend(state.names_under_way().into_iter().chain(self.awaited.keys().cloned()));
        }
        let answer = state.answer(nonce, is_refusal);
        let changes = state.ask(nonce, ask);
        self.await_endpoints(clusters, false);
        self.note(kind, is_first, changes);
        let subscriptions = self.types.iter().filter_map(TypeState::subscription);
        match subscriptions.map(Subscription::len).sum::<usize>() > MAX_NAMES {
            true => Err(TooManyNames),
            false => Ok(answer),
        }
    }

    fn note(&mut self, kind: ResourceType, is_first: bool, changes: Changes) {
        match kind {
            ResourceType::Cluster if is_first => {
                // It may have brought clusters with it.
                let state = self.state(kind);
                let brought = state.sent().iter().filter(|cluster| cluster.has_endpoints);
                let brought: Vec<_> = brought.map(|cluster| Arc::clone(&cluster.name)).collect();
                self.await_endpoints(brought, false);
            }
            ResourceType::Cluster => self.await_endpoints(changes.dropped, false),
            ResourceType::Endpoints => {
                for name in changes.asked {
                    // One that was sent waits for its endpoints, even if the proxy has had them.
                    if self.awaited.remove(&name) == Some(true) {
                        self.types[kind as usize].tell(&name);
                    }
                }
                self.await_endpoints(changes.dropped, false);
            }
            _ => {}
        }
    }

    /// There is a new snapshot.
    pub(super) fn offer(&mut self, offer: Offer) {
        self.next_offer = Some(offer);
        if self.offer.is_none() {
            self.begin(false);
        }
    }

    /// What is to be sent now, if anything. To be asked until it is nothing.
    pub(super) fn next(&mut self) -> Option<Push> {
        loop {
            let progress = self.progress();
            if let Progress::Push(kind, due) = progress {
                return Some(self.push(kind, due));
            }
            let has_all = matches!(progress, Progress::HasAll);
            if has_all && self.unasked().is_none() {
                self.in_force.clone_from(&self.offer);
            }
            let is_in_force = self.is_in_force();
            if self.next_offer.is_some() && (is_in_force || !self.types.iter().any(TypeState::is_under_way)) {
                self.begin(is_in_force);
            } else if !(is_in_force && has_all && self.release()) {
                return None;
            }
        }
    }

    /// How the proxy stands to the newest snapshot.
    pub(super) fn standing(&self) -> Standing {
        if self.types.iter().any(TypeState::is_refused) {
            Standing::Refused
        } else if self.next_offer.is_none() && self.is_in_force() {
            Standing::InForce
        } else {
            Standing::Pending
        }
    }

    /// What the proxy is being brought to.
    pub(super) fn offered(&self) -> Option<&Offer> {
        self.offer.as_ref()
    }

    /// The last one that the proxy had as a whole.
    pub(super) fn in_force(&self) -> Option<&Offer> {
        self.in_force.as_ref()
    }

    fn is_in_force(&self) -> bool {
        let revision = |offer: &Option<Offer>| offer.as_ref().map(|offer| offer.revision);
        self.offer.is_some() && revision(&self.in_force) == revision(&self.offer)
    }

    fn state(&self, kind: ResourceType) -> &TypeState {
        &self.types[kind as usize]
    }

    fn progress(&mut self) -> Progress {
        if self.offer.is_none() {
            return Progress::Waits;
        }
        let mut may_only_ask = false;
        for kind in ResourceType::ALL {
            // A proxy that doesn't take clusters from here couldn't follow the table.
            let has_clusters = self.state(ResourceType::Cluster).is_subscribed();
            if kind == ResourceType::FilterConfig && self.state(kind).is_subscribed() && !has_clusters {
                return Progress::Waits;
            }
            if let Some(due) = self.types[kind as usize].due(may_only_ask) {
                return Progress::Push(kind, due);
            }
            let (is_under_way, is_refused) = (self.state(kind).is_under_way(), self.state(kind).is_refused());
            match kind {
                // Endpoints may overtake clusters, which aren't ACKed without them. All else waits for what comes before it.
                ResourceType::Cluster => {}
                ResourceType::Endpoints => {
                    let clusters = self.state(ResourceType::Cluster);
                    let are_there = !clusters.is_under_way() && !clusters.is_refused() && self.awaited.is_empty();
                    if !are_there || is_under_way || is_refused {
                        return Progress::Waits;
                    }
                }
                _ if is_under_way => return Progress::Waits,
                _ => may_only_ask |= is_refused,
            }
        }
        match may_only_ask {
            true => Progress::Waits,
            false => Progress::HasAll,
        }
    }

    fn push(&mut self, kind: ResourceType, due: Due) -> Push {
        self.pushes += 1;
        let push = self.types[kind as usize].push(due, self.pushes.to_string());
        if kind == ResourceType::Cluster {
            let names: Vec<_> = self.state(kind).names_under_way().into_iter().collect();
            for name in &names {
                let cluster = self.state(kind).target().get(name);
                let has_endpoints = cluster.is_some_and(|cluster| cluster.has_endpoints);
                let endpoints = &mut self.types[ResourceType::Endpoints as usize];
                if has_endpoints && endpoints.wants(name) {
                    endpoints.tell(name);
                }
            }
            self.await_endpoints(names, true);
        }
        push
    }

    /// Looks again whether the proxy must ask for the endpoints of these clusters.
    fn await_endpoints(&mut self, names: Vec<Arc<str>>, are_sent: bool) {
        for name in names {
            let (clusters, endpoints) = (self.state(ResourceType::Cluster), self.state(ResourceType::Endpoints));
            let cluster = clusters.sent().get(&name).filter(|_| clusters.wants(&name));
            if cluster.is_some_and(|cluster| cluster.has_endpoints) && !endpoints.wants(&name) {
                *self.awaited.entry(name).or_default() |= are_sent;
            } else {
                self.awaited.remove(&name);
            }
        }
    }

    /// Goes on to the next snapshot; nothing names what was held any more, if the one before `is_in_force`.
    fn begin(&mut self, is_in_force: bool) {
        self.offer = self.next_offer.take();
        let Some(Offer { resources, .. }) = self.offer.clone() else {
            return;
        };
        for (kind, resources) in ResourceType::ALL.into_iter().zip(resources) {
            let released = match is_in_force {
                true => self.state(kind).releasable(),
                false => BTreeSet::new(),
            };
            // A cluster that is held may still need its endpoints.
            let clusters: Vec<_> = match kind {
                ResourceType::Endpoints => self.state(ResourceType::Cluster).held().iter().cloned().collect(),
                _ => Vec::new(),
            };
            self.types[kind as usize].want(resources, &released, &clusters);
        }
    }

    /// Gives up what is held: clusters before their endpoints, which Envoy drops by itself then. Whether there was anything.
    fn release(&mut self) -> bool {
        let mut was_held = false;
        for kind in ResourceType::ALL
            .into_iter()
            .filter(|kind| *kind != ResourceType::Endpoints)
        {
            was_held |= self.types[kind as usize].release();
        }
        was_held || self.types[ResourceType::Endpoints as usize].release()
    }
}

#[cfg(test)]
#[path = "stream_tests.rs"]
mod tests;
