//! A client of the agent's API.

use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue, IF_MATCH, IF_NONE_MATCH};
use http::{Method, Request};
use http_body_util::Full;
use serde_json::{Value, json};

use crate::{Answer, Client, Protocol};

const RULES: &str = "/api/v1/rules";

/// Calls the API on one connection.
pub struct Api {
    client: Client,
    token: Option<String>,
}

/// Rules as the API gives them.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    /// In order of precedence.
    pub rules: Vec<Value>,
    /// The version of them, for [`Api::put_if`].
    pub etag: String,
}

/// The answer to a change.
#[derive(Clone, Debug)]
pub struct Written {
    /// 200, 202, or why not.
    pub status: u16,
    /// The whole answer.
    pub body: Value,
    /// The version of the key's rules.
    pub etag: String,
}

impl Api {
    /// A client of the API on this port of loopback.
    pub fn new(port: u16) -> Self {
        Self {
            client: Client::new(Protocol::Http1, port),
            token: None,
        }
    }

    /// The same with a token.
    pub fn with_token(port: u16, token: &str) -> Self {
        Self {
            token: Some(token.to_owned()),
            ..Self::new(port)
        }
    }

    /// Replaces the rules of `key`; with `wait`, the answer comes when they are in force.
    ///
    /// # Errors
    /// If there is no whole answer.
    pub async fn put(&mut self, key: &str, rules: &Value, wait: Option<Duration>) -> anyhow::Result<Written> {
        self.write(Method::PUT, &of_key(key), wait, &[], Some(rules)).await
    }

    /// The same, if the key's rules are still those of `etag`; `*` as `etag`: if it has none.
    ///
    /// # Errors
    /// If there is no whole answer.
    pub async fn put_if(&mut self, key: &str, rules: &Value, etag: &str) -> anyhow::Result<Written> {
        let name = if etag == "*" { IF_NONE_MATCH } else { IF_MATCH };
        self.write(Method::PUT, &of_key(key), None, &[(name, etag)], Some(rules))
            .await
    }

    /// Replaces all rules of the API.
    ///
    /// # Errors
    /// If there is no whole answer.
    pub async fn put_all(&mut self, rules: &Value, wait: Option<Duration>) -> anyhow::Result<Written> {
        self.write(Method::PUT, RULES, wait, &[], Some(rules)).await
    }

    /// Removes the rules of `key`.
    ///
    /// # Errors
    /// If there is no whole answer.
    pub async fn delete(&mut self, key: &str, wait: Option<Duration>) -> anyhow::Result<Written> {
        self.write(Method::DELETE, &of_key(key), wait, &[], None).await
    }

    /// The rules of `key`; none if it has none.
    ///
    /// # Errors
    /// If there is no whole answer, or another one.
    pub async fn rules_of(&mut self, key: &str) -> anyhow::Result<Option<Rules>> {
        let answer = self.call(Method::GET, &of_key(key), &[], None).await?;
        match answer.status {
            404 => Ok(None),
            _ => rules_in(&answer).map(Some),
        }
    }

    /// All rules, of the file and of the API.
    ///
    /// # Errors
    /// If there is no whole answer, or another one.
    pub async fn rules(&mut self) -> anyhow::Result<Rules> {
        rules_in(&self.call(Method::GET, RULES, &[], None).await?)
    }

    /// What this path answers as JSON.
    ///
    /// # Errors
    /// If there is no whole answer, or it isn't 200.
    pub async fn get(&mut self, path: &str) -> anyhow::Result<Value> {
        let answer = self.call(Method::GET, path, &[], None).await?;
        anyhow::ensure!(answer.status == 200, "{path}: {} {}", answer.status, answer.text());
        serde_json::from_slice(&answer.body).with_context(|| answer.text())
    }

    /// Calls anything.
    ///
    /// # Errors
    /// If there is no whole answer.
    pub async fn call(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(HeaderName, &str)],
        body: Option<&Value>,
    ) -> anyhow::Result<Answer> {
        let mut request = Request::new(Full::from(body.map_or_else(Bytes::new, |body| body.to_string().into())));
        *request.method_mut() = method;
        *request.uri_mut() = path.parse()?;
        if body.is_some() {
            let json = HeaderValue::from_static("application/json");
            request.headers_mut().insert(CONTENT_TYPE, json);
        }
        if let Some(token) = &self.token {
            let bearer = HeaderValue::try_from(format!("Bearer {token}"))?;
            request.headers_mut().insert(AUTHORIZATION, bearer);
        }
        for (name, value) in headers {
            request.headers_mut().insert(name, HeaderValue::try_from(*value)?);
        }
        self.client.send(request).await
    }

    async fn write(
        &mut self,
        method: Method,
        path: &str,
        wait: Option<Duration>,
        headers: &[(HeaderName, &str)],
        rules: Option<&Value>,
    ) -> anyhow::Result<Written> {
        let query = wait.map_or_else(String::new, |wait| format!("?wait={}ms", wait.as_millis()));
        let answer = self.call(method, &format!("{path}{query}"), headers, rules).await?;
        Ok(Written {
            status: answer.status,
            body: serde_json::from_slice(&answer.body).unwrap_or_else(|_| json!(answer.text())),
            etag: answer.header("etag").to_owned(),
        })
    }
}

impl Written {
    /// Whether the change is kept.
    pub fn is_accepted(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Whether every proxy has it.
    pub fn is_in_force(&self) -> bool {
        self.status == 200 && self.body["inForce"] == true
    }
}

fn of_key(key: &str) -> String {
    let bytes = key.bytes().map(|byte| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    });
    format!("{RULES}/{}", bytes.collect::<String>())
}

fn rules_in(answer: &Answer) -> anyhow::Result<Rules> {
    anyhow::ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
    Ok(Rules {
        rules: serde_json::from_slice(&answer.body).with_context(|| answer.text())?,
        etag: answer.header("etag").to_owned(),
    })
}
