//! What is said when a call fails. Then nothing has changed.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;
use sidetrack_routing::{Path, Problem};

use crate::rules::{InvalidRules, Refused};

/// A call that fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ApiError {
    pub(super) status: StatusCode,
    error: String,
    problems: Vec<Problem>,
}

/// The body of every answer from 400 on.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Error")]
pub(super) struct ErrorBody {
    /// What went wrong, and what to do about it.
    error: String,
    /// Everything that is wrong with what was sent; often nothing.
    problems: Vec<ProblemBody>,
}

/// One thing that is wrong with what was sent.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Problem")]
pub(super) struct ProblemBody {
    /// Where: of a body such as `[0].pathPrefixes[1]`, empty for the whole of it; otherwise the name of a parameter or header.
    path: String,
    /// What is wrong there, and what would be right.
    message: String,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self {
            status,
            error: error.into(),
            problems: Vec::new(),
        }
    }

    /// 400 with these problems.
    pub(super) fn invalid(problems: Vec<Problem>) -> Self {
        Self {
            problems,
            ..Self::new(StatusCode::BAD_REQUEST, "the request isn't right, nothing has changed")
        }
    }

    /// 400 because of a parameter or header.
    pub(super) fn invalid_part(name: &str, message: impl Into<String>) -> Self {
        Self::invalid(vec![Problem {
            path: Path::root().key(name),
            message: message.into(),
        }])
    }
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        let error = refused.to_string();
        let status = match refused {
            Refused::Invalid(problems) => return Self::invalid(problems),
            Refused::Condition => StatusCode::PRECONDITION_FAILED,
            Refused::Absent(_) => StatusCode::NOT_FOUND,
            Refused::OfTheFile(_) => StatusCode::CONFLICT,
            Refused::TooMany => StatusCode::PAYLOAD_TOO_LARGE,
            Refused::Unwritable(_) => StatusCode::INSUFFICIENT_STORAGE,
            Refused::Broken => StatusCode::INTERNAL_SERVER_ERROR,
            Refused::Stopping => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, error)
    }
}

impl From<InvalidRules> for ApiError {
    fn from(InvalidRules(problems): InvalidRules) -> Self {
        Self::invalid(problems)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let problems = self.problems.into_iter().map(|Problem { path, message }| ProblemBody {
            path: if path == Path::root() {
                String::new()
            } else {
                path.to_string()
            },
            message,
        });
        let body = ErrorBody {
            error: self.error,
            problems: problems.collect(),
        };
        let mut response = (self.status, Json(body)).into_response();
        let mut add = |name, value| response.headers_mut().insert(name, HeaderValue::from_static(value));
        match self.status {
            StatusCode::UNAUTHORIZED => {
                add(header::WWW_AUTHENTICATE, "Bearer");
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                add(header::RETRY_AFTER, "1");
            }
            _ => {}
        }
        response
    }
}
