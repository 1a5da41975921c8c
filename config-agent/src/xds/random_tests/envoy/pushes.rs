//! What it does with a push: a cluster with endpoints is there once they are, one that changed stays as it was until then,
//! and of clusters that it refuses it takes those that are right.

use std::collections::{BTreeMap, BTreeSet};

use super::super::BAD;
use super::Envoy;
use crate::render::ResourceType;
use crate::xds::protocol_tests::content;
use crate::xds::request::Ask;
use crate::xds::response::Push;
use crate::xds::state::Variant;

impl Envoy {
    pub(super) fn take_push(&mut self) {
        let Some(push) = self.pushes.pop_front() else {
            return;
        };
        let kind = push.kind;
        assert!(!push.resources.iter().any(|resource| resource.is_unknown()), "{push:?}");
        self.check_repeats(&push);
        let is_refused = push.resources.iter().any(|resource| content(resource) == BAD);
        let mut gone: Vec<String> = push.removed.iter().map(ToString::to_string).collect();
        assert!(
            kind != ResourceType::FilterConfig || gone.is_empty(),
            "every request would fail"
        );
        let says_all = matches!(kind, ResourceType::Cluster | ResourceType::Listener);
        if self.variant == Variant::StateOfTheWorld && says_all {
            let comes: BTreeSet<_> = push.resources.iter().map(|resource| &*resource.name).collect();
            let has = self.has.get(&kind).into_iter().flatten();
            gone = has
                .map(|(name, _)| name.clone())
                .filter(|name| !comes.contains(&**name))
                .collect();
        }
        let takes_parts = kind == ResourceType::Cluster;
        if takes_parts {
            self.has_parts = is_refused;
        }
        let (mut come, mut go) = (Vec::new(), Vec::new());
        if !is_refused || takes_parts {
            for name in &gone {
                assert!(
                    kind != ResourceType::Cluster || self.is_unknown || !self.names_cluster(name),
                    "{name} goes"
                );
                self.has.entry(kind).or_default().remove(name);
                self.warming.remove(name);
                go.push(name.clone());
            }
            for resource in &push.resources {
                let (name, content) = (resource.name.to_string(), content(resource));
                if !says_all && !self.names[&kind].contains(&name) {
                    // It isn't asked for any more.
                    continue;
                }
                let had = self
                    .has
                    .entry(kind)
                    .or_default()
                    .insert(name.clone(), (content.clone(), resource.version()));
                if content == BAD {
                    self.has.entry(kind).or_default().remove(&name);
                    continue;
                }
                let differs = had.as_ref().is_none_or(|(before, _)| *before != content);
                match kind {
                    ResourceType::Cluster if differs && resource.has_endpoints => {
                        self.warming.entry(name.clone()).or_insert(had.is_none());
                        *self.repeats.entry((ResourceType::Endpoints, name.clone())).or_default() += 1;
                        come.push(name);
                    }
                    ResourceType::Cluster if differs => {
                        self.warming.remove(&name);
                        go.push(name);
                    }
                    ResourceType::Endpoints => {
                        self.warming.remove(&name);
                    }
                    _ => {}
                }
            }
        }
        if kind == ResourceType::Endpoints {
            // Envoy goes on without.
            for name in &gone {
                self.warming.remove(name);
            }
        }
        if matches!(kind, ResourceType::Route | ResourceType::FilterConfig) && !self.is_unknown {
            let has = self.has.get(&kind).into_iter().flat_map(BTreeMap::values).next();
            let content = has.map(|(content, _)| content.clone()).unwrap_or_default();
            for name in content.split_terminator(',') {
                assert!(
                    self.is_there(name),
                    "{kind} names {name}: {:?} {:?}",
                    self.has,
                    self.warming
                );
            }
        }
        self.answer(&push, is_refused);
        if kind == ResourceType::Cluster {
            let asked = self.names.get(&ResourceType::Endpoints).cloned().unwrap_or_default();
            come.retain(|name| !asked.contains(name));
            go.retain(|name| asked.contains(name));
            if !come.is_empty() || !go.is_empty() {
                for name in &go {
                    self.has.entry(ResourceType::Endpoints).or_default().remove(name);
                }
                self.ask(ResourceType::Endpoints, come, go);
            }
        }
        if kind == ResourceType::Listener && !self.names.contains_key(&ResourceType::Route) {
            self.ask(ResourceType::Route, vec!["r".to_owned()], Vec::new());
            self.ask(ResourceType::FilterConfig, vec!["f".to_owned()], Vec::new());
        }
    }

    fn answer(&mut self, push: &Push, is_refusal: bool) {
        let kind = push.kind;
        self.nonces.insert(kind, push.nonce.clone());
        if is_refusal {
            for resource in &push.resources {
                *self.repeats.entry((kind, resource.name.to_string())).or_default() += 1;
            }
        } else {
            self.versions.insert(kind, push.version.clone());
        }
        let ask = match self.variant {
            Variant::StateOfTheWorld => self.ask_world(kind),
            Variant::Delta => Ask::Delta {
                subscribe: Vec::new(),
                unsubscribe: Vec::new(),
                versions: Vec::new(),
            },
        };
        self.send(kind, push.nonce.clone(), is_refusal, ask);
    }
}
