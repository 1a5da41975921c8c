//! WebSocket, whatever its target speaks. What is said in it is `autobahn.rs`'s affair.

use http::Method;
use http_body_util::BodyExt;
use hyper::ext;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use sidetrack_tests::{
    Client, ConfigFile, PATIENCE, Ports, Protocol, Request, Services, Sidetrack, config_text, free_port, get,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

/// An open one.
struct Socket {
    what: String,
    stream: TokioIo<Upgraded>,
    _client: Client,
}

/// What opens one by HTTP/1.1 (RFC 6455).
fn opening(path: &str, key: &str) -> Request {
    get(
        path,
        &[
            ("x-route-key", key),
            ("connection", "upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "AAAAAAAAAAAAAAAAAAAAAA=="),
        ],
    )
}

impl Socket {
    async fn open(port: u16, path: &str, key: &str) -> Self {
        let what = format!("{path} {key:?}");
        let mut client = Client::new(Protocol::Http1, port);
        let request = opening(path, key).map(BodyExt::boxed_unsync);
        let mut response = client.begin(request).await.unwrap();
        assert_eq!(response.status(), 101, "{what}: {:?}", response.headers());
        let stream = TokioIo::new(hyper::upgrade::on(&mut response).await.unwrap());
        Self {
            what,
            stream,
            _client: client,
        }
    }

    /// Sends these bytes and waits until they are back.
    async fn ping(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
        let mut back = vec![0; bytes.len()];
        let read = timeout(PATIENCE, self.stream.read_exact(&mut back)).await;
        read.unwrap_or_else(|_| panic!("{}: {bytes:?} isn't back", self.what))
            .unwrap();
        assert_eq!(back, bytes, "{}", self.what);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_routed_to_targets_of_all_versions_of_http() {
    let ports = Ports::free();
    let mut services = Services::start(&["baseline", "http1", "http2", "auto"]).await;
    services.configure("http2", &["http2"], "protocol: http2");
    services.configure("auto", &["auto"], "protocol: auto");
    services.configure_at("dead", vec![([127, 0, 0, 1], free_port()).into()], "");
    let rule = |target: &str| {
        format!("    - {{routeKey: {target}, targetService: {target}, additionalHeaders: {{X-Sandbox: {target}}}}}\n")
    };
    let rules: String = ["http1", "http2", "auto", "dead"].map(rule).concat();
    let routing = format!("routing:\n  defaultTarget: baseline\n  rules:\n{rules}");
    let config = ConfigFile::new(&config_text(&ports, &services, &routing));
    let _sidetrack = Sidetrack::up(&config.path(), &ports).await;

    for (key, target, version, method) in [
        ("", "baseline", "HTTP/1.1", "GET"),
        ("nobody", "baseline", "HTTP/1.1", "GET"),
        ("dead", "baseline", "HTTP/1.1", "GET"),
        ("http1", "http1", "HTTP/1.1", "GET"),
        ("http2", "http2", "HTTP/2.0", "CONNECT"),
        ("auto", "auto", "HTTP/1.1", "GET"),
    ] {
        let path = format!("/chat?{key}");
        let mut socket = Socket::open(ports.http, &path, key).await;
        for byte in 0..10 {
            socket.ping(&[byte]).await;
        }
        socket.ping(&vec![b'x'; 1 << 20]).await;
        let arrived = services.server(target).last_request().unwrap();
        assert_eq!(arrived.path, path, "it is at {target}");
        assert_eq!((&*arrived.version, &*arrived.method), (version, method), "{path}");
        let has_rule = !["", "nobody"].contains(&key);
        assert_eq!(arrived.header("x-sandbox"), &[key][..usize::from(has_rule)], "{path}");
        assert_eq!(arrived.header("sec-websocket-key").len(), 1, "{path}");
        assert!(arrived.header("x-route-cluster").is_empty(), "{arrived:?}");
    }
    isnt_offered_over_http2(ports.http).await;
}

/// It would reach servers of HTTP/1.1 without the key on which they insist. A browser that isn't offered it opens a
/// connection of HTTP/1.1.
async fn isnt_offered_over_http2(port: u16) {
    let mut client = Client::new(Protocol::Http2, port);
    // The settings of Envoy have come with its first answer.
    client.get("/", &[]).await.unwrap();
    let mut request = get("/chat", &[("sec-websocket-version", "13")]);
    *request.method_mut() = Method::CONNECT;
    request.extensions_mut().insert(ext::Protocol::from_static("websocket"));
    let refused = client.begin(request.map(BodyExt::boxed_unsync)).await;
    let refused = refused.err().map(|error| format!("{error:#}"));
    assert!(refused.is_some(), "the client could send it");
    client.get("/", &[]).await.unwrap();
}
