//! Large, slow and silent: bytes pass as they come, in both directions, and nothing is kept that needn't be.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response};
use http_body_util::channel::Sender;
use http_body_util::{BodyExt, Channel};
use hyper::body::Incoming;
use sidetrack_tests::suite::is_full;
use sidetrack_tests::{
    Behaviour, Body, Client, ConfigFile, PATIENCE, Ports, Process, Protocol, Services, Sidetrack, Stats, config_text,
    get, poll_until,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

const MIB: u64 = 1 << 20;

/// How much of a body Envoy may keep: its buffers of 1 MiB for each direction and connection, and what its allocator does.
const MEMORY: u64 = 32 * MIB;

/// Long enough that any time limit of the configuration would have ended it.
const LIMIT: &str = "upstream: {requestTimeout: 2s}";

/// In the order of `ways`: route key, and who answers.
const KEYS: [(&str, &str); 3] = [("nobody", "baseline"), ("http1", "http1"), ("http2", "http2")];

async fn start(ports: &Ports, upstream: &str) -> (Services, ConfigFile, Sidetrack) {
    let mut services = Services::start(&["baseline", "http1", "http2"]).await;
    services.configure("http2", &["http2"], "protocol: http2");
    let routing = format!(
        "{upstream}\nrouting:\n  defaultTarget: baseline\n  rules:\n    - {{routeKey: http1, targetService: http1}}\n    \
         - {{routeKey: http2, targetService: http2}}\n"
    );
    let config = ConfigFile::new(&config_text(ports, &services, &routing));
    let sidetrack = Sidetrack::up(&config.path(), ports).await;
    (services, config, sidetrack)
}

/// What is sent on the way there and what comes back, piece by piece.
struct Pipe {
    what: String,
    there: Sender<Bytes, std::convert::Infallible>,
    back: Response<Incoming>,
    _client: Client,
}

impl Pipe {
    /// Opens one whose other end sends everything back.
    async fn open(protocol: Protocol, port: u16, key: &str, headers: &[(&str, &str)]) -> Self {
        let (there, body) = Channel::new(1);
        let headers: Vec<_> = headers.iter().copied().chain([("x-route-key", key)]).collect();
        let mut request = get("/?pipe", &headers).map(|_| -> Body { body.boxed_unsync() });
        *request.method_mut() = Method::POST;
        let mut client = Client::new(protocol, port);
        let back = client.begin(request).await.unwrap();
        let what = format!("{protocol:?} on {port} to {key} with {headers:?}");
        assert_eq!(back.status(), 200, "{what}");
        Self {
            what,
            there,
            back,
            _client: client,
        }
    }

    /// Sends one byte and waits until it is back: nobody on the way waits for more.
    async fn ping(&mut self, byte: u8) {
        let sent = self.there.send_data(vec![byte].into()).await;
        sent.unwrap_or_else(|error| panic!("{}: byte {byte} isn't sent: {error}", self.what));
        match self.back.body_mut().frame().await {
            Some(Ok(frame)) => assert_eq!(frame.into_data().unwrap()[..], [byte], "{}", self.what),
            end => panic!("{}: byte {byte} isn't back: {end:?}", self.what),
        }
    }

    /// Ends the way there with these trailers and returns those that come back.
    async fn end(mut self, trailers: Option<HeaderMap>) -> HeaderMap {
        match trailers {
            Some(trailers) => self.there.send_trailers(trailers).await.unwrap(),
            None => drop(self.there),
        }
        let rest = self.back.into_body().collect().await;
        let rest = rest.unwrap_or_else(|error| panic!("{}: no end: {error}", self.what));
        rest.trailers().cloned().unwrap_or_default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_body_passes_both_ways_in_constant_memory() {
    let length = if is_full() { 1024 * MIB } else { 64 * MIB };
    let ports = Ports::free();
    let (_services, _config, sidetrack) = start(&ports, "upstream: {requestTimeout: 0s}").await;
    let envoy = sidetrack.descendants()[0];

    for (protocol, key) in [(Protocol::Http1, "http1"), (Protocol::Http2, "http2")] {
        let mut pipe = Pipe::open(protocol, ports.http, key, &[]).await;
        pipe.ping(0).await;
        Process::forget_peak(envoy);
        let before = Process::peak_memory(envoy);
        let Pipe {
            mut there,
            back,
            _client,
            ..
        } = pipe;
        let sending = tokio::spawn(async move {
            for chunk in 0..length / (MIB / 16) {
                // Each has another content.
                there
                    .send_data(vec![chunk as u8; (MIB / 16) as usize].into())
                    .await
                    .unwrap();
            }
        });
        let (mut body, mut received) = (back.into_body(), 0);
        while let Some(frame) = body.frame().await {
            for byte in frame.unwrap().into_data().unwrap() {
                if byte != (received / (MIB / 16)) as u8 {
                    panic!("{protocol:?}: byte {received} is another");
                }
                received += 1;
            }
        }
        sending.await.unwrap();
        let grown = Process::peak_memory(envoy).saturating_sub(before);
        println!(
            "{protocol:?} to {key}: {} MiB there and back; Envoy had {} MiB, and at most {} MiB more",
            received / MIB,
            before / MIB,
            grown / MIB
        );
        assert_eq!(received, length);
        assert!(grown < MEMORY, "{grown}");
    }
}

/// Waits until a counter of Envoy stands still, and returns it.
async fn at_rest(ports: &Ports, name: &str) -> u64 {
    let (mut last, mut same) = (0, 0);
    poll_until(PATIENCE, &format!("{name} at rest"), async || {
        let now = Stats::read(ports.admin, &format!("^{name}$")).await.sum(name);
        same = if now == last && now > 0 { same + 1 } else { 0 };
        last = now;
        (same > 50).then_some(now).ok_or_else(|| now.to_string())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_read_holds_up_who_sends() {
    const CHUNKS: u64 = 1024;
    const LENGTH: u64 = CHUNKS << 16;
    /// Of all the buffers on the way, the kernel's too.
    const ON_THE_WAY: u64 = LENGTH / 2;
    let ports = Ports::free();
    let (services, _config, _sidetrack) = start(&ports, "upstream: {requestTimeout: 0s}").await;
    for (protocol, key) in [(Protocol::Http1, "http1"), (Protocol::Http2, "http2")] {
        let mut client = Client::new(protocol, ports.http);
        let path = format!("/?chunks={CHUNKS}");
        let request = get(&path, &[("x-route-key", key)]).map(BodyExt::boxed_unsync);
        let response = client.begin(request).await.unwrap();
        let taken = at_rest(&ports, &format!("cluster.{key}_80.upstream_cx_rx_bytes_total")).await;
        let body = response.into_body().collect().await.unwrap().to_bytes();
        println!(
            "{key}: the client reads nothing: {} of {} MiB have left the target",
            taken / MIB,
            LENGTH / MIB
        );
        assert!(taken < ON_THE_WAY, "{taken}");
        assert_eq!(body.len() as u64, LENGTH);

        let target = services.server(key);
        target.behave(Behaviour::Hang);
        let counter = format!("cluster.{key}_80.upstream_cx_tx_bytes_total");
        let before = Stats::read(ports.admin, &format!("^{counter}$")).await.sum(&counter);
        let upload = tokio::spawn(async move {
            let mut request = get("/", &[("x-route-key", key)]);
            *request.method_mut() = Method::POST;
            *request.body_mut() = vec![0; LENGTH as usize].into();
            client.send(request).await.unwrap()
        });
        let taken = at_rest(&ports, &counter).await - before;
        println!(
            "{key}: the target reads nothing: {} of {} MiB have got there",
            taken / MIB,
            LENGTH / MIB
        );
        assert!(taken < ON_THE_WAY, "{taken}");
        target.behave(Behaviour::Echo);
        assert_eq!(upload.await.unwrap().served_by(), key);
    }
}

/// They share a connection to the target, if it is of HTTP/2.
#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_read_holds_up_nobody_else() {
    const STUCK: usize = 16;
    let ports = Ports::free();
    let (services, _config, _sidetrack) = start(&ports, "upstream: {requestTimeout: 0s}").await;
    for key in ["http1", "http2"] {
        let mut stuck = Vec::new();
        for _ in 0..STUCK {
            let mut client = Client::new(Protocol::Http2, ports.http);
            let request = get("/?chunks=1024", &[("x-route-key", key)]).map(BodyExt::boxed_unsync);
            let response = client.begin(request).await.unwrap();
            stuck.push((client, response));
        }
        at_rest(&ports, &format!("cluster.{key}_80.upstream_cx_rx_bytes_total")).await;
        let mut others = JoinSet::new();
        for _ in 0..STUCK {
            others.spawn(async move {
                let mut client = Client::new(Protocol::Http1, ports.http);
                let request = get("/?chunks=4", &[("x-route-key", key)]);
                let answer = tokio::time::timeout(PATIENCE, client.send(request)).await;
                answer.is_ok_and(|answer| answer.unwrap().body.len() == 4 << 16)
            });
        }
        let answered = others.join_all().await.into_iter().filter(|answered| *answered).count();
        println!(
            "{key}: {STUCK} clients don't read; of {STUCK} others {answered} are answered, over {} connections",
            services.server(key).connections()
        );
        assert_eq!(answered, STUCK, "{key}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_and_trailers_pass_as_they_come() {
    let ports = Ports::free();
    let (_services, _config, _sidetrack) = start(&ports, LIMIT).await;
    let sent = HeaderMap::from_iter([("x-end".parse().unwrap(), HeaderValue::from_static("here"))]);
    for (protocol, port) in [
        (Protocol::Http1, ports.http),
        (Protocol::Http2, ports.http),
        (Protocol::Http2, ports.grpc),
    ] {
        for (key, _) in KEYS {
            let mut pipe = Pipe::open(protocol, port, key, &[("te", "trailers"), ("trailer", "x-end")]).await;
            for byte in 0..20 {
                pipe.ping(byte).await;
            }
            let trailers = pipe.end(Some(sent.clone())).await;
            println!("{protocol:?} to {key}: 20 bytes one by one there and back, then trailers {trailers:?}");
            assert_eq!(
                trailers.get("x-end").map(HeaderValue::as_bytes),
                Some(&b"here"[..]),
                "{protocol:?} {key}"
            );
        }
    }

    // A target that answers byte by byte.
    let mut client = Client::new(Protocol::Http1, ports.http);
    let slow = get("/?chunks=15&chunk_bytes=1&every_ms=50", &[("x-route-key", "http1")]);
    let mut response = client.begin(slow.map(BodyExt::boxed_unsync)).await.unwrap();
    let mut frames = 0;
    while let Some(frame) = response.body_mut().frame().await {
        frames += usize::from(frame.unwrap().is_data());
    }
    println!("15 bytes, 50 ms apart, arrive in {frames} pieces");
    assert!(frames > 5, "{frames}");
}

/// Servers end a stream with an empty frame before its trailers, and those of several may follow one another.
#[tokio::test(flavor = "multi_thread")]
async fn streams_of_one_connection_that_end_at_once_all_end_well() {
    const STREAMS: usize = 16;
    const ROUNDS: usize = 10;
    let ports = Ports::free();
    let (services, _config, _sidetrack) = start(&ports, LIMIT).await;
    for _ in 0..ROUNDS {
        let mut pipes = Vec::new();
        for _ in 0..STREAMS {
            let grpc = ("content-type", "application/grpc");
            pipes.push(Pipe::open(Protocol::Http2, ports.grpc, "http2", &[grpc]).await);
        }
        let ends: JoinSet<_> = pipes.into_iter().map(|pipe| pipe.end(None)).collect();
        for trailers in ends.join_all().await {
            assert_eq!(trailers.get("grpc-status").map(HeaderValue::as_bytes), Some(&b"0"[..]));
        }
    }
    let connections = services.server("http2").connections();
    let made = Stats::read(ports.admin, "^cluster.http2_80.upstream_cx_total$").await;
    let made = made.sum("upstream_cx_total");
    println!("{ROUNDS} times {STREAMS} streams that end at once: {made} connections made, {connections} still open");
    assert_eq!(made, connections, "none was broken");
}

/// Sends these bytes on a connection of its own; reads until what has come ends so.
async fn exchange(connection: &mut TcpStream, bytes: &[u8], end: &str) -> String {
    connection.write_all(bytes).await.unwrap();
    let mut read = Vec::new();
    while !read.ends_with(end.as_bytes()) {
        let next = tokio::time::timeout(PATIENCE, connection.read_u8()).await;
        let next = next.unwrap_or_else(|_| panic!("no {end:?} after {:?}", String::from_utf8_lossy(&read)));
        read.push(next.unwrap());
    }
    String::from_utf8(read).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_before_sending_a_body_is_answered_by_the_target() {
    let ports = Ports::free();
    let (_services, _config, _sidetrack) = start(&ports, LIMIT).await;
    for key in ["nobody", "http1"] {
        let head = |path: &str| {
            format!(
                "POST {path} HTTP/1.1\r\nhost: shop\r\nx-route-key: {key}\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n"
            )
        };
        let mut connection = TcpStream::connect(("127.0.0.1", ports.http)).await.unwrap();
        let told = exchange(&mut connection, head("/").as_bytes(), "\r\n\r\n").await;
        assert!(told.starts_with("HTTP/1.1 100 "), "{key}: {told}");
        let answer = exchange(&mut connection, b"hello", "\n}\n").await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{key}: {answer}");
        assert!(
            answer.contains("100-continue"),
            "{key}: the target isn't asked: {answer}"
        );

        let mut connection = TcpStream::connect(("127.0.0.1", ports.http)).await.unwrap();
        let told = exchange(&mut connection, head("/?status=417&unread").as_bytes(), "\r\n\r\n").await;
        println!("{key}: {:?}, {:?}", answer.lines().next(), told.lines().next());
        assert!(told.starts_with("HTTP/1.1 417 "), "{key}: {told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_stream_stays_open() {
    let silence = Duration::from_secs(if is_full() { 10 * 60 } else { 15 });
    let ports = Ports::free();
    let (_services, _config, _sidetrack) = start(&ports, LIMIT).await;
    let mut streams = JoinSet::new();
    for (key, _) in KEYS {
        for (protocol, port, header) in [
            (Protocol::Http1, ports.http, ("accept", "text/event-stream")),
            (Protocol::Http2, ports.http, ("content-type", "application/grpc")),
            (Protocol::Http2, ports.grpc, ("content-type", "application/grpc")),
            (Protocol::Http2, ports.grpc, ("accept", "*/*")),
        ] {
            streams.spawn(async move {
                let mut pipe = Pipe::open(protocol, port, key, &[header]).await;
                pipe.ping(1).await;
                tokio::time::sleep(silence).await;
                pipe.ping(2).await;
                pipe.end(None).await;
            });
        }
        streams.spawn(async move {
            let mut connection = TcpStream::connect(("127.0.0.1", ports.http)).await.unwrap();
            let upgrade = format!(
                "GET / HTTP/1.1\r\nhost: shop\r\nx-route-key: {key}\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
            );
            let told = exchange(&mut connection, upgrade.as_bytes(), "\r\n\r\n").await;
            assert!(told.starts_with("HTTP/1.1 101 "), "{key}: {told}");
            exchange(&mut connection, b"before", "before").await;
            tokio::time::sleep(silence).await;
            exchange(&mut connection, b"after", "after").await;
        });
    }
    let count = streams.len();
    streams.join_all().await;
    println!("{count} streams, silent for {silence:?}: all go on");

    let stats = Stats::read(ports.admin, "idle_timeout").await;
    assert_eq!(stats.not_zero("downstream_rq_idle_timeout"), []);
    // Nor would any be ended later: the routes of streams have no idle time, but for the one that the filter's decision
    // replaces.
    let mut admin = Client::new(Protocol::Http1, ports.admin);
    let dump = admin
        .get("/config_dump?resource=dynamic_route_configs", &[])
        .await
        .unwrap();
    let dump: serde_json::Value = serde_json::from_slice(&dump.body).unwrap();
    let mut unlimited = 0;
    let mut left = vec![&dump];
    while let Some(value) = left.pop() {
        let unlimited_route = value.get("route").filter(|route| route["timeout"] == "0s");
        if let Some(route) = unlimited_route.filter(|_| value["name"] != "enter") {
            unlimited += 1;
            assert_eq!(route["idle_timeout"], "0s", "{route}");
        }
        left.extend(value.as_array().into_iter().flatten());
        left.extend(value.as_object().into_iter().flat_map(|fields| fields.values()));
    }
    println!("{unlimited} routes without a time limit, all of them without an idle time");
    assert!(unlimited > 0);
}
