//! How an echo server answers.

use std::convert::Infallible;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, HeaderValue, UPGRADE};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Channel, Full};
use hyper::body::Incoming;
use hyper::ext::Protocol;
use hyper_util::rt::TokioIo;
use tokio::sync::watch;

use super::{Echo, MAX_DELAY};
use crate::grpc;

/// The bodies of the answers.
pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// The most that a request can ask for at once.
const MAX_CHUNK_BYTES: usize = 1 << 20;

/// What gRPC's health checks ask, and the answer: SERVING.
const HEALTH: &str = "/grpc.health.v1.Health/Check";
const SERVING: &[u8] = &[0, 0, 0, 0, 2, 8, 1];

/// What an echo server does with requests, until it is told otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Behaviour {
    /// Answers as the request's query asks.
    #[default]
    Echo,
    /// Answers this status.
    Status(u16),
    /// Answers nothing, as long as it behaves so.
    Hang,
    /// Breaks the connection, or with HTTP/2 the stream.
    Break,
}

/// What a request's query asks for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wish {
    /// `delay_ms=N`: how long to wait before the answer.
    delay: Duration,
    /// `status=N`
    status: Option<u16>,
    /// `chunks=N`: instead of the echo so many chunks of 64 KiB, or of `chunk_bytes=N`, …
    chunks: Option<u64>,
    chunk_bytes: usize,
    /// … with a pause of `every_ms=N` before each but the first.
    every: Duration,
    /// `unread`: the body isn't read.
    unread: bool,
    /// `pipe`: the body and the trailers are those of the request, as they arrive.
    pipe: bool,
}

impl Wish {
    fn parse(query: &str) -> Self {
        let value = |name: &str| {
            let mut pairs = query.split('&');
            pairs.find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')?.parse::<u64>().ok())
        };
        let time = |name| Duration::from_millis(value(name).unwrap_or(0)).min(MAX_DELAY);
        let has = |name| query.split('&').any(|pair| pair == name);
        let bytes = value("chunk_bytes").and_then(|bytes| usize::try_from(bytes).ok());
        Self {
            delay: time("delay_ms"),
            status: value("status").and_then(|status| u16::try_from(status).ok()),
            chunks: value("chunks"),
            chunk_bytes: bytes.unwrap_or(1 << 16).min(MAX_CHUNK_BYTES),
            every: time("every_ms"),
            unread: has("unread"),
            pipe: has("pipe"),
        }
    }
}

/// The answer to `request`, of which `echo` is made, by a server that behaves so.
///
/// # Errors
/// If the connection is to be broken.
pub(super) async fn answer(
    echo: Echo,
    request: Request<Incoming>,
    mut behaviour: watch::Receiver<Behaviour>,
) -> io::Result<Response<Body>> {
    let now = *behaviour.borrow_and_update();
    match now {
        Behaviour::Echo => echo_answer(echo, request).await,
        Behaviour::Status(status) => Ok(with_status(
            status,
            Full::from(echo.to_json()).map_err(never).boxed_unsync(),
        )),
        Behaviour::Break => Err(io::ErrorKind::ConnectionAborted.into()),
        Behaviour::Hang => {
            let _ = behaviour.wait_for(|now| *now != Behaviour::Hang).await;
            echo_answer(echo, request).await
        }
    }
}

async fn echo_answer(echo: Echo, request: Request<Incoming>) -> io::Result<Response<Body>> {
    let wish = Wish::parse(request.uri().query().unwrap_or_default());
    let extended = request.extensions().get::<Protocol>();
    if extended.is_some_and(|to| to.as_str() == "websocket") {
        return Ok(with_status(200, connected(request)));
    }
    if request.headers().get(UPGRADE).is_some_and(|to| to == "websocket") {
        return Ok(upgraded(request));
    }
    if request.uri().path() == HEALTH {
        return Ok(serving());
    }
    if wish.pipe {
        return Ok(piped(request));
    }
    if request
        .headers()
        .get(CONTENT_TYPE)
        .is_some_and(|media| media == grpc::GRPC)
    {
        let broken = |error| io::Error::other(error);
        return Ok(grpc::echo(&echo.service, request).map(|body| body.map_err(broken).boxed_unsync()));
    }
    if !wish.unread {
        let mut body = request.into_body();
        while let Some(Ok(_)) = body.frame().await {}
    }
    tokio::time::sleep(wish.delay).await;
    let body = match wish.chunks {
        None => Full::from(echo.to_json()).map_err(never).boxed_unsync(),
        Some(count) => chunks(count, wish.chunk_bytes, wish.every),
    };
    let mut response = with_status(wish.status.unwrap_or(200), body);
    if wish.chunks.is_none() {
        let json = HeaderValue::from_static("application/json");
        response.headers_mut().insert(CONTENT_TYPE, json);
    }
    Ok(response)
}

