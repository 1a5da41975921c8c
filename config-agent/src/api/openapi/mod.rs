//! `GET /openapi.json`: the API's description (OpenAPI 3.1), from the types that are read and written.

mod parts;
mod rules;

use std::sync::OnceLock;

use axum::body::{Body, Bytes};
use axum::response::Response;
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::error::ErrorBody;
use super::looks::{AnswerBody, ProxiesBody, QuestionBody, Readiness};
use super::rules::{Changed, json as answer_json};

/// A call's answer: its status, what it means, and what its body is.
type Answer<'a> = (u16, &'a str, Content<'a>);

/// What a body is.
#[derive(Clone, Copy)]
enum Content<'a> {
    /// There is none.
    Nothing,
    /// Text of this type.
    Text(&'a str),
    /// JSON with this schema.
    Json(&'a Value),
    /// A list of rules, or what became of them, whose version is in ETag.
    Tagged(&'a Value),
}

/// What a call is.
#[derive(Default)]
struct Call<'a> {
    id: &'a str,
    summary: &'a str,
    parameters: &'a [&'a str],
    /// What is sent: its schema, and what it may be.
    body: Option<(&'a Value, Value)>,
    answers: Vec<Answer<'a>>,
    /// Which errors it has beside those that all have.
    errors: &'a [u16],
    is_public: bool,
}

pub(super) async fn openapi() -> Response {
    static TEXT: OnceLock<Bytes> = OnceLock::new();
    let text = TEXT.get_or_init(|| document().to_string().into());
    answer_json(Body::from(text.clone()), None)
}

/// The whole description.
pub(super) fn document() -> Value {
    let mut schemas = generator();
    let paths = paths(&mut schemas);
    let mut definitions = rules::definitions();
    definitions.append(&mut schemas.take_definitions(true));
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Sidetrack's agent",
            "description": "Rules of route keys: who gets where. A call that fails changes nothing. Without agent.tokensFile calls \
                            come from the agent's own machine and need no token.",
            "version": env!("CARGO_PKG_VERSION"),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": definitions,
            "parameters": parts::parameters(),
            "headers": parts::headers(),
            "responses": parts::errors(&reference("schemas", "Error")),
            "securitySchemes": {"token": {
                "type": "http",
                "scheme": "bearer",
                "description": "One of the tokens of agent.tokensFile, if the agent has such a file.",
            }},
        },
    })
}

fn paths(schemas: &mut SchemaGenerator) -> Value {
    schema::<ErrorBody>(schemas);
    let rules = json!({"type": "array", "items": reference("schemas", "OwnedRule")});
    let rules_of_key =
        json!({"type": "array", "minItems": 1, "maxItems": 1000, "items": reference("schemas", "RuleOfKey")});
    let new_rules = json!({"type": "array", "items": reference("schemas", "NewRule")});
    let (changed, question, answer) = (
        schema::<Changed>(schemas),
        schema::<QuestionBody>(schemas),
        schema::<AnswerBody>(schemas),
    );
    let (ready, proxies, config) = (schema::<Readiness>(schemas), schema::<ProxiesBody>(schemas), config());
    let document = json!({"type": "object"});
    let list: [Answer<'_>; 2] = [
        (
            200,
            "The rules, in order of precedence: a key's rules of the file, then those of the API.",
            Content::Tagged(&rules),
        ),
        (304, "They are as If-None-Match says.", Content::Nothing),
    ];
    let change: [Answer<'_>; 2] = [
        (
            200,
            "Done: kept, and on its way to the proxies; with `wait` in force at all.",
            Content::Tagged(&changed),
        ),
        (
            202,
            "Done and kept, but not in force at every proxy within `wait`.",
            Content::Tagged(&changed),
        ),
    ];
    json!({
        "/healthz": {"get": Call {
            id: "isAlive",
            summary: "Whether the agent is alive",
            answers: vec![(200, "It is.", Content::Text("text/plain"))],
            is_public: true,
            ..Call::default()
        }.to_value()},
        "/readyz": {"get": Call {
            id: "isReady",
            summary: "Whether a configuration is in force and every connected proxy has accepted it",
            answers: vec![
                (200, "It is.", Content::Json(&ready)),
                (503, "It isn't, for the reason in the body.", Content::Json(&ready)),
            ],
            is_public: true,
            ..Call::default()
        }.to_value()},
        "/metrics": {"get": Call {
            id: "getMetrics",
            summary: "The agent's metrics, in Prometheus's text format",
            answers: vec![(200, "The metrics.", Content::Text("text/plain"))],
            is_public: true,
            ..Call::default()
        }.to_value()},
        "/openapi.json": {"get": Call {
            id: "getDescription",
            summary: "This description",
            answers: vec![(200, "OpenAPI 3.1.", Content::Json(&document))],
            is_public: true,
            ..Call::default()
        }.to_value()},
        "/api/v1/config": {"get": Call {
            id: "getConfig",
            summary: "The configuration in force, with the rules of file and API",
            answers: vec![(200, "The configuration.", Content::Json(&config))],
            errors: &[400],
            ..Call::default()
        }.to_value()},
        "/api/v1/rules": {
            "get": Call {
                id: "listRules",
                summary: "All rules",
                parameters: &["source", "ifMatch", "ifNoneMatch"],
                answers: list.to_vec(),
                errors: &[400, 412],
                ..Call::default()
            }.to_value(),
            "put": Call {
                id: "replaceRules",
                summary: "Put these rules in place of all rules of the API, at once",
                parameters: &["wait", "ifMatch", "ifNoneMatch"],
                body: Some((&new_rules, json!([{"routeKey": "alice", "targetService": "cart-alice:8080"}]))),
                answers: change.to_vec(),
                errors: &[400, 408, 412, 413, 415, 503, 507],
                ..Call::default()
            }.to_value(),
        },
        "/api/v1/rules/{routeKey}": {
            "parameters": [reference("parameters", "routeKey")],
            "get": Call {
                id: "getRules",
                summary: "The rules of a route key",
                parameters: &["source", "ifMatch", "ifNoneMatch"],
                answers: list.to_vec(),
                errors: &[400, 404, 412],
                ..Call::default()
            }.to_value(),
            "put": Call {
                id: "putRules",
                summary: "Put these rules in place of those that the route key has by the API",
                parameters: &["wait", "ifMatch", "ifNoneMatch"],
                body: Some((&rules_of_key, json!([{"targetService": "cart-alice:8080", "pathPrefixes": ["/cart"]}]))),
                answers: change.to_vec(),
                errors: &[400, 408, 412, 413, 415, 503, 507],
                ..Call::default()
            }.to_value(),
            "delete": Call {
                id: "deleteRules",
                summary: "Remove the rules that the route key has by the API",
                parameters: &["wait", "ifMatch", "ifNoneMatch"],
                answers: change.to_vec(),
                errors: &[400, 404, 409, 412, 503, 507],
                ..Call::default()
            }.to_value(),
        },
        "/api/v1/explain": {"post": Call {
            id: "explain",
            summary: "Where a request goes, and rule by rule why",
            body: Some((&question, json!({"path": "/cart", "headers": {"x-route-key": "alice"}}))),
            answers: vec![(200, "The decision.", Content::Json(&answer))],
            errors: &[400, 408, 413, 415, 503],
            ..Call::default()
        }.to_value()},
        "/api/v1/proxies": {"get": Call {
            id: "listProxies",
            summary: "The connected proxies, and what each has",
            answers: vec![(200, "The proxies.", Content::Json(&proxies))],
            errors: &[400],
            ..Call::default()
        }.to_value()},
    })
}

