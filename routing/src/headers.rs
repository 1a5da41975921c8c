//! Header names that are Sidetrack's own, and those a rule may not set.

/// Names the cluster a decided request goes to. Written by the filter only; a client's is removed before routing.
pub const STEERING_HEADER: &str = "x-route-cluster";

/// Names the cluster that gets a copy of a decided request.
pub const MIRROR_HEADER: &str = "x-route-mirror";

/// A request that carries this header asks for its decision.
pub const EXPLAIN_HEADER: &str = "x-route-explain";

/// Headers a client can't send and a target never sees.
pub const INTERNAL_HEADERS: [&str; 2] = [STEERING_HEADER, MIRROR_HEADER];

/// Why a rule may not use the (lower-case) header `name`, or `None`.
pub(crate) fn reserved(name: &str) -> Option<&'static str> {
    // Setting one of the framing headers hangs or breaks the request in Envoy.
    const FRAMING: [&str; 10] = [
        "connection",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    if name.starts_with(':') {
        Some("a pseudo-header belongs to HTTP")
    } else if FRAMING.contains(&name) {
        Some("it belongs to HTTP's framing")
    } else if name.starts_with("x-envoy-") {
        Some("x-envoy-* belongs to Envoy")
    } else if INTERNAL_HEADERS.contains(&name) {
        Some("it belongs to Sidetrack")
    } else {
        None
    }
}
