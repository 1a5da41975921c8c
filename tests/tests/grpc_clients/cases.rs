//! Which call goes where.

use sidetrack_tests::{Call, Library};

use crate::mesh::{Mesh, print};

/// One call, and who answers.
struct Case {
    fact: &'static str,
    target: &'static str,
    path: &'static str,
    metadata: &'static [(&'static str, &'static str)],
    served_by: &'static str,
    /// Who answers a client of Go, if another: there, a header without a value counts as not there.
    by_go: Option<&'static str>,
}

const CASES: &[Case] = &[
    case("without a key the baseline answers", "/a.B/C", &[], "baseline"),
    case(
        "a key selects the sandbox",
        "/a.B/C",
        &[("x-route-key", "plain")],
        "sandbox",
    ),
    case(
        "an unknown key selects nothing",
        "/a.B/C",
        &[("x-route-key", "no")],
        "baseline",
    ),
    case(
        "keys compare byte for byte",
        "/a.B/C",
        &[("x-route-key", "PLAIN")],
        "baseline",
    ),
    case(
        "a prefix is for what lies below",
        "/shop.Cart/Get",
        &[("x-route-key", "path")],
        "sandbox",
    ),
    case(
        "a prefix matches whole segments",
        "/shop.Carts/Get",
        &[("x-route-key", "path")],
        "baseline",
    ),
    case(
        "an exact path matches",
        "/shop.Admin/Reset",
        &[("x-route-key", "path")],
        "other",
    ),
    case(
        "an exact path matches itself alone",
        "/shop.Admin/Reset2",
        &[("x-route-key", "path")],
        "baseline",
    ),
    case(
        "a regex matches",
        "/shop.V12/Get",
        &[("x-route-key", "path")],
        "host-sandbox",
    ),
    case(
        "a regex matches the whole path",
        "/shop.V12/Get2",
        &[("x-route-key", "path")],
        "baseline",
    ),
    case(
        "all headers must match",
        "/a.B/C",
        &[("x-route-key", "head"), ("x-user", "qa-1")],
        "baseline",
    ),
    case(
        "headers match",
        "/a.B/C",
        &[
            ("x-route-key", "head"),
            ("x-user", "qa-1"),
            ("x-tier", "b"),
            ("x-there", ""),
        ],
        "sandbox",
    ),
    case(
        "an absent header must not be there",
        "/a.B/C",
        &[
            ("x-route-key", "head"),
            ("x-user", "qa-1"),
            ("x-tier", "b"),
            ("x-there", "1"),
            ("x-gone", "1"),
        ],
        "baseline",
    ),
    case(
        "the first rule of a key wins",
        "/a.B/C",
        &[("x-route-key", "order"), ("x-user", "1")],
        "sandbox",
    ),
    case("then the next", "/a.B/C", &[("x-route-key", "order")], "other"),
    case(
        "the second source counts without the first",
        "/a.B/C",
        &[("x-other-key", "plain")],
        "sandbox",
    ),
    case(
        "the first source comes first",
        "/a.B/C",
        &[("x-route-key", "no"), ("x-other-key", "plain")],
        "baseline",
    ),
    case(
        "two values of a key header are one, which is no key",
        "/a.B/C",
        &[("x-route-key", "plain"), ("x-route-key", "plain")],
        "baseline",
    ),
    case(
        "a list in a key header is one value, too",
        "/a.B/C",
        &[("x-route-key", "plain,no")],
        "baseline",
    ),
    by_go(
        "sandbox",
        case(
            "a key header without a value counts as there",
            "/a.B/C",
            &[("x-route-key", ""), ("x-other-key", "plain")],
            "baseline",
        ),
    ),
    by_go(
        "sandbox",
        case(
            "and so does any other",
            "/a.B/C",
            &[("x-route-key", "gone"), ("x-gone", "")],
            "baseline",
        ),
    ),
    case(
        "a header may have to be without a value",
        "/a.B/C",
        &[("x-route-key", "empty"), ("x-user", "")],
        "sandbox",
    ),
    case(
        "then it must be there",
        "/a.B/C",
        &[("x-route-key", "empty")],
        "baseline",
    ),
    case(
        "two values of a header are one with a comma between",
        "/a.B/C",
        &[("x-route-key", "joined"), ("x-user", "a"), ("x-user", "b")],
        "sandbox",
    ),
    case(
        "and so neither of them alone",
        "/a.B/C",
        &[("x-route-key", "order"), ("x-user", "1"), ("x-user", "2")],
        "other",
    ),
    case(
        "an escaped text is that text",
        "/a.B/C",
        &[("x-route-key", "escaped"), ("x-user", "a.b")],
        "sandbox",
    ),
    case(
        "and no other",
        "/a.B/C",
        &[("x-route-key", "escaped"), ("x-user", "aXb")],
        "baseline",
    ),
    case(
        "a method besides POST makes no difference",
        "/a.B/C",
        &[("x-route-key", "methods")],
        "sandbox",
    ),
    case(
        "no call has a query",
        "/a.B/C",
        &[("x-route-key", "no-query")],
        "sandbox",
    ),
    case(
        "a header that only some libraries see is compared by none",
        "/a.B/C",
        &[("x-route-key", "content-type")],
        "baseline",
    ),
    case(
        "what sets headers is left out",
        "/a.B/C",
        &[("x-route-key", "effects")],
        "baseline",
    ),
    case(
        "what gRPC clients can't compare is left out",
        "/a.B/C",
        &[("x-route-key", "query")],
        "baseline",
    ),
    case(
        "a target that refuses connections falls back",
        "/a.B/C",
        &[("x-route-key", "dead")],
        "baseline",
    ),
    case("a target may have both", "/a.B/C", &[("x-route-key", "mixed")], "other"),
    case(
        "the target with the fewest calls may be chosen",
        "/a.B/C",
        &[("x-route-key", "least")],
        "sandbox",
    ),
    case(
        "or one by a header's hash",
        "/a.B/C",
        &[("x-route-key", "ring"), ("x-user", "1")],
        "sandbox",
    ),
    case(
        "a target may have a name",
        "/a.B/C",
        &[("x-route-key", "named")],
        "sandbox",
    ),
    of(
        "xds:///shop.example",
        case("a host has its baseline", "/a.B/C", &[], "host-baseline"),
    ),
    of(
        "xds:///shop.example",
        case(
            "rules may be for a host",
            "/a.B/C",
            &[("x-route-key", "host")],
            "host-sandbox",
        ),
    ),
    of(
        "xds:///baseline",
        case("and for no other", "/a.B/C", &[("x-route-key", "host")], "baseline"),
    ),
    of(
        "xds:///host-baseline:80",
        case(
            "a host's baseline takes its place",
            "/a.B/C",
            &[("x-route-key", "host")],
            "host-sandbox",
        ),
    ),
    of(
        "xds:///baseline",
        case(
            "a name may be without a port",
            "/a.B/C",
            &[("x-route-key", "plain")],
            "sandbox",
        ),
    ),
];

