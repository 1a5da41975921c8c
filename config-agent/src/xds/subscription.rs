//! Which resources of one type a proxy wants.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::render::{ResourceSet, ResourceType};

/// Stands for every resource of a type.
const ALL: &str = "*";

/// What a proxy wants of one type.
#[derive(Debug, Default)]
pub(super) struct Subscription {
    all: bool,
    names: BTreeSet<Arc<str>>,
    /// Whether it has named anything yet. Before, no name at all means everything; from then on it means nothing.
    has_named: bool,
}

/// How a subscription has changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// Whether everything is wanted that wasn't before.
    pub(super) all: bool,
    /// What is asked for by name: new names, and in delta also known ones, which the proxy may have forgotten.
    pub(super) asked: Vec<Arc<str>>,
    /// Names that were asked for, and aren't any more.
    pub(super) dropped: Vec<Arc<str>>,
}

/// Whether everything may be asked for at once.
pub(super) fn has_wildcard(kind: ResourceType) -> bool {
    matches!(kind, ResourceType::Cluster | ResourceType::Listener)
}

impl Subscription {
    pub(super) fn has(&self, name: &str) -> bool {
        self.all || self.names.contains(name)
    }

    /// Whether everything is wanted.
    pub(super) fn is_all(&self) -> bool {
        self.all
    }

    /// What is wanted by name.
    pub(super) fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.names.iter()
    }

    /// How many names are wanted.
    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    /// State of the world: these are all names that are wanted. `known` are names to share.
    pub(super) fn replace(&mut self, kind: ResourceType, names: Vec<String>, known: &ResourceSet) -> Changes {
        let was_all = self.all;
        if has_wildcard(kind) {
            self.all = names.iter().any(|name| name == ALL) || names.is_empty() && !self.has_named;
        }
        self.has_named |= !names.is_empty();
        let mut changes = Changes {
            all: self.all && !was_all,
            ..Changes::default()
        };
        // Nearly every request repeats the names of the one before.
        if names.len() == self.names.len() && names.iter().all(|name| self.names.contains(name.as_str())) {
            return changes;
        }
        let is_name = |name: &String| !(has_wildcard(kind) && name == ALL);
        let new: BTreeSet<Arc<str>> = names
            .into_iter()
            .filter(is_name)
            .map(|name| shared(name, known))
            .collect();
        changes.asked = new.difference(&self.names).cloned().collect();
        changes.dropped = self.names.difference(&new).cloned().collect();
        self.names = new;
        changes
    }

    /// Delta: these names come and go. `known` are names to share.
    pub(super) fn change(
        &mut self,
        kind: ResourceType,
        subscribe: Vec<String>,
        unsubscribe: Vec<String>,
        known: &ResourceSet,
    ) -> Changes {
        let mut changes = Changes::default();
        let means_all = subscribe.is_empty() && unsubscribe.is_empty() && !self.has_named;
        if has_wildcard(kind) && means_all && !self.all {
            self.all = true;
            changes.all = true;
        }
        self.has_named |= !subscribe.is_empty();
        for name in subscribe {
            if has_wildcard(kind) && name == ALL {
                changes.all |= !self.all;
                self.all = true;
            } else {
                let name = shared(name, known);
                self.names.insert(Arc::clone(&name));
                changes.asked.push(name);
            }
        }
        for name in unsubscribe {
            if has_wildcard(kind) && name == ALL {
                self.all = false;
                changes.all = false;
            } else if let Some(name) = self.names.take(name.as_str()) {
                changes.dropped.push(name);
            }
        }
        changes
    }
}

/// All streams that ask for a resource share its name.
fn shared(name: String, known: &ResourceSet) -> Arc<str> {
    let known = known.get(&name);
    known.map_or_else(|| Arc::from(name.as_str()), |resource| Arc::clone(&resource.name))
}
