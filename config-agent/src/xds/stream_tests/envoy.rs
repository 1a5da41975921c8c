//! An Envoy, and the configurations it is brought to.

use std::collections::BTreeMap;
use std::sync::Arc;

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::google::protobuf::Any;
use prost::Message;
use serde_json::json;
use sidetrack_routing::{decode, validate};

use crate::render::{DataPlane, FilterCode, ResourceType, Snapshot, Snapshots};
use crate::xds::request::Ask;
use crate::xds::response::Push;
use crate::xds::state::Variant;
use crate::xds::stream::{Offer, Stream};

/// Renders a configuration whose rules' targets are `targets`; those that begin with an `e` list endpoints.
pub(super) fn snapshot(targets: &[&str]) -> Arc<Snapshot> {
    config(targets, |_| {})
}

pub(super) fn config(targets: &[&str], change: impl FnOnce(&mut serde_json::Value)) -> Arc<Snapshot> {
    snapshots(targets, change).of(DataPlane::NEWEST)
}

pub(super) fn snapshots(targets: &[&str], change: impl FnOnce(&mut serde_json::Value)) -> Snapshots {
    let rules: Vec<_> = targets
        .iter()
        .map(|target| json!({"routeKey": "k", "targetService": target, "fallback": "none"}))
        .collect();
    let listed = targets
        .iter()
        .copied()
        .filter(|target| target.starts_with('e'))
        .chain(["default"]);
    let services: BTreeMap<_, _> = listed
        .map(|name| (name, json!({"endpoints": ["127.0.0.1:1"]})))
        .collect();
    let mut config = json!({"routing": {"defaultTarget": "default", "rules": rules}, "services": services});
    change(&mut config);
    let config = decode(&config, validate).unwrap();
    let code = FilterCode::file("/filter.wasm".into());
    Snapshots::new(config, code)
}

/// An Envoy and the agent's side of its stream, in the state of the world.
pub(super) struct Envoy {
    pub(super) stream: Stream,
    pub(super) offers: u64,
    pub(super) versions: BTreeMap<ResourceType, String>,
    pub(super) nonces: BTreeMap<ResourceType, String>,
    pub(super) names: BTreeMap<ResourceType, Vec<String>>,
    /// The pushes that came and aren't answered.
    pub(super) waiting: BTreeMap<ResourceType, Push>,
    /// Clusters that are accepted once their endpoints are there.
    pub(super) warming: Option<Push>,
}

impl Default for Envoy {
    fn default() -> Self {
        Self {
            stream: Stream::new(Variant::StateOfTheWorld),
            offers: 0,
            versions: BTreeMap::new(),
            nonces: BTreeMap::new(),
            names: BTreeMap::new(),
            waiting: BTreeMap::new(),
            warming: None,
        }
    }
}

impl Envoy {
    /// One that has asked for clusters, and for the filter of its static listener.
    pub(super) fn connected(first: &Arc<Snapshot>) -> Self {
        let mut envoy = Self::default();
        envoy.offer(first);
        envoy.ask(ResourceType::FilterConfig, &["sidetrack"]);
        envoy.ask(ResourceType::Cluster, &[]);
        envoy
    }

    pub(super) fn offer(&mut self, snapshot: &Arc<Snapshot>) {
        self.offers += 1;
        self.stream.offer(Offer {
            revision: self.offers,
            version: "v".into(),
            resources: ResourceType::ALL.map(|kind| snapshot.resources(kind).clone()),
        });
        self.receive();
    }

    pub(super) fn ask(&mut self, kind: ResourceType, names: &[&str]) {
        self.names.insert(kind, names.iter().map(ToString::to_string).collect());
        let nonce = self.nonces.get(&kind).cloned();
        self.send(kind, nonce, None);
    }

