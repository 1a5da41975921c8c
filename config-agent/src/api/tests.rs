use axum::body::Body;
use axum::http::{Request, Response};
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use tokio::sync::watch;

use super::*;
use crate::config::{self, Reading};
use crate::control::{Beginning, Controller};
use crate::render::{FilterCode, Snapshots};
use crate::xds::Proxies;

/// An API of a small configuration, whose controller runs as long as the test does.
pub(super) fn api() -> Api {
    let directory = tempfile::tempdir().unwrap().keep();
    let file = directory.join("config.yaml");
    std::fs::write(
        &file,
        "routing: {defaultTarget: d, rules: [{routeKey: f, targetService: a}]}",
    )
    .unwrap();
    let loaded = config::load(&file, Reading::default()).unwrap();
    let beginning = Beginning::read(loaded, &directory.join("state.json")).unwrap();
    let snapshots = Snapshots::new(beginning.config(), FilterCode::file("/filter.wasm".into()));
    let (sender, receiver) = watch::channel(Arc::new(snapshots));
    let status = Status::new(receiver, Proxies::default(), None);
    let metrics = Metrics::default();
    let (controller, control) = Controller::new(
        file,
        Reading::default(),
        beginning,
        sender,
        status.clone(),
        metrics.clone(),
    );
    tokio::spawn(async move {
        let ended = controller.run().await;
        let _ = std::fs::remove_dir_all(directory);
        ended
    });
    Api::new(control, status, metrics)
}

pub(super) async fn ask(router: &Router, request: Request<Body>) -> Response<Body> {
    TowerToHyperService::new(router.clone()).call(request).await.unwrap()
}
