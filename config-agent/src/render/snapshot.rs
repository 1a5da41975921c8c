//! Everything Envoys are to have, at one moment.

use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::TypedExtensionConfig;
use imbl::OrdMap;
use sidetrack_routing::{Target, ValidConfig, ValidRule};
use twox_hash::XxHash64;

use super::cluster::{aggregate_cluster_of, baselines, cluster, discovered_endpoints};
use super::envoy::EnvoyVersion;
use super::filter::{FILTER, FilterCode, filter_config};
use super::grpc::{self, LeftOut};
use super::listener::{Port, listener, routes};
use super::metrics::metrics_listener;
use super::resource::{Resource, ResourceSet, ResourceType, version};
use super::tls::server_certificate;
use super::tracing::collector;
use super::view::View;

/// A whole, consistent configuration of one kind of data plane: whatever is named in it is in it.
///
/// The next one is made from it at the cost of what differs; how it came about makes no difference to what is in it.
#[derive(Clone, Debug)]
pub struct Snapshot {
    resources: [ResourceSet; ResourceType::ALL.len()],
    view: Arc<View>,
    /// How many rules and baselines need each cluster.
    uses: OrdMap<Arc<str>, u32>,
    /// How many rules send copies to each target.
    mirrors: OrdMap<String, u32>,
    left_out: Arc<[LeftOut]>,
    expiry: Option<u64>,
}

impl Snapshot {
    /// Renders `view` for Envoys of the version `envoy` that find the filter's code at `code`.
    pub(super) fn render(view: &Arc<View>, code: &FilterCode, envoy: EnvoyVersion) -> Self {
        let config = view.config();
        let mut snapshot = Self {
            resources: Default::default(),
            view: Arc::clone(view),
            uses: OrdMap::new(),
            mirrors: OrdMap::new(),
            left_out: Arc::default(),
            expiry: None,
        };
        for baseline in baselines(config) {
            snapshot.use_target(config, baseline);
        }
        for cluster in config.tracing.iter().map(collector) {
            snapshot.put(ResourceType::Cluster, Resource::new(&cluster.name, &cluster));
        }
        let listeners = Port::ALL.map(|port| listener(config, port, code, envoy));
        for listener in listeners.iter().chain([&metrics_listener(&config.server)]) {
            snapshot.put(ResourceType::Listener, Resource::new(&listener.name, listener));
        }
        for certificate in config.server.tls.iter().map(|tls| server_certificate(tls, envoy)) {
            snapshot.put(ResourceType::Secret, Resource::new(&certificate.name, &certificate));
        }
        for rule in &config.routing.rules {
            snapshot.add(config, rule);
        }
        snapshot.put_routes(config);
        snapshot.put_filter(code, envoy);
        snapshot
    }

    /// Renders `view` for gRPC clients, as of this time in milliseconds since 1970. From `old`, their snapshot of another
    /// view, it takes what is the same.
    pub(super) fn render_for_grpc(view: &Arc<View>, now: u64, old: Option<&Self>) -> Self {
        let is_similar = |old: &&Self| old.view.config().equals_but_for_rules(view.config());
        let known = old.filter(is_similar).map(|old| &old.resources);
        let grpc::Rendered {
            resources,
            left_out,
            expiry,
        } = grpc::render(view.config(), now, known);
        Self {
            resources,
            view: Arc::clone(view),
            uses: OrdMap::new(),
            mirrors: OrdMap::new(),
            left_out: left_out.into(),
            expiry,
        }
    }

    /// The one of `view`, made from this one.
    pub(super) fn next(&self, view: &Arc<View>, code: &FilterCode, envoy: EnvoyVersion) -> Self {
        let Some(difference) = self.view.difference(view) else {
            return Self::render(view, code, envoy);
        };
        let config = view.config();
        let mut next = self.clone();
        next.view = Arc::clone(view);
        for rule in &difference.added {
            next.add(config, rule);
        }
        for rule in &difference.removed {
            next.remove(config, rule);
        }
        if !next.mirrors.keys().eq(self.mirrors.keys()) {
            next.put_routes(config);
        }
        if !difference.is_empty() {
            next.put_filter(code, envoy);
        }
        next
    }

