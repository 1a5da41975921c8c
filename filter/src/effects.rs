//! What a decision does to the request. The one place that writes to Envoy.

use log::error;
use proxy_wasm::hostcalls;
use proxy_wasm::types::{MapType, Status};
use sidetrack_routing::{MISS_HEADER, RouteDecision, STEERING_HEADER};

/// Applies `decision` to the current request.
///
/// A header that is written makes Envoy pick the route again: by the steering header the route to the target, by the
/// miss header the ordinary route.
pub(crate) fn apply(decision: &RouteDecision<'_>) {
    let applied = match decision {
        RouteDecision::Target(rule) => rule
            .additional_headers()
            .try_for_each(|(name, value)| set(name, value))
            .and_then(|()| set(STEERING_HEADER, rule.cluster().as_bytes())),
        RouteDecision::Baseline(reason) => set(MISS_HEADER, reason.as_str().as_bytes()),
    };
    if let Err(status) = applied {
        // Envoy then takes the action of the route that let the request in: the baseline.
        error!("Envoy refused a request header: {status:?}");
    }
}

fn set(name: &str, value: &[u8]) -> Result<(), Status> {
    hostcalls::set_map_value_bytes(MapType::HttpRequestHeaders, name, Some(value))
}
