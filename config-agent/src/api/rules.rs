//! The rules: read, put, removed.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;
use tokio::task::spawn_blocking;

use super::Api;
use super::error::ApiError;
use super::input::{self, MAX_BODY, MAX_SMALL_BODY};
use super::wait::{Waiting, until_in_force};
use crate::control::{Done, View};
use crate::rules::{Change, Prepared, Source, Tag};

/// What is before the route key in a path.
const PREFIX: &str = "/api/v1/rules/";

/// How much is written at a time of a list that may be long.
const CHUNK: usize = 64 * 1024;

/// A body that takes longer to check than others should wait.
const LONG_BODY: usize = 64 * 1024;

/// What became of a change that was made.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Changed")]
pub(super) struct Changed {
    /// The number of the configuration that has the change, from 1 at every start of the agent.
    revision: u64,
    /// Its version, the hash of its content.
    version: String,
    /// How many rules it has, all together.
    rules: usize,
    /// With `wait`: whether every connected proxy has accepted it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "bool", default)]
    in_force: Option<bool>,
    /// With `wait`, unless it is in force: who hasn't accepted it, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default)]
    waiting_for: Vec<Waiting>,
}

pub(super) async fn list(State(api): State<Api>, uri: Uri, headers: HeaderMap) -> Result<Response, ApiError> {
    let source = source(&uri)?;
    let view = api.control.view();
    let tag = view.rules.tag();
    if let Some(response) = unchanged(&headers, tag)? {
        return Ok(response);
    }
    let list = List::new(view, source, Bytes::from_static(b"["), Bytes::from_static(b"]"));
    Ok(json(list.into_body(), Some(tag)))
}

pub(super) async fn get(State(api): State<Api>, uri: Uri, headers: HeaderMap) -> Result<Response, ApiError> {
    let source = source(&uri)?;
    let key = input::route_key(&uri, PREFIX)?;
    let view = api.control.view();
    let Some(tag) = view.rules.tag_of(&key) else {
        let message = format!("there is no rule for the route key {key}");
        return Err(ApiError::new(StatusCode::NOT_FOUND, message));
    };
    if let Some(response) = unchanged(&headers, tag)? {
        return Ok(response);
    }
    let rules = view.rules.key_json(&key, source);
    let list = [b"[", &*rules.join(&b","[..]), b"]"].concat();
    Ok(json(Body::from(list), Some(tag)))
}

pub(super) async fn put(State(api): State<Api>, request: Request) -> Result<Response, ApiError> {
    let key = input::route_key(request.uri(), PREFIX)?;
    write(&api, request, Some(key), MAX_SMALL_BODY).await
}

pub(super) async fn replace(State(api): State<Api>, request: Request) -> Result<Response, ApiError> {
    write(&api, request, None, MAX_BODY).await
}

pub(super) async fn delete(State(api): State<Api>, uri: Uri, headers: HeaderMap) -> Result<Response, ApiError> {
    let wait = input::wait(&input::query(&uri, &["wait"])?)?;
    let key = input::route_key(&uri, PREFIX)?;
    let condition = input::condition(&headers)?;
    let done = api.control.change(Change::Delete(key), condition).await?;
    Ok(changed(&api, done, wait).await)
}

