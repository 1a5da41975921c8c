//! Whatever comes in whatever order: a model of Envoy never names a cluster that isn't there, and ends with the newest.
//!
//! The model takes pushes in order and answers them in order, as Envoy was seen to: a cluster with endpoints is there once
//! they are, one that changed stays as it was until then, and of clusters that it refuses it takes those that are right.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use proptest::prelude::*;

use super::protocol_tests::{content, resource};
use super::request::Ask;
use super::response::Push;
use super::state::Variant;
use super::stream::{Offer, Standing, Stream};
use crate::render::{ResourceSet, ResourceType};

/// What is refused whenever it comes.
const BAD: &str = "bad";

/// A configuration: the contents of its clusters, which have endpoints if that is even, and which of them rules name.
#[derive(Clone, Debug)]
struct World {
    clusters: BTreeMap<u8, u8>,
    named: BTreeSet<u8>,
    endpoints: u8,
    listener: u8,
    has_bad_cluster: bool,
    has_bad_table: bool,
}

#[derive(Clone, Debug)]
enum Step {
    Offer(World),
    /// The proxy takes what came first.
    Push,
    /// The agent does.
    Request,
    /// The proxy asks for the endpoints again that it has, or for something that nobody has.
    AskAgain,
    Reconnect,
}

fn world() -> impl Strategy<Value = World> {
    let clusters = prop::collection::btree_map(0..6u8, 1..5u8, 0..6);
    (clusters, 0..64u8, 0..3u8, 0..3u8, 0..6u8).prop_map(|(clusters, mask, endpoints, listener, bad)| World {
        named: clusters.keys().copied().filter(|id| mask & (1 << id) != 0).collect(),
        clusters,
        endpoints,
        listener,
        has_bad_cluster: bad == 0,
        has_bad_table: bad == 1,
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => world().prop_map(Step::Offer),
        8 => Just(Step::Push),
        8 => Just(Step::Request),
        1 => Just(Step::AskAgain),
        1 => Just(Step::Reconnect),
    ]
}

impl World {
    fn resources(&self) -> [ResourceSet; ResourceType::ALL.len()] {
        let named: String = self.named.iter().map(|id| format!("{id},")).collect();
        let mut sets: [ResourceSet; ResourceType::ALL.len()] = Default::default();
        let mut put = |kind: ResourceType, name: &str, content: &str| {
            sets[kind as usize].insert(Arc::new(resource(name, content)));
        };
        for (id, content) in &self.clusters {
            let has_endpoints = content % 2 == 0;
            let ending = if has_endpoints { "e" } else { "" };
            put(ResourceType::Cluster, &id.to_string(), &format!("{content}{ending}"));
            if has_endpoints {
                put(ResourceType::Endpoints, &id.to_string(), &self.endpoints.to_string());
            }
        }
        if self.has_bad_cluster {
            put(ResourceType::Cluster, "x", BAD);
        }
        put(ResourceType::Listener, "l", &self.listener.to_string());
        put(ResourceType::Route, "r", &named);
        let table = if self.has_bad_table { BAD } else { &named };
        put(ResourceType::FilterConfig, "f", table);
        sets
    }
}

/// A request on its way.
#[derive(Debug)]
struct Message {
    kind: ResourceType,
    nonce: String,
    is_refusal: bool,
    ask: Ask,
}

/// A model of Envoy, and the agent's side of its stream.
struct Envoy {
    variant: Variant,
    has_listeners: bool,
    stream: Stream,
    revision: u64,
    offered: World,
    pushes: VecDeque<Push>,
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
    fn new(variant: Variant, has_listeners: bool, world: World) -> Self {
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

    fn offer(&mut self, world: World) {
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
        if answer != super::state::Answer::None {
            *self.under_way.get_mut(&kind).unwrap() -= 1;
        }
        self.receive();
        if self.stream.standing() == Standing::InForce {
            self.is_unknown = false;
        }
    }

    fn take_push(&mut self) {
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

    /// Nothing comes twice without a reason.
    fn check_repeats(&mut self, push: &Push) {
        if self.variant == Variant::StateOfTheWorld {
            return;
        }
        let has = self.has.entry(push.kind).or_default();
        for resource in &push.resources {
            let name = resource.name.to_string();
            if has
                .get(&name)
                .is_some_and(|(_, version)| *version == resource.version())
            {
                let repeats = self.repeats.entry((push.kind, name)).or_default();
                assert!(*repeats > 0, "{} {} comes again", push.kind, resource.name);
                *repeats -= 1;
            }
        }
    }

    fn names_cluster(&self, name: &str) -> bool {
        let mut kinds = [ResourceType::Route, ResourceType::FilterConfig].into_iter();
        kinds.any(|kind| {
            let contents = self.has.get(&kind).into_iter().flat_map(BTreeMap::values);
            { contents }.any(|(content, _)| content.split_terminator(',').any(|named| named == name))
        })
    }

    fn is_there(&self, name: &str) -> bool {
        let has = self
            .has
            .get(&ResourceType::Cluster)
            .is_some_and(|clusters| clusters.contains_key(name));
        has && self.warming.get(name) != Some(&true)
    }

    fn run(&mut self, step: Step) {
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
    fn settle(&mut self) {
        for _ in 0..1000 {
            if self.pushes.is_empty() && self.requests.is_empty() {
                return;
            }
            self.take_push();
            self.take_request();
        }
        panic!("no end");
    }

    fn check_has_all(&self) {
        assert_eq!(self.stream.standing(), Standing::InForce);
        let resources = self.offered.resources();
        for kind in ResourceType::ALL {
            let wanted = &resources[kind as usize];
            let has = self.has.get(&kind).cloned().unwrap_or_default();
            let has: BTreeMap<_, _> = has.into_iter().map(|(name, (_, version))| (name, version)).collect();
            let wanted = wanted.iter().filter(|resource| match kind {
                ResourceType::Cluster => true,
                ResourceType::Listener | ResourceType::Route => self.has_listeners,
                _ => self
                    .names
                    .get(&kind)
                    .is_some_and(|names| names.contains(&*resource.name)),
            });
            let wanted: BTreeMap<_, _> = wanted
                .map(|resource| (resource.name.to_string(), resource.version()))
                .collect();
            assert_eq!(has, wanted, "{kind}");
        }
        assert!(self.warming.is_empty(), "{:?}", self.warming);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 500 } else { 20_000 }))]

    #[test]
    fn any_order_of_events_is_safe_and_ends_with_the_newest(
        is_delta in any::<bool>(),
        has_listeners in any::<bool>(),
        first in world(),
        steps in prop::collection::vec(step(), 0..120),
        mut last in world(),
    ) {
        let variant = if is_delta { Variant::Delta } else { Variant::StateOfTheWorld };
        let mut envoy = Envoy::new(variant, has_listeners, first);
        for step in steps {
            envoy.run(step);
        }
        last.has_bad_cluster = false;
        last.has_bad_table = false;
        envoy.offer(last.clone());
        envoy.settle();
        envoy.check_has_all();
        envoy.offer(last);
        prop_assert!(envoy.pushes.is_empty(), "equal content is no push");
    }
}
