use super::*;

const ROUTING: &str = r#"{
    "routeKeyHeader": "X-Route-Key",
    "defaultTarget": "default-service",
    "rules": [
        {"routeKey": "sandbox-123", "targetService": "service-a", "pathPrefixes": ["/api/v1"]},
        {"routeKey": "sandbox-456", "targetService": "service-b", "pathPrefixes": ["/api/v2"],
         "headerMatchers": {"Content-Type": "application/json", "X-User": "7"}},
        {"routeKey": "order", "targetService": "first", "pathPrefixes": ["/a", "/b"]},
        {"routeKey": "order", "targetService": "second", "pathPrefixes": ["/a/deeper"]},
        {"routeKey": "order", "targetService": "third", "pathPrefixes": ["/c/"]},
        {"routeKey": "all", "targetService": "everything"},
        {"routeKey": "root", "targetService": "everything", "pathPrefixes": ["/"]}
    ]}"#;

/// Cases are `path | header: value | … => cluster or reason`.
#[track_caller]
fn check(cases: &[&str]) {
    let table = RouteTable::from_configuration(ROUTING.into()).unwrap();
    for case in cases {
        let (request, expected) = case.split_once(" => ").unwrap();
        let mut parts = request.split(" | ");
        let path = (":path", parts.next().unwrap());
        let head: Vec<_> = std::iter::once(path)
            .chain(parts.map(|line| line.split_once(": ").unwrap_or((line, ""))))
            .collect();
        let actual = match decide(&table, &Request::new(&head)).destination {
            Destination::Target { cluster, .. } => cluster.trim_end_matches(":80|baseline"),
            Destination::Baseline(reason) => reason.as_str(),
        };
        assert_eq!(actual, expected, "{case}");
    }
}

#[test]
fn the_key_selects_the_rules() {
    check(&[
        "/api/v1/x | x-route-key: sandbox-123 => service-a",
        "/api/v1/x => no_key",
        "/api/v1/x | x-route-key => no_key",
        "/api/v1/x | x-route-key: sandbox-12 => unknown_key",
        "/api/v1/x | x-route-key: sandbox-1234 => unknown_key",
        "/api/v1/x | x-route-key: Sandbox-123 => unknown_key",
        "/api/v1/x | x-other: sandbox-123 => no_key",
    ]);
}

#[test]
fn of_several_keys_the_first_counts() {
    check(&[
        "/ | x-route-key: all, sandbox-123 => everything",
        "/ | x-route-key: all | x-route-key: sandbox-123 => everything",
        "/ | x-route-key: nobody, all => unknown_key",
        "/ | x-route-key: , all => everything",
        "/ | x-route-key | x-route-key: all => everything",
    ]);
}

#[test]
fn a_prefix_matches_whole_segments() {
    check(&[
        "/api/v1 | x-route-key: sandbox-123 => service-a",
        "/api/v1/ | x-route-key: sandbox-123 => service-a",
        "/api/v1?q=/api | x-route-key: sandbox-123 => service-a",
        "/api/v10 | x-route-key: sandbox-123 => no_match",
        "/API/v1 | x-route-key: sandbox-123 => no_match",
        "/other?/api/v1 | x-route-key: sandbox-123 => no_match",
        "/ | x-route-key: sandbox-123 => no_match",
        "/c/x | x-route-key: order => third",
        "/c | x-route-key: order => no_match",
        "/anything | x-route-key: root => everything",
        "/ | x-route-key: root => everything",
        "* | x-route-key: root => no_match",
        "* | x-route-key: all => everything",
    ]);
}

#[test]
fn the_first_matching_rule_wins() {
    check(&[
        "/a/deeper/x | x-route-key: order => first",
        "/b | x-route-key: order => first",
        "/d | x-route-key: order => no_match",
    ]);
}

#[test]
fn all_header_matchers_must_match_any_value() {
    const B: &str = "/api/v2/y | x-route-key: sandbox-456";
    check(&[
        &format!("{B} | content-type: application/json | x-user: 7 => service-b"),
        &format!("{B} | content-type: text/html | x-user: 8 | content-type: application/json | x-user: 7 => service-b"),
        &format!("{B} | content-type: application/json => no_match"),
        &format!("{B} | content-type: application/json | x-user: 77 => no_match"),
        &format!("{B} | content-type: Application/JSON | x-user: 7 => no_match"),
        "/api/v1 | x-route-key: sandbox-456 | content-type: application/json | x-user: 7 => no_match",
    ]);
}

#[test]
fn an_absurd_request_goes_to_the_baseline() {
    let table = RouteTable::from_configuration(ROUTING.into()).unwrap();
    let reason = |key: &[u8]| match decide(&table, &Request::new(&[("x-route-key", key)])).destination {
        Destination::Target { cluster, .. } => cluster,
        Destination::Baseline(reason) => reason.as_str(),
    };
    assert_eq!(reason(&[b'k'; 256]), "unknown_key");
    assert_eq!(reason(&[b'k'; 257]), "invalid_key");
    assert_eq!(reason(&[b'k'; 60_000]), "invalid_key");
    assert_eq!(reason(b"\xff\xfe"), "invalid_key");
    assert_eq!(reason(b" \t "), "no_key");
    assert_eq!(reason(b",,,,"), "no_key");
}

#[test]
fn a_rule_without_a_name_is_called_by_the_pattern_that_its_path_matched() {
    let routing = br#"{"defaultTarget": "d", "rules": [
        {"routeKey": "k", "targetService": "a", "pathPrefixes": ["/api", "/api/v1"],
            "paths": [{"exact": "/x"}, {"regex": "/v[0-9]+"}], "methods": ["GET"]},
        {"routeKey": "named", "targetService": "a", "name": "mine", "pathPrefixes": ["/api"]},
        {"routeKey": "all", "targetService": "a", "methods": ["GET"]}]}"#;
    let table = RouteTable::from_configuration(routing.to_vec()).unwrap();
    for (key, path, expected) in [
        ("k", "/api", Some("/api")),
        ("k", "/api/v1/y", Some("/api")),
        ("k", "/x", Some("/x")),
        ("k", "/v17?q", Some("/v[0-9]+")),
        ("named", "/api", None),
        ("all", "/api", None),
    ] {
        let head = [("x-route-key", key), (":path", path), (":method", "GET")];
        match decide(&table, &Request::new(&head)).destination {
            Destination::Target { rule, .. } => assert_eq!(rule.label(), expected, "{key} {path}"),
            Destination::Baseline(reason) => panic!("{key} {path}: {reason}"),
        }
    }
}
