//! The client of the agent's REST API, for the command line. HTTP only: the API has no TLS of its own.

mod answers;
mod error;
mod path;

use std::time::Duration;

use anyhow::Context as _;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, ETAG, HOST, HeaderName, IF_MATCH, IF_NONE_MATCH};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;

pub use answers::{Change, ProxyEntry, ProxyList, Waiting};
pub use error::{ApiError, Reported};

/// How long an answer may take, apart from what it is asked to wait for.
const PATIENCE: Duration = Duration::from_secs(30);
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);

/// An agent's API.
#[derive(Clone, Debug)]
pub struct Api {
    url: String,
    /// `HOST:PORT`, to connect to.
    authority: String,
    prefix: String,
    token: Option<String>,
}

/// What must be so for a change to be made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Condition {
    /// Nothing.
    #[default]
    None,
    /// The rules of the key still have this ETag.
    IsStill(String),
    /// The key has no rules yet.
    IsNew,
}

/// A change of the rules.
#[derive(Clone, Debug)]
pub struct Write {
    /// The route key; `None` for all of them.
    pub key: Option<String>,
    /// The rules that it is to have; `None` to delete.
    pub rules: Option<Value>,
    /// How long to wait until it is in force everywhere.
    pub wait: Option<Duration>,
    /// What must be so.
    pub condition: Condition,
}

/// The rules of a key or of all, as they came.
#[derive(Clone, Debug)]
pub struct Listed {
    /// A JSON list.
    pub json: String,
    /// The hash of the rules' content, quotes included.
    pub etag: Option<String>,
}

/// An answer with its status.
struct Answer {
    status: StatusCode,
    etag: Option<String>,
    body: Bytes,
}

impl Api {
    /// The API at `url`, with `token` if it wants one.
    ///
    /// # Errors
    ///
    /// It isn't the URL of an API.
    pub fn new(url: &str, token: Option<String>) -> Result<Self, ApiError> {
        let invalid = || ApiError::InvalidUrl(url.to_owned());
        let uri: Uri = url.parse().map_err(|_| invalid())?;
        if uri.scheme_str() != Some("http") || uri.query().is_some() {
            return Err(invalid());
        }
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(invalid)?;
        Ok(Self {
            url: url.trim_end_matches('/').to_owned(),
            authority: format!("{host}:{}", uri.port_u16().unwrap_or(80)),
            prefix: uri.path().trim_end_matches('/').to_owned(),
            token,
        })
    }

    /// The rules of `key`, or of all keys; with `source` only those that it owns.
    ///
    /// # Errors
    ///
    /// The agent isn't there, or refuses.
    pub async fn rules(&self, key: Option<&str>, source: Option<&str>) -> Result<Listed, ApiError> {
        let query = source.map(|source| format!("?source={source}")).unwrap_or_default();
        let path = format!("{}{query}", rules_path(key));
        let answer = self.call(Method::GET, &path, None, None, PATIENCE).await?;
        Ok(Listed {
            json: String::from_utf8_lossy(&answer.body).into_owned(),
            etag: answer.etag,
        })
    }

    /// Makes a change, and waits until it is in force if it is to.
    ///
    /// # Errors
    ///
    /// The agent isn't there, or refuses it.
    pub async fn write(&self, write: Write) -> Result<Change, ApiError> {
        let method = if write.rules.is_some() {
            Method::PUT
        } else {
            Method::DELETE
        };
        let wait = write.wait.unwrap_or_default();
        let query = match write.wait {
            Some(wait) => format!("?wait={}ms", wait.as_millis()),
            None => String::new(),
        };
        let path = format!("{}{query}", rules_path(write.key.as_deref()));
        let condition = match write.condition {
            Condition::None => None,
            Condition::IsStill(etag) => Some((IF_MATCH, etag)),
            Condition::IsNew => Some((IF_NONE_MATCH, "*".to_owned())),
        };
        let answer = self
            .call(method, &path, write.rules, condition, PATIENCE + wait)
            .await?;
        let change: Change = self.decoded(&answer)?;
        Ok(Change {
            etag: answer.etag,
            ..change
        })
    }

    /// The connected proxies, and how each stands to the configuration in force.
    ///
    /// # Errors
    ///
    /// The agent isn't there, or refuses.
    pub async fn proxies(&self) -> Result<(ProxyList, String), ApiError> {
        let answer = self.call(Method::GET, "/api/v1/proxies", None, None, PATIENCE).await?;
        let list = self.decoded(&answer)?;
        Ok((list, String::from_utf8_lossy(&answer.body).into_owned()))
    }

