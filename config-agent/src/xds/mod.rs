//! The discovery service: pushes snapshots to Envoys, in an order that never names what isn't there.

mod node;
mod proxies;
mod server;
mod stream;

pub use proxies::{Nack, Proxies, Proxy};
pub use server::Ads;
