use serde_json::{Value, json};

use super::super::tests::{config, left_out};
use super::*;
use crate::render::grpc::fit;

fn fits(config: &ValidConfig) -> Vec<Fit<'_>> {
    let rules = config.routing.rules.iter();
    rules.map(|rule| fit::fit(rule, config).unwrap()).collect()
}

/// For each name that can be dialed, the rules for calls to it and the baseline.
fn dialed(sections: Value) -> BTreeMap<String, (Vec<String>, String)> {
    let config = config(sections);
    let fits = fits(&config);
    let by_host = ByHost::new(&fits);
    let names = Names::new(&config);
    let of = |view: &View<'_>| {
        let rules = by_host.of(view).into_iter().map(|fit| fit.rule.name.clone());
        let baseline = view.baseline.map_or("default".to_owned(), ToString::to_string);
        (rules.collect(), baseline)
    };
    names
        .views
        .iter()
        .map(|(name, view)| (name.clone(), of(view)))
        .collect()
}

fn rule(name: &str, hosts: &Value) -> Value {
    json!({"routeKey": "k", "name": name, "targetService": "t", "hosts": hosts, "fallback": "none"})
}

#[test]
fn a_rule_is_for_calls_to_its_hosts() {
    let dialed = dialed(json!({"routing": {
        "defaultTarget": "shop:81",
        "hosts": {"a.shop.example": "base-a", "b.shop.example": "base-b", "c.shop.example": "base-b", "*.wide.example": "base-w"},
        "rules": [
            rule("any", &json!([])),
            rule("one", &json!(["a.shop.example"])),
            rule("label", &json!(["*.shop.example"])),
            rule("b", &json!(["b.shop.example"])),
            rule("wide", &json!(["x.wide.example", "*.wide.example"])),
            rule("shop", &json!(["shop"])),
        ],
    }}));
    let expected = [
        ("a.shop.example", &["any", "one", "label"][..], "base-a:80"),
        ("a.shop.example:80", &["any", "one", "label"], "base-a:80"),
        ("b.shop.example", &["any", "label", "b"], "base-b:80"),
        ("b.shop.example:80", &["any", "label", "b"], "base-b:80"),
        // One baseline for several hosts: what is for each of them.
        ("base-a", &["any", "one", "label"], "base-a:80"),
        ("base-a:80", &["any", "one", "label"], "base-a:80"),
        ("base-b", &["any", "label"], "base-b:80"),
        ("base-b:80", &["any", "label"], "base-b:80"),
        // `*.wide.example` has more below it than any rule is for.
        ("base-w", &["any"], "base-w:80"),
        ("base-w:80", &["any"], "base-w:80"),
        ("c.shop.example", &["any", "label"], "base-b:80"),
        ("c.shop.example:80", &["any", "label"], "base-b:80"),
        ("shop", &["any", "shop"], "default"),
        ("shop:81", &["any", "shop"], "default"),
        ("x.wide.example", &["any", "wide"], "base-w:80"),
        ("x.wide.example:80", &["any", "wide"], "base-w:80"),
    ];
    let found: Vec<_> = dialed
        .iter()
        .map(|(name, (rules, baseline))| (name.as_str(), rules.clone(), baseline.as_str()))
        .collect();
    let expected: Vec<_> = expected
        .iter()
        .map(|(name, rules, baseline)| (*name, rules.iter().map(ToString::to_string).collect(), *baseline))
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn names_that_nothing_tells_apart_share_their_routes() {
    let config = config(json!({"routing": {
        "keySources": [{"header": "X-A"}, {"host": "*.pre.example"}],
        "hosts": {"a.example": "base", "b.example": "base", "k.pre.example": "base"},
        "rules": [rule("any", &json!([])), rule("b", &json!(["b.example"]))],
    }}));
    let fits = fits(&config);
    let by_host = ByHost::new(&fits);
    let names = Names::new(&config);
    let routes = |name: &str| names.routes_name(&names.views[name], &by_host);
    assert_eq!(routes("d"), "baseline");
    assert_eq!(routes("a.example"), "baseline/base:80");
    assert_eq!(routes("base:80"), "baseline/base:80");
    assert_eq!(routes("b.example"), "host/b.example");
    assert_eq!(routes("k.pre.example"), "host/k.pre.example");
    let rendered = names.routes(&by_host);
    let rendered: Vec<_> = rendered.names().map(|name| &**name).collect();
    assert_eq!(
        rendered,
        ["baseline", "baseline/base:80", "host/b.example", "host/k.pre.example"]
    );
}

#[test]
fn names_that_cannot_be_dialed_are_said() {
    let said = left_out(&config(json!({
        "routing": {
            "defaultTarget": "secure",
            "keySources": [{"header": "X-Route-Key"}, {"host": "*.pre.example"}],
            "hosts": {"*.wide.example": "plain", "tls.example": "secure:8443"},
            "rules": [rule("r", &json!(["*.rule.example"]))],
        },
        "services": {"secure": {"protocol": "http2", "tls": {}}, "secure:8443": {"protocol": "http2", "tls": {}}},
    })));
    let names: Vec<_> = said.iter().filter_map(|line| line.strip_prefix("xds:///")).collect();
    let wildcard = Reason::Wildcard;
    let tls = |target: &str| Reason::Tls(Target::parse(target).unwrap());
    assert_eq!(
        names,
        [
            format!("*.pre.example: {wildcard}"),
            format!("*.rule.example: {wildcard}"),
            format!("*.wide.example: {wildcard}"),
            format!("secure: {}", tls("secure:8443")),
            format!("tls.example: {}", tls("secure:8443")),
        ]
    );
}

#[test]
fn an_address_may_be_dialed() {
    let dialed = dialed(json!({"routing": {"defaultTarget": "[::1]:50051"}}));
    assert_eq!(dialed.keys().collect::<Vec<_>>(), ["[::1]", "[::1]:50051"]);
}
