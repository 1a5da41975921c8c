//! Two agents from the same sources are one to whoever asks them.

use std::time::Duration;

use serde_json::json;
use sidetrack_tests::{
    AdsClient, AdsOptions, AdsType, Agent, Api, Client, ConfigFile, Envoy, PATIENCE, Passing, Ports, Protocol, Relay,
    Services, Stats, Variant, config_text, free_port, poll_until, render, until_served_by,
};

const ROUTING: &str = r#"
routing:
  defaultTarget: baseline
  rules:
    - {routeKey: from-file, targetService: service-a}
    - {routeKey: split, targets: [{service: service-a, weight: 1}, {service: service-b, weight: 2}]}
"#;

const WAIT: Option<Duration> = Some(Duration::from_secs(5));

const TYPES: [AdsType; 5] = [
    AdsType::Clusters,
    AdsType::Endpoints,
    AdsType::Listeners,
    AdsType::Routes,
    AdsType::Filter,
];

/// Whatever an update of anything counts in an Envoy.
const UPDATES: &str = "update_success|update_rejected|config_reload|cluster_added|cluster_modified|cluster_removed|listener_added|listener_modified|membership_change|warming_state";

/// Two agents with the same configuration but for their own ports, and the same rules from the API.
struct Twins {
    ports: [Ports; 2],
    _files: [ConfigFile; 2],
    _agents: [Agent; 2],
    services: Services,
}

impl Twins {
    async fn start() -> Self {
        let services = Services::start(&["baseline", "service-a", "service-b"]).await;
        let first = Ports::free();
        let second = Ports {
            api: free_port(),
            xds: free_port(),
            ..first
        };
        let ports = [first, second];
        let files = ports.map(|ports| ConfigFile::new(&config_text(&ports, &services, ROUTING)));
        let agents = [
            Agent::start(&files[0].path(), &ports[0]).await,
            Agent::start(&files[1].path(), &ports[1]).await,
        ];
        // What is the same in the end, by different ways.
        let mut apis = ports.map(|ports| Api::new(ports.api));
        let b = json!([{"targetService": "service-b"}]);
        let a = json!([{"targetService": "service-a", "pathPrefixes": ["/a"]}]);
        for (agent, key, rules) in [(0, "x", &a), (0, "y", &b), (1, "y", &a), (1, "y", &b), (1, "x", &a)] {
            let written = apis[agent].put(key, rules, WAIT).await.unwrap();
            assert_eq!(written.status, 200, "{written:?}");
        }
        Self {
            ports,
            _files: files,
            _agents: agents,
            services,
        }
    }
}

async fn until_complete(client: &AdsClient) {
    client
        .until("everything", |seen| {
            let has_all = TYPES.iter().all(|kind| !seen.held.names(*kind).is_empty());
            let last = seen.pushes.last()?.at;
            (has_all && last.elapsed() > Duration::from_millis(300)).then_some(())
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_agents_give_equal_bytes_and_versions() {
    let twins = Twins::start().await;
    for variant in [Variant::Sotw, Variant::Delta] {
        let options = AdsOptions::of_everything("anybody", variant);
        let clients = twins.ports.map(|ports| AdsClient::start(ports.xds, options.clone()));
        for client in &clients {
            until_complete(client).await;
        }
        let [first, second] = clients.map(|client| client.seen().held.clone());
        for kind in TYPES {
            assert_eq!(first.bodies(kind), second.bodies(kind), "{variant:?} {kind:?}");
            assert_eq!(first.versions(kind), second.versions(kind), "{variant:?} {kind:?}");
            assert_eq!(first.version(kind), second.version(kind), "{variant:?} {kind:?}");
        }
    }
    let mut versions = Vec::new();
    for ports in twins.ports {
        let config = Api::new(ports.api).get("/api/v1/config").await.unwrap();
        versions.push(config["version"].clone());
    }
    assert_eq!(versions[0], versions[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_comes_from_the_one_gets_nothing_from_the_other() {
    let twins = Twins::start().await;
    for variant in [Variant::Sotw, Variant::Delta] {
        let options = AdsOptions::of_everything("anybody", variant);
        let client = AdsClient::start(twins.ports[0].xds, options.clone());
        until_complete(&client).await;
        let held = client.seen().held.clone();
        drop(client);

        let client = AdsClient::start_with(twins.ports[1].xds, options, held);
        in_force_at(twins.ports[1].api, "anybody").await;
        let rules = json!([{"targetService": "service-a"}]);
        // What comes first is the next change.
        Api::new(twins.ports[1].api).put("next", &rules, WAIT).await.unwrap();
        client.has_table().await;
        assert_eq!(client.seen().counts(), [(AdsType::Filter, 1)].into(), "{variant:?}");
        Api::new(twins.ports[1].api).delete("next", WAIT).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_envoy_that_switches_to_the_other_agent_sees_no_change() {
    let twins = Twins::start().await;
    let relay = Relay::start(twins.ports[0].xds, Passing::All).await;
    let ports = Ports {
        xds: relay.port(),
        ..twins.ports[0]
    };
    let file = ConfigFile::new(&config_text(&ports, &twins.services, ROUTING));
    let bootstrap = render(&file.path(), &["--bootstrap", "--node", "wanderer"]);
    let _envoy = Envoy::start(&bootstrap);
    until_served_by(ports.http, "y", "service-b").await;
    in_force_at(twins.ports[0].api, "wanderer").await;

    let before = Stats::read(ports.admin, UPDATES).await;
    for (agent, other) in [(1, 0), (0, 1), (1, 0)] {
        relay.move_to(twins.ports[agent].xds);
        in_force_at(twins.ports[agent].api, "wanderer").await;
        let mut client = Client::new(Protocol::Http1, ports.http);
        for (key, service) in [("from-file", "service-a"), ("y", "service-b"), ("nobody", "baseline")] {
            let answer = client.get("/", &[("x-route-key", key)]).await.unwrap();
            assert_eq!(answer.served_by(), service);
        }
        assert_eq!(
            Stats::read(ports.admin, UPDATES).await,
            before,
            "from {other} to {agent}"
        );
    }
    assert!(!before.not_zero("update_success").is_empty(), "{before:?}");

    let rules = json!([{"targetService": "service-b"}]);
    let written = Api::new(twins.ports[1].api).put("from-second", &rules, WAIT).await;
    assert!(written.unwrap().is_in_force());
    until_served_by(ports.http, "from-second", "service-b").await;
    assert_ne!(Stats::read(ports.admin, UPDATES).await, before, "the counters count");
}

/// Waits until the proxy `node` has all that the agent has.
async fn in_force_at(api: u16, node: &str) {
    let mut api = Api::new(api);
    poll_until(PATIENCE, &format!("{node} up to date"), async || {
        let proxies = api.get("/api/v1/proxies").await.map_err(|error| format!("{error:#}"))?;
        let listed = proxies["proxies"].as_array().into_iter().flatten();
        let is_there = listed
            .clone()
            .any(|proxy| proxy["node"] == node && proxy["inForce"] == true);
        is_there.then_some(()).ok_or_else(|| proxies.to_string())
    })
    .await;
}