    fn add(&mut self, config: &ValidConfig, rule: &ValidRule) {
        for weighted in &rule.targets {
            self.use_target(config, &weighted.target);
            let name = rule.cluster(&weighted.target, &config.routing);
            if self.is_first_use(&name)
                && let Some(cluster) = aggregate_cluster_of(config, rule, &weighted.target)
            {
                self.put(ResourceType::Cluster, Resource::new(&name, &cluster));
            }
        }
        if let Some(mirror) = &rule.mirror {
            self.use_target(config, &mirror.target);
            *self.mirrors.entry(mirror.target.to_string()).or_insert(0) += 1;
        }
    }

    fn remove(&mut self, config: &ValidConfig, rule: &ValidRule) {
        for weighted in &rule.targets {
            self.drop_use(&weighted.target.to_string());
            self.drop_use(&rule.cluster(&weighted.target, &config.routing));
        }
        if let Some(mirror) = &rule.mirror {
            let name = mirror.target.to_string();
            self.drop_use(&name);
            match self.mirrors.get(&name) {
                Some(count) if *count > 1 => {
                    let left = count - 1;
                    self.mirrors.insert(name, left);
                }
                _ => {
                    self.mirrors.remove(&name);
                }
            }
        }
    }

    fn use_target(&mut self, config: &ValidConfig, target: &Target) {
        let name = target.to_string();
        if !self.is_first_use(&name) {
            return;
        }
        let endpoints = discovered_endpoints(config, target);
        let mut cluster = Resource::new(&name, &cluster(config, target));
        cluster.has_endpoints = endpoints.is_some();
        self.put(ResourceType::Cluster, cluster);
        if let Some(endpoints) = endpoints {
            self.put(ResourceType::Endpoints, Resource::new(&name, &endpoints));
        }
    }

    /// Counts one more use of the cluster `name`.
    fn is_first_use(&mut self, name: &str) -> bool {
        if let Some(count) = self.uses.get_mut(name) {
            *count += 1;
            return false;
        }
        self.uses.insert(name.into(), 1);
        true
    }

    fn drop_use(&mut self, name: &str) {
        match self.uses.get_mut(name) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                self.uses.remove(name);
                for kind in [ResourceType::Cluster, ResourceType::Endpoints] {
                    self.resources[kind as usize].remove(name);
                }
            }
        }
    }

    fn put_routes(&mut self, config: &ValidConfig) {
        for routes in Port::ALL.map(|port| routes(config, port, &ToString::to_string)) {
            self.put(ResourceType::Route, Resource::new(&routes.name, &routes));
        }
    }

    fn put_filter(&mut self, code: &FilterCode, envoy: EnvoyVersion) {
        let filter = filter_config(self.view.table(), code, envoy);
        let filter = Resource::encoded::<TypedExtensionConfig>(FILTER, filter);
        self.put(ResourceType::FilterConfig, filter);
    }

    fn put(&mut self, kind: ResourceType, resource: Resource) {
        self.resources[kind as usize].insert(Arc::new(resource));
    }

    /// What it was rendered from.
    pub(super) fn view(&self) -> &View {
        &self.view
    }

    /// The hash of the content.
    pub fn version(&self) -> String {
        let hashes: Vec<u8> = self.resources.iter().flat_map(|set| set.hash().to_le_bytes()).collect();
        version(XxHash64::oneshot(0, &hashes))
    }

    /// When, in milliseconds since 1970, the first rule in here expires, if this kind of data plane can't tell.
    pub(super) fn expiry(&self) -> Option<u64> {
        self.expiry
    }

    /// What this kind of data plane can't follow.
    pub fn left_out(&self) -> &Arc<[LeftOut]> {
        &self.left_out
    }

    /// The resources of `kind`.
    pub fn resources(&self, kind: ResourceType) -> &ResourceSet {
        &self.resources[kind as usize]
    }
}

