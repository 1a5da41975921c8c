//! The rules of the stream, against a proxy that behaves as Envoy was seen to.

use std::collections::BTreeMap;

use serde_json::json;
use sidetrack_routing::{decode, validate};

use super::*;
use crate::render::FilterCode;

/// Renders a configuration whose rules' targets are `targets`; those that begin with an `e` list endpoints.
fn snapshot(targets: &[&str]) -> Arc<Snapshot> {
    let rules: Vec<_> = targets
        .iter()
        .map(|target| json!({"routeKey": "k", "targetService": target}))
        .collect();
    let listed = targets
        .iter()
        .copied()
        .filter(|target| target.starts_with('e'))
        .chain(["default"]);
    let services: BTreeMap<_, _> = listed
        .map(|name| (name, json!({"endpoints": ["127.0.0.1:1"]})))
        .collect();
    let config = json!({"routing": {"defaultTarget": "default", "rules": rules}, "services": services});
    let config = validate(&decode(&config).unwrap()).unwrap();
    Arc::new(Snapshot::render(&config, &FilterCode::file("/filter.wasm".into())))
}

/// An Envoy and the agent's side of its stream.
#[derive(Default)]
struct Envoy {
    stream: Stream,
    versions: BTreeMap<ResourceType, String>,
    nonces: BTreeMap<ResourceType, String>,
    names: BTreeMap<ResourceType, Vec<String>>,
    /// The push that came and isn't answered.
    waiting: Option<Push>,
}

impl Envoy {
    /// One that has asked for clusters, and for the filter of its static listener.
    fn connected(first: &Arc<Snapshot>) -> Self {
        let mut envoy = Self::default();
        envoy.offer(first);
        envoy.ask(ResourceType::FilterConfig, &["sidetrack"]);
        envoy.ask(ResourceType::Cluster, &[]);
        envoy
    }

    fn offer(&mut self, snapshot: &Arc<Snapshot>) {
        let push = self.stream.snapshot(Arc::clone(snapshot));
        self.receive(push);
    }

    fn ask(&mut self, kind: ResourceType, names: &[&str]) {
        self.names.insert(kind, names.iter().map(ToString::to_string).collect());
        self.send(kind, None);
    }

    fn send(&mut self, kind: ResourceType, error: Option<&str>) {
        let request = Request {
            version: self.versions.get(&kind).cloned().unwrap_or_default(),
            nonce: self.nonces.get(&kind).cloned().unwrap_or_default(),
            names: self.names.get(&kind).cloned().unwrap_or_default(),
            error: error.map(str::to_owned),
        };
        let push = self.stream.request(kind, request);
        self.receive(push);
    }

    fn receive(&mut self, push: Option<Push>) {
        let Some(push) = push else { return };
        assert!(
            self.waiting.is_none(),
            "two pushes under way: {:?} and {push:?}",
            self.waiting
        );
        self.nonces.insert(push.kind, push.nonce.clone());
        self.waiting = Some(push);
    }

    /// Accepts what came. Clusters make it ask for their endpoints.
    fn accept(&mut self) {
        let push = self.waiting.take().expect("a push");
        self.versions.insert(push.kind, push.version.clone());
        // What Envoy says of endpoints it says before it sees what the acceptance leads to.
        let nonce = self.nonces.get(&ResourceType::Endpoints).cloned();
        self.send(push.kind, None);
        if push.kind == ResourceType::Cluster {
            let names: Vec<_> = self
                .cluster_names(&push)
                .into_iter()
                .filter(|name| name.starts_with(['e', 'd']))
                .collect();
            if self.names.insert(ResourceType::Endpoints, names.clone()) != Some(names) {
                let newer = std::mem::replace(
                    self.nonces.entry(ResourceType::Endpoints).or_default(),
                    nonce.unwrap_or_default(),
                );
                self.send(ResourceType::Endpoints, None);
                if self.waiting.as_ref().is_some_and(|push| push.nonce == newer) {
                    self.nonces.insert(ResourceType::Endpoints, newer);
                }
            }
        }
    }

