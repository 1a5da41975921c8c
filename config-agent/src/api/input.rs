//! What comes from a client: read strictly, and only so much of it.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use sidetrack_routing::RouteKey;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

use super::error::ApiError;
use crate::rules::{Condition, Tags};

/// The body of a change of all rules: some 100,000.
pub(super) const MAX_BODY: usize = 32 * 1024 * 1024;

/// The body of any other call.
pub(super) const MAX_SMALL_BODY: usize = 1024 * 1024;

/// How much may be read and worked on at one time.
pub(super) const MAX_BODIES: usize = 2 * MAX_BODY;

/// How long a body may take to arrive.
const BODY_TIME: Duration = Duration::from_secs(60);

/// How long nothing of it may come, and how long a call may wait for room.
const QUIET_TIME: Duration = Duration::from_secs(10);

/// The longest that `wait` may be.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// The unit in which room for bodies is given out.
const UNIT: usize = 1024;

/// A body, and the room it takes as long as it is worked on.
pub(super) struct JsonBody {
    pub(super) text: Vec<u8>,
    _room: OwnedSemaphorePermit,
}

/// Room for the bodies of all calls.
pub(super) fn room() -> Semaphore {
    Semaphore::new(MAX_BODIES / UNIT)
}

/// Reads a JSON body of at most `limit` bytes.
pub(super) async fn json_body(
    request: Request<Body>,
    limit: usize,
    room: std::sync::Arc<Semaphore>,
) -> Result<JsonBody, ApiError> {
    check_type(request.headers())?;
    let too_large = || {
        let message = format!("the body has more than {} MiB", limit / 1024 / 1024);
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, message)
    };
    let announced = request.headers().get(header::CONTENT_LENGTH);
    let announced = announced.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    let length = announced.unwrap_or(limit);
    if length > limit {
        return Err(too_large());
    }
    let units = u32::try_from(length.div_ceil(UNIT)).unwrap_or(u32::MAX);
    let room = timeout(QUIET_TIME, room.acquire_many_owned(units)).await;
    let Ok(Ok(room)) = room else {
        let message = "the agent is working on other calls with large bodies: try again later";
        return Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message));
    };
    let mut body = Limited::new(request.into_body(), limit);
    let mut text = Vec::with_capacity(announced.unwrap_or_default());
    let end = Instant::now() + BODY_TIME;
    loop {
        let frame = timeout_at(end.min(Instant::now() + QUIET_TIME), body.frame()).await;
        match frame {
            Ok(None) => break,
            Ok(Some(Ok(frame))) => text.extend_from_slice(frame.data_ref().map(AsRef::as_ref).unwrap_or_default()),
            Ok(Some(Err(error))) if error.is::<LengthLimitError>() => return Err(too_large()),
            Ok(Some(Err(_))) => return Err(ApiError::new(StatusCode::BAD_REQUEST, "the body broke off")),
            Err(_) => {
                let message = "the body takes too long to arrive";
                return Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, message));
            }
        }
    }
    Ok(JsonBody { text, _room: room })
}

/// That the body is JSON as it stands. It also keeps browsers out: they ask before they send this type across origins.
fn check_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let given = headers
        .get(header::CONTENT_TYPE)
        .map(|value| value.to_str().unwrap_or_default());
    let mut parts = given.unwrap_or_default().split(';').map(str::trim);
    let is_json = parts
        .next()
        .is_some_and(|kind| kind.eq_ignore_ascii_case("application/json"));
    let is_utf8 = parts.all(|parameter| {
        parameter.is_empty()
            || ["charset=utf-8", "charset=\"utf-8\""]
                .iter()
                .any(|utf8| parameter.eq_ignore_ascii_case(utf8))
    });
    let encoded = headers
        .get(header::CONTENT_ENCODING)
        .is_some_and(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity"));
    let message = match given {
        _ if encoded => "the body is encoded, must be sent as it is",
        Some(_) if is_json && is_utf8 => return Ok(()),
        Some(_) => "the body isn't JSON, must be sent with Content-Type: application/json",
        None => "the body has no type, must be sent with Content-Type: application/json",
    };
    Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message))
}

