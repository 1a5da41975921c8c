//! The discovery service: pushes snapshots to proxies, in an order that never names what isn't there.
//!
//! ```text
//! server (a socket) ─► connection (a task for each stream) ─ request ─► stream ─► state, of each type
//!                                                          ◄ response ─         ◄─ subscription
//! ```
//!
//! `stream`, `state` and `subscription` are protocol state without sockets and clocks; they speak both forms of the
//! protocol, state of the world and delta, and differ in what a push holds, not in when there is one.

mod connection;
mod node;
mod proxies;
mod request;
mod requests;
mod response;
mod server;
mod state;
mod stream;
mod subscription;

#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod protocol_tests;
#[cfg(test)]
mod random_tests;

pub use proxies::{Nack, Proxies, Proxy};
pub use server::Ads;