    fn decoded<T: DeserializeOwned>(&self, answer: &Answer) -> Result<T, ApiError> {
        serde_json::from_slice(&answer.body).map_err(|error| ApiError::NoApi {
            url: self.url.clone(),
            why: format!("its answer can't be read: {error}"),
        })
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
        condition: Option<(HeaderName, String)>,
        patience: Duration,
    ) -> Result<Answer, ApiError> {
        let exchange = self.exchange(method, path, body, condition.clone());
        let condition = condition.map(|(name, _)| name);
        let answer = timeout(patience, exchange)
            .await
            .unwrap_or_else(|_| Err(anyhow::anyhow!("it doesn't answer within {} s", patience.as_secs())))
            .map_err(|error| self.no_answer(error))?;
        if answer.status.is_success() {
            return Ok(answer);
        }
        Err(match serde_json::from_slice::<Reported>(&answer.body) {
            Err(_) => ApiError::NoApi {
                url: self.url.clone(),
                why: format!("it answers {}", answer.status),
            },
            Ok(reported) => match answer.status {
                StatusCode::UNAUTHORIZED if self.token.is_none() => ApiError::TokenNeeded,
                StatusCode::UNAUTHORIZED => ApiError::UnknownToken,
                StatusCode::PRECONDITION_FAILED if condition == Some(IF_MATCH) => ApiError::Changed,
                StatusCode::PRECONDITION_FAILED if condition == Some(IF_NONE_MATCH) => ApiError::NotNew,
                _ => ApiError::Refused(reported),
            },
        })
    }

    fn no_answer(&self, error: anyhow::Error) -> ApiError {
        let url = self.url.clone();
        let is_other = error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse);
        match is_other {
            true => ApiError::NoApi {
                url,
                why: "it doesn't speak HTTP".to_owned(),
            },
            false => ApiError::Away { url, error },
        }
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
        condition: Option<(HeaderName, String)>,
    ) -> anyhow::Result<Answer> {
        let connecting = timeout(CONNECT_PATIENCE, TcpStream::connect(&self.authority));
        let stream = connecting.await.context("no connection within 5 s")??;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.prefix))
            .header(HOST, &self.authority);
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        if let Some((name, value)) = condition {
            request = request.header(name, value);
        }
        let body = match body {
            Some(body) => {
                request = request.header(CONTENT_TYPE, "application/json");
                Full::new(Bytes::from(serde_json::to_vec(&body)?))
            }
            None => Full::default(),
        };
        let response = sender.send_request(request.body(body)?).await?;
        let etag = response
            .headers()
            .get(ETAG)
            .and_then(|etag| etag.to_str().ok())
            .map(str::to_owned);
        Ok(Answer {
            status: response.status(),
            etag,
            body: response.into_body().collect().await?.to_bytes(),
        })
    }
}

fn rules_path(key: Option<&str>) -> String {
    match key {
        Some(key) => format!("/api/v1/rules/{}", encoded(key)),
        None => "/api/v1/rules".to_owned(),
    }
}

/// A path segment. All but letters, digits, hyphen and underscore is encoded: a key may be `..`.
fn encoded(key: &str) -> String {
    let encode = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    key.bytes().map(encode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_http_and_a_host() {
        for (url, authority, prefix) in [
            ("http://127.0.0.1:9902", "127.0.0.1:9902", ""),
            ("http://127.0.0.1:9902/", "127.0.0.1:9902", ""),
            ("http://agent", "agent:80", ""),
            ("http://[::1]:7/side/track/", "[::1]:7", "/side/track"),
        ] {
            let api = Api::new(url, None).unwrap();
            assert_eq!((api.authority.as_str(), api.prefix.as_str()), (authority, prefix));
        }
        for url in [
            "https://agent",
            "agent:9902",
            "127.0.0.1:9902",
            "http://",
            "",
            "http://a/?x=1",
            "/x",
        ] {
            let error = Api::new(url, None).unwrap_err().to_string();
            assert!(error.contains("http://127.0.0.1:9902"), "{url}: {error}");
        }
    }

    #[test]
    fn a_key_is_one_segment_of_a_path() {
        for (key, path) in [
            ("pr-17", "/api/v1/rules/pr-17"),
            ("..", "/api/v1/rules/%2E%2E"),
            ("a/b?c#d%20", "/api/v1/rules/a%2Fb%3Fc%23d%2520"),
        ] {
            assert_eq!(rules_path(Some(key)), path);
        }
    }

    #[tokio::test]
    async fn an_agent_that_is_away_is_named_with_the_mend() {
        let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", free.local_addr().unwrap());
        drop(free);
        let error = Api::new(&url, None).unwrap().proxies().await.unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("no agent answers at {url}: ")) && error.contains("--api"),
            "{error}"
        );
    }
}