/// The parameters after `?`, all of which are among `known`.
pub(super) fn query(uri: &Uri, known: &[&str]) -> Result<BTreeMap<String, String>, ApiError> {
    let mut found = BTreeMap::new();
    let pairs = uri
        .query()
        .unwrap_or_default()
        .split('&')
        .filter(|pair| !pair.is_empty());
    for pair in pairs {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = decoded(name).ok_or_else(|| ApiError::invalid_part(name, "isn't percent-encoded UTF-8"))?;
        let Some(value) = decoded(value) else {
            return Err(ApiError::invalid_part(&name, "isn't percent-encoded UTF-8"));
        };
        if !known.contains(&&*name) {
            let message = match known {
                [] => "unknown parameter, there is none here".to_owned(),
                known => format!("unknown parameter, expected one of {}", known.join(", ")),
            };
            return Err(ApiError::invalid_part(&name, message));
        }
        if found.insert(name.clone(), value).is_some() {
            return Err(ApiError::invalid_part(&name, "is given twice"));
        }
    }
    Ok(found)
}

/// The parameter `wait`.
pub(super) fn wait(query: &BTreeMap<String, String>) -> Result<Option<Duration>, ApiError> {
    let Some(text) = query.get("wait") else {
        return Ok(None);
    };
    let wait =
        sidetrack_routing::parse_duration(text).map_err(|error| ApiError::invalid_part("wait", error.to_string()))?;
    if wait > MAX_WAIT {
        let message = format!("{text:?} is too long, must be at most {}s", MAX_WAIT.as_secs());
        return Err(ApiError::invalid_part("wait", message));
    }
    Ok(Some(wait))
}

/// The route key that is the rest of the path after `prefix`.
pub(super) fn route_key(uri: &Uri, prefix: &str) -> Result<String, ApiError> {
    let invalid = |message: String| ApiError::invalid_part("routeKey", message);
    let rest = uri.path().strip_prefix(prefix).unwrap_or_default();
    let key = decoded(rest).ok_or_else(|| invalid("isn't percent-encoded UTF-8".to_owned()))?;
    match RouteKey::parse(&key) {
        Ok(_) => Ok(key),
        Err(error) => Err(invalid(error.to_string())),
    }
}

/// `If-Match` and `If-None-Match`.
pub(super) fn condition(headers: &HeaderMap) -> Result<Condition, ApiError> {
    Ok(Condition {
        only_if: tags(headers, &header::IF_MATCH)?,
        unless: tags(headers, &header::IF_NONE_MATCH)?,
    })
}

fn tags(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Tags>, ApiError> {
    let values: Vec<_> = headers.get_all(name).iter().map(|value| value.to_str()).collect();
    if values.is_empty() {
        return Ok(None);
    }
    let text: Vec<_> = values.into_iter().map(Result::unwrap_or_default).collect();
    match Tags::parse(&text.join(", ")) {
        Ok(tags) => Ok(Some(tags)),
        Err(message) => Err(ApiError::invalid_part(name.as_str(), message)),
    }
}

/// `text` with its `%XX` as what they stand for, if that is UTF-8.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let [high, low, after @ ..] = after else { return None };
        let digit = |byte: u8| char::from(byte).to_digit(16);
        bytes.push(u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()?);
        rest = after;
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_signs_are_read_strictly() {
        for (text, expected) in [
            ("a%2Fb%25", Some("a/b%")),
            ("%c3%BC+", Some("ü+")),
            ("%", None),
            ("%4", None),
            ("%zz", None),
            ("%+1", None),
            ("%ff", None),
        ] {
            assert_eq!(decoded(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn only_json_is_taken() {
        for (kind, right) in [
            ("application/json", true),
            ("Application/JSON; charset=UTF-8", true),
            ("application/json; charset=latin1", false),
            ("text/plain", false),
            ("application/x-www-form-urlencoded", false),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, kind.parse().unwrap())]);
            assert_eq!(check_type(&headers).is_ok(), right, "{kind}");
        }
        assert!(check_type(&HeaderMap::new()).is_err());
    }

    #[test]
    fn unknown_and_double_parameters_are_refused() {
        let ask = |query_text: &str| query(&format!("/x?{query_text}").parse().unwrap(), &["wait", "source"]);
        assert_eq!(ask("wait=5s&&source=a%70i").unwrap()["source"], "api");
        for text in ["wat=5s", "wait=1s&wait=1s", "wait=%ff", "%zz=1"] {
            assert!(ask(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_wait_is_a_duration_up_to_a_minute() {
        let ask = |text: &str| wait(&[("wait".to_owned(), text.to_owned())].into());
        assert_eq!(ask("1m").unwrap(), Some(MAX_WAIT));
        assert_eq!(ask("0s").unwrap(), Some(Duration::ZERO));
        for text in ["61s", "5", "", "-1s", "99999999999999999999h"] {
            assert!(ask(text).is_err(), "{text}");
        }
    }
}
