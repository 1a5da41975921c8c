//! What a proxy asks for, and what it says it has.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{TypeState, Variant};
use crate::render::{Resource, ResourceSet};
use crate::xds::request::Ask;
use crate::xds::subscription::{Changes, Subscription};

impl TypeState {
    /// Takes what a request asks for. Says which names are wanted, and aren't any more.
    ///
    /// A state-of-the-world request that was sent before the proxy saw the last push is left out: the answer to that push
    /// says the same and more. In delta it counts (xDS protocol, "Incremental xDS").
    pub(in crate::xds) fn ask(&mut self, nonce: &str, ask: Ask) -> Changes {
        let is_first = self.subscription.is_none();
        let kind = self.kind;
        let subscription = self.subscription.get_or_insert_default();
        match ask {
            Ask::World { version, names } => {
                if !nonce.is_empty() && nonce != self.nonce && !self.nonce.is_empty() {
                    return Changes::default();
                }
                let changes = subscription.replace(kind, names, &self.target);
                if is_first && !version.is_empty() && version == self.version() {
                    self.has = self.target.clone();
                } else {
                    self.note(&changes, is_first);
                }
                changes
            }
            Ask::Delta {
                subscribe,
                unsubscribe,
                versions,
            } => {
                let changes = subscription.change(kind, subscribe, unsubscribe, &self.target);
                self.note(&changes, is_first);
                if is_first && !versions.is_empty() {
                    self.believe(versions);
                }
                changes
            }
        }
    }

    fn note(&mut self, changes: &Changes, is_first: bool) {
        if changes.all {
            self.is_unanswered = true;
            if !is_first && self.variant == Variant::Delta {
                self.asked.extend(self.target.names().cloned());
            }
        } else if is_first {
            // Whatever it wants it asks for.
            self.has = self.target.clone();
        }
        for name in &changes.asked {
            if self.target.get(name).is_some_and(|resource| resource.is_unknown()) {
                self.target.remove(name);
                self.held.remove(name);
            }
            self.asked.insert(Arc::clone(name));
        }
        let is_all = self.subscription.as_ref().is_some_and(Subscription::is_all);
        for name in &changes.dropped {
            if is_all && self.variant == Variant::Delta {
                // The proxy doesn't know whether the name is among all ("Unsubscribing from Resources").
                self.asked.insert(Arc::clone(name));
            } else if !is_all {
                self.asked.remove(name);
                self.unsure.remove(name);
            }
        }
    }

    /// Takes what a proxy has from an earlier stream, by name and version. What nobody here knows is held like what a
    /// snapshot drops: it may be in use.
    fn believe(&mut self, versions: Vec<(String, String)>) {
        let is_all = self.subscription.as_ref().is_some_and(Subscription::is_all);
        let mut has = match is_all {
            true => ResourceSet::default(),
            false => self.target.clone(),
        };
        for (name, version) in versions {
            match self.target.get(&name) {
                Some(resource) if resource.version() == version => {
                    has.insert(Arc::clone(resource));
                    self.asked.remove(&*name);
                }
                known => {
                    if known.is_none() {
                        self.asked.remove(&*name);
                    }
                    has.insert(Arc::new(Resource::unknown(&name, &version)));
                }
            }
        }
        self.is_unanswered = false;
        // Equal sets that share everything are told to be equal at no cost.
        self.has = match has == self.target {
            true => self.target.clone(),
            false => has,
        };
        self.hold(&BTreeSet::new(), &[]);
    }
}
