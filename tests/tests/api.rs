//! The agent's API: rules are put, read and removed, and what is looked at is there.

use std::time::Duration;

use serde_json::json;
use sidetrack_tests::api_agent::{ROUTING, body, said};
use sidetrack_tests::{Agent, ApiAgent, PATIENCE, Process, config_with, poll_until, sidetrack};

const RULES: &str = "/api/v1/rules";
const WAIT: Option<Duration> = Some(Duration::from_secs(20));

#[tokio::test(flavor = "multi_thread")]
async fn rules_are_put_read_removed_and_survive_a_kill() {
    let mut running = ApiAgent::start().await;
    let rule = json!({"targetService": "x", "pathPrefixes": ["/a"], "additionalHeaders": {"X-A": "b"}, "name": "n"});
    let written = running
        .api
        .put("k", &json!([rule, {"targetService": "y"}]), None)
        .await
        .unwrap();
    assert_eq!(written.status, 200, "{written:?}");
    assert_eq!(written.body["rules"], 4);
    assert_eq!(written.body["revision"], 2);
    assert!(written.body.get("inForce").is_none() && written.body["version"].is_string());
    let read = running.api.rules_of("k").await.unwrap().unwrap();
    assert_eq!(read.etag, written.etag);
    let mut expected = rule;
    expected["routeKey"] = "k".into();
    expected["fallback"] = "baseline".into();
    expected["source"] = "api".into();
    assert_eq!(read.rules[0], expected);

    // What was read can be put back, and is no change.
    let again = running.api.put("k", &json!(read.rules), None).await.unwrap();
    assert_eq!((again.status, &again.body), (200, &written.body));

    running
        .api
        .put("both", &json!([{"targetService": "z"}]), None)
        .await
        .unwrap();
    let before = running.all().await;
    let order = ["file:file", "both:file", "both:api", "k:api", "k:api"];
    assert_eq!(before.0, order);
    running.restart().await;
    assert_eq!(running.all().await, before);
    let both = running.api.rules_of("both").await.unwrap().unwrap();
    assert_eq!(both.rules[0]["source"], "file", "a key's rules of the file come first");
    assert_eq!(both.rules[1]["source"], "api");

    let only = running
        .call("GET", &format!("{RULES}/both?source=file"), &[], None)
        .await;
    assert_eq!(body(&only), json!([both.rules[0]]));
    let none = running
        .call("GET", &format!("{RULES}/file?source=api"), &[], None)
        .await;
    assert_eq!(body(&none), json!([]));
    let of_api = running.call("GET", &format!("{RULES}?source=api"), &[], None).await;
    assert_eq!(body(&of_api).as_array().unwrap().len(), 3);

    let deleted = running.api.delete("both", WAIT).await.unwrap();
    assert_eq!((deleted.status, &deleted.body["inForce"]), (200, &json!(true)));
    assert!(!deleted.etag.is_empty(), "the file's rules are left");
    let deleted = running.api.delete("k", None).await.unwrap();
    assert_eq!((deleted.status, &*deleted.etag), (200, ""));
    assert_eq!(running.all().await.0, ["file:file", "both:file"]);
    running.restart().await;
    assert_eq!(running.all().await.0, ["file:file", "both:file"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_rules_of_the_api_are_replaced_at_once() {
    let mut running = ApiAgent::start().await;
    running
        .api
        .put("old", &json!([{"targetService": "x"}]), None)
        .await
        .unwrap();
    let rules = json!([{"routeKey": "b", "targetService": "x"}, {"routeKey": "a", "targetService": "y"},
                       {"routeKey": "b", "targetService": "z"}]);
    let written = running.api.put_all(&rules, WAIT).await.unwrap();
    assert_eq!(
        (written.status, &written.body["rules"]),
        (200, &json!(5)),
        "{written:?}"
    );
    let (names, etag) = running.all().await;
    assert_eq!(names, ["file:file", "both:file", "a:api", "b:api", "b:api"]);
    assert_eq!(etag, written.etag);
    let b = running.api.rules_of("b").await.unwrap().unwrap();
    assert_eq!(
        (&b.rules[0]["targetService"], &b.rules[1]["targetService"]),
        (&json!("x"), &json!("z"))
    );

    // One bad rule, and nothing is changed.
    let rules = json!([{"routeKey": "c", "targetService": "x"}, {"routeKey": "d", "targetService": "x y"}]);
    let refused = running.api.put_all(&rules, None).await.unwrap();
    assert_eq!(
        (refused.status, &refused.body["problems"][0]["path"]),
        (400, &json!("[1].targetService"))
    );
    assert_eq!(running.all().await.1, etag);
    let emptied = running.api.put_all(&json!([]), None).await.unwrap();
    assert_eq!(emptied.status, 200);
    assert_eq!(running.all().await.0, ["file:file", "both:file"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_order_of_calls_makes_no_difference() {
    let mut running = ApiAgent::start().await;
    let mut results = Vec::new();
    let a = json!([{"targetService": "x"}]);
    let b = json!([{"targetService": "y"}, {"targetService": "x", "methods": ["GET"]}]);
    for order in [[("a", &a), ("b", &b), ("c", &a)], [("c", &b), ("b", &b), ("a", &a)]] {
        running.api.put_all(&json!([]), None).await.unwrap();
        for (key, rules) in order {
            running.api.put(key, rules, None).await.unwrap();
        }
        let last = running.api.put("c", &a, None).await.unwrap();
        let config = running.api.get("/api/v1/config").await.unwrap();
        assert_eq!(config["version"], last.body["version"]);
        results.push((running.all().await, config["config"].clone(), config["version"].clone()));
    }
    assert_eq!(results[0], results[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_looked_at_is_there() {
    let mut running = ApiAgent::start().await;
    running
        .api
        .put("k", &json!([{"targetService": "x", "pathPrefixes": ["/a"]}]), None)
        .await
        .unwrap();
    assert_eq!(running.call("GET", "/healthz", &[], None).await.text(), "ok\n");
    let ready = body(&running.call("GET", "/readyz", &[], None).await);
    assert_eq!((&ready["ready"], &ready["rules"]), (&json!(true), &json!(3)));
    let metrics = running.call("GET", "/metrics", &[], None).await.text();
    for line in [
        r#"sidetrack_agent_config_rules{source="file"} 2"#,
        r#"sidetrack_agent_config_rules{source="api"} 1"#,
        r#"sidetrack_agent_config_changes_total{source="api"} 1"#,
        "sidetrack_agent_config_revision 2",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line}\n{metrics}");
    }
    let config = running.api.get("/api/v1/config").await.unwrap();
    assert_eq!(config["revision"], 2);
    assert_eq!(config["version"], ready["version"]);
    assert_eq!(config["config"]["agent"]["xdsPort"], running.ports.xds);
    let rules = config["config"]["routing"]["rules"].as_array().unwrap();
    assert_eq!(rules.len(), 3);
    assert_eq!(rules[2]["source"], "api");

    let ask =
        json!({"path": "/a/b?c", "method": "POST", "host": "h", "headers": {"X-Route-Key": ["k", "l"], "x-b": "1"}});
    let answer = running.call("POST", "/api/v1/explain", &[], Some(&ask)).await;
    let answer = body(&answer);
    assert_eq!(
        (&answer["decision"], &answer["rule"]),
        (&json!("target"), &json!("k@x:80")),
        "{answer}"
    );
    assert_eq!(answer["version"], config["version"]);
    let refused = running
        .call(
            "POST",
            "/api/v1/explain",
            &[],
            Some(&json!({"path": "a//b", "headers": {":path": "/x", "Host": "h", "a": 1}, "x": 1})),
        )
        .await;
    assert_eq!(refused.status, 400);
    let said = said(&refused);
    for expected in [
        "x: unknown field",
        "headers.a: is the number 1, must be text, or a list of texts",
    ] {
        assert!(said.contains(expected), "{said}");
    }
    let document = running.api.get("/openapi.json").await.unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    for path in [
        "/healthz",
        "/readyz",
        "/api/v1/rules",
        "/api/v1/rules/k",
        "/api/v1/config",
    ] {
        if path == "/api/v1/rules/k" {
            continue;
        }
        let described = &document["paths"][path]["get"];
        assert!(described["responses"]["200"].is_object(), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_the_apis_rules_dont_fit_is_rejected() {
    let mut running = ApiAgent::start().await;
    let rules = json!([{"targetService": "x"}, {"targetService": "y", "additionalHeaders": {"X-Team": "a"}}]);
    assert_eq!(running.api.put("a.b", &rules, None).await.unwrap().status, 200);
    let before = running.all().await;
    let unfit = config_with(
        &running.ports,
        &ROUTING.replace("{defaultTarget", "{routeKeyHeader: X-Team, defaultTarget"),
    );
    running.file.replace(&unfit);
    const PROBLEM: &str = "api.rules[\"a.b\"][1].additionalHeaders.X-Team: is the route key header";
    poll_until(PATIENCE, "the rejection", async || {
        let ready = running.api.get("/readyz").await.unwrap();
        let rejected = ready["rejected"][0].as_str().unwrap_or_default().to_owned();
        rejected.contains(PROBLEM).then_some(()).ok_or(ready.to_string())
    })
    .await;
    assert_eq!(running.all().await, before);

    // At start there is nothing to go on with.
    running.agent.signal(sidetrack_tests::Signal::TERM);
    running.agent.exit(PATIENCE).await;
    let mut agent = Process::spawn("agent", sidetrack(&["agent", "-c"]).arg(running.file.path()));
    assert_eq!(agent.exit(PATIENCE).await.code(), Some(1));
    for expected in [PROBLEM, "change the configuration, or move"] {
        assert!(agent.stderr().contains(expected), "{}", agent.output());
    }
    running.file.replace(&config_with(&running.ports, ROUTING));
    running.agent = Agent::start(&running.file.path(), &running.ports).await;
    assert_eq!(running.all().await, before);
}
