//! Which target a request goes to.
//!
//! The pure core of Sidetrack: no Envoy, no sockets, no clock, no environment. The filter runs it inside Envoy, the
//! agent runs the same code before it pushes anything, so the agent cannot push what the filter refuses.
//!
//! ```text
//! JSON value ─ decode ─► Config (wire) ─ validate ─► ValidConfig ─ compile ─► table bytes ─ load ─► RouteTable
//!                                                                                                      │
//!                                                              RequestHead ───────── decide ◄──────────┘
//!                                                                                      │
//!                                                                                      ▼
//!                                                                                RouteDecision
//! ```
//!
//! ```
//! use sidetrack_routing::{Destination, Request, RouteTable, decide};
//!
//! let table = RouteTable::from_configuration(
//!     br#"{"defaultTarget": "shop", "rules": [
//!         {"routeKey": "pr-17", "targetService": "shop.pr-17", "pathPrefixes": ["/cart"], "fallback": "none"}]}"#.to_vec(),
//! )?;
//! let headers = [("x-route-key", "pr-17"), (":path", "/cart/items?page=2")];
//! match decide(&table, &Request::new(&headers)).destination {
//!     Destination::Target { cluster, .. } => assert_eq!(cluster, "shop.pr-17:80"),
//!     Destination::Baseline(reason) => panic!("{reason}"),
//! }
//! # Ok::<(), sidetrack_routing::InvalidTable>(())
//! ```

#![forbid(unsafe_code)]

mod compile;
mod conflicts;
mod decide;
mod decode;
mod duration;
mod explain;
mod headers;
mod key;
mod layout;
mod matchers;
mod names;
mod problem;
mod sources;
mod split;
mod table;
mod upstream;
mod valid;
mod validate;
pub mod wire;

pub use compile::{Compiler, compile};
pub use conflicts::{Warning, warnings};
pub use decide::{Destination, Reason, Recorder, Request, RequestHead, RouteDecision, decide, decide_with};
pub use decode::{decode, decode_then};
pub use duration::{InvalidDuration, parse as parse_duration};
pub use explain::{Compared, Explanation, LookedAt, Outcome, TriedRule, explain};
pub use headers::{EXPLAIN_HEADER, INTERNAL_HEADERS, MIRROR_HEADER, STEERING_HEADER};
pub use key::FoundKey;
pub use layout::{SourceKind, Subject, Test, VERSION as TABLE_VERSION};
pub use matchers::{
    HostPattern, InvalidHostPattern, InvalidMethod, InvalidPattern, Method, PathTest, Pattern, ValueTest,
};
pub use names::{
    HeaderName, HeaderValue, Host, InvalidHeaderName, InvalidHeaderValue, InvalidPathPrefix, InvalidRouteKey,
    InvalidTarget, MAX_ROUTE_KEY_BYTES, PathPrefix, RouteKey, Target,
};
pub use problem::{Path, Problem, Segment};
pub use sources::baggage::merged as merged_baggage;
pub use table::{Condition, InvalidTable, RouteTable, Rule, Source};
pub use upstream::{
    CircuitBreaker, ConnectionPool, HashKey, HealthCheck, OutlierDetection, Probe, RoutePolicy, ValidUpstream,
    ValidUpstreamTls,
};
pub use valid::{
    KeySource, ServerTls, Sticky, ValidAgent, ValidConfig, ValidMirror, ValidRouting, ValidRule, ValidScope,
    ValidServer, ValidService, ValidTracing, WeightedTarget, target_of,
};
pub use validate::{validate, validate_routing, validate_rules};
