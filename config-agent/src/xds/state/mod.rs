//! What one proxy has, wants and was sent of one type.
//!
//! Nothing here costs more than what changed: the sets share what they have in common, and telling two of them apart looks
//! only at what they don't share.

mod ask;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use twox_hash::XxHash64;

use super::response::Push;
use super::subscription::{Subscription, has_wildcard};
use crate::render::{Resource, ResourceSet, ResourceType, version};

/// Which of the protocol's two forms a stream speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Variant {
    /// A push of clusters or listeners says all there is.
    StateOfTheWorld,
    /// A push says what is different.
    Delta,
}

#[derive(Debug)]
pub(super) struct TypeState {
    kind: ResourceType,
    variant: Variant,
    /// `None` until the proxy asks for this type.
    subscription: Option<Subscription>,
    /// The snapshot's.
    wanted: ResourceSet,
    /// What the proxy is to have: the snapshot's, and what is held.
    target: ResourceSet,
    /// What the proxy may still use although the snapshot has it no more.
    held: BTreeSet<Arc<str>>,
    /// What it has, `unsure` and `asked` aside, and as far as it wants it.
    has: ResourceSet,
    /// Names of a refused push: which of them it has isn't known.
    unsure: BTreeSet<Arc<str>>,
    /// Names that it is to be told about, even if it has them.
    asked: BTreeSet<Arc<str>>,
    /// It has asked for everything and is to be told even if that is nothing.
    is_unanswered: bool,
    under_way: Option<UnderWay>,
    /// What it was to have when it refused a push.
    refused: Option<ResourceSet>,
    /// The nonce of the last push.
    nonce: String,
}

/// A push that isn't answered yet.
#[derive(Debug)]
struct UnderWay {
    target: ResourceSet,
    /// The names of which wasn't known what the proxy has. The others are those that changed.
    unsure: BTreeSet<Arc<str>>,
    /// Whether the proxy has all of the target then.
    is_whole: bool,
}

/// What a push is for.
#[derive(Clone, Debug)]
pub(super) struct Due {
    /// The names, and whether it is known what the proxy has of them.
    names: BTreeMap<Arc<str>, bool>,
    /// Whether the proxy has all of the target then.
    is_whole: bool,
}

/// What an answer was to the push that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It was none, or to an earlier push.
    None,
    Accepted,
    Refused,
}

impl TypeState {
    pub(super) fn new(kind: ResourceType, variant: Variant) -> Self {
        Self {
            kind,
            variant,
            subscription: None,
            wanted: ResourceSet::default(),
            target: ResourceSet::default(),
            held: BTreeSet::new(),
            has: ResourceSet::default(),
            unsure: BTreeSet::new(),
            asked: BTreeSet::new(),
            is_unanswered: false,
            under_way: None,
            refused: None,
            nonce: String::new(),
        }
    }

    pub(super) fn is_subscribed(&self) -> bool {
        self.subscription.is_some()
    }

    pub(super) fn subscription(&self) -> Option<&Subscription> {
        self.subscription.as_ref()
    }

    /// Whether the proxy wants the resource of this name.
    pub(super) fn wants(&self, name: &str) -> bool {
        self.subscription
            .as_ref()
            .is_some_and(|subscription| subscription.has(name))
    }

    pub(super) fn is_under_way(&self) -> bool {
        self.under_way.is_some()
    }

    pub(super) fn is_refused(&self) -> bool {
        self.refused.is_some()
    }

    /// The snapshot's.
    pub(super) fn wanted(&self) -> &ResourceSet {
        &self.wanted
    }

    /// What the proxy is to have.
    pub(super) fn target(&self) -> &ResourceSet {
        &self.target
    }

    /// What the proxy was sent last, or brought with it.
    pub(super) fn sent(&self) -> &ResourceSet {
        self.under_way.as_ref().map_or(&self.has, |push| &push.target)
    }

    pub(super) fn held(&self) -> &BTreeSet<Arc<str>> {
        &self.held
    }

