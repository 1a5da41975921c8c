//! gRPC's own libraries as data planes: they get rules from the agent as routes, and route by themselves.

#[path = "grpc_clients/cases.rs"]
mod cases;
#[path = "grpc_clients/changes.rs"]
mod changes;
#[path = "grpc_clients/document.rs"]
mod document;
#[path = "grpc_clients/expiry.rs"]
mod expiry;
#[path = "grpc_clients/left_out.rs"]
mod left_out;
#[path = "grpc_clients/mesh.rs"]
mod mesh;
#[path = "grpc_clients/targets.rs"]
mod targets;
