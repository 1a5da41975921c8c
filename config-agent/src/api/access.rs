//! Who may call the API.
//!
//! With a file of tokens: who has one. Without: who is on this machine, which the address says, and isn't a web page that
//! found a way here: a page of another site may reach loopback by a name that it makes resolve to it, so the name counts.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use subtle::ConstantTimeEq as _;
use thiserror::Error;
use tracing::{error, info};

use super::error::ApiError;

/// Shorter ones are guessed.
const MIN_BYTES: usize = 16;

const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// What needs no token: nothing there names a rule.
pub(super) const PUBLIC: [&str; 4] = ["/healthz", "/readyz", "/metrics", "/openapi.json"];

/// Who may call. Clones share the tokens.
#[derive(Clone, Debug)]
pub struct Access(Option<Arc<Tokens>>);

/// The tokens of a file.
#[derive(Debug)]
struct Tokens {
    path: PathBuf,
    tokens: RwLock<Vec<Token>>,
}

#[derive(Clone, PartialEq, Eq)]
struct Token {
    text: String,
    may_write: bool,
}

/// Why a file holds no tokens. Its display is one line for each problem, and never has a token.
#[derive(Debug, Error)]
pub enum InvalidTokens {
    /// It can't be read.
    #[error("{}: can't be read: {error}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// Its lines aren't right.
    #[error("{}", .0.join("\n"))]
    Lines(Vec<String>),
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.may_write { "write …" } else { "read …" })
    }
}

impl Access {
    /// Everybody on this machine.
    pub fn local() -> Self {
        Self(None)
    }

    /// Those who have a token of the file `path`: lines `read TOKEN` and `write TOKEN`.
    ///
    /// # Errors
    ///
    /// See [`InvalidTokens`].
    pub fn by_tokens(path: PathBuf) -> Result<Self, InvalidTokens> {
        let tokens = RwLock::new(read(&path)?);
        Ok(Self(Some(Arc::new(Tokens { path, tokens }))))
    }

    /// The file of tokens.
    pub fn file(&self) -> Option<&Path> {
        self.0.as_ref().map(|tokens| tokens.path.as_path())
    }

    /// Reads the tokens again. A file that isn't right changes nothing.
    pub fn reread(&self) {
        let Some(tokens) = &self.0 else { return };
        match read(&tokens.path) {
            Ok(new) => {
                let mut current = tokens.tokens.write().unwrap_or_else(PoisonError::into_inner);
                if *current != new {
                    info!(file = %tokens.path.display(), tokens = new.len(), "tokens of the API changed");
                    *current = new;
                }
            }
            Err(invalid) => {
                error!(file = %tokens.path.display(), "the tokens are rejected, those before stay in force");
                eprintln!("{invalid}");
            }
        }
    }

    fn check(&self, request: &Request) -> Result<(), ApiError> {
        match &self.0 {
            None => check_host(request),
            Some(_) if PUBLIC.contains(&request.uri().path()) => Ok(()),
            Some(tokens) => tokens.check(request),
        }
    }
}

impl Tokens {
    fn check(&self, request: &Request) -> Result<(), ApiError> {
        let refuse = |message| Err(ApiError::new(StatusCode::UNAUTHORIZED, message));
        let mut given = request.headers().get_all(header::AUTHORIZATION).iter();
        let (Some(given), None) = (given.next(), given.next()) else {
            return refuse("a token is needed: Authorization: Bearer TOKEN, with one of agent.tokensFile");
        };
        let given = given.as_bytes();
        let Some((scheme, token)) = given.split_at_checked("Bearer ".len()) else {
            return refuse("the token must be given as Authorization: Bearer TOKEN");
        };
        if !scheme.eq_ignore_ascii_case(b"Bearer ") {
            return refuse("the token must be given as Authorization: Bearer TOKEN");
        }
        let token = token.trim_ascii();
        let tokens = self.tokens.read().unwrap_or_else(PoisonError::into_inner);
        // Every token is compared whole, so that the time taken says nothing.
        let (mut is_known, mut may_write) = (false, false);
        for known in tokens.iter() {
            let is_this = bool::from(known.text.as_bytes().ct_eq(token));
            is_known |= is_this;
            may_write |= is_this & known.may_write;
        }
        if !is_known {
            return refuse("the token isn't one of agent.tokensFile");
        }
        let reads = [Method::GET, Method::HEAD, Method::OPTIONS].contains(request.method())
            || request.uri().path() == "/api/v1/explain";
        if reads || may_write {
            return Ok(());
        }
        let message = "the token may only read: use one of a line `write TOKEN`";
        Err(ApiError::new(StatusCode::FORBIDDEN, message))
    }
}