    /// Takes the answer that a request is, if it is one.
    pub(super) fn answer(&mut self, nonce: &str, is_refusal: bool) -> Answer {
        if nonce.is_empty() || nonce != self.nonce {
            return Answer::None;
        }
        let names = match is_refusal {
            true => self.names_under_way(),
            false => BTreeSet::new(),
        };
        let Some(UnderWay {
            target,
            unsure,
            is_whole,
        }) = self.under_way.take()
        else {
            return Answer::None;
        };
        if is_refusal {
            // A proxy may have taken a part of what it refuses. Of a single resource there is no part.
            if names.len() > 1 || !unsure.is_empty() {
                self.unsure.extend(names);
            }
            self.refused = Some(target);
            // What it never accepted isn't held.
            self.hold(&BTreeSet::new(), &[]);
            return Answer::Refused;
        }
        if is_whole {
            self.has = target;
            self.refused = None;
        } else {
            for name in &unsure {
                match target.get(name) {
                    Some(resource) => self.has.insert(Arc::clone(resource)),
                    None => self.has.remove(name),
                }
            }
        }
        Answer::Accepted
    }

    /// Takes the resources of the next snapshot. Of what the proxy has, it keeps what they no longer have until
    /// [`Self::release`], but for `released`; and of these `names`, what it was to have until now.
    pub(super) fn want(&mut self, wanted: ResourceSet, released: &BTreeSet<Arc<str>>, names: &[Arc<str>]) {
        self.wanted = wanted;
        self.hold(released, names);
    }

    fn hold(&mut self, released: &BTreeSet<Arc<str>>, names: &[Arc<str>]) {
        let mut target = self.wanted.clone();
        let mut held = BTreeSet::new();
        // Nothing names a listener.
        if self.kind != ResourceType::Listener {
            let sent = self.sent();
            let has = sent.changes(&self.wanted).filter_map(|name| sent.get(name));
            let has = has.filter(|resource| self.wants(&resource.name) && !released.contains(&resource.name));
            let still = names.iter().filter_map(|name| self.target.get(name));
            for resource in has.chain(still) {
                let name = &resource.name;
                if !self.wanted.contains(name) {
                    held.insert(Arc::clone(name));
                    target.insert(Arc::clone(resource));
                }
            }
        }
        self.held = held;
        self.target = target;
        if self.refused.as_ref().is_some_and(|refused| self.differ(refused)) {
            self.refused = None;
        }
    }

    /// Whether the proxy is to have other things than `set`.
    fn differ(&self, set: &ResourceSet) -> bool {
        set.changes(&self.target).any(|name| self.matters(name))
    }

    /// Nothing names what was held any more. Whether there was anything to give up.
    pub(super) fn release(&mut self) -> bool {
        let released = self.releasable();
        let was_held = !released.is_empty();
        if was_held {
            self.hold(&released, &[]);
        }
        was_held
    }

    /// What of all that is held needn't be when a proxy has everything else. One that asks for clusters by name, as gRPC's
    /// clients do, goes by its routes only when it has all that they name, although it accepts them before; and it says
    /// itself when it needs a cluster no more.
    pub(super) fn releasable(&self) -> BTreeSet<Arc<str>> {
        let says_itself =
            self.kind == ResourceType::Cluster && !self.subscription.as_ref().is_some_and(Subscription::is_all);
        let held = self.held.iter();
        held.filter(|name| !says_itself || !self.wants(name)).cloned().collect()
    }

    /// The proxy is to be told about this one, even if it has it.
    pub(super) fn tell(&mut self, name: &Arc<str>) {
        self.asked.insert(Arc::clone(name));
    }

