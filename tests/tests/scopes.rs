//! A proxy gets the rules for the hosts it serves, and no others.

use serde_json::json;
use sidetrack_tests::{
    AdsClient, AdsOptions, AdsType, Agent, Api, Client, ConfigFile, Envoy, PATIENCE, Ports, Protocol, Services,
    Variant, config_with, poll_until, render, until_served_by,
};

const ROUTING: &str = r#"
routing:
  defaultTarget: baseline
  rules:
    - {routeKey: k, targetService: service-a, hosts: [shop.example]}
    - {routeKey: k, targetService: service-b, hosts: [pay.example]}
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_has_the_rules_and_targets_of_its_scope() {
    let ports = Ports::free();
    let services = Services::start(&["baseline", "service-a", "service-b"]).await;
    let scopes = r#"  scopes:
    - {name: shop, match: {cluster: shop-gateway}, hosts: [shop.example]}
    - {name: pay, match: {metadata: {team: pay}}, hosts: [pay.example]}"#;
    let text = config_with(&ports, &format!("{}{ROUTING}", services.yaml()));
    let text = text.replace(
        &format!("agent: {{apiPort: {}, xdsPort: {}}}\n", ports.api, ports.xds),
        &format!("agent:\n  apiPort: {}\n  xdsPort: {}\n{scopes}\n", ports.api, ports.xds),
    );
    let config = ConfigFile::new(&text);
    let _agent = Agent::start(&config.path(), &ports).await;

    let everything = AdsClient::start(ports.xds, AdsOptions::of_everything("all", Variant::Delta));
    everything.has_table().await;
    let _envoy = Envoy::start(&render(
        &config.path(),
        &["--bootstrap", "--cluster", "shop-gateway", "--node", "shop-1"],
    ));
    let mut client = Client::new(Protocol::Http1, ports.http);
    poll_until(PATIENCE, "the rule for shop.example", async || {
        let answer = client.get("/", &[("host", "shop.example"), ("x-route-key", "k")]).await;
        let served_by = answer.map_err(|error| format!("{error:#}"))?.served_by();
        (served_by == "service-a").then_some(()).ok_or(served_by)
    })
    .await;
    let other = client
        .get("/", &[("host", "pay.example"), ("x-route-key", "k")])
        .await
        .unwrap();
    assert_eq!(other.served_by(), "baseline", "the rule for pay.example isn't there");

    let mut admin = Client::new(Protocol::Http1, ports.admin);
    let clusters = admin.get("/clusters", &[]).await.unwrap().text();
    assert!(
        clusters.contains("\nservice-a:80::") && !clusters.contains("\nservice-b:80::"),
        "{clusters}"
    );
    let has = |name: &str| everything.seen().held.has(AdsType::Clusters, name);
    assert!(has("service-a:80") && has("service-b:80"));

    let mut api = Api::new(ports.api);
    let proxies = api.get("/api/v1/proxies").await.unwrap();
    let scope = |node: &str| {
        let list = proxies["proxies"].as_array().unwrap();
        list.iter()
            .find(|proxy| proxy["node"] == node)
            .map(|proxy| proxy["scope"].clone())
    };
    assert_eq!(
        (scope("shop-1"), scope("all")),
        (Some(json!("shop")), Some(json!(null)))
    );

    // What is added for all hosts is there in every scope, what is for others in none of theirs.
    let wait = Some(PATIENCE);
    let written = api
        .put("new", &json!([{"targetService": "service-b"}]), wait)
        .await
        .unwrap();
    assert_eq!(written.status, 200, "{written:?}");
    until_served_by(ports.http, "new", "service-b").await;
    let written = api
        .put(
            "new",
            &json!([{"targetService": "service-b", "hosts": ["pay.example"]}]),
            wait,
        )
        .await
        .unwrap();
    assert_eq!(written.status, 200, "{written:?}");
    until_served_by(ports.http, "new", "baseline").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn scopes_change_with_the_file_while_a_proxy_is_connected() {
    let ports = Ports::free();
    let services = Services::start(&["baseline", "service-a", "service-b"]).await;
    let text = |hosts: &str| {
        let text = config_with(&ports, &format!("{}{ROUTING}", services.yaml()));
        let scopes = format!("  scopes: [{{name: shop, match: {{cluster: shop-gateway}}, hosts: [{hosts}]}}]");
        text.replace(
            &format!("agent: {{apiPort: {}, xdsPort: {}}}\n", ports.api, ports.xds),
            &format!("agent:\n  apiPort: {}\n  xdsPort: {}\n{scopes}\n", ports.api, ports.xds),
        )
    };
    let config = ConfigFile::new(&text("shop.example"));
    let _agent = Agent::start(&config.path(), &ports).await;
    let _envoy = Envoy::start(&render(&config.path(), &["--bootstrap", "--cluster", "shop-gateway"]));
    let mut client = Client::new(Protocol::Http1, ports.http);
    for (hosts, host, expected) in [
        ("shop.example", "shop.example", "service-a"),
        ("pay.example", "pay.example", "service-b"),
        ("pay.example", "shop.example", "baseline"),
        ("shop.example", "shop.example", "service-a"),
    ] {
        config.replace(&text(hosts));
        poll_until(
            PATIENCE,
            &format!("{host} at {expected} in the scope of {hosts}"),
            async || {
                let answer = client.get("/", &[("host", host), ("x-route-key", "k")]).await;
                let served_by = answer.map_err(|error| format!("{error:#}"))?.served_by();
                (served_by == expected).then_some(()).ok_or(served_by)
            },
        )
        .await;
    }
}
