//! WebSocket, whichever version of HTTP carries it on either side of Envoy. What is said in it is `autobahn.rs`'s affair.

use http::{HeaderValue, Method};
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

/// What opens one, as this version of HTTP has it.
fn opening(protocol: Protocol, path: &str, key: &str) -> Request {
    let mut request = get(path, &[("x-route-key", key), ("sec-websocket-version", "13")]);
    match protocol {
        Protocol::Http1 => {
            let headers = request.headers_mut();
            headers.insert("connection", HeaderValue::from_static("upgrade"));
            headers.insert("upgrade", HeaderValue::from_static("websocket"));
            headers.insert(
                "sec-websocket-key",
                HeaderValue::from_static("AAAAAAAAAAAAAAAAAAAAAA=="),
            );
        }
        // RFC 8441: an extended CONNECT, without a key.
        Protocol::Http2 => {
            *request.method_mut() = Method::CONNECT;
            request.extensions_mut().insert(ext::Protocol::from_static("websocket"));
        }
    }
    request
}

impl Socket {
    async fn open(protocol: Protocol, port: u16, path: &str, key: &str) -> Self {
        let what = format!("{protocol:?} {path} {key:?}");
        let mut client = Client::new(protocol, port);
        // A server of HTTP/2 says in its settings that it knows this, which have come with its first answer.
        client.get("/", &[]).await.unwrap();
        let request = opening(protocol, path, key).map(BodyExt::boxed_unsync);
        let mut response = client.begin(request).await.unwrap();
        let expected = match protocol {
            Protocol::Http1 => 101,
            Protocol::Http2 => 200,
        };
        assert_eq!(response.status(), expected, "{what}: {:?}", response.headers());
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
async fn it_is_routed_between_all_versions_of_http() {
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

    for (key, target, [by_http1, by_http2]) in [
        ("", "baseline", ["HTTP/1.1", "HTTP/1.1"]),
        ("nobody", "baseline", ["HTTP/1.1", "HTTP/1.1"]),
        ("dead", "baseline", ["HTTP/1.1", "HTTP/1.1"]),
        ("http1", "http1", ["HTTP/1.1", "HTTP/1.1"]),
        ("http2", "http2", ["HTTP/2.0", "HTTP/2.0"]),
        ("auto", "auto", ["HTTP/1.1", "HTTP/2.0"]),
    ] {
        for (protocol, version) in [(Protocol::Http1, by_http1), (Protocol::Http2, by_http2)] {
            let path = format!("/chat?{protocol:?}-{key}");
            let mut socket = Socket::open(protocol, ports.http, &path, key).await;
            for byte in 0..10 {
                socket.ping(&[byte]).await;
            }
            socket.ping(&vec![b'x'; 1 << 20]).await;
            let arrived = services.server(target).last_request().unwrap();
            let expected_method = match version {
                "HTTP/2.0" => "CONNECT",
                _ => "GET",
            };
            assert_eq!(arrived.path, path, "it is at {target}");
            assert_eq!(
                (&*arrived.version, &*arrived.method),
                (version, expected_method),
                "{path}"
            );
            let has_rule = !["", "nobody"].contains(&key);
            assert_eq!(arrived.header("x-sandbox"), &[key][..usize::from(has_rule)], "{path}");
            // HTTP/2 needs none and Envoy makes none up: docs/configuration.md says what follows from that.
            let has_key = protocol == Protocol::Http1;
            assert_eq!(
                arrived.header("sec-websocket-key").len(),
                usize::from(has_key),
                "{path}"
            );
            assert!(arrived.header("x-route-cluster").is_empty(), "{arrived:?}");
            println!(
                "{protocol:?} with {key:?}: {} {} at {target}",
                arrived.method, arrived.version
            );
        }
    }
}