const ROUTING: &str = r#"
routing:
  defaultTarget: baseline
  hosts: {shop.example: host-baseline}
  keySources: [{header: X-Route-Key}, {header: X-Other-Key}]
  rules:
    - {routeKey: plain, targetService: sandbox, fallback: none}
    - {routeKey: path, targetService: sandbox, fallback: none, pathPrefixes: [/shop.Cart]}
    - {routeKey: path, targetService: other, fallback: none, paths: [{exact: /shop.Admin/Reset}]}
    - {routeKey: path, targetService: host-sandbox, fallback: none, paths: [{regex: "/shop.V[0-9]+/(Get|Put)"}]}
    - routeKey: head
      targetService: sandbox
      fallback: none
      headerMatchers: {X-User: {prefix: qa-}, X-Tier: {oneOf: [a, b]}, X-There: {present: true}, X-Gone: {absent: true}}
    - {routeKey: order, targetService: sandbox, fallback: none, headerMatchers: {X-User: {regex: "[0-9]|qa"}}}
    - {routeKey: order, targetService: other, fallback: none}
    - {routeKey: joined, targetService: sandbox, fallback: none, headerMatchers: {X-User: "a,b"}}
    - {routeKey: gone, targetService: sandbox, fallback: none, headerMatchers: {X-Gone: {absent: true}}}
    - {routeKey: empty, targetService: sandbox, fallback: none, headerMatchers: {X-User: ""}}
    - {routeKey: escaped, targetService: sandbox, fallback: none, headerMatchers: {X-User: {oneOf: [a.b, c|d]}}}
    - {routeKey: methods, targetService: sandbox, fallback: none, methods: [GET, POST]}
    - {routeKey: no-query, targetService: sandbox, fallback: none, queryMatchers: {debug: {absent: true}}}
    - {routeKey: content-type, targetService: sandbox, fallback: none, headerMatchers: {Content-Type: {absent: true}}}
    - {routeKey: huge, targets: [{service: sandbox, weight: 4294967295}, {service: other, weight: 4294967295}], fallback: none}
    - {routeKey: effects, targetService: sandbox, fallback: none, additionalHeaders: {X-Environment: sandbox}}
    - {routeKey: query, targetService: sandbox, fallback: none, queryMatchers: {debug: "1"}}
    - {routeKey: dead, targetService: dead, hosts: [baseline]}
    - {routeKey: mixed, targetService: mixed, fallback: none}
    - {routeKey: named, targetService: named, fallback: none}
    - {routeKey: least, targetService: least, fallback: none}
    - {routeKey: ring, targetService: ring, fallback: none}
    - {routeKey: none, targetService: dead, fallback: none}
    - {routeKey: host, targetService: host-sandbox, hosts: [shop.example]}
    - {routeKey: split, targets: [{service: sandbox, weight: 3}, {service: other, weight: 1}], fallback: none}
