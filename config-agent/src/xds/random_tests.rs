//! Whatever comes in whatever order: a model of Envoy never names a cluster that isn't there, and ends with the newest.

mod envoy;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;

use self::envoy::Envoy;
use super::protocol_tests::resource;
use super::state::Variant;
use crate::render::{ResourceSet, ResourceType};

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
