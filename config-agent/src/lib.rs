//! Sidetrack's control plane and command.
//!
//! ```text
//! config (file ─► ValidConfig) ─► render (─► Snapshot) ─► xds (─► Envoys)
//!                                                  status ─► api
//! ```
//!
//! [`agent`] puts these together; [`up`] adds an Envoy; [`cli`] is the command.

pub mod agent;
pub mod api;
pub mod cli;
pub mod config;
pub mod envoy;
pub mod explain;
pub mod render;
pub mod status;
pub mod up;
pub mod xds;
