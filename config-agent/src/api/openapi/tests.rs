use std::collections::BTreeSet;

use super::*;
use crate::api::calls;

const METHODS: [&str; 8] = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];

/// Every `$ref` in it.
fn references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get("$ref").and_then(Value::as_str).map(str::to_owned));
            fields.values().for_each(|field| references(field, found));
        }
        Value::Array(elements) => elements.iter().for_each(|element| references(element, found)),
        _ => {}
    }
}

#[test]
fn every_path_is_described_and_nothing_else() {
    let document = document();
    let described: BTreeSet<&str> = document["paths"]
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    assert_eq!(described, calls().iter().map(|(path, _)| *path).collect());
}

#[tokio::test]
async fn every_method_is_described_and_nothing_else() {
    let document = document();
    let api = crate::api::tests::api();
    let router = api.router(crate::api::Access::local());
    for (path, calls) in document["paths"].as_object().unwrap() {
        let request = axum::http::Request::patch(path.replace("{routeKey}", "k"));
        let response = crate::api::tests::ask(&router, request.body(Body::empty()).unwrap()).await;
        assert_eq!(response.status(), 405, "{path}");
        let allowed = response.headers()["allow"].to_str().unwrap().to_lowercase();
        let allowed: BTreeSet<&str> = allowed.split(',').filter(|method| *method != "head").collect();
        let described = calls.as_object().unwrap().keys().map(String::as_str);
        let described: BTreeSet<&str> = described.filter(|name| METHODS.contains(name)).collect();
        assert_eq!(described, allowed, "{path}");
    }
}

#[test]
fn what_is_referred_to_is_there_and_what_is_there_is_referred_to() {
    let document = document();
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    let mut there = BTreeSet::new();
    for kind in ["schemas", "parameters", "headers", "responses"] {
        let names = document["components"][kind].as_object().unwrap().keys();
        there.extend(names.map(|name| format!("#/components/{kind}/{name}")));
    }
    assert_eq!(found, there);
}

#[test]
fn rules_are_described_as_they_are_taken() {
    let document = document();
    let schemas = &document["components"]["schemas"];
    for name in ["OwnedRule", "NewRule", "RuleOfKey"] {
        assert_eq!(schemas[name]["additionalProperties"], false, "{name}");
        assert!(schemas[name]["properties"]["stickyBy"].is_object(), "{name}");
    }
    assert_eq!(schemas["NewRule"]["required"], json!(["routeKey"]));
    assert_eq!(schemas["RuleOfKey"]["required"], json!([]));
    assert_eq!(schemas["OwnedRule"]["properties"]["name"]["type"], "string");
    assert_eq!(schemas["Question"]["additionalProperties"], false);
    assert_eq!(schemas["Question"]["required"], json!(["path"]));
}

#[test]
fn what_may_be_left_out_of_an_answer_is_not_required() {
    let schemas = &document()["components"]["schemas"];
    for (name, required) in [
        ("Readiness", json!(["ready", "version", "rules", "proxies"])),
        ("Changed", json!(["revision", "version", "rules"])),
    ] {
        assert_eq!(schemas[name]["required"], required, "{name}");
    }
}