impl PartialEq for Snapshot {
    fn eq(&self, other: &Self) -> bool {
        self.resources == other.resources
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use sidetrack_routing::{decode, validate};

    use super::*;

    fn view(config: &serde_json::Value) -> Arc<View> {
        let config = Arc::new(decode(config, validate).unwrap());
        Arc::new(View::new(&config, None))
    }

    fn code() -> FilterCode {
        FilterCode::file("/filter.wasm".into())
    }

    fn snapshot(config: serde_json::Value) -> Snapshot {
        Snapshot::render(&view(&config), &code(), EnvoyVersion::NEWEST)
    }

    /// `routing.rules` as they were, and changes of them, each with the rules that follow.
    #[test]
    fn what_is_made_from_another_is_what_is_rendered_anew() {
        let rule = |key: &str, more: serde_json::Value| {
            let mut rule = json!({"routeKey": key, "targetService": key});
            rule.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            rule
        };
        let plain = |key| rule(key, json!({}));
        let states = [
            vec![plain("a"), plain("b"), plain("c")],
            vec![plain("a"), plain("c")],
            vec![plain("c"), plain("a")],
            vec![],
            vec![
                rule("a", json!({"mirror": {"service": "copies"}})),
                plain("b"),
                plain("listed"),
            ],
            vec![
                rule("a", json!({"mirror": {"service": "copies"}})),
                rule("b", json!({"mirror": {"service": "copies"}})),
                rule("b", json!({"targetService": "a"})),
                rule("b", json!({"fallback": "none"})),
            ],
            vec![
                rule("b", json!({"mirror": {"service": "copies"}})),
                rule("x", json!({"targetService": "d"})),
            ],
            vec![
                rule("b", json!({"mirror": {"service": "b"}})),
                rule("x", json!({"targetService": "listed"})),
            ],
            vec![plain("listed"), plain("slow")],
            vec![plain("b")],
        ];
        let config = |rules: &[serde_json::Value]| {
            json!({"routing": {"defaultTarget": "d", "rules": rules}, "services": {
                "listed": {"endpoints": ["127.0.0.1:1"]}, "slow": {"requestTimeout": "9s"}}})
        };
        let mut made = snapshot(config(&states[0]));
        // Rules that are in both stay the same, as they do in the agent.
        let mut known: Vec<Arc<ValidRule>> = Vec::new();
        for rules in states.iter().chain(states.iter().rev()) {
            let mut next = decode(&config(rules), validate).unwrap();
            for rule in &mut next.routing.rules {
                match known.iter().find(|known| *known == rule) {
                    Some(known) => *rule = Arc::clone(known),
                    None => known.push(Arc::clone(rule)),
                }
            }
            let next = Arc::new(View::new(&Arc::new(next), None));
            made = made.next(&next, &code(), EnvoyVersion::NEWEST);
            let anew = Snapshot::render(&next, &code(), EnvoyVersion::NEWEST);
            for kind in ResourceType::ALL {
                let names = |snapshot: &Snapshot| snapshot.resources(kind).names().cloned().collect::<Vec<_>>();
                assert_eq!(names(&made), names(&anew), "{kind} {rules:?}");
                assert_eq!(made.resources(kind), anew.resources(kind), "{kind} {rules:?}");
            }
            assert_eq!((made.version(), &made.uses), (anew.version(), &anew.uses));
        }
    }

    #[test]
    fn of_a_small_change_most_is_shared() {
        let config = |target: &str| {
            let rules: Vec<_> = (0..100)
                .map(|i| json!({"routeKey": format!("k{i}"), "targetService": if i == 50 { target.to_owned() } else { format!("t{i}") }}))
                .collect();
            json!({"routing": {"defaultTarget": "d", "rules": rules}})
        };
        let old = snapshot(config("one"));
        let mut new = decode(&config("other"), validate).unwrap();
        for (new, old) in new.routing.rules.iter_mut().zip(&old.view.config().routing.rules) {
            if new == old {
                *new = Arc::clone(old);
            }
        }
        let new = old.next(
            &Arc::new(View::new(&Arc::new(new), None)),
            &code(),
            EnvoyVersion::NEWEST,
        );
        let changes = |kind| old.resources(kind).changes(new.resources(kind)).count();
        assert_eq!(ResourceType::ALL.map(changes), [4, 0, 0, 0, 0, 1]);
        let shared = |name| {
            let cluster =
                |snapshot: &Snapshot| Arc::clone(snapshot.resources(ResourceType::Cluster).get(name).unwrap());
            Arc::ptr_eq(&cluster(&old), &cluster(&new))
        };
        assert!(shared("t3:80") && shared("t99:80|baseline"));
    }

    #[test]
    fn a_scope_gets_the_rules_for_its_hosts() {
        let config = decode(
            &json!({
                "agent": {"scopes": [{"name": "edge", "match": {"cluster": "edge"}, "hosts": ["shop.example", "*.pre.example"]}]},
                "routing": {"defaultTarget": "d", "rules": [
                    {"routeKey": "k", "targetService": "any"},
                    {"routeKey": "k", "targetService": "shop", "hosts": ["SHOP.example"]},
                    {"routeKey": "k", "targetService": "pre", "hosts": ["a.pre.example", "z.example"]},
                    {"routeKey": "k", "targetService": "wild", "hosts": ["*.example"]},
                    {"routeKey": "k", "targetService": "other", "hosts": ["other.example2"]},
                    {"routeKey": "k", "targetService": "deep", "hosts": ["a.b.pre.example"]},
                ]},
            }),
            validate,
        );
        let config = Arc::new(config.unwrap());
        let targets = |scope| {
            let snapshot = Snapshot::render(&Arc::new(View::new(&config, scope)), &code(), EnvoyVersion::NEWEST);
            let names = snapshot.resources(ResourceType::Cluster).names();
            names
                .filter_map(|name| name.strip_suffix(":80").map(str::to_owned))
                .collect::<Vec<_>>()
        };
        assert_eq!(targets(Some(0)), ["any", "d", "pre", "shop", "wild"]);
        assert_eq!(targets(None), ["any", "d", "deep", "other", "pre", "shop", "wild"]);
    }

    fn sample(target: &str) -> serde_json::Value {
        json!({
            "routing": {"defaultTarget": "d", "rules": [{"routeKey": "k", "targetService": target}]},
            "services": {"d": {"endpoints": ["127.0.0.1:1", "127.0.0.1:2"]}},
        })
    }

    #[test]
    fn equal_configurations_have_equal_bytes_and_version() {
        assert_eq!(snapshot(sample("a")), snapshot(sample("a")));
        assert_ne!(snapshot(sample("a")).version(), snapshot(sample("b")).version());
    }

    #[test]
    fn only_what_changed_has_another_hash() {
        let (a, b) = (snapshot(sample("a")), snapshot(sample("b")));
        assert_eq!(a.resources(ResourceType::Listener), b.resources(ResourceType::Listener));
        assert_eq!(a.resources(ResourceType::Route), b.resources(ResourceType::Route));
        assert_eq!(
            a.resources(ResourceType::Endpoints),
            b.resources(ResourceType::Endpoints)
        );
        assert_ne!(
            a.resources(ResourceType::FilterConfig),
            b.resources(ResourceType::FilterConfig)
        );
    }

    #[test]
    fn a_listed_service_has_endpoints_and_others_have_dns_or_an_address() {
        let snapshot = snapshot(json!({
            "routing": {"defaultTarget": "d", "rules": [
                {"routeKey": "k", "targetService": "dns.example"},
                {"routeKey": "k", "targetService": "10.0.0.1:81"},
                {"routeKey": "k", "targetService": "mixed"},
            ]},
            "services": {
                "d": {"endpoints": ["127.0.0.1:1"]},
                "mixed": {"endpoints": ["127.0.0.1:1", "host:2"]},
                "unused": {"endpoints": ["127.0.0.1:3"]},
            },
        }));
        let names: Vec<&str> = snapshot
            .resources(ResourceType::Cluster)
            .names()
            .map(|name| &**name)
            .collect();
        assert_eq!(
            names,
            [
                "10.0.0.1:81",
                "10.0.0.1:81|baseline",
                "d:80",
                "dns.example:80",
                "dns.example:80|baseline",
                "mixed:80",
                "mixed:80|baseline",
            ]
        );
        let discovered: Vec<&str> = snapshot
            .resources(ResourceType::Endpoints)
            .names()
            .map(|name| &**name)
            .collect();
        assert_eq!(discovered, ["d:80"]);
    }
}
