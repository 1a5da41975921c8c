//! The model: it takes pushes in order and answers them in order, as Envoy was seen to.

mod checks;
mod pushes;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{Step, World};
use crate::render::ResourceType;
use crate::xds::request::Ask;
use crate::xds::response::Push;
use crate::xds::state::{Answer, Variant};
use crate::xds::stream::{Offer, Standing, Stream};

/// A request on its way.
#[derive(Debug)]
struct Message {
    kind: ResourceType,
    nonce: String,
    is_refusal: bool,
    ask: Ask,
}

/// A model of Envoy, and the agent's side of its stream.
pub(super) struct Envoy {
    variant: Variant,
    has_listeners: bool,
    stream: Stream,
    revision: u64,
    offered: World,
    pub(super) pushes: VecDeque<Push>,
    requests: VecDeque<Message>,
    /// Pushes whose answers the agent hasn't seen.
    under_way: BTreeMap<ResourceType, u32>,
    nonces: BTreeMap<ResourceType, String>,
    versions: BTreeMap<ResourceType, String>,
    /// What it has: contents and versions.
    has: BTreeMap<ResourceType, BTreeMap<String, (String, String)>>,
    /// Clusters that wait for endpoints; those that are new can't be used meanwhile.
    warming: BTreeMap<String, bool>,
    /// What it asks for by name.
    names: BTreeMap<ResourceType, BTreeSet<String>>,
    /// How many times something may come that it has.
    repeats: BTreeMap<(ResourceType, String), u32>,
    /// In the state of the world nobody can know what a proxy has that comes back with something old.
    is_unknown: bool,
    /// It has taken a part of clusters that it refused, and says that it has the version before.
    has_parts: bool,
}

impl Envoy {
    pub(super) fn new(variant: Variant, has_listeners: bool, world: World) -> Self {
        let mut envoy = Self {
            variant,
            has_listeners,
            stream: Stream::new(variant),
            revision: 0,
            offered: world,
            pushes: VecDeque::new(),
            requests: VecDeque::new(),
            under_way: BTreeMap::new(),
            nonces: BTreeMap::new(),
            versions: BTreeMap::new(),
            has: BTreeMap::new(),
            warming: BTreeMap::new(),
            names: BTreeMap::new(),
            repeats: BTreeMap::new(),
            is_unknown: false,
            has_parts: false,
        };
        envoy.connect();
        envoy
    }

    fn connect(&mut self) {
        self.stream = Stream::new(self.variant);
        self.pushes.clear();
        self.requests.clear();
        self.under_way.clear();
        self.nonces.clear();
        self.is_unknown = self.variant == Variant::StateOfTheWorld && !self.has.is_empty();
        // Envoy waits for some time only, and goes on with the endpoints it has.
        let endpoints = self.has.entry(ResourceType::Endpoints).or_default();
        self.warming.retain(|name, _| !endpoints.contains_key(name));
        self.offer(self.offered.clone());
        self.ask_first(ResourceType::Cluster);
        if self.names.contains_key(&ResourceType::Endpoints) {
            self.ask_first(ResourceType::Endpoints);
        }
        if self.has_listeners {
            self.ask_first(ResourceType::Listener);
        }
        for (kind, name) in [(ResourceType::Route, "r"), (ResourceType::FilterConfig, "f")] {
            if self.names.contains_key(&kind) {
                self.ask_first(kind);
            } else if !self.has_listeners && kind == ResourceType::FilterConfig {
                self.names.insert(kind, [name.to_owned()].into());
                self.ask_first(kind);
            }
        }
    }

    pub(super) fn offer(&mut self, world: World) {
        self.revision += 1;
        self.stream.offer(Offer {
            revision: self.revision,
            version: "v".into(),
            resources: world.resources(),
        });
        self.offered = world;
        self.receive();
    }

    fn receive(&mut self) {
        while let Some(push) = self.stream.next() {
            let under_way = self.under_way.entry(push.kind).or_default();
            *under_way += 1;
            assert_eq!(*under_way, 1, "two pushes of {} under way", push.kind);
            self.pushes.push_back(push);
        }
    }

