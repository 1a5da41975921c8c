//! gRPC streams outlive a change of the rules that they came by.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context as _;
use sidetrack_tests::{
    Client, ConfigFile, GrpcConnection, GrpcStream, PATIENCE, Ports, Protocol, Services, Sidetrack, config_with,
    poll_until,
};
use tokio::sync::watch;
use tokio::task::JoinSet;

const MESSAGES: usize = 1_000;

/// So many messages a stream keeps for after the change.
const AFTER_THE_CHANGE: usize = 200;

/// The change begins when the streams together have had so many echoes.
const UNDER_WAY: usize = 10_000;

const METHOD: &str = "/echo.Echo/Chat";

const OLD: &str = r#"
routing:
  defaultTarget: baseline
  rules:
    - {routeKey: moves, targetService: old}
    - {routeKey: leaves, targetService: gone}
    - {routeKey: stays, targetService: other, additionalHeaders: {x-environment: first}}
"#;

/// Another target, no target, other headers; and more rules, of which one has a route of its own for its mirror.
const NEW: &str = r#"
routing:
  defaultTarget: baseline
  rules:
    - {routeKey: comes, targetService: new, mirror: {service: old}}
    - {routeKey: moves, targetService: new}
    - {routeKey: stays, targetService: new, pathPrefixes: [/nothing]}
    - {routeKey: stays, targetService: other, additionalHeaders: {x-environment: second, x-more: "1"}}
"#;

/// Route key, how many streams; who answers under the old table, and under the new one.
const STREAMS: [(Option<&str>, usize, &str, &str); 5] = [
    (Some("moves"), 25, "old", "new"),
    (Some("leaves"), 20, "gone", "baseline"),
    (Some("stays"), 20, "other", "other"),
    (Some("nobody"), 15, "baseline", "baseline"),
    (None, 20, "baseline", "baseline"),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_streams_outlive_a_change_of_the_rules() {
    let ports = Ports::free();
    let services = Services::start(&["baseline", "old", "gone", "other", "new"]).await;
    let text = |routing| {
        config_with(
            &ports,
            &format!("upstream: {{protocol: http2}}\n{}{routing}", services.yaml()),
        )
    };
    let file = ConfigFile::new(&text(OLD));
    let _sidetrack = Sidetrack::up(&file.path(), &ports).await;
    // On a machine where cores are few, a connection for each stream would measure the kernel.
    let (http, grpc) = tokio::join!(GrpcConnection::open(ports.http), GrpcConnection::open(ports.grpc));
    let connections = [http.unwrap(), grpc.unwrap()];

    let (changed, change) = watch::channel(false);
    let echoes = Arc::new(AtomicUsize::new(0));
    let mut running = JoinSet::new();
    for (key, count, server, _) in STREAMS {
        for number in 0..count {
            let connection = connections[number % 2].clone();
            let chat = chat(connection, key, server, change.clone(), Arc::clone(&echoes));
            running.spawn(async move { chat.await.with_context(|| format!("stream {number} of {key:?}")) });
        }
    }
    assert_eq!(running.len(), 100);
    poll_until(PATIENCE, "messages under way", async || {
        assert!(running.try_join_next().is_none(), "a stream has ended");
        match echoes.load(Ordering::Relaxed) {
            echoed if echoed >= UNDER_WAY => Ok(()),
            echoed => Err(format!("{echoed} echoes")),
        }
    })
    .await;

    file.replace(&text(NEW));
    let mut client = Client::new(Protocol::Http1, ports.http);
    poll_until(PATIENCE, "the new rules in force", async || {
        let answer = client.get("/", &[("x-route-key", "comes")]).await;
        match answer.map_err(|error| error.to_string())?.served_by() {
            service if service == "new" => Ok(()),
            other => Err(other),
        }
    })
    .await;
    for (key, _, _, server) in STREAMS {
        let stream = call(&connections[0], key).await.unwrap();
        assert_eq!(stream.served_by(), server, "a new stream of {key:?}");
        assert_eq!(stream.finish().await.unwrap(), "0", "a new stream of {key:?}");
    }
    assert!(running.try_join_next().is_none(), "a stream has ended");
    changed.send(true).unwrap();

    let ended = running.join_all().await;
    let broken: Vec<String> = ended
        .into_iter()
        .filter_map(|ended| Some(format!("{:#}", ended.err()?)))
        .collect();
    assert!(broken.is_empty(), "{broken:#?}");
    assert_eq!(echoes.load(Ordering::Relaxed), 100 * MESSAGES);
}

/// A stream whose every message must come back, in order, from `server`.
async fn chat(
    connection: GrpcConnection,
    key: Option<&str>,
    server: &str,
    mut changed: watch::Receiver<bool>,
    echoes: Arc<AtomicUsize>,
) -> anyhow::Result<()> {
    let mut stream = call(&connection, key).await?;
    anyhow::ensure!(stream.served_by() == server, "{} has it", stream.served_by());
    for number in 0..MESSAGES {
        if number == MESSAGES - AFTER_THE_CHANGE {
            changed.wait_for(|changed| *changed).await?;
        }
        let message = format!("{key:?} {number}");
        stream.send(message.as_bytes()).await.with_context(|| message.clone())?;
        let echo = stream.receive().await.with_context(|| message.clone())?;
        anyhow::ensure!(
            echo.as_deref() == Some(message.as_bytes()),
            "{message} came back as {echo:?}"
        );
        echoes.fetch_add(1, Ordering::Relaxed);
    }
    let status = stream.finish().await?;
    anyhow::ensure!(status == "0", "status {status}");
    Ok(())
}

async fn call(connection: &GrpcConnection, key: Option<&str>) -> anyhow::Result<GrpcStream> {
    let headers: Vec<_> = key.iter().map(|key| ("x-route-key", *key)).collect();
    connection.call(METHOD, &headers).await
}
