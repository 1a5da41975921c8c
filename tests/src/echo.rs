//! A service that answers with its name and the request as it arrived.

mod answer;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde::Deserialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::Protocol;
pub use answer::Behaviour;
use answer::answer;

/// The longest delay that a request can ask for.
pub const MAX_DELAY: Duration = Duration::from_secs(60);

/// More headers, and more bytes of them, than any proxy before it lets through.
const MAX_HEADERS: usize = 2_000;
const MAX_HEADER_BYTES: u32 = 1 << 20;

/// A running echo server; dropping it closes its port and its connections.
///
/// It speaks HTTP/1.1 and HTTP/2 without TLS on one port and answers every request with 200 and an [`Echo`] as JSON,
/// unless the query asks for something else:
///
/// | query | answer |
/// |---|---|
/// | `delay_ms=N` | N milliseconds later |
/// | `status=N` | this status |
/// | `chunks=N&chunk_bytes=B&every_ms=M` | N chunks of B bytes (64 KiB) as the body, M milliseconds apart |
/// | `unread` | without reading the request's body |
/// | `pipe` | the request's body and trailers, as they arrive |
///
/// An upgrade to `websocket` is accepted, also as HTTP/2 has it (RFC 8441), and every byte comes back; of a gRPC call the
/// messages do, as they come; gRPC's health checks are told SERVING.
pub struct EchoServer {
    address: SocketAddr,
    state: Arc<State>,
    accepting: JoinHandle<()>,
}

/// What all connections of a server share.
struct State {
    name: String,
    speaks: Option<Protocol>,
    seen: Mutex<Seen>,
    in_flight: AtomicU64,
    connections: AtomicU64,
    behaviour: watch::Sender<Behaviour>,
    /// By path.
    others: Mutex<BTreeMap<String, watch::Sender<Behaviour>>>,
}

/// What has arrived.
#[derive(Default)]
struct Seen {
    requests: u64,
    most_in_flight: u64,
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
        Self::bind_speaking(name, address, None).await
    }

    /// The same, but it speaks only this.
    ///
    /// # Errors
    /// If the port can't be listened on.
    pub async fn bind_speaking(name: &str, address: SocketAddr, speaks: Option<Protocol>) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let state = Arc::new(State {
            name: name.to_owned(),
            speaks,
            seen: Mutex::default(),
            in_flight: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            behaviour: watch::Sender::default(),
            others: Mutex::default(),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&state)));
        Ok(Self {
            address,
            state,
            accepting,
        })
    }

    /// The name it answers with.
    pub fn name(&self) -> &str {
        &self.state.name
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many requests have arrived.
    pub fn requests(&self) -> u64 {
        self.state.seen.lock().unwrap().requests
    }

    /// How many requests it is working on: those that it hasn't begun to answer.
    pub fn in_flight(&self) -> u64 {
        self.state.in_flight.load(Ordering::SeqCst)
    }

    /// The most requests that it has worked on at one time.
    pub fn most_in_flight(&self) -> u64 {
        self.state.seen.lock().unwrap().most_in_flight
    }

    /// How many connections are open.
    pub fn connections(&self) -> u64 {
        self.state.connections.load(Ordering::SeqCst)
    }

    /// The request that arrived last: the only way to see one whose answer nobody gets.
    pub fn last_request(&self) -> Option<Echo> {
        self.state.seen.lock().unwrap().last.clone()
    }

    /// What it does with requests from now on, and with those that hang.
    pub fn behave(&self, behaviour: Behaviour) {
        self.state.behaviour.send_replace(behaviour);
    }

    /// The same for one path; it counts more.
    pub fn behave_at(&self, path: &str, behaviour: Behaviour) {
        let mut others = self.state.others.lock().unwrap();
        others.entry(path.to_owned()).or_default().send_replace(behaviour);
    }
}

impl State {
    fn behaviour_at(&self, path: &str) -> watch::Receiver<Behaviour> {
        let others = self.others.lock().unwrap();
        others.get(path).unwrap_or(&self.behaviour).subscribe()
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
async fn accept(listener: TcpListener, state: Arc<State>) {
    let mut connections = JoinSet::new();
    loop {
        // An error is that of one connection, or of a lack of descriptors that passes.
        if let Ok((connection, _)) = listener.accept().await {
            connections.spawn(serve(connection, Arc::clone(&state)));
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(connection: TcpStream, state: Arc<State>) {
    let _open = Counted::new(&state.connections);
    let answer = service_fn(|request| {
        let state = Arc::clone(&state);
        async move {
            let echo = Echo::of(&state.name, &request);
            let in_flight = Counted::new(&state.in_flight);
            {
                let mut seen = state.seen.lock().unwrap();
                seen.requests += 1;
                seen.most_in_flight = seen.most_in_flight.max(in_flight.now);
                seen.last = Some(echo.clone());
            }
            let behaviour = state.behaviour_at(request.uri().path());
            answer(echo, request, behaviour).await
        }
    });
    let mut server = auto::Builder::new(TokioExecutor::new());
    server.http1().max_headers(MAX_HEADERS);
    server
        .http2()
        .max_header_list_size(MAX_HEADER_BYTES)
        .enable_connect_protocol();
    let _ = connection.set_nodelay(true);
    let connection = TokioIo::new(connection);
    // How a connection ends is the client's affair.
    let _ = match state.speaks {
        None => server.serve_connection_with_upgrades(connection, answer).await,
        Some(Protocol::Http1) => server.http1_only().serve_connection(connection, answer).await,
        Some(Protocol::Http2) => server.http2_only().serve_connection(connection, answer).await,
    };
}

/// One more, until it is dropped.
struct Counted<'c> {
    count: &'c AtomicU64,
    now: u64,
}

impl<'c> Counted<'c> {
    fn new(count: &'c AtomicU64) -> Self {
        let now = count.fetch_add(1, Ordering::SeqCst) + 1;
        Self { count, now }
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