/// That the name in the address is this machine's.
fn check_host(request: &Request) -> Result<(), ApiError> {
    let host = request.headers().get(header::HOST);
    let host = match (request.uri().authority(), host) {
        (Some(authority), _) => authority.as_str(),
        (None, Some(host)) => host.to_str().unwrap_or_default(),
        // No browser leaves it out.
        (None, None) => return Ok(()),
    };
    if is_local(host) {
        return Ok(());
    }
    let message =
        "the API is for this machine: call it as localhost or by the address of loopback, or give agent.tokensFile";
    Err(ApiError::new(StatusCode::FORBIDDEN, message))
}

fn is_local(authority: &str) -> bool {
    let host = match authority.parse::<Uri>() {
        Ok(uri) => uri.host().unwrap_or_default().to_ascii_lowercase(),
        Err(_) => return false,
    };
    let ip = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || host.ends_with(".localhost") || ip.is_ok_and(|ip| ip.to_canonical().is_loopback())
}

/// Lets those pass who may call.
pub(super) async fn guard(State(access): State<Access>, request: Request, next: Next) -> Response {
    match access.check(&request) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

fn read(path: &Path) -> Result<Vec<Token>, InvalidTokens> {
    let unreadable = |error| InvalidTokens::Unreadable {
        path: path.to_owned(),
        error,
    };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut text = Vec::new();
    std::io::Read::read_to_end(&mut std::io::Read::take(file, MAX_FILE_BYTES), &mut text).map_err(unreadable)?;
    let text = String::from_utf8_lossy(&text);
    let mut tokens: Vec<Token> = Vec::new();
    let mut problems = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let parts: Vec<_> = line.split_whitespace().collect();
        let problem = match parts[..] {
            [kind @ ("read" | "write"), token] => {
                if token.len() < MIN_BYTES {
                    format!(
                        "the token has {} characters, must have at least {MIN_BYTES}",
                        token.len()
                    )
                } else if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
                    "the token has characters other than visible ASCII".to_owned()
                } else if tokens.iter().any(|known| known.text == token) {
                    "the token is listed twice: leave one out".to_owned()
                } else {
                    tokens.push(Token {
                        text: token.to_owned(),
                        may_write: kind == "write",
                    });
                    continue;
                }
            }
            _ => "must be `read TOKEN` or `write TOKEN`, or a comment after #".to_owned(),
        };
        problems.push(format!("{}:{}: {problem}", path.display(), number + 1));
    }
    if tokens.is_empty() && problems.is_empty() {
        problems.push(format!("{}: has no token, so nobody could use the API", path.display()));
    }
    if problems.is_empty() {
        Ok(tokens)
    } else {
        Err(InvalidTokens::Lines(problems))
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    const READ: &str = "0123456789abcdef";
    const WRITE: &str = "write-0123456789";

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    fn status(access: &Access, request: axum::http::request::Builder) -> u16 {
        let request = request.body(Body::empty()).unwrap();
        access.check(&request).err().map_or(200, |error| error.status.as_u16())
    }

    #[test]
    fn a_token_says_what_its_bearer_may_do() {
        let tokens = file(&format!("# people\nread {READ}\n\nwrite   {WRITE} \n"));
        let access = Access::by_tokens(tokens.path().to_owned()).unwrap();
        for (method, path, authorization, expected) in [
            ("GET", "/api/v1/rules", format!("Bearer {READ}"), 200),
            ("GET", "/api/v1/rules", format!("bearer {WRITE}"), 200),
            ("PUT", "/api/v1/rules", format!("Bearer {WRITE}"), 200),
            ("PUT", "/api/v1/rules", format!("Bearer {READ}"), 403),
            ("DELETE", "/api/v1/rules/a", format!("Bearer {READ}"), 403),
            ("POST", "/api/v1/explain", format!("Bearer {READ}"), 200),
            ("GET", "/api/v1/rules", format!("Bearer {READ}x"), 401),
            ("GET", "/api/v1/rules", format!("Basic {READ}"), 401),
            ("GET", "/api/v1/rules", "Bearer".to_owned(), 401),
            ("GET", "/api/v1/rules", "Bearer ".to_owned(), 401),
            ("GET", "/healthz", "Bearer wrong".to_owned(), 200),
        ] {
            let request = Request::builder().method(method).uri(path);
            let found = status(&access, request.header("authorization", &authorization));
            assert_eq!(found, expected, "{method} {path} {authorization}");
        }
        assert_eq!(status(&access, Request::builder().uri("/api/v1/rules")), 401);
        assert_eq!(status(&access, Request::builder().uri("/metrics")), 200);
        let twice = Request::builder().uri("/api/v1/rules");
        let twice = twice.header("authorization", format!("Bearer {READ}"));
        assert_eq!(status(&access, twice.header("authorization", "Bearer x")), 401);
    }

    #[test]
    fn tokens_that_are_taken_out_are_refused_and_a_bad_file_changes_nothing() {
        let tokens = file(&format!("read {READ}\nwrite {WRITE}\n"));
        let access = Access::by_tokens(tokens.path().to_owned()).unwrap();
        let ask = |token| {
            let request = Request::builder().uri("/api/v1/rules");
            status(&access, request.header("authorization", format!("Bearer {token}")))
        };
        std::fs::write(tokens.path(), "nonsense").unwrap();
        access.reread();
        assert_eq!((ask(READ), ask(WRITE)), (200, 200));
        std::fs::write(tokens.path(), format!("write {WRITE}")).unwrap();
        access.reread();
        assert_eq!((ask(READ), ask(WRITE)), (401, 200));
    }

    #[test]
    fn of_a_file_of_tokens_every_problem_is_said_and_no_token() {
        let tokens = file(&format!(
            "{READ}\nread short\nadmin {WRITE}\nread {READ}\nwrite {READ}\n"
        ));
        let said = Access::by_tokens(tokens.path().to_owned()).unwrap_err().to_string();
        let name = tokens.path().display().to_string();
        let lines: Vec<_> = said.lines().map(|line| line.strip_prefix(&name).unwrap()).collect();
        assert_eq!(
            lines,
            [
                ":1: must be `read TOKEN` or `write TOKEN`, or a comment after #",
                ":2: the token has 5 characters, must have at least 16",
                ":3: must be `read TOKEN` or `write TOKEN`, or a comment after #",
                ":5: the token is listed twice: leave one out",
            ]
        );
        assert!(!said.contains(READ));
        let said = Access::by_tokens(file("# none\n").path().to_owned())
            .unwrap_err()
            .to_string();
        assert!(said.contains("has no token"), "{said}");
    }

    #[test]
    fn without_tokens_the_name_must_be_this_machines() {
        for (host, expected) in [
            ("127.0.0.1:9902", 200),
            ("localhost", 200),
            ("LOCALHOST:9902", 200),
            ("api.localhost:9902", 200),
            ("[::1]:9902", 200),
            ("127.8.9.1", 200),
            ("evil.example:9902", 403),
            ("localhost.evil.example", 403),
            ("10.0.0.1:9902", 403),
            ("127.0.0.1.evil.example", 403),
            ("", 403),
            ("a b", 403),
        ] {
            let request = Request::builder().uri("/healthz").header("host", host);
            assert_eq!(status(&Access::local(), request), expected, "{host}");
        }
        let absolute = Request::builder()
            .uri("http://evil.example/healthz")
            .header("host", "localhost");
        assert_eq!(status(&Access::local(), absolute), 403);
        assert_eq!(status(&Access::local(), Request::builder().uri("/healthz")), 200);
    }
}
