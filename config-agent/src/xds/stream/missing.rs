//! What a proxy hasn't done yet, for those who wonder why it hasn't everything.

use std::fmt;
use std::sync::Arc;

use super::Stream;
use crate::render::{ResourceSet, ResourceType};
use crate::xds::state::TypeState;
use crate::xds::subscription::Subscription;

/// How many names are said.
const MAX_NAMED: usize = 3;

/// The next thing that a proxy must do before it has all of the newest snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::xds) enum Missing {
    /// It has asked for nothing at all.
    AnyRequest,
    /// An answer to the push of this type.
    Answer(ResourceType),
    /// A request for this type, or for these of it.
    Request(ResourceType, Names),
}

/// The first of some names, and how many there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::xds) struct Names {
    first: Vec<Arc<str>>,
    all: usize,
}

impl Stream {
    /// What the proxy must do next; nothing, if it has everything, or if the next thing is the agent's to do.
    pub(in crate::xds) fn missing(&self) -> Option<Missing> {
        let unanswered = self.types.iter().zip(ResourceType::ALL);
        if let Some((_, kind)) = { unanswered }.find(|(state, _)| state.is_under_way()) {
            return Some(Missing::Answer(kind));
        }
        if self.is_in_force() || self.offer.is_none() {
            return None;
        }
        let filter = self.state(ResourceType::FilterConfig);
        if filter.is_subscribed() && !self.state(ResourceType::Cluster).is_subscribed() {
            return Some(Missing::Request(ResourceType::Cluster, Names::default()));
        }
        if !self.awaited.is_empty() {
            let names = Names::new(self.awaited.keys(), self.awaited.len());
            return Some(Missing::Request(ResourceType::Endpoints, names));
        }
        self.unasked()
    }

    /// What the proxy hasn't asked for and needs to serve the snapshot. It asks for some only when it has got others.
    pub(super) fn unasked(&self) -> Option<Missing> {
        if !self.types.iter().any(TypeState::is_subscribed) {
            return Some(Missing::AnyRequest);
        }
        let filter = self.state(ResourceType::FilterConfig);
        if !filter.wanted().is_empty() && !filter.is_subscribed() {
            return Some(Missing::Request(ResourceType::FilterConfig, Names::default()));
        }
        let listeners = self.state(ResourceType::Listener).subscription();
        // One with listeners of its own has routes and certificates of its own, too.
        if !listeners.is_some_and(Subscription::is_all) {
            return None;
        }
        let needed = [ResourceType::Secret, ResourceType::Route];
        needed.into_iter().find_map(|kind| {
            let state = self.state(kind);
            let unasked = || ResourceSet::names(state.wanted()).filter(|name| !state.wants(name));
            unasked().next()?;
            Some(Missing::Request(kind, Names::new(unasked(), unasked().count())))
        })
    }
}

impl Names {
    fn new<'a>(names: impl Iterator<Item = &'a Arc<str>>, all: usize) -> Self {
        let first = names.take(MAX_NAMED).cloned().collect();
        Self { first, all }
    }
}

/// A reason, to be read after the proxy's name.
impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AnyRequest => f.write_str("hasn't asked for anything yet"),
            Self::Answer(kind) => write!(f, "hasn't answered the push of {kind} yet"),
            Self::Request(kind, names) => write!(f, "hasn't asked for {kind}{names} yet"),
        }
    }
}

/// ` of a, b and 7 more`, or nothing.
impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first.is_empty() {
            return Ok(());
        }
        write!(f, " of {}", self.first.join(", "))?;
        match self.all - self.first.len() {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}
