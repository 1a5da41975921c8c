//! What several calls have: parameters, headers, errors.

use serde_json::{Value, json};

use super::reference;

/// Entity tags in a list, some elements of which may be empty (RFC 9110, section 13.1.1).
const TAGS: &str = r#"^(,[ \t,]*)?(W/)?"[!#-~]*"([ \t]*,[ \t,]*(W/)?"[!#-~]*")*([ \t]*,[ \t,]*)?$"#;

/// One as `ETag` has it.
const EXAMPLE_TAG: &str = "\"0123456789abcdef\"";

/// At most a minute.
const WAIT: &str = "^0*(([0-5]?[0-9]{1,4}|60000)ms|([0-5]?[0-9]|60)s|[01]m|0h)$";

pub(super) fn parameters() -> Value {
    json!({
        "routeKey": {
            "name": "routeKey",
            "in": "path",
            "required": true,
            "description": "The route key, percent-encoded.",
            "schema": {"type": "string", "pattern": "^[!-+\\--~]+$", "minLength": 1, "maxLength": 256},
        },
        "source": {
            "name": "source",
            "in": "query",
            "description": "Only the rules that this one owns.",
            "schema": {"type": "string", "enum": ["file", "api"]},
        },
        "wait": {
            "name": "wait",
            "in": "query",
            "description": "Answer when every connected proxy has accepted the change, or one refuses it, or after this time, \
                            at most 60s.",
            "schema": {"type": "string", "pattern": WAIT},
            "example": "5s",
        },
        "ifMatch": {
            "name": "If-Match",
            "in": "header",
            "description": "Only if the rules' ETag is one of these, or * if there are any.",
            "schema": {"anyOf": [{"const": "*"}, {"type": "string", "pattern": TAGS}]},
            "example": EXAMPLE_TAG,
        },
        "ifNoneMatch": {
            "name": "If-None-Match",
            "in": "header",
            "description": "Only if the rules' ETag is none of these, or * if there are none.",
            "schema": {"anyOf": [{"const": "*"}, {"type": "string", "pattern": TAGS}]},
            "example": EXAMPLE_TAG,
        },
    })
}

pub(super) fn headers() -> Value {
    json!({
        "ETag": {
            "description": "The version of the rules, of both sources, if any are left.",
            "schema": {"type": "string", "pattern": "^\"[0-9a-f]{16}\"$"},
        },
        "WWW-Authenticate": {
            "required": true,
            "description": "Which kind of credentials is wanted.",
            "schema": {"type": "string", "const": "Bearer"},
        },
        "Retry-After": {
            "required": true,
            "description": "After how many seconds to try again.",
            "schema": {"type": "string", "const": "1"},
        },
    })
}

pub(super) fn errors(body: &Value) -> Value {
    let errors = [
        (
            400,
            "The request isn't right; `problems` says everything that is wrong with it.",
            None,
        ),
        (401, "A token of agent.tokensFile is needed.", Some("WWW-Authenticate")),
        (
            403,
            "The token may only read; or, without tokens, the API was called by a name that isn't this machine's.",
            None,
        ),
        (404, "The route key has no rule.", None),
        (408, "The body didn't arrive in time.", None),
        (409, "All rules of the route key are the configuration file's.", None),
        (412, "If-Match or If-None-Match doesn't hold.", None),
        (413, "There is too much of it.", None),
        (415, "The body isn't application/json.", None),
        (500, "A bug of the agent.", None),
        (503, "The agent is busy or stopping: try again.", Some("Retry-After")),
        (
            507,
            "The change can't be kept in agent.stateFile, so it isn't made.",
            None,
        ),
    ];
    let error = |(status, description, header): (u16, &str, Option<&str>)| {
        let mut response = json!({"description": description, "content": {"application/json": {"schema": body}}});
        if let Some(header) = header {
            response["headers"] = json!({header: reference("headers", header)});
        }
        (status.to_string(), response)
    };
    errors.into_iter().map(error).collect()
}
