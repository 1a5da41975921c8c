//! From a valid configuration to Envoy's.
//!
//! Every message here is Envoy's own type, so a field that doesn't exist doesn't compile. Why a field has the value it has
//! is said in `envoy-config/bootstrap.yaml`, which a test holds equal to what this renders. What depends on the version of
//! Envoy takes an [`EnvoyVersion`].

mod bootstrap;
mod cluster;
mod encoded;
mod envoy;
mod filter;
mod grpc;
mod listener;
mod local_reply;
mod log;
mod matching;
mod metrics;
mod proto;
mod resource;
mod retry;
mod route;
mod snapshot;
mod snapshots;
mod tls;
mod tracing;
mod upstream;
mod view;
mod yaml;

pub use bootstrap::{EnvoyNode, dynamic_bootstrap, static_bootstrap, whole_bootstrap};
pub use cluster::targets;
pub use envoy::{EnvoyVersion, InvalidEnvoyVersion};
pub use filter::FilterCode;
pub use grpc::LeftOut;
pub(crate) use resource::version;
pub use resource::{Resource, ResourceSet, ResourceType};
pub use snapshot::Snapshot;
pub(crate) use snapshots::now;
pub use snapshots::{DataPlane, DataPlaneKind, Snapshots};
pub(crate) use upstream::SYSTEM_AUTHORITIES;
pub(crate) use yaml::json_to_yaml;
pub use yaml::to_yaml;
