//! Calls that look: at the configuration, at a decision, at the proxies, at the agent.

use std::collections::BTreeMap;
use std::fmt;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::de::value::SeqAccessDeserializer;
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use sidetrack_routing::{Path, Problem, decode};
use tokio::task::spawn_blocking;

use super::Api;
use super::error::ApiError;
use super::input::{self, MAX_SMALL_BODY};
use super::rules::{List, json};
use crate::explain::{self, Answer, Question};
use crate::xds::Proxy;

/// The body of `/readyz`.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Readiness {
    ready: bool,
    /// What is waited for, if not ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", default)]
    reason: Option<String>,
    /// The version of the configuration in force.
    version: String,
    /// How many rules it has.
    rules: usize,
    /// Why the newest configuration isn't in force, if it isn't: the one before is.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default)]
    rejected: Vec<String>,
    /// Why the API's last change couldn't be kept, and so wasn't made.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", default)]
    unkept: Option<String>,
    /// The connected proxies.
    proxies: Vec<Proxy>,
    /// The proxies that can't be served, and why. They don't make the agent unready: no other agent could serve them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(default)]
    refused: BTreeMap<String, String>,
}

/// A request that is to be explained.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "Question")]
pub(super) struct QuestionBody {
    /// The method.
    #[serde(default = "get")]
    #[schemars(extend("pattern" = "^[!-~]+$"))]
    method: String,
    /// The authority.
    #[serde(default)]
    host: String,
    /// The path as Envoy compares it, normalised; with its query if it has one.
    #[schemars(extend("pattern" = "^/[^#]*$"))]
    path: String,
    /// The headers, each with its value or a list of several.
    #[serde(default)]
    headers: BTreeMap<String, HeaderValues>,
}

/// A header's value, or several.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(untagged)]
pub(super) enum HeaderValues {
    /// One.
    One(String),
    /// Several, in this order.
    Several(Vec<String>),
}

/// An explanation, and the configuration it is of.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Answer")]
pub(super) struct AnswerBody {
    /// The version of the configuration by which it was decided.
    version: String,
    #[serde(flatten)]
    answer: Answer,
}

/// The body of `/api/v1/proxies`.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Proxies")]
pub(super) struct ProxiesBody {
    /// The number of the configuration in force.
    revision: u64,
    /// Its version.
    version: String,
    /// The connected proxies, the longest connected first.
    proxies: Vec<Proxy>,
    /// The node ids of those that were turned away, each with the reason.
    refused: BTreeMap<String, String>,
}

impl<'de> Deserialize<'de> for HeaderValues {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = HeaderValues;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text, or a list of texts")
            }

            fn visit_str<E>(self, text: &str) -> Result<HeaderValues, E> {
                Ok(HeaderValues::One(text.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<HeaderValues, A::Error> {
                Deserialize::deserialize(SeqAccessDeserializer::new(list)).map(HeaderValues::Several)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

fn get() -> String {
    "GET".to_owned()
}

pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

pub(super) async fn readyz(State(api): State<Api>) -> (StatusCode, Json<Readiness>) {
    let report = api.status.report();
    let ready = report.waiting_for.is_none();
    let body = Readiness {
        ready,
        reason: report.waiting_for,
        version: report.version,
        rules: report.rules,
        rejected: report.rejected,
        unkept: report.unkept,
        proxies: report.proxies,
        refused: report.refused,
    };
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(body))
}

pub(super) async fn metrics(State(api): State<Api>) -> Response {
    let text = api.metrics.text(&api.observed());
    ([(header::CONTENT_TYPE, crate::metrics::CONTENT_TYPE)], text).into_response()
}

pub(super) async fn config(State(api): State<Api>, uri: Uri) -> Result<Response, ApiError> {
    input::query(&uri, &[])?;
    let view = api.control.view();
    let mut config = match view.rules.rest() {
        Value::Object(config) => config,
        _ => Map::new(),
    };
    let mut routing = match config.remove("routing") {
        Some(Value::Object(routing)) => routing,
        _ => Map::new(),
    };
    routing.remove("rules");
    // The rules come last, and go out as they are read.
    let head = format!(
        r#"{{"revision":{},"version":"{}","config":{{{}"routing":{{{}"rules":["#,
        view.snapshots.revision(),
        view.snapshots.version(),
        fields(&config),
        fields(&routing),
    );
    let list = List::new(view, None, head.into(), Bytes::from_static(b"]}}}"));
    Ok(json(list.into_body(), None))
}

/// The fields as JSON, each with a comma after it.
fn fields(map: &Map<String, Value>) -> String {
    let fields = map
        .iter()
        .map(|(name, value)| format!("{}:{value},", Value::from(name.as_str())));
    fields.collect()
}

pub(super) async fn proxies(State(api): State<Api>, uri: Uri) -> Result<Json<ProxiesBody>, ApiError> {
    input::query(&uri, &[])?;
    let view = api.control.view();
    let report = api.status.report();
    Ok(Json(ProxiesBody {
        revision: view.snapshots.revision(),
        version: view.snapshots.version().to_owned(),
        proxies: report.proxies,
        refused: report.refused,
    }))
}

pub(super) async fn explain(State(api): State<Api>, request: Request) -> Result<Json<AnswerBody>, ApiError> {
    input::query(request.uri(), &[])?;
    let body = input::json_body(request, MAX_SMALL_BODY, std::sync::Arc::clone(&api.room)).await?;
    let question = crate::json::read(&body.text).map_err(|problem| vec![problem]);
    let question = question
        .and_then(|value| decode(&value, question_in))
        .map_err(ApiError::invalid)?;
    let view = api.control.view();
    let explain = move || {
        let config = view.snapshots.config();
        let answer = explain::answer(&config.routing, question);
        answer.map(|answer| AnswerBody {
            version: view.snapshots.version().to_owned(),
            answer,
        })
    };
    // Tables of 100,000 rules take a while to compile, and memory: one at a time.
    let _turn = api.explaining.acquire().await;
    let broken = |error: String| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, error);
    match spawn_blocking(explain).await {
        Ok(Ok(answer)) => Ok(Json(answer)),
        Ok(Err(error)) => Err(broken(error.to_string())),
        Err(error) => Err(broken(error.to_string())),
    }
}

/// The question, or what is wrong with it.
fn question_in(body: &QuestionBody) -> Result<Question, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut problem = |path: Path, message: String| problems.push(Problem { path, message });
    let path = explain::parse_path(&body.path).unwrap_or_else(|error| {
        problem(Path::root().key("path"), error.to_string());
        String::new()
    });
    if body.method.is_empty() || !body.method.bytes().all(|byte| byte.is_ascii_graphic()) {
        problem(Path::root().key("method"), "must be a method such as GET".to_owned());
    }
    let mut headers = Vec::new();
    for (name, values) in &body.headers {
        let values = match values {
            HeaderValues::One(value) => std::slice::from_ref(value),
            HeaderValues::Several(values) => values,
        };
        let place = Path::root().key("headers").key(name);
        if let Err(error) = explain::check_header_name(name) {
            problem(place.clone(), error.to_string());
        }
        headers.extend(values.iter().map(|value| (name.clone(), value.clone())));
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    Ok(Question {
        method: body.method.clone(),
        host: body.host.clone(),
        path,
        headers,
    })
}
