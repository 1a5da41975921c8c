//! The agent's HTTP API: rules, looks at what is in force, health.

mod access;
mod error;
mod input;
mod looks;
mod openapi;
mod rules;
mod serve;
mod wait;

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use axum::http::{Method, StatusCode, Uri};
use axum::routing::{MethodRouter, get, post};
use axum::{Router, middleware};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

pub use access::{Access, InvalidTokens};

use self::error::ApiError;
use crate::control::Control;
use crate::metrics::{Metrics, Observed, count_requests};
use crate::status::Status;

/// What the API speaks of. Clones speak of the same.
#[derive(Clone, Debug)]
pub struct Api {
    control: Control,
    status: Status,
    metrics: Metrics,
    room: Arc<Semaphore>,
    explaining: Arc<Semaphore>,
}

impl Api {
    /// An API that makes changes by `control` and shows the others.
    pub fn new(control: Control, status: Status, metrics: Metrics) -> Self {
        Self {
            control,
            status,
            metrics,
            room: Arc::new(input::room()),
            explaining: Arc::new(Semaphore::new(1)),
        }
    }

    /// Serves on `listener` whoever may call, for ever.
    pub async fn serve(self, listener: TcpListener, access: Access) -> Infallible {
        serve::connections(listener, self.router(access)).await
    }

    fn router(self, access: Access) -> Router {
        let metrics = self.metrics.clone();
        let mut router = Router::new();
        for (path, calls) in calls() {
            router = router.route(path, calls);
        }
        router
            .fallback(nothing_there)
            .method_not_allowed_fallback(wrong_method)
            .layer(middleware::from_fn_with_state(access, access::guard))
            .layer(middleware::from_fn(serve::no_panic))
            .layer(middleware::from_fn_with_state(metrics, count_requests))
            // Bodies are bounded where they are read.
            .layer(DefaultBodyLimit::disable())
            .with_state(self)
    }

    fn observed(&self) -> Observed {
        let view = self.control.view();
        let report = self.status.report();
        let is_behind = |proxy: &&crate::xds::Proxy| !proxy.in_force;
        Observed {
            revision: view.snapshots.revision(),
            version: view.snapshots.version().to_owned(),
            since: view.since,
            file_rules: view.rules.len() - view.rules.of_api(),
            api_rules: view.rules.of_api(),
            targets: crate::render::targets(view.snapshots.config()).len(),
            rejected: !report.rejected.is_empty(),
            proxies: report.proxies.len(),
            behind: report.proxies.iter().filter(is_behind).count(),
            refused: report.refused.len(),
        }
    }
}

/// All calls, by their paths.
fn calls() -> [(&'static str, MethodRouter<Api>); 9] {
    [
        ("/healthz", get(looks::healthz)),
        ("/readyz", get(looks::readyz)),
        ("/metrics", get(looks::metrics)),
        ("/openapi.json", get(openapi::openapi)),
        ("/api/v1/config", get(looks::config)),
        ("/api/v1/rules", get(rules::list).put(rules::replace)),
        (
            "/api/v1/rules/{routeKey}",
            get(rules::get).put(rules::put).delete(rules::delete),
        ),
        ("/api/v1/explain", post(looks::explain)),
        ("/api/v1/proxies", get(looks::proxies)),
    ]
}

async fn nothing_there(uri: Uri) -> ApiError {
    let message = format!(
        "there is nothing at {}: GET /openapi.json lists what there is",
        uri.path()
    );
    ApiError::new(StatusCode::NOT_FOUND, message)
}

async fn wrong_method(method: Method, uri: Uri) -> ApiError {
    let message = format!(
        "{} doesn't take {method}: the header Allow says what it takes",
        uri.path()
    );
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, message)
}

#[cfg(test)]
mod tests;
