//! Every error of the agent's API, and that nothing is changed by a call that fails.

use std::time::{Duration, Instant};

use http::Method;
use http::header::CONTENT_TYPE;
use serde_json::{Value, json};
use sidetrack_tests::api_agent::said;
use sidetrack_tests::{Api, ApiAgent, PATIENCE, get};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const RULES: &str = "/api/v1/rules";

#[tokio::test(flavor = "multi_thread")]
async fn every_error_is_said_and_changes_nothing() {
    let mut running = ApiAgent::start().await;
    running
        .api
        .put("k", &json!([{"targetService": "x"}]), None)
        .await
        .unwrap();
    let before = (running.all().await, running.api.get("/api/v1/config").await.unwrap());
    let good = json!([{"targetService": "x"}]);
    let rule = |fields: Value| {
        let mut rule = json!({"targetService": "y"});
        rule.as_object_mut()
            .unwrap()
            .extend(fields.as_object().unwrap().clone());
        json!([rule])
    };
    let many: Value = vec![json!({"targetService": "x"}); 1001].into();
    let nested = (0..40).fold(json!("x"), |inner, _| json!([inner]));
    for (method, path, given, status, expected) in [
        (
            "PUT",
            "/k",
            Some(json!([])),
            400,
            ": is empty: to remove the rules of k, use DELETE",
        ),
        ("PUT", "/k", Some(json!({})), 400, ": is a mapping, must be a list"),
        (
            "PUT",
            "/k",
            Some(json!([1])),
            400,
            "[0]: is the number 1, must be a mapping",
        ),
        (
            "PUT",
            "/k",
            Some(rule(json!({"name": null}))),
            400,
            "[0].name: is null: leave it out",
        ),
        (
            "PUT",
            "/k",
            Some(rule(json!({"nam": "n"}))),
            400,
            "[0].nam: unknown field, did you mean `name`?",
        ),
        (
            "PUT",
            "/k",
            Some(rule(json!({"routeKey": "l"}))),
            400,
            "[0].routeKey: is \"l\", must be \"k\" as in the address",
        ),
        (
            "PUT",
            "/k",
            Some(rule(json!({"source": "file"}))),
            400,
            "[0].source: is \"file\": rules of the file are changed there",
        ),
        (
            "PUT",
            "/k",
            Some(rule(json!({"source": 1}))),
            400,
            "[0].source: must be \"api\", or left out",
        ),
        (
            "PUT",
            "/k",
            Some(rule(json!({"hosts": nested}))),
            400,
            "is nested more than 32 deep",
        ),
        (
            "PUT",
            "/k",
            Some(many),
            400,
            "has 1001 rules for the route key k, must have at most 1000",
        ),
        (
            "PUT",
            "/k",
            Some(rule(json!({"additionalHeaders": {"x-route-key": "v"}}))),
            400,
            "[0].additionalHeaders.x-route-key: is the route key header",
        ),
        (
            "PUT",
            "/k",
            Some(json!([{"targetService": "x y", "nam": 1}, {"targetService": "x", "paths": [{}]}])),
            400,
            "[0].nam: unknown field, did you mean `name`?\n[0].targetService: \"x y\" is no host name and no IP address, must be \
             HOST or HOST:PORT, an IPv6 address in brackets\n[1].paths[0]: must have exactly one of exact, prefix, regex",
        ),
        ("PUT", "", Some(good.clone()), 400, "[0]: `routeKey` is missing"),
        (
            "PUT",
            "/a%2Cb",
            Some(good.clone()),
            400,
            "routeKey: has the character ','",
        ),
        (
            "PUT",
            "/%ff",
            Some(good.clone()),
            400,
            "routeKey: isn't percent-encoded UTF-8",
        ),
        ("PUT", "/%C3%BC", Some(good.clone()), 400, "routeKey: has the character"),
        (
            "PUT",
            "/%zz",
            Some(good.clone()),
            400,
            "routeKey: isn't percent-encoded UTF-8",
        ),
        ("GET", "/a%20b", None, 400, "routeKey: has the character ' '"),
        (
            "PUT",
            "/k?wait=61s",
            Some(good.clone()),
            400,
            "wait: \"61s\" is too long, must be at most 60s",
        ),
        (
            "PUT",
            "/k?wait=5",
            Some(good.clone()),
            400,
            "wait: \"5\" is no duration",
        ),
        (
            "PUT",
            "/k?wiat=5s",
            Some(good.clone()),
            400,
            "wiat: unknown parameter, expected one of wait",
        ),
        ("DELETE", "/k?wait=1s&wait=1s", None, 400, "wait: is given twice"),
        (
            "GET",
            "?source=db",
            None,
            400,
            "source: is \"db\", must be one of file, api",
        ),
        ("GET", "/nobody", None, 404, "there is no rule for the route key nobody"),
        (
            "DELETE",
            "/nobody",
            None,
            404,
            "there is no rule for the route key nobody",
        ),
        (
            "DELETE",
            "/file",
            None,
            409,
            "the rules for file are the configuration file's: change them there",
        ),
        (
            "POST",
            "/k",
            Some(good.clone()),
            405,
            "doesn't take POST: the header Allow says what it takes",
        ),
        ("PATCH", "", Some(good.clone()), 405, "doesn't take PATCH"),
        (
            "GET",
            "/k/more",
            None,
            404,
            "there is nothing at /api/v1/rules/k/more: GET /openapi.json lists what there is",
        ),
        ("GET", "/", None, 404, "there is nothing at /api/v1/rules/"),
    ] {
        let answer = running
            .call(method, &format!("{RULES}{path}"), &[], given.as_ref())
            .await;
        let said = said(&answer);
        assert_eq!(answer.status, status, "{method} {path}: {said}");
        assert!(
            said.contains(expected),
            "{method} {path} {given:?}:\n{said}\n{expected}"
        );
        if status == 405 {
            assert!(answer.header("allow").contains("GET"), "{:?}", answer.headers);
        }
    }
    let after = (running.all().await, running.api.get("/api/v1/config").await.unwrap());
    assert_eq!(after, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_are_no_json_are_refused() {
    let mut running = ApiAgent::start().await;
    let before = running.all().await;
    let large = format!("[{}", " ".repeat(1024 * 1024));
    let path = format!("{RULES}/k");
    for (kind, text, status, expected) in [
        (
            "text/plain",
            "[]".as_bytes(),
            415,
            "must be sent with Content-Type: application/json",
        ),
        (
            "application/json; charset=utf-16",
            b"[]",
            415,
            "must be sent with Content-Type: application/json",
        ),
        ("application/json", b"", 400, "is no JSON: EOF"),
        (
            "application/json",
            b"[{\"targetService\": \"x\"}",
            400,
            "is no JSON: EOF",
        ),
        (
            "application/json",
            b"[{\"targetService\": \"x\"}] []",
            400,
            "is no JSON: trailing characters",
        ),
        (
            "application/json",
            b"[{\"targetService\": \"\xff\"}]",
            400,
            "is no JSON: invalid unicode code point",
        ),
        (
            "application/json",
            b"[{\"targetService\": \"x\", \"targetService\": \"y\"}]",
            400,
            "[0].targetService: is given twice: leave one out",
        ),
        ("application/json", b"\xef\xbb\xbf[]", 400, "is no JSON"),
        (
            "application/json",
            large.as_bytes(),
            413,
            "the body has more than 1 MiB",
        ),
    ] {
        let mut request = get(&path, &[]).map(|_| http_body_util::Full::from(text.to_vec()));
        *request.method_mut() = Method::PUT;
        request.headers_mut().insert(CONTENT_TYPE, kind.parse().unwrap());
        let mut client = sidetrack_tests::Client::new(sidetrack_tests::Protocol::Http1, running.ports.api);
        let answer = client.send(request).await.unwrap();
        let said = said(&answer);
        assert_eq!(answer.status, status, "{said}");
        assert!(said.contains(expected), "{said}");
    }
    assert_eq!(running.all().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_change_harms_none_beside_it() {
    let running = ApiAgent::start().await;
    let port = running.ports.api;
    let began = Instant::now();
    let writers: Vec<_> = (0..400)
        .map(|number| {
            let target = if number % 4 == 0 {
                "no host".to_owned()
            } else {
                format!("t-{number}")
            };
            let rules = json!([{"targetService": target}]);
            tokio::spawn(async move { Api::new(port).put(&format!("k-{number}"), &rules, None).await.unwrap() })
        })
        .collect();
    let mut revisions = std::collections::BTreeSet::new();
    for (number, writer) in writers.into_iter().enumerate() {
        let written = writer.await.unwrap();
        assert_eq!(written.status, if number % 4 == 0 { 400 } else { 200 }, "{number}");
        if written.status == 200 {
            revisions.insert(written.body["revision"].as_u64().unwrap());
        }
    }
    let took = began.elapsed();
    assert_eq!(Api::new(port).rules().await.unwrap().rules.len(), 302);
    println!(
        "400 changes at once: {} revisions, {} ms",
        revisions.len(),
        took.as_millis()
    );
    assert!(
        revisions.len() < 300,
        "changes that wait together are one revision: {}",
        revisions.len()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_are_slow_or_broken_are_dropped() {
    let mut running = ApiAgent::start().await;
    let port = running.ports.api;
    let head = "PUT /api/v1/rules/k HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n[";
    // What each sends before it falls silent, and what it gets.
    let clients = [
        ("GET /api/v1/ru", ""),
        ("", ""),
        (head, "HTTP/1.1 408"),
        ("\0\0\0\r\n\r\n", "HTTP/1.1 400"),
    ];
    let silent = clients.map(|(sent, expected)| {
        tokio::spawn(async move {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            stream.write_all(sent.as_bytes()).await.unwrap();
            let mut answer = String::new();
            let read = tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer)).await;
            assert!(read.is_ok(), "{sent:?} is still open");
            assert!(answer.starts_with(expected), "{sent:?}: {answer}");
        })
    });
    // Others don't notice.
    let began = Instant::now();
    let written = running
        .api
        .put("other", &json!([{"targetService": "x"}]), None)
        .await
        .unwrap();
    assert_eq!(written.status, 200);
    assert!(began.elapsed() < Duration::from_secs(5));
    for client in silent {
        client.await.unwrap();
    }
    assert_eq!(running.api.rules_of("k").await.unwrap(), None);
}
