//! How `sidetrack up` ends: whom it waits for, and how long.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, TE};
use http_body_util::{BodyExt as _, Channel};
use sidetrack_tests::{
    Answer, Body, Client, ConfigFile, PATIENCE, Ports, Protocol, Services, Sidetrack, Signal, config_text, get,
    poll_until,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

const ROUTING: &str = "routing: {defaultTarget: baseline}\n";

/// Long enough to look at what happens meanwhile, on a busy machine.
const SLOW: &str = "/?delay_ms=4000";

struct Stage {
    ports: Ports,
    services: Services,
    sidetrack: Sidetrack,
    _config: ConfigFile,
}

impl Stage {
    async fn start(drain_time: &str) -> Self {
        let ports = Ports::free();
        let mut services = Services::start(&["baseline"]).await;
        services.configure("baseline", &["baseline"], "protocol: auto");
        let text = config_text(&ports, &services, ROUTING);
        let config = ConfigFile::new(&text.replacen("server: {", &format!("server: {{drainTime: {drain_time}, "), 1));
        Self {
            sidetrack: Sidetrack::up(&config.path(), &ports).await,
            ports,
            services,
            _config: config,
        }
    }

    /// Waits until so many requests have arrived at their target.
    async fn until_arrived(&self, requests: u64) {
        poll_until(PATIENCE, "requests at their target", async || {
            let arrived = self.services.requests("baseline");
            (arrived == requests)
                .then_some(())
                .ok_or_else(|| format!("{arrived} of {requests}"))
        })
        .await;
    }

    /// Waits until new connections are refused.
    async fn until_closed(&self) {
        for port in [self.ports.http, self.ports.grpc] {
            poll_until(
                PATIENCE,
                "new connections refused",
                async || match TcpStream::connect(("127.0.0.1", port)).await {
                    Ok(_) => Err(format!("{port} accepts")),
                    Err(_) => Ok(()),
                },
            )
            .await;
        }
    }

    async fn until_said(&self, what: &str) {
        poll_until(PATIENCE, what, async || {
            let said = self.sidetrack.stderr();
            said.contains(what).then_some(()).ok_or(said)
        })
        .await;
    }
}

/// A GET that is answered late, by a client that comes back with it.
fn slow(protocol: Protocol, port: u16) -> JoinHandle<(Client, anyhow::Result<Answer>)> {
    tokio::spawn(async move {
        let mut client = Client::new(protocol, port);
        let answer = client.send(get(SLOW, &[])).await;
        (client, answer)
    })
}

/// Opens a WebSocket, by the bytes.
async fn web_socket(port: u16) -> TcpStream {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let upgrade = "GET /socket HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: \
                   13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
    socket.write_all(upgrade.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
    socket
}

/// Bytes that go to the target come back.
async fn echoes(socket: &mut TcpStream, bytes: &[u8]) {
    socket.write_all(bytes).await.unwrap();
    let mut back = vec![0; bytes.len()];
    socket.read_exact(&mut back).await.unwrap();
    assert_eq!(back, bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_and_streams_under_way_are_finished_and_websockets_closed_after_them() {
    let mut stage = Stage::start("30s").await;
    let Ports { http, grpc, .. } = stage.ports;
    let mut idle = Client::new(Protocol::Http1, http);
    idle.get("/", &[]).await.unwrap();
    let mut socket = web_socket(http).await;
    let slow_ones = [
        slow(Protocol::Http1, http),
        slow(Protocol::Http2, http),
        slow(Protocol::Http2, grpc),
    ];
    let (mut sender, body) = Channel::<Bytes>::new(4);
    let body: Body = body.boxed_unsync();
    let mut request = http::Request::post("/package.Service/Method?pipe").body(body).unwrap();
    for (name, value) in [(CONTENT_TYPE, "application/grpc"), (TE, "trailers")] {
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    let mut streaming = Client::new(Protocol::Http2, grpc);
    let mut stream = streaming.begin(request).await.unwrap();
    sender.send_data(Bytes::from("one")).await.unwrap();
    assert_eq!(
        stream.body_mut().frame().await.unwrap().unwrap().into_data().unwrap(),
        "one"
    );
    stage.until_arrived(6).await;

    stage.sidetrack.signal(Signal::TERM);
    stage.until_closed().await;
    stage.until_said("waiting for requests under way").await;
    // What is open goes on.
    echoes(&mut socket, b"still").await;
    sender.send_data(Bytes::from("two")).await.unwrap();
    assert_eq!(
        stream.body_mut().frame().await.unwrap().unwrap().into_data().unwrap(),
        "two"
    );
    // The last answer of a connection says that it is the last.
    let answer = idle
        .get("/", &[])
        .await
        .expect("one more request on a connection that stays");
    assert_eq!(answer.header("connection"), "close");
    for slow in slow_ones {
        let (mut client, answer) = slow.await.unwrap();
        let answer = answer.expect("a request under way is answered");
        assert_eq!(answer.served_by(), "baseline");
        assert!(
            client.get("/", &[]).await.is_err(),
            "its connection is closed, and no other opened"
        );
    }
    // The stream is the last that is waited for.
    echoes(&mut socket, b"and still").await;
    let trailers = [("grpc-status".parse().unwrap(), "0".parse().unwrap())]
        .into_iter()
        .collect();
    sender.send_trailers(trailers).await.unwrap();
    drop(sender);
    let end = stream
        .body_mut()
        .frame()
        .await
        .unwrap()
        .unwrap()
        .into_trailers()
        .unwrap();
    assert_eq!(end["grpc-status"], "0");

    let status = stage.sidetrack.exit(PATIENCE).await;
    assert_eq!(status.code(), Some(0));
    assert!(
        matches!(socket.read(&mut [0; 8]).await, Ok(0)),
        "the WebSocket is closed without a reset"
    );
    let said = stage.sidetrack.stderr();
    assert!(said.contains("WebSockets are closed upgraded=1"), "{said}");
    println!("{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_hangs_is_waited_for_no_longer_than_it_was_said() {
    let mut stage = Stage::start("1s").await;
    let hanging = tokio::spawn({
        let port = stage.ports.http;
        async move { Client::new(Protocol::Http1, port).get("/?delay_ms=60000", &[]).await }
    });
    stage.until_arrived(1).await;
    let signalled = Instant::now();
    stage.sidetrack.signal(Signal::TERM);
    let status = stage.sidetrack.exit(PATIENCE).await;
    let took = signalled.elapsed();
    println!("drainTime 1s: the end after {took:?}");
    assert_eq!(status.code(), Some(0));
    assert!(
        (Duration::from_secs(1)..Duration::from_secs(8)).contains(&took),
        "{took:?}"
    );
    let said = stage.sidetrack.stderr();
    assert!(
        said.contains("requests are still under way, they are broken off requests=1"),
        "{said}"
    );
    assert!(hanging.await.unwrap().is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_waited_for_where_only_idle_connections_and_websockets_are_open() {
    let mut stage = Stage::start("30s").await;
    let mut idle = Client::new(Protocol::Http2, stage.ports.grpc);
    idle.get("/", &[]).await.unwrap();
    let mut socket = web_socket(stage.ports.http).await;
    echoes(&mut socket, b"bytes").await;
    let signalled = Instant::now();
    stage.sidetrack.signal(Signal::TERM);
    let status = stage.sidetrack.exit(PATIENCE).await;
    println!("nothing under way: the end after {:?}", signalled.elapsed());
    assert_eq!(status.code(), Some(0));
    assert!(
        signalled.elapsed() < Duration::from_secs(8),
        "{:?}",
        signalled.elapsed()
    );
    assert!(
        matches!(socket.read(&mut [0; 8]).await, Ok(0)),
        "it is closed without a reset"
    );
}
