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
//! use sidetrack_routing::{RouteDecision, RouteTable, decide};
//!
//! let table = RouteTable::from_configuration(
//!     br#"{"defaultTarget": "shop", "rules": [
//!         {"routeKey": "pr-17", "targetService": "shop.pr-17", "pathPrefixes": ["/cart"]}]}"#.to_vec(),
//! )?;
//! let request = [("x-route-key", "pr-17"), (":path", "/cart/items?page=2")];
//! match decide(&table, &request.as_slice()) {
//!     RouteDecision::Target(rule) => assert_eq!(rule.cluster(), "shop.pr-17:80"),
//!     RouteDecision::Baseline(reason) => panic!("{reason}"),
//! }
//! # Ok::<(), sidetrack_routing::InvalidTable>(())
//! ```

mod compile;
mod decide;
mod decode;
mod headers;
mod layout;
mod names;
mod problem;
mod table;
mod validate;
pub mod wire;

pub use compile::compile;
pub use decide::{Reason, RequestHead, RouteDecision, decide};
pub use decode::decode;
pub use headers::{INTERNAL_HEADERS, MISS_HEADER, STEERING_HEADER};
pub use layout::VERSION as TABLE_VERSION;
pub use names::{
    HeaderName, HeaderValue, Host, InvalidHeaderName, InvalidHeaderValue, InvalidPathPrefix, InvalidRouteKey,
    InvalidTarget, MAX_ROUTE_KEY_BYTES, PathPrefix, RouteKey, Target,
};
pub use problem::{Path, Problem, Segment};
pub use table::{InvalidTable, RouteTable, Rule};
pub use validate::{
    ValidAgent, ValidConfig, ValidRouting, ValidRule, ValidServer, ValidService, validate, validate_routing,
};