    /// The first request for this type on a stream.
    fn ask_first(&mut self, kind: ResourceType) {
        let names: Vec<String> = self.names.get(&kind).into_iter().flatten().cloned().collect();
        for name in &names {
            *self.repeats.entry((kind, name.clone())).or_default() += 1;
        }
        let has = self.has.get(&kind).into_iter().flatten();
        let ask = match self.variant {
            Variant::StateOfTheWorld => Ask::World {
                version: self.versions.get(&kind).cloned().unwrap_or_default(),
                names,
            },
            Variant::Delta => Ask::Delta {
                subscribe: names,
                unsubscribe: Vec::new(),
                versions: has
                    .map(|(name, (_, version))| (name.clone(), version.clone()))
                    .collect(),
            },
        };
        self.send(kind, String::new(), false, ask);
    }

    /// Another request for it: these names come and go.
    fn ask(&mut self, kind: ResourceType, come: Vec<String>, go: Vec<String>) {
        let is_first = !self.names.contains_key(&kind);
        let names = self.names.entry(kind).or_default();
        for name in &go {
            names.remove(name);
        }
        names.extend(come.iter().cloned());
        if is_first {
            return self.ask_first(kind);
        }
        for name in &come {
            *self.repeats.entry((kind, name.clone())).or_default() += 1;
        }
        let ask = match self.variant {
            Variant::StateOfTheWorld => self.ask_world(kind),
            Variant::Delta => Ask::Delta {
                subscribe: come,
                unsubscribe: go,
                versions: Vec::new(),
            },
        };
        let nonce = match self.variant {
            Variant::StateOfTheWorld => self.nonces.get(&kind).cloned().unwrap_or_default(),
            Variant::Delta => String::new(),
        };
        self.send(kind, nonce, false, ask);
    }

    fn ask_world(&self, kind: ResourceType) -> Ask {
        Ask::World {
            version: self.versions.get(&kind).cloned().unwrap_or_default(),
            names: self.names.get(&kind).into_iter().flatten().cloned().collect(),
        }
    }

    fn send(&mut self, kind: ResourceType, nonce: String, is_refusal: bool, ask: Ask) {
        self.requests.push_back(Message {
            kind,
            nonce,
            is_refusal,
            ask,
        });
    }

    fn take_request(&mut self) {
        let Some(message) = self.requests.pop_front() else {
            return;
        };
        let Message {
            kind,
            nonce,
            is_refusal,
            ask,
        } = message;
        let answer = self.stream.request(kind, &nonce, is_refusal, ask).unwrap();
        if answer != Answer::None {
            *self.under_way.get_mut(&kind).unwrap() -= 1;
        }
        self.receive();
        if self.stream.standing() == Standing::InForce {
            self.is_unknown = false;
        }
    }
    pub(super) fn run(&mut self, step: Step) {
        match step {
            Step::Offer(world) => self.offer(world),
            Step::Push => self.take_push(),
            Step::Request => self.take_request(),
            Step::AskAgain => {
                if self.variant == Variant::Delta && self.names.contains_key(&ResourceType::Endpoints) {
                    let has = self.names[&ResourceType::Endpoints].iter().take(1).cloned();
                    let nobody = std::iter::once("nobody".to_owned());
                    self.ask(ResourceType::Endpoints, has.chain(nobody).collect(), Vec::new());
                }
            }
            // In the state of the world a proxy that has taken parts has something else than it says.
            Step::Reconnect if self.variant == Variant::StateOfTheWorld && self.has_parts => {}
            Step::Reconnect => self.connect(),
        }
    }

    /// Goes on until nothing is on its way.
    pub(super) fn settle(&mut self) {
        for _ in 0..1000 {
            if self.pushes.is_empty() && self.requests.is_empty() {
                return;
            }
            self.take_push();
            self.take_request();
        }
        panic!("no end");
    }
}
