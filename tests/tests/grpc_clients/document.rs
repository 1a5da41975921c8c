//! What docs/grpc-clients.md tells to write works as it is written there.

use std::fs;

use sidetrack_tests::{
    Agent, Api, Bootstrap, Call, ConfigFile, Library, PATIENCE, Ports, Process, Proxyless, Services, artifacts,
    config_text,
};

use crate::mesh::{assert_fails, until_served};

const ROUTING: &str = "routing: {defaultTarget: shop, rules: [{routeKey: pr-17, targetService: sandbox}]}";

/// The first block of this language.
fn snippet(language: &str) -> String {
    let document = fs::read_to_string(artifacts::workspace().join("docs/grpc-clients.md")).unwrap();
    let block = document.split(&format!("```{language}\n")).nth(1);
    let block = block.and_then(|rest| rest.split("```").next());
    block.unwrap_or_else(|| panic!("a block of {language}")).to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_of_the_document_work() {
    let ports = Ports::free();
    let services = Services::start(&["shop", "sandbox"]).await;
    let file = ConfigFile::new(&config_text(&ports, &services, ROUTING));
    let _agent = Agent::start(&file.path(), &ports).await;
    let python = format!("import grpc\nrequest = b'hello'\n{}", snippet("python"));
    let js = format!("const request = Buffer.from('hello');\n{}", snippet("js"));
    let mut served = 0;
    for (library, text) in [(Library::Python, python), (Library::Node, js)] {
        for bootstrap in [Bootstrap::File, Bootstrap::Environment] {
            let directory = tempfile::tempdir().unwrap();
            let mut command = library.program(directory.path(), &text);
            let node = Bootstrap::text(ports.xds, "checkout-1", "checkout");
            bootstrap.give(&node, directory.path(), &mut command);
            let mut program = Process::spawn(&format!("{library:?}"), &mut command);
            let status = program.exit(PATIENCE).await;
            assert!(status.success(), "{status}: {text}\n{}", program.output());
            served += 1;
            assert_eq!(services.requests("sandbox"), served, "{library:?} {bootstrap:?}");
            let last = services.last_request("sandbox");
            assert_eq!(last.path, "/shop.Cart/Get");
        }
    }
    assert_eq!(services.requests("shop"), 0);
}

/// Go has to be compiled: what the document says is in the client of these tests.
#[test]
fn go_of_the_document_is_what_is_tested() {
    let client = fs::read_to_string(artifacts::workspace().join("tests/grpc-clients/client.go")).unwrap();
    let lines: Vec<&str> = client.lines().map(str::trim).collect();
    for line in snippet("go").lines().filter(|line| !line.is_empty()) {
        assert!(lines.contains(&line.trim()), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bootstrap_may_be_in_the_environment_and_has_a_scope() {
    let ports = Ports::free();
    let services = Services::start(&["baseline", "sandbox", "other"]).await;
    let routing = r#"
routing:
  defaultTarget: baseline
  hosts: {shop.example: baseline}
  rules:
    - {routeKey: k, targetService: sandbox, hosts: [shop.example]}
    - {routeKey: k, targetService: other, hosts: [pay.example, baseline]}
"#;
    let text = config_text(&ports, &services, routing);
    let agent = format!("agent: {{apiPort: {}, xdsPort: {}}}", ports.api, ports.xds);
    let scopes = "scopes: [{name: buyers, match: {cluster: checkout}, hosts: [shop.example]}]";
    let scoped = text.replace(&agent, &format!("{}, {scopes}}}", agent.trim_end_matches('}')));
    assert_ne!(scoped, text);
    let file = ConfigFile::new(&scoped);
    let _agent = Agent::start(&file.path(), &ports).await;
    for library in Library::ALL {
        let client = Proxyless::start_by(library, ports.xds, Bootstrap::Environment).await;
        let call = |target: &str| Call::to(target).key("k");
        assert_eq!(
            client.call(call("xds:///shop.example")).await,
            "sandbox",
            "{}",
            client.node
        );
        // The rule for other hosts isn't there, and so not their names.
        until_served(&client, "k", "baseline").await;
        assert_fails(&client, call("xds:///pay.example")).await;
        let proxies = Api::new(ports.api).get("/api/v1/proxies").await.unwrap();
        let proxies = proxies["proxies"].as_array().unwrap();
        let found = proxies
            .iter()
            .find(|proxy| proxy["node"] == client.node.as_str())
            .expect("it is connected");
        assert_eq!(
            (&found["scope"], &found["cluster"]),
            (&"buyers".into(), &"checkout".into())
        );
    }
}