    fn refuse(&mut self) {
        let push = self.waiting.take().expect("a push");
        self.send(push.kind, Some("no"));
    }

    /// Accepts all that comes and says what it was: the type, and of clusters and endpoints the names.
    fn accept_all(&mut self) -> Vec<String> {
        let mut seen = Vec::new();
        while let Some(push) = &self.waiting {
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

    fn cluster_names(&self, push: &Push) -> Vec<String> {
        use envoy_types::pb::envoy::config::cluster::v3::Cluster;
        use prost::Message;
        let clusters = push
            .resources
            .iter()
            .map(|resource| Cluster::decode(&*resource.body.value).unwrap());
        clusters
            .map(|cluster| cluster.name.trim_end_matches(":80").to_owned() + ":80")
            .collect()
    }
}

#[test]
fn clusters_and_endpoints_come_before_the_table() {
    let mut envoy = Envoy::connected(&snapshot(&["e1", "x"]));
    assert_eq!(envoy.stream.standing(), Standing::Pending);
    assert_eq!(envoy.accept_all(), ["CDS default:80 e1:80 x:80", "EDS", "ECDS"]);
    assert_eq!(envoy.stream.standing(), Standing::InForce);
}

#[test]
fn a_proxy_with_listeners_from_here_gets_them_before_the_table() {
    let mut envoy = Envoy::connected(&snapshot(&["x"]));
    envoy.ask(ResourceType::Listener, &[]);
    envoy.ask(ResourceType::Route, &["http", "grpc"]);
    assert_eq!(envoy.accept_all(), ["CDS default:80 x:80", "EDS", "LDS", "RDS", "ECDS"]);
}

#[test]
fn equal_content_is_no_push() {
    let mut envoy = Envoy::connected(&snapshot(&["e1"]));
    envoy.accept_all();
    envoy.offer(&snapshot(&["e1"]));
    assert!(envoy.waiting.is_none());
    assert_eq!(envoy.stream.standing(), Standing::InForce);
}

#[test]
fn a_removed_cluster_stays_until_no_table_names_it() {
    let mut envoy = Envoy::connected(&snapshot(&["e1", "e2"]));
    envoy.accept_all();
    envoy.offer(&snapshot(&["e2", "e3"]));
    assert_eq!(
        envoy.accept_all(),
        [
            "CDS default:80 e1:80 e2:80 e3:80",
            "EDS",
            "ECDS",
            "CDS default:80 e2:80 e3:80",
            "EDS"
        ]
    );
    assert_eq!(envoy.stream.standing(), Standing::InForce);
}

#[test]
fn a_rule_alone_moves_the_table_alone() {
    let mut envoy = Envoy::connected(&snapshot(&["e1", "e2"]));
    envoy.accept_all();
    envoy.offer(&snapshot(&["e2", "e1"]));
    assert_eq!(envoy.accept_all(), ["ECDS"]);
}

#[test]
fn of_the_snapshots_that_come_meanwhile_only_the_newest_counts() {
    let mut envoy = Envoy::connected(&snapshot(&["x1"]));
    envoy.offer(&snapshot(&["x2"]));
    envoy.offer(&snapshot(&["x3"]));
    envoy.offer(&snapshot(&["x4"]));
    let seen = envoy.accept_all();
    assert_eq!(seen.first().unwrap(), "CDS default:80 x1:80");
    assert_eq!(seen.last().unwrap(), "EDS");
    assert_eq!(seen.iter().filter(|push| *push == "ECDS").count(), 1, "{seen:?}");
    assert_eq!(seen[seen.len() - 2], "CDS default:80 x4:80");
}

#[test]
fn a_refused_push_is_not_repeated_until_it_changes() {
    let mut envoy = Envoy::connected(&snapshot(&["x1"]));
    envoy.accept_all();
    envoy.offer(&snapshot(&["bad"]));
    envoy.refuse();
    assert_eq!(envoy.stream.standing(), Standing::Refused);
    assert!(
        envoy.waiting.is_none(),
        "neither the clusters again nor a table that names them"
    );
    envoy.offer(&snapshot(&["bad"]));
    assert!(envoy.waiting.is_none());
    envoy.send(ResourceType::Cluster, None);
    assert!(envoy.waiting.is_none());
    envoy.offer(&snapshot(&["x2"]));
    assert_eq!(
        envoy.accept_all(),
        [
            "CDS default:80 x1:80 x2:80",
            "EDS",
            "ECDS",
            "CDS default:80 x2:80",
            "EDS"
        ],
        "what was refused isn't held"
    );
    assert_eq!(envoy.stream.standing(), Standing::InForce);
}

#[test]
fn a_refused_table_leaves_its_clusters_and_the_way_back_open() {
    let mut envoy = Envoy::connected(&snapshot(&["x1"]));
    envoy.accept_all();
    envoy.offer(&snapshot(&["x2"]));
    envoy.accept();
    envoy.accept();
    assert_eq!(envoy.waiting.as_ref().unwrap().kind, ResourceType::FilterConfig);
    envoy.refuse();
    assert_eq!(envoy.stream.standing(), Standing::Refused);
    envoy.offer(&snapshot(&["x1"]));
    let seen = envoy.accept_all();
    assert_eq!(envoy.stream.standing(), Standing::InForce);
    assert!(
        !seen.contains(&"ECDS".to_owned()),
        "the table in force is the right one already: {seen:?}"
    );
    assert_eq!(seen.last().unwrap(), "EDS");
}

#[test]
fn an_answer_to_an_earlier_push_changes_nothing() {
    let mut envoy = Envoy::connected(&snapshot(&["x1"]));
    envoy.accept_all();
    let stale = envoy.nonces[&ResourceType::Cluster].clone();
    envoy.offer(&snapshot(&["x2"]));
    let fresh = envoy.nonces.insert(ResourceType::Cluster, stale).unwrap();
    envoy.waiting = None;
    envoy.send(ResourceType::Cluster, Some("no"));
    assert!(envoy.waiting.is_none());
    assert_eq!(envoy.stream.standing(), Standing::Pending);
    envoy.nonces.insert(ResourceType::Cluster, fresh);
    envoy.send(ResourceType::Cluster, None);
    assert_eq!(envoy.waiting.unwrap().kind, ResourceType::Endpoints);
}

#[test]
fn a_proxy_that_comes_back_with_everything_gets_nothing() {
    let first = snapshot(&["e1", "x"]);
    let mut envoy = Envoy::connected(&first);
    envoy.accept_all();
    let mut back = Envoy {
        versions: envoy.versions,
        names: envoy.names,
        ..Envoy::default()
    };
    back.offer(&snapshot(&["e1", "x"]));
    for kind in [
        ResourceType::Cluster,
        ResourceType::Endpoints,
        ResourceType::FilterConfig,
    ] {
        back.send(kind, None);
        assert!(back.waiting.is_none(), "{kind}");
    }
    assert_eq!(back.stream.standing(), Standing::InForce);
}

#[test]
fn names_nobody_has_are_waited_for_in_silence() {
    let mut envoy = Envoy::connected(&snapshot(&["x"]));
    envoy.accept_all();
    envoy.ask(ResourceType::Route, &["unknown"]);
    envoy.accept_all();
    envoy.ask(ResourceType::Endpoints, &["default:80", "unknown"]);
    assert!(envoy.waiting.is_none());
}

#[test]
fn an_endpoint_asked_for_later_is_sent() {
    let mut envoy = Envoy::default();
    envoy.offer(&snapshot(&["e1"]));
    envoy.ask(ResourceType::Cluster, &[]);
    let push = envoy.waiting.take().unwrap();
    envoy.versions.insert(push.kind, push.version);
    envoy.send(ResourceType::Cluster, None);
    envoy.ask(ResourceType::FilterConfig, &["sidetrack"]);
    assert!(envoy.waiting.is_none(), "no table before the endpoints are asked for");
    envoy.ask(ResourceType::Endpoints, &["default:80"]);
    assert!(envoy.waiting.is_none(), "nor before all of them are");
    envoy.ask(ResourceType::Endpoints, &["default:80", "e1:80"]);
    assert_eq!(envoy.accept_all(), ["EDS", "ECDS"]);
}