fn with_status(status: u16, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    response
}

fn chunks(count: u64, bytes: usize, every: Duration) -> Body {
    let (mut sender, body) = Channel::<Bytes, io::Error>::new(1);
    let chunk = Bytes::from(vec![b'x'; bytes]);
    tokio::spawn(async move {
        for index in 0..count {
            if index > 0 && !every.is_zero() {
                tokio::time::sleep(every).await;
            }
            if sender.send_data(chunk.clone()).await.is_err() {
                break;
            }
        }
    });
    body.boxed_unsync()
}

/// Of gRPC: the messages come back, and where the request has no trailers, those of a success.
fn piped(request: Request<Incoming>) -> Response<Body> {
    let is_grpc = is_grpc(&request);
    let content_type = request.headers().get(CONTENT_TYPE).cloned();
    let mut from = request.into_body();
    let (mut sender, body) = Channel::<Bytes, io::Error>::new(1);
    tokio::spawn(async move {
        let mut trailers = is_grpc.then(success);
        while let Some(Ok(frame)) = from.frame().await {
            match frame.into_data() {
                Ok(data) => {
                    if sender.send_data(data).await.is_err() {
                        return;
                    }
                }
                Err(frame) => trailers
                    .get_or_insert_default()
                    .extend(frame.into_trailers().unwrap_or_default()),
            }
        }
        if let Some(trailers) = trailers {
            let _ = sender.send_trailers(trailers).await;
        }
    });
    let mut response = Response::new(body.boxed_unsync());
    response
        .headers_mut()
        .extend(content_type.map(|value| (CONTENT_TYPE, value)));
    // HTTP/1.1 sends only the trailers that were announced.
    response
        .headers_mut()
        .insert("trailer", HeaderValue::from_static("x-end"));
    response
}

fn serving() -> Response<Body> {
    let trailers = async { Some(Ok::<_, Infallible>(success())) };
    let body = Full::from(SERVING).with_trailers(trailers).map_err(never);
    let mut response = Response::new(body.boxed_unsync());
    let grpc = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(CONTENT_TYPE, grpc);
    response
}

fn upgraded(request: Request<Incoming>) -> Response<Body> {
    let mut response = with_status(101, connected(request));
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    response
}

/// The connection, or with HTTP/2 the stream, is the request's own after this: every byte comes back.
fn connected(mut request: Request<Incoming>) -> Body {
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        if let Ok(connection) = upgrade.await {
            let (mut read, mut write) = tokio::io::split(TokioIo::new(connection));
            let _ = tokio::io::copy(&mut read, &mut write).await;
        }
    });
    Full::default().map_err(never).boxed_unsync()
}

fn is_grpc(request: &Request<Incoming>) -> bool {
    let content_type = request.headers().get(CONTENT_TYPE);
    content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

fn success() -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    trailers
}

fn never(error: Infallible) -> io::Error {
    match error {}
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
            assert_eq!(
                Wish::parse(query).delay,
                Duration::from_millis(milliseconds),
                "{query:?}"
            );
        }
    }

    #[test]
    fn a_query_asks_for_several_things() {
        let nothing = Wish::parse("");
        assert_eq!((nothing.chunks, nothing.chunk_bytes), (None, 65_536));
        let wish = Wish::parse("status=417&unread&chunks=3&chunk_bytes=10&every_ms=5");
        let expected = Wish {
            delay: Duration::ZERO,
            status: Some(417),
            chunks: Some(3),
            chunk_bytes: 10,
            every: Duration::from_millis(5),
            unread: true,
            pipe: false,
        };
        assert_eq!(wish, expected);
    }
}
