//! Who may call the agent's API.

use http::Method;
use http::header::{CONTENT_TYPE, HOST};
use serde_json::json;
use sidetrack_tests::api_agent::ROUTING;
use sidetrack_tests::{Agent, Api, ApiAgent, ConfigFile, PATIENCE, Ports, Process, config_with, poll_until, sidetrack};

const RULES: &str = "/api/v1/rules";

#[tokio::test(flavor = "multi_thread")]
async fn web_pages_of_others_cant_call_it() {
    let mut running = ApiAgent::start().await;
    for (host, status) in [
        ("localhost", 200),
        ("127.0.0.1:1", 200),
        ("evil.example", 403),
        ("10.1.2.3", 403),
    ] {
        for path in ["/readyz", RULES, "/openapi.json"] {
            let answer = running.call("GET", path, &[(HOST, host)], None).await;
            assert_eq!(answer.status, status, "{host} {path}");
        }
    }
    // What a page sends without asking first has another type.
    let form = running
        .call("PUT", RULES, &[(CONTENT_TYPE, "text/plain")], Some(&json!([])))
        .await;
    assert_eq!(form.status, 415);
    let asks = running.call("OPTIONS", RULES, &[], None).await;
    assert_eq!(asks.status, 405);
    assert!(
        asks.headers
            .keys()
            .all(|name| !name.as_str().starts_with("access-control-"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_say_who_may_do_what() {
    const READ: &str = "reader-0123456789";
    const WRITE: &str = "writer-0123456789";
    let ports = Ports::free();
    let directory = tempfile::tempdir().unwrap();
    let tokens = directory.path().join("tokens");
    std::fs::write(&tokens, format!("read {READ}\nwrite {WRITE}\n")).unwrap();
    let text = config_with(&ports, ROUTING).replace(
        "agent: {",
        &format!("agent: {{apiBindAddress: 0.0.0.0, tokensFile: {}, ", tokens.display()),
    );
    let file = ConfigFile::new(&text);
    let agent = Agent::start(&file.path(), &ports).await;
    let rules = json!([{"targetService": "x"}]);
    let (mut nobody, mut reader, mut writer) = (
        Api::new(ports.api),
        Api::with_token(ports.api, READ),
        Api::with_token(ports.api, WRITE),
    );
    for path in ["/healthz", "/readyz", "/metrics", "/openapi.json"] {
        assert_eq!(
            nobody.call(Method::GET, path, &[], None).await.unwrap().status,
            200,
            "{path}"
        );
    }
    for path in [RULES, "/api/v1/rules/file", "/api/v1/config", "/api/v1/proxies"] {
        let refused = nobody.call(Method::GET, path, &[], None).await.unwrap();
        assert_eq!(
            (refused.status, refused.header("www-authenticate")),
            (401, "Bearer"),
            "{path}"
        );
        assert_eq!(
            reader.call(Method::GET, path, &[], None).await.unwrap().status,
            200,
            "{path}"
        );
        let by_name = writer
            .call(Method::GET, path, &[(HOST, "agent.example")], None)
            .await
            .unwrap();
        assert_eq!(by_name.status, 200, "{path}");
    }
    assert_eq!(nobody.put("k", &rules, None).await.unwrap().status, 401);
    assert_eq!(reader.put("k", &rules, None).await.unwrap().status, 403);
    assert_eq!(reader.delete("k", None).await.unwrap().status, 403);
    assert_eq!(reader.put_all(&json!([]), None).await.unwrap().status, 403);
    let explain = reader
        .call(Method::POST, "/api/v1/explain", &[], Some(&json!({"path": "/"})))
        .await
        .unwrap();
    assert_eq!(explain.status, 200);
    assert_eq!(writer.put("k", &rules, None).await.unwrap().status, 200);

    std::fs::write(&tokens, format!("write {WRITE}\n")).unwrap();
    poll_until(PATIENCE, "the token is refused that was taken out", async || {
        let status = reader.call(Method::GET, RULES, &[], None).await.unwrap().status;
        (status == 401).then_some(()).ok_or(status.to_string())
    })
    .await;
    assert_eq!(writer.put("k", &rules, None).await.unwrap().status, 200);
    for secret in [READ, WRITE] {
        assert!(!agent.output().contains(secret));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_tokens_the_api_is_on_loopback_only() {
    let ports = Ports::free();
    let open = config_with(&ports, ROUTING).replace("agent: {", "agent: {apiBindAddress: 0.0.0.0, ");
    let no_file = config_with(&ports, ROUTING).replace("agent: {", "agent: {tokensFile: not-there, ");
    for (text, expected) in [
        (open, "agent.apiBindAddress: 0.0.0.0 opens the REST API to the network"),
        (no_file, "not-there: can't be read"),
    ] {
        let file = ConfigFile::new(&text);
        let mut agent = Process::spawn("agent", sidetrack(&["agent", "-c"]).arg(file.path()));
        assert_eq!(agent.exit(PATIENCE).await.code(), Some(1));
        assert!(agent.stderr().contains(expected), "{}", agent.output());
    }
}
