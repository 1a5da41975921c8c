//! The agent's HTTP API.

use std::collections::BTreeMap;
use std::future::Future;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use tokio::net::TcpListener;

use crate::status::Status;
use crate::xds::Proxy;

/// The body of `/readyz`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Readiness {
    ready: bool,
    /// What is waited for, if not ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// The version of the configuration in force.
    version: String,
    rules: usize,
    /// Why the newest configuration isn't in force, if it isn't: the one before is.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    rejected: Vec<String>,
    proxies: Vec<Proxy>,
    /// The Envoys that can't be served, and why. They don't make the agent unready: no other agent could serve them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    refused: BTreeMap<String, String>,
}

/// Serves the API on `listener` until `shutdown`.
///
/// # Errors
///
/// The listener fails.
pub async fn serve(
    listener: TcpListener,
    status: Status,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let router = Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .with_state(status);
    axum::serve(listener, router).with_graceful_shutdown(shutdown).await
}

async fn readyz(State(status): State<Status>) -> (StatusCode, Json<Readiness>) {
    let report = status.report();
    let ready = report.waiting_for.is_none();
    let body = Readiness {
        ready,
        reason: report.waiting_for,
        version: report.version,
        rules: report.rules,
        rejected: report.rejected,
        proxies: report.proxies,
        refused: report.refused,
    };
    (
        if ready {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        },
        Json(body),
    )
}