impl Call<'_> {
    fn to_value(&self) -> Value {
        let mut responses = Map::new();
        for (status, description, content) in &self.answers {
            let mut response = json!({"description": description});
            match content {
                Content::Nothing => {}
                Content::Text(kind) => response["content"] = json!({*kind: {"schema": {"type": "string"}}}),
                Content::Json(schema) | Content::Tagged(schema) => {
                    response["content"] = json!({"application/json": {"schema": schema}});
                }
            }
            if matches!(content, Content::Tagged(_)) {
                response["headers"] = json!({"ETag": reference("headers", "ETag")});
            }
            responses.insert(status.to_string(), response);
        }
        let of_all: &[u16] = if self.is_public { &[403, 500] } else { &[401, 403, 500] };
        for status in self.errors.iter().chain(of_all) {
            responses.insert(status.to_string(), reference("responses", &status.to_string()));
        }
        let mut call = json!({
            "operationId": self.id,
            "summary": self.summary,
            "responses": responses,
        });
        if !self.parameters.is_empty() {
            let parameters = self.parameters.iter().map(|name| reference("parameters", name));
            call["parameters"] = parameters.collect();
        }
        if let Some((schema, example)) = &self.body {
            let content = json!({"application/json": {"schema": schema, "example": example}});
            call["requestBody"] = json!({"required": true, "content": content});
        }
        if !self.is_public {
            call["security"] = json!([{"token": []}, {}]);
        }
        call
    }
}

/// The configuration as it is shown.
fn config() -> Value {
    json!({
        "type": "object",
        "required": ["revision", "version", "config"],
        "properties": {
            "revision": {"type": "integer", "minimum": 1, "description": "Its number, from 1 at every start of the agent."},
            "version": {"type": "string", "description": "The hash of its content."},
            "config": reference("schemas", "Config"),
        },
    })
}

fn generator() -> SchemaGenerator {
    let settings = SchemaSettings::draft2020_12();
    let settings = settings.with(|settings| settings.definitions_path = "/components/schemas".into());
    settings.into_generator()
}

/// A reference to the schema of `T`.
fn schema<T: JsonSchema>(schemas: &mut SchemaGenerator) -> Value {
    schemas.subschema_for::<T>().to_value()
}

fn reference(kind: &str, name: &str) -> Value {
    json!({"$ref": format!("#/components/{kind}/{name}")})
}

#[cfg(test)]
mod tests;