"#;

const fn case(
    fact: &'static str,
    path: &'static str,
    metadata: &'static [(&'static str, &'static str)],
    served_by: &'static str,
) -> Case {
    Case {
        fact,
        target: "xds:///baseline:80",
        path,
        metadata,
        served_by,
        by_go: None,
    }
}

const fn by_go(served_by: &'static str, case: Case) -> Case {
    Case {
        by_go: Some(served_by),
        ..case
    }
}

const fn of(target: &'static str, case: Case) -> Case {
    Case { target, ..case }
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_route_calls_without_a_proxy() {
    let mesh = Mesh::start(ROUTING).await;
    for client in &mesh.clients {
        for case in CASES {
            let call = Call::to(case.target).path(case.path);
            let call = case
                .metadata
                .iter()
                .fold(call, |call, (name, value)| call.with(name, value));
            let served_by = client.call(call).await;
            let expected = match (client.library, case.by_go) {
                (Library::Go, Some(expected)) => expected,
                _ => case.served_by,
            };
            assert_eq!(served_by, expected, "{}: {}", client.node, case.fact);
        }
        let unavailable = client.call(Call::to("xds:///baseline").key("none")).await;
        assert!(unavailable.starts_with("UNAVAILABLE"), "{}: {unavailable}", client.node);

        let split = Call::to("xds:///baseline").key("split").times(2000);
        let split = &client.call_all(&[split]).await[0];
        let at_sandbox = split["sandbox"];
        assert_eq!(split.len(), 2, "{}: {split:?}", client.node);
        // By chance: of 2,000 calls one standard deviation is 19.
        assert!((1400..=1600).contains(&at_sandbox), "{}: {split:?}", client.node);
        let huge = Call::to("xds:///baseline").key("huge").times(100);
        let huge = &client.call_all(&[huge]).await[0];
        assert_eq!(huge.len(), 2, "{}: {huge:?}", client.node);
        let cases = CASES.len();
        print(&format!(
            "{:?}: {cases} cases hold; of 2000 calls with 75:25, {at_sandbox} at 75",
            client.library
        ));
    }
    mesh.assert_all_accepted().await;
}