    /// What the proxy is to be told now; after a refusal, or if it `may_only_ask`, only what it asked for.
    pub(super) fn due(&mut self, may_only_ask: bool) -> Option<Due> {
        if !self.is_subscribed() || self.is_under_way() {
            return None;
        }
        let mut names = BTreeMap::new();
        for name in self.has.changes(&self.target).filter(|name| self.matters(name)) {
            names.insert(Arc::clone(name), true);
        }
        for name in self.unsure.iter().chain(&self.asked).filter(|name| self.matters(name)) {
            names.insert(Arc::clone(name), false);
        }
        if names.is_empty() && !self.is_unanswered {
            // What differs the proxy doesn't want.
            self.has = self.target.clone();
            let target = &self.target;
            self.unsure
                .retain(|name| target.get(name).is_some_and(|resource| resource.is_unknown()));
            self.asked.clear();
            self.refused = None;
            return None;
        }
        let mut is_whole = true;
        if self.is_refused() || may_only_ask {
            let asked = names.keys().any(|name| self.asked.contains(name));
            if !asked && !self.is_unanswered {
                return None;
            }
            if self.variant == Variant::Delta && !self.is_unanswered {
                is_whole = false;
                names.retain(|name, _| self.asked.contains(name));
            }
        }
        Some(Due { names, is_whole })
    }

    /// Whether the proxy can be told anything about this name.
    fn matters(&self, name: &str) -> bool {
        if !self.wants(name) {
            return false;
        }
        // That something is gone can be said of all types in delta, else of those of which all is said at once. An Envoy
        // that hears it of a filter's configuration fails every request from then on.
        let can_go = match self.variant {
            Variant::StateOfTheWorld => has_wildcard(self.kind),
            Variant::Delta => self.kind != ResourceType::FilterConfig,
        };
        match self.target.get(name) {
            Some(resource) => !resource.is_unknown(),
            None => can_go,
        }
    }

    /// Sends what is due, under this nonce.
    pub(super) fn push(&mut self, due: Due, nonce: String) -> Push {
        let (resources, removed, version) = match self.variant {
            Variant::StateOfTheWorld => (self.selected().cloned().collect(), Vec::new(), self.version()),
            Variant::Delta => {
                let mut resources = Vec::new();
                let mut removed = Vec::new();
                for name in due.names.keys() {
                    match self.target.get(name) {
                        Some(resource) => resources.push(Arc::clone(resource)),
                        None => removed.push(Arc::clone(name)),
                    }
                }
                (resources, removed, self.target.version())
            }
        };
        let Due { names, is_whole } = due;
        let unsure = names.into_iter().filter(|(_, is_sure)| !is_sure);
        let unsure: BTreeSet<_> = unsure.map(|(name, _)| name).collect();
        for name in &unsure {
            self.unsure.remove(name);
            self.asked.remove(name);
        }
        self.is_unanswered = false;
        self.nonce.clone_from(&nonce);
        self.under_way = Some(UnderWay {
            target: self.target.clone(),
            unsure,
            is_whole,
        });
        Push {
            kind: self.kind,
            variant: self.variant,
            version,
            nonce,
            resources,
            removed,
        }
    }

    /// The names that the push under way is for.
    pub(super) fn names_under_way(&self) -> BTreeSet<Arc<str>> {
        let mut names = BTreeSet::new();
        if let Some(push) = &self.under_way {
            names.extend(push.unsure.iter().cloned());
            if push.is_whole {
                let changed = self.has.changes(&push.target).filter(|name| self.wants(name));
                names.extend(changed.cloned());
            }
        }
        names
    }

    /// What the proxy is to have of what it wants, in order.
    fn selected(&self) -> Box<dyn Iterator<Item = &Arc<Resource>> + '_> {
        match &self.subscription {
            None => Box::new(std::iter::empty()),
            Some(subscription) if subscription.is_all() => Box::new(self.target.iter()),
            Some(subscription) => Box::new(subscription.names().filter_map(|name| self.target.get(name))),
        }
    }

    /// The version of it.
    fn version(&self) -> String {
        match &self.subscription {
            Some(subscription) if subscription.is_all() => self.target.version(),
            _ => {
                let hashes: Vec<u8> = self
                    .selected()
                    .flat_map(|resource| resource.hash.to_le_bytes())
                    .collect();
                version(XxHash64::oneshot(0, &hashes))
            }
        }
    }
}