    pub(super) fn send(&mut self, kind: ResourceType, nonce: Option<String>, error: Option<&str>) {
        let ask = Ask::World {
            version: self.versions.get(&kind).cloned().unwrap_or_default(),
            names: self.names.get(&kind).cloned().unwrap_or_default(),
        };
        let nonce = nonce.unwrap_or_default();
        self.stream.request(kind, &nonce, error.is_some(), ask).unwrap();
        self.receive();
    }

    fn receive(&mut self) {
        while let Some(push) = self.stream.next() {
            let other = self.waiting.insert(push.kind, push);
            assert!(other.is_none(), "two pushes of a type under way: {other:?}");
        }
    }

    /// The push that came first.
    fn first(&self) -> Option<ResourceType> {
        let first = self
            .waiting
            .values()
            .min_by_key(|push| push.nonce.parse::<u64>().unwrap());
        first.map(|push| push.kind)
    }

    /// Accepts what came first.
    pub(super) fn accept(&mut self) {
        match self.first().and_then(|kind| self.waiting.remove(&kind)) {
            Some(push) if push.kind == ResourceType::Cluster => self.warm(push),
            Some(push) => {
                self.acknowledge(&push);
                if push.kind == ResourceType::Endpoints
                    && let Some(clusters) = self.warming.take()
                {
                    self.acknowledge(&clusters);
                }
            }
            None => panic!("nothing came"),
        }
    }

    /// Asks for the endpoints of new clusters before it accepts them; of removed ones it says so after.
    fn warm(&mut self, push: Push) {
        let kind = ResourceType::Endpoints;
        let wanted: Vec<_> = self
            .cluster_names(&push)
            .into_iter()
            .filter(|name| name.starts_with(['e', 'd']))
            .collect();
        let nonce = self.nonces.get(&kind).cloned();
        let old = self.names.insert(kind, wanted.clone()).unwrap_or_default();
        if wanted.iter().any(|name| !old.contains(name)) {
            self.warming = Some(push);
            self.send(kind, nonce, None);
        } else {
            self.acknowledge(&push);
            if wanted != old {
                self.send(kind, nonce, None);
            }
        }
    }

    pub(super) fn acknowledge(&mut self, push: &Push) {
        self.versions.insert(push.kind, push.version.clone());
        self.nonces.insert(push.kind, push.nonce.clone());
        self.send(push.kind, Some(push.nonce.clone()), None);
    }

    pub(super) fn refuse(&mut self) {
        let (kind, push) = self.waiting.pop_first().expect("a push");
        self.nonces.insert(kind, push.nonce.clone());
        self.send(kind, Some(push.nonce), Some("no"));
    }

    /// Accepts all that comes and says what it was: the type, and of clusters the names.
    pub(super) fn accept_all(&mut self) -> Vec<String> {
        let mut seen = Vec::new();
        while let Some(push) = self.first().and_then(|kind| self.waiting.get(&kind)) {
            let names = match push.kind {
                ResourceType::Cluster => self.cluster_names(push).iter().map(|name| format!(" {name}")).collect(),
                _ => String::new(),
            };
            seen.push(format!("{}{names}", push.kind));
            assert!(seen.len() < 20, "no end of pushes: {seen:?}");
            self.accept();
        }
        seen
    }

    /// The same without asking for anything.
    pub(super) fn take(&mut self) -> Vec<String> {
        let mut seen = Vec::new();
        while let Some(push) = self.first().and_then(|kind| self.waiting.remove(&kind)) {
            let names = push.resources.iter().filter(|_| push.kind == ResourceType::Cluster);
            let names: String = names.map(|cluster| format!(" {}", cluster.name)).collect();
            seen.push(format!("{}{names}", push.kind));
            self.acknowledge(&push);
        }
        seen
    }

    fn cluster_names(&self, push: &Push) -> Vec<String> {
        let clusters = push
            .resources
            .iter()
            .map(|resource| Cluster::decode(&*Any::decode(&*resource.any().concat()).unwrap().value).unwrap());
        clusters
            .map(|cluster| cluster.name.trim_end_matches(":80").to_owned() + ":80")
            .collect()
    }
}
