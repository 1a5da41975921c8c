//! Sidetrack's control plane and command.
//!
//! ```text
//! config (file ─► ValidConfig) ─► control (rules, state) ─► render (─► Snapshot) ─► xds (─► proxies)
//!                                    ▲                              status ─► api
//!                                   api
//! ```
//!
//! [`agent`] puts these together; [`up`] adds an Envoy; [`cli`] is the command.

pub mod agent;
pub mod api;
pub mod cli;
pub mod client;
pub mod config;
pub mod control;
pub mod envoy;
pub mod explain;
mod json;
pub mod metrics;
pub mod render;
pub mod rules;
pub mod state;
pub mod status;
pub mod up;
pub mod xds;
