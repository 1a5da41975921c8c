//! An Envoy process of our own: found, started, asked, stopped.

mod admin;
mod find;
mod process;

pub use admin::Admin;
pub use find::{EnvoyCommand, find};
pub use process::Envoy;
