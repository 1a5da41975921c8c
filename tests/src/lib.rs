//! The harness of the end-to-end tests: everything that runs here is the real thing.
//!
//! A test starts [echo servers](EchoServer) as targets, writes a [config file](ConfigFile), starts
//! [`sidetrack up`](Sidetrack), [`sidetrack agent`](Agent) or [Envoy] as child processes, and sends requests
//! with a [client](Client). A [suite] of others runs through a [server behind us](Front) and through a [bare
//! Envoy](BareEnvoy), and their verdicts are compared. The agent alone is seen by its [API](Api) and by [clients of its
//! discovery service](AdsClient), near or behind a [bad network](Relay). Binary and filter are [built](artifacts) before the first use, so no test runs a stale one.
//!
//! Nothing waits for a fixed time: [`poll_until`] asks until the answer is right or the deadline has passed. Processes
//! end with the value that owns them, by their id, and a test that fails prints what they wrote.

mod ads;
mod api;
pub mod api_agent;
pub mod artifacts;
mod bare;
mod client;
mod clock;
mod collector;
mod config;
pub mod disk;
mod echo;
mod figures;
mod flood;
mod front;
mod grpc;
mod poll;
mod ports;
mod preload;
mod process;
pub mod prometheus;
mod proxyless;
mod raw;
mod relay;
mod running;
mod stats;
pub mod steady;
pub mod suite;
mod terminal;
mod tls;
mod tls_files;
mod traffic;

pub use ads::{Acks, AdsClient, AdsOptions, AdsPush, AdsType, Held, Seen, TableCheck, Variant, table_in};
pub use api::{Api, Rules, Written};
pub use api_agent::ApiAgent;
pub use bare::BareEnvoy;
pub use client::{Answer, Body, Client, Protocol, Request, get};
pub use clock::Clock;
pub use collector::{Collector, Span};
pub use config::{ConfigFile, Services, config_text, config_with};
pub use echo::{Behaviour, Echo, EchoServer, MAX_DELAY};
pub use figures::{Durations, figure};
pub use flood::{Flood, Flooded};
pub use front::{AS_THE_CLIENT, Front, Way, services};
pub use grpc::{GrpcConnection, GrpcSender, GrpcStream};
pub use poll::{PATIENCE, poll_until};
pub use ports::{FixedPorts, Ports, free_port};
pub use preload::Preload;
pub use process::Process;
pub use proxyless::{Bootstrap, Call, CallOutcome, ClientResource, Library, Proxyless};
pub use raw::{RawConnection, RawServer, SilentPort};
pub use relay::{Passing, Relay};
pub use running::{Agent, Envoy, Sidetrack, render, render_for, sidetrack};
pub use rustix::process::{Pid, Signal};
pub use stats::Stats;
pub use steady::Steady;
pub use terminal::Terminal;
pub use tls::{Authority, Handshake, Identity, TlsServer, Trust};
pub use tls_files::{TlsFiles, until_shown};
pub use traffic::{Outcome, Traffic, until_served_by};
