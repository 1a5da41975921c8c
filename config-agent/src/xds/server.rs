//! The aggregated discovery service on a socket: HTTP/2, with a task for each connection and each stream.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tonic::{Code, Status};
use tracing::{debug, warn};

use super::connection::{Connection, Shared};
use super::proxies::Proxies;
use super::requests::Requests;
use super::response::Responses;
use super::state::Variant;
use crate::metrics::Metrics;
use crate::render::{ResourceType, Snapshots};

/// How long a proxy may take to answer a push.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often a connection is asked whether it is there, and how long the answer may take: together as long as for a push.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(15);

/// Connections at a time. Each proxy has one.
const MAX_CONNECTIONS: usize = 10_000;

/// Streams of a connection at a time. A proxy has one.
const MAX_STREAMS: u32 = 100;

/// How many pushes may wait to be read: one of each type, and the end.
const MAX_UNREAD: usize = 2 * ResourceType::ALL.len();

/// How many bytes of a request may wait to be read.
const WINDOW_BYTES: u32 = 256 << 10;

/// How many bytes of a response may wait to be sent.
const UNSENT_BYTES: usize = 64 << 10;

/// After a failed `accept`, as when there are too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The aggregated discovery service, state of the world and delta.
#[derive(Clone, Debug)]
pub struct Ads {
    shared: Shared,
}

/// A connection, as its streams see it.
#[derive(Debug, Default)]
struct Line {
    /// How many streams are open.
    streams: AtomicUsize,
    /// Told when the other end takes nothing any more.
    is_stuck: Notify,
}

impl Ads {
    /// A service that pushes what comes from `snapshots` and notes in `proxies` who has it.
    pub fn new(snapshots: watch::Receiver<Arc<Snapshots>>, proxies: Proxies, metrics: Metrics) -> Self {
        Self {
            shared: Shared {
                snapshots,
                proxies,
                metrics,
                patience: PATIENCE,
            },
        }
    }

    /// It, with another time than 30 s in which a proxy must answer.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.shared.patience = patience;
        self
    }

    /// Serves on `listener` until `shutdown`. Connections end with it.
    pub async fn serve(self, listener: TcpListener, shutdown: impl Future<Output = ()>) {
        let mut connections = JoinSet::new();
        tokio::pin!(shutdown);
        loop {
            tokio::select! {
                () = &mut shutdown => return,
                Some(_) = connections.join_next() => {}
                accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                    Ok((connection, peer)) => {
                        connections.spawn(self.clone().connected(connection, peer));
                    }
                    Err(error) => {
                        warn!(%error, "a connection to the discovery service can't be accepted");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
    }

    async fn connected(self, connection: TcpStream, peer: SocketAddr) {
        // A push that waits for the one before to be received is a slow push.
        let _ = connection.set_nodelay(true);
        let line = Arc::new(Line::default());
        let patience = self.shared.patience;
        let service = service_fn(|request| {
            let response = self.respond(request, peer, &line);
            async { Ok::<_, Infallible>(response) }
        });
        let serve = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(KEEPALIVE_INTERVAL.min(patience))
            .keep_alive_timeout(KEEPALIVE_TIMEOUT.min(patience))
            .max_concurrent_streams(MAX_STREAMS)
            .max_send_buf_size(UNSENT_BYTES)
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(4 * WINDOW_BYTES)
            .serve_connection(TokioIo::new(connection), service);
        tokio::select! {
            result = serve => if let Err(error) = result {
                debug!(%peer, %error, "a connection to the discovery service broke");
            },
            () = line.is_stuck.notified() => debug!(%peer, "a connection that takes nothing is cut"),
            () = line.is_idle(patience) => debug!(%peer, "a connection without a stream is closed"),
        }
    }

    fn respond(&self, request: Request<Incoming>, peer: SocketAddr, line: &Arc<Line>) -> Response<Responses> {
        let content_type = request.headers().get(CONTENT_TYPE);
        let is_grpc = content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
        if request.method() != Method::POST || !is_grpc {
            let mut response = Response::new(Responses::none());
            *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            return response;
        }
        let variant = match request.uri().path() {
            "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources" => {
                Variant::StateOfTheWorld
            }
            "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources" => Variant::Delta,
            path => {
                let what = "this is the aggregated discovery service, of version 3";
                let status = Status::new(Code::Unimplemented, format!("{path} isn't served: {what}"));
                return status.into_http();
            }
        };
        let (outbox, responses) = Responses::new(MAX_UNREAD);
        let requests = Requests::new(variant, request.into_body());
        let connection = Connection {
            variant,
            peer,
            requests,
            outbox,
            shared: self.shared.clone(),
        };
        let line = Arc::clone(line);
        line.streams.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(async move {
            let is_stuck = connection.run().await;
            line.streams.fetch_sub(1, Ordering::Relaxed);
            if is_stuck {
                line.is_stuck.notify_one();
            }
        });
        let mut response = Response::new(responses);
        let grpc = HeaderValue::from_static("application/grpc");
        response.headers_mut().insert(CONTENT_TYPE, grpc);
        response
    }
}

impl Line {
    /// Returns when there was no stream twice, so much time apart.
    async fn is_idle(&self, time: Duration) {
        let mut was_idle = false;
        loop {
            sleep(time).await;
            let is_idle = self.streams.load(Ordering::Relaxed) == 0;
            if is_idle && was_idle {
                return;
            }
            was_idle = is_idle;
        }
    }
}

#[cfg(test)]
#[path = "server_tests.rs"]
pub(super) mod tests;
