//! The harness itself, without anything under test.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use sidetrack_tests::{Client, EchoServer, PATIENCE, Process, Protocol, RawConnection, free_port, poll_until};

async fn echo_server() -> EchoServer {
    EchoServer::bind("echo", ([127, 0, 0, 1], 0).into()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_keeps_its_connection_and_an_echo_shows_the_request() {
    let server = echo_server().await;
    for (protocol, version) in [(Protocol::Http1, "HTTP/1.1"), (Protocol::Http2, "HTTP/2.0")] {
        let mut client = Client::new(protocol, server.address().port());
        for _ in 0..3 {
            let answer = client
                .get("/a?b=c", &[("x-twice", "1"), ("X-Twice", "2")])
                .await
                .unwrap();
            let echo = answer.echo();
            let request = (echo.service.as_str(), echo.method.as_str(), echo.path.as_str());
            assert_eq!(request, ("echo", "GET", "/a?b=c"));
            assert_eq!(echo.version, version);
            assert_eq!(echo.header("x-twice"), ["1", "2"]);
        }
    }
    assert_eq!(server.requests(), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn raw_bytes_arrive_as_they_are() {
    let server = echo_server().await;
    let mut connection = RawConnection::new(server.address().port());
    let many: String = (0..1_000).map(|n| format!("x-{n}: {n}\r\n")).collect();
    for (headers, name, expected) in [
        (b"x: \xff\r\n".to_vec(), "x", "\u{fffd}".to_owned()),
        (
            format!("x: {}\r\n", "k".repeat(60_000)).into_bytes(),
            "x",
            "k".repeat(60_000),
        ),
        (many.into_bytes(), "x-999", "999".to_owned()),
    ] {
        let request = [b"GET / HTTP/1.1\r\nhost: a\r\n", headers.as_slice(), b"\r\n"].concat();
        let answer = connection.send(&request).await.unwrap();
        assert_eq!(answer.echo().header(name), [expected]);
    }
    let refused = connection.send(b"nonsense\r\n\r\n").await.unwrap();
    assert_eq!(refused.status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_ends_with_its_descendants() {
    let shell = Process::spawn(
        "sh",
        Command::new("sh").args(["-c", "sh -c 'sleep 600; :' & sleep 600; :"]),
    );
    let all = poll_until(PATIENCE, "four processes", async || {
        let mut all = shell.descendants();
        all.push(shell.pid());
        (all.len() == 4)
            .then_some(all.clone())
            .ok_or_else(|| format!("{all:?}"))
    });
    let all = all.await;
    drop(shell);
    poll_until(PATIENCE, "their end", async || {
        let left: Vec<_> = all.iter().filter(|pid| Process::exists(**pid)).collect();
        left.is_empty().then_some(()).ok_or_else(|| format!("{left:?}"))
    })
    .await;
}

#[test]
fn a_free_port_is_given_once() {
    let ports: BTreeSet<u16> = (0..100).map(|_| free_port()).collect();
    assert_eq!(ports.len(), 100);
}

#[tokio::test(flavor = "multi_thread")]
#[should_panic(expected = "not within 50ms: the impossible: not yet")]
async fn polling_gives_up_and_says_why() {
    let never = poll_until(Duration::from_millis(50), "the impossible", async || {
        Err::<(), _>("not yet".to_owned())
    });
    never.await;
}