/// The rules in `request` in place of those of `key`, or of all.
async fn write(api: &Api, request: Request, key: Option<String>, limit: usize) -> Result<Response, ApiError> {
    let wait = input::wait(&input::query(request.uri(), &["wait"])?)?;
    let condition = input::condition(request.headers())?;
    let body = input::json_body(request, limit, Arc::clone(&api.room)).await?;
    let view = api.control.view();
    let is_put = key.is_some();
    let (body, read) = {
        let is_long = body.text.len() > LONG_BODY;
        let read = move || {
            let read = Prepared::read(&body.text, key.as_deref(), view.rules.file());
            (body, read)
        };
        if is_long {
            let read = spawn_blocking(read).await;
            read.map_err(|error| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?
        } else {
            read()
        }
    };
    let prepared = read.inspect_err(|_| api.metrics.rejected(crate::metrics::Source::Api))?;
    drop(body);
    let change = if is_put {
        Change::Put(prepared)
    } else {
        Change::Replace(prepared)
    };
    let done = api.control.change(change, condition).await?;
    Ok(changed(api, done, wait).await)
}

async fn changed(api: &Api, done: Done, wait: Option<std::time::Duration>) -> Response {
    let waiting_for = match wait {
        Some(limit) => until_in_force(&api.status, done.revision, limit).await,
        None => Vec::new(),
    };
    let status = if waiting_for.is_empty() {
        StatusCode::OK
    } else {
        StatusCode::ACCEPTED
    };
    let body = Changed {
        revision: done.revision,
        version: done.version,
        rules: done.rules,
        in_force: wait.map(|_| waiting_for.is_empty()),
        waiting_for,
    };
    let mut response = (status, Json(body)).into_response();
    if let Some(tag) = done.tag {
        set_tag(&mut response, tag);
    }
    response
}

/// The parameter `source`.
fn source(uri: &Uri) -> Result<Option<Source>, ApiError> {
    match input::query(uri, &["source"])?.get("source").map(String::as_str) {
        None => Ok(None),
        Some("file") => Ok(Some(Source::File)),
        Some("api") => Ok(Some(Source::Api)),
        Some(other) => {
            let message = format!("is {other:?}, must be one of file, api");
            Err(ApiError::invalid_part("source", message))
        }
    }
}

/// The answer to a client that has what there is.
fn unchanged(headers: &HeaderMap, tag: Tag) -> Result<Option<Response>, ApiError> {
    let condition = input::condition(headers)?;
    if !condition.only_if.is_none_or(|tags| tags.name(Some(tag))) {
        return Err(crate::rules::Refused::Condition.into());
    }
    if !condition.unless.is_some_and(|tags| tags.name_weakly(tag)) {
        return Ok(None);
    }
    let mut response = StatusCode::NOT_MODIFIED.into_response();
    set_tag(&mut response, tag);
    Ok(Some(response))
}

pub(super) fn json(body: Body, tag: Option<Tag>) -> Response {
    let mut response = ([(header::CONTENT_TYPE, "application/json")], body).into_response();
    if let Some(tag) = tag {
        set_tag(&mut response, tag);
    }
    response
}

fn set_tag(response: &mut Response, tag: Tag) {
    // Hexadecimal digits in quotes are always a header's value.
    if let Ok(tag) = HeaderValue::try_from(tag.to_string()) {
        response.headers_mut().insert(header::ETAG, tag);
    }
}

/// A list of rules, made as it is sent: a slow client costs no more memory than a fast one.
pub(super) struct List {
    view: Arc<View>,
    source: Option<Source>,
    /// What comes before the first rule; taken once.
    head: Option<Bytes>,
    tail: Option<Bytes>,
    next_of_file: usize,
    last_of_api: Option<Arc<str>>,
    is_first: bool,
}

impl List {
    pub(super) fn new(view: Arc<View>, source: Option<Source>, head: Bytes, tail: Bytes) -> Self {
        Self {
            view,
            source,
            head: Some(head),
            tail: Some(tail),
            next_of_file: 0,
            last_of_api: None,
            is_first: true,
        }
    }

    pub(super) fn into_body(self) -> Body {
        Body::from_stream(tokio_stream::iter(self.map(Ok::<_, Infallible>)))
    }

    /// The next rules, in order of precedence.
    fn rules(&mut self) -> Option<Bytes> {
        let rules = &self.view.rules;
        if self.source != Some(Source::Api)
            && let Some(rule) = rules.file().json().get(self.next_of_file)
        {
            self.next_of_file += 1;
            return Some(rule.clone());
        }
        if self.source == Some(Source::File) {
            return None;
        }
        let (key, json) = rules.api_json_after(self.last_of_api.as_deref())?;
        self.last_of_api = Some(Arc::clone(key));
        Some(json.clone())
    }
}

impl Iterator for List {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let mut chunk = self.head.take().map(Vec::from).unwrap_or_default();
        while chunk.len() < CHUNK {
            match self.rules() {
                Some(rules) => {
                    if !std::mem::take(&mut self.is_first) {
                        chunk.push(b',');
                    }
                    chunk.extend_from_slice(&rules);
                }
                None => {
                    chunk.extend_from_slice(&self.tail.take()?);
                    break;
                }
            }
        }
        Some(chunk.into())
    }
}
