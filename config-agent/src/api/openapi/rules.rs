//! Rules, as they are shown and as they are sent.

use serde_json::{Map, Value, json};
use sidetrack_routing::wire;

use super::{generator, reference, schema};
use crate::rules::Source;

/// The types of config.yaml, where each rule says who owns it, and the two forms in which rules are sent.
pub(super) fn definitions() -> Map<String, Value> {
    let mut schemas = generator();
    schema::<wire::Config>(&mut schemas);
    let mut definitions = schemas.take_definitions(true);
    definitions.values_mut().for_each(without_null);
    let Some(rule) = definitions.remove("Rule") else {
        return definitions;
    };
    let with = |source: Value, required: &[&str]| {
        let mut rule = rule.clone();
        rule["properties"]["source"] = source;
        rule["required"] = required.into();
        rule["properties"]["routeKey"]["pattern"] = "^[!-+\\--~]{1,256}$".into();
        rule
    };
    let of_api = json!({"const": "api", "description": "As it is shown; may be left out."});
    let owner = schemars::schema_for!(Source).to_value();
    definitions.insert("OwnedRule".to_owned(), with(owner, &["routeKey", "source"]));
    definitions.insert("NewRule".to_owned(), with(of_api.clone(), &["routeKey"]));
    definitions.insert("RuleOfKey".to_owned(), with(of_api, &[]));
    if let Some(routing) = definitions.get_mut("Routing") {
        routing["properties"]["rules"]["items"] = reference("schemas", "OwnedRule");
    }
    definitions
}

/// Takes null out: what isn't given is left out, in both directions.
fn without_null(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if let Some(Value::Array(types)) = fields.get_mut("type") {
                types.retain(|name| name != "null");
                if let [only] = &types[..] {
                    let only = only.clone();
                    fields.insert("type".to_owned(), only);
                }
            }
            if let Some(Value::Array(forms)) = fields.get_mut("anyOf") {
                forms.retain(|form| form["type"] != "null");
                if let [Value::Object(only)] = &forms[..] {
                    let only = only.clone();
                    fields.remove("anyOf");
                    fields.extend(only);
                }
            }
            fields.values_mut().for_each(without_null);
        }
        Value::Array(elements) => elements.iter_mut().for_each(without_null),
        _ => {}
    }
}
