//! What the filter's two builds take: a table, the JSON that people write, nothing, and what is neither.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;
use sidetrack_tests::{
    Agent, Api, Client, ConfigFile, Envoy, PATIENCE, Ports, Protocol, Services, artifacts, config_text, poll_until,
    render, sidetrack, until_served_by,
};

const ROUTING: &str = r#"{"defaultTarget": "baseline", "rules": [{"routeKey": "pr-17", "targetService": "sandbox"}]}"#;

fn build(name: &str) -> PathBuf {
    artifacts::workspace()
        .join("target/wasm32-unknown-unknown/wasm")
        .join(name)
}

/// The bootstrap with `form` instead of the table that is rendered: an `Any` of a StringValue, or none.
fn with_configuration(bootstrap: &str, form: Option<&str>) -> String {
    let mut lines = Vec::new();
    let mut rendered = bootstrap.lines();
    while let Some(line) = rendered.next() {
        let Some(indent) = line.strip_suffix("configuration:") else {
            lines.push(line.to_owned());
            continue;
        };
        let bytes: Vec<_> = rendered.by_ref().take(2).collect();
        assert!(bytes[0].contains("google.protobuf.BytesValue"), "{bytes:?}");
        if let Some(form) = form {
            lines.push(line.to_owned());
            lines.push(format!(
                "{indent}  '@type': type.googleapis.com/google.protobuf.StringValue"
            ));
            lines.push(format!("{indent}  value: '{form}'"));
        }
    }
    lines.join("\n")
}

struct Setup {
    ports: Ports,
    file: ConfigFile,
    _services: Services,
}

impl Setup {
    async fn start() -> Self {
        let ports = Ports::free();
        let services = Services::start(&["baseline", "sandbox"]).await;
        let file = ConfigFile::new(&config_text(&ports, &services, &format!("routing: {ROUTING}")));
        Self {
            ports,
            file,
            _services: services,
        }
    }

    /// For an Envoy without an agent, whose filter is this build.
    fn bootstrap(&self, build: &str) -> String {
        render(&self.file.path(), &["--filter", self::build(build).to_str().unwrap()])
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_build_takes_what_it_is_for() {
    let setup = Setup::start().await;
    let [full, small] = ["sidetrack_filter.wasm", "sidetrack_filter_table.wasm"].map(|name| setup.bootstrap(name));
    let taken = [
        ("a table", full.clone(), "sandbox"),
        ("JSON", with_configuration(&full, Some(ROUTING)), "sandbox"),
        ("nothing", with_configuration(&full, None), "baseline"),
        ("a table, the small one", small.clone(), "sandbox"),
        ("nothing, the small one", with_configuration(&small, None), "baseline"),
        (
            "empty text, the small one",
            with_configuration(&small, Some("")),
            "baseline",
        ),
    ];
    for (what, bootstrap, expected) in taken {
        let _envoy = Envoy::start(&bootstrap);
        until_served_by(setup.ports.http, "pr-17", expected).await;
        let mut client = Client::new(Protocol::Http1, setup.ports.http);
        let answer = client.get("/", &[("x-route-key", "nobody's")]).await.unwrap();
        assert_eq!(answer.served_by(), "baseline", "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_envoy_with_a_configuration_that_isnt_taken_says_why() {
    let setup = Setup::start().await;
    let [full, small] = ["sidetrack_filter.wasm", "sidetrack_filter_table.wasm"].map(|name| setup.bootstrap(name));
    let refused = [
        (
            with_configuration(&small, Some(ROUTING)),
            "takes no JSON: use sidetrack_filter.wasm",
        ),
        (
            with_configuration(&small, Some("sidetrack")),
            "it has another beginning",
        ),
        (
            with_configuration(&full, Some("sidetrack")),
            "neither routing JSON nor a route table",
        ),
        (
            with_configuration(
                &full,
                Some(r#"{"defaultTarget": "baseline", "rules": [{"routeKey": "a,b"}]}"#),
            ),
            "rules[0]: `targetService`",
        ),
    ];
    for (bootstrap, said) in refused {
        let mut envoy = Envoy::start(&bootstrap);
        let status = envoy.exit(Duration::from_secs(20)).await;
        assert!(!status.success());
        assert!(envoy.output().contains(said), "{said}: {}", envoy.output());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_replaced_is_loaded_with_the_next_change() {
    let setup = Setup::start().await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("filter.wasm");
    let replace = |content: &[u8]| {
        let new = directory.path().join("new");
        std::fs::write(&new, content).unwrap();
        std::fs::rename(new, &file).unwrap();
    };
    let content_of = |name| std::fs::read(build(name)).unwrap();
    replace(&content_of("sidetrack_filter_table.wasm"));
    let arguments = ["--filter", file.to_str().unwrap()];
    let mut command = sidetrack(&["agent", "-c"]);
    command.arg(setup.file.path()).args(arguments);
    let _agent = Agent::start_by(command, &setup.ports).await;
    let _envoy = Envoy::start(&render(
        &setup.file.path(),
        &["--bootstrap", arguments[0], arguments[1]],
    ));
    until_served_by(setup.ports.http, "pr-17", "sandbox").await;

    let mut api = Api::new(setup.ports.api);
    let rules = json!([{"targetService": "sandbox"}]);
    replace(b"\0asm, but no module");
    api.put("pr-18", &rules, None).await.unwrap();
    poll_until(PATIENCE, "Envoy refuses it", async || {
        let ready = api.get("/readyz").await;
        let said = format!("{ready:?}");
        said.contains("Wasm").then_some(()).ok_or(said)
    })
    .await;
    until_served_by(setup.ports.http, "pr-17", "sandbox").await;
    until_served_by(setup.ports.http, "pr-18", "baseline").await;

    replace(&content_of("sidetrack_filter.wasm"));
    let written = api.put("pr-19", &rules, Some(PATIENCE)).await.unwrap();
    assert!(written.is_in_force(), "{written:?}");
    for key in ["pr-17", "pr-18", "pr-19"] {
        until_served_by(setup.ports.http, key, "sandbox").await;
    }
}
