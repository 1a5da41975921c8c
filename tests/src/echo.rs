//! A service that answers with its name and the request as it arrived.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Either, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde::Deserialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use crate::grpc::{self, Echoed};

/// The longest delay that a request can ask for.
pub const MAX_DELAY: Duration = Duration::from_secs(60);

/// More headers, and more bytes of them, than any proxy before it lets through.
const MAX_HEADERS: usize = 2_000;
const MAX_HEADER_BYTES: u32 = 1 << 20;

/// A running echo server; dropping it closes its port and its connections.
///
/// It speaks HTTP/1.1 and HTTP/2 without TLS on one port and answers every request with 200 and an [`Echo`] as JSON.
/// `?delay_ms=N` delays the answer by N milliseconds. Of a gRPC call it sends back the messages, as they come.
pub struct EchoServer {
    name: String,
    address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    accepting: JoinHandle<()>,
}

/// What has arrived.
#[derive(Default)]
struct Seen {
    requests: u64,
    last: Option<Echo>,
}

/// What an echo server answers.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Echo {
    /// The name of the server.
    pub service: String,
    /// The request's method.
    pub method: String,
    /// The request's path, with the query.
    pub path: String,
    /// `HTTP/1.1` or `HTTP/2.0`.
    pub version: String,
    /// All headers; bytes that aren't UTF-8 are shown as `U+FFFD`.
    pub headers: Vec<(String, String)>,
}

impl EchoServer {
    /// Listens on `address`, port 0 for any that is free.
    ///
    /// # Errors
    /// If the port can't be listened on.
    pub async fn bind(name: &str, address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let seen = Arc::default();
        let accepting = tokio::spawn(accept(listener, name.into(), Arc::clone(&seen)));
        Ok(Self {
            name: name.to_owned(),
            address,
            seen,
            accepting,
        })
    }

    /// The name it answers with.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many requests have arrived.
    pub fn requests(&self) -> u64 {
        self.seen.lock().unwrap().requests
    }

    /// The request that arrived last: the only way to see one whose answer nobody gets.
    pub fn last_request(&self) -> Option<Echo> {
        self.seen.lock().unwrap().last.clone()
    }
}

impl Drop for EchoServer {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Echo {
    /// All values of the header `name`, in order.
    pub fn header(&self, name: &str) -> Vec<&str> {
        let named = self
            .headers
            .iter()
            .filter(|(header, _)| header.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.as_str()).collect()
    }

    fn of(service: &str, request: &Request<Incoming>) -> Self {
        let headers = request.headers().iter();
        let path = request.uri().path_and_query().map_or("*", |path| path.as_str());
        Self {
            service: service.to_owned(),
            method: request.method().to_string(),
            path: path.to_owned(),
            version: format!("{:?}", request.version()),
            headers: headers
                .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
                .collect(),
        }
    }

    /// JSON with one header in a line, to be read in a terminal.
    fn to_json(&self) -> String {
        let text = |value: &str| serde_json::Value::from(value).to_string();
        let mut json = "{\n".to_owned();
        for (name, value) in [
            ("service", &self.service),
            ("method", &self.method),
            ("path", &self.path),
            ("version", &self.version),
        ] {
            let _ = writeln!(json, "  \"{name}\": {},", text(value));
        }
        let headers = self.headers.iter();
        let lines: Vec<String> = headers
            .map(|(name, value)| format!("\n    [{}, {}]", text(name), text(value)))
            .collect();
        let _ = writeln!(json, "  \"headers\": [{}\n  ]\n}}", lines.join(","));
        json
    }
}

/// Connections end with this task.
async fn accept(listener: TcpListener, name: Arc<str>, seen: Arc<Mutex<Seen>>) {
    let mut connections = JoinSet::new();
    loop {
        // An error is that of one connection, or of a lack of descriptors that passes.
        if let Ok((connection, _)) = listener.accept().await {
            connections.spawn(serve(connection, Arc::clone(&name), Arc::clone(&seen)));
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(connection: TcpStream, name: Arc<str>, seen: Arc<Mutex<Seen>>) {
    let answer = service_fn(|request| {
        let echo = Echo::of(&name, &request);
        let mut seen = seen.lock().unwrap();
        seen.requests += 1;
        seen.last = Some(echo.clone());
        answer(echo, request)
    });
    let mut server = auto::Builder::new(TokioExecutor::new());
    server.http1().max_headers(MAX_HEADERS);
    server.http2().max_header_list_size(MAX_HEADER_BYTES);
    // How a connection ends is the client's affair.
    let _ = server.serve_connection(TokioIo::new(connection), answer).await;
}

async fn answer(echo: Echo, request: Request<Incoming>) -> Result<Response<Either<Full<Bytes>, Echoed>>, Infallible> {
    let media_type = request.headers().get(http::header::CONTENT_TYPE);
    if media_type.is_some_and(|media_type| media_type == grpc::GRPC) {
        return Ok(grpc::echo(&echo.service, request).map(Either::Right));
    }
    let delay = delay(request.uri().query().unwrap_or_default());
    let _ = request.into_body().collect().await;
    tokio::time::sleep(delay).await;
    let mut response = Response::new(Either::Left(Full::from(echo.to_json())));
    let json = http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(http::header::CONTENT_TYPE, json);
    Ok(response)
}

fn delay(query: &str) -> Duration {
    let asked = query.split('&').find_map(|pair| pair.strip_prefix("delay_ms="));
    let milliseconds = asked.and_then(|number| number.parse().ok()).unwrap_or(0);
    Duration::from_millis(milliseconds).min(MAX_DELAY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delay_is_bounded_and_optional() {
        for (query, milliseconds) in [
            ("", 0),
            ("a=1", 0),
            ("delay_ms=", 0),
            ("delay_ms=x", 0),
            ("delay_ms=250", 250),
            ("a=1&delay_ms=250&b", 250),
            ("xdelay_ms=250", 0),
            ("delay_ms=99999999", 60_000),
        ] {
            assert_eq!(delay(query), Duration::from_millis(milliseconds), "{query:?}");
        }
    }

    #[test]
    fn its_json_reads_back() {
        for headers in [
            vec![],
            vec![("a".into(), "\"\\\u{fffd}".into()), ("b".into(), String::new())],
        ] {
            let echo = Echo {
                service: "s".into(),
                method: "GET".into(),
                path: "/?a=\"".into(),
                version: "HTTP/1.1".into(),
                headers,
            };
            assert_eq!(serde_json::from_str::<Echo>(&echo.to_json()).unwrap(), echo);
        }
    }
}
