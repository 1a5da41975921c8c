//! The API's connections.

use std::convert::Infallible;
use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::sleep;
use tracing::{debug, error, warn};

use super::error::ApiError;

/// Those that come when there are so many wait until one ends.
const MAX_CONNECTIONS: usize = 1024;

/// How long a request's head may take; so long a connection may be idle, too.
const HEAD_TIME: Duration = Duration::from_secs(15);

/// Serves `router` on `listener`, for ever.
pub(super) async fn connections(listener: TcpListener, router: Router) -> Infallible {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        // It is never closed.
        let place = Arc::clone(&places).acquire_owned().await;
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                if !is_of_the_client(&error) {
                    warn!(%error, "the API can't take a connection");
                    sleep(Duration::from_millis(100)).await;
                }
                continue;
            }
        };
        let _ = stream.set_nodelay(true);
        let service = TowerToHyperService::new(router.clone());
        tokio::spawn(async move {
            let _place = place;
            let mut server = http1::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME);
            if let Err(error) = server.serve_connection(TokioIo::new(stream), service).await {
                debug!(%error, "a connection to the API ended");
            }
        });
    }
}

fn is_of_the_client(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset
    )
}

/// Answers 500 where a bug would end the connection without an answer.
pub(super) async fn no_panic(request: Request, next: Next) -> Response {
    let mut answer = Box::pin(next.run(request));
    let answered = std::future::poll_fn(move |context| {
        match std::panic::catch_unwind(AssertUnwindSafe(|| answer.as_mut().poll(context))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(response)) => Poll::Ready(Some(response)),
            Err(_) => Poll::Ready(None),
        }
    });
    answered.await.unwrap_or_else(|| {
        error!("a call to the API failed by a bug of Sidetrack");
        ApiError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "this is a bug of Sidetrack; its log says more",
        )
        .into_response()
    })
}
