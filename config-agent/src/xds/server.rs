//! The aggregated discovery service on a socket.

use std::pin::Pin;
use std::sync::Arc;

use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use tokio::sync::{mpsc, watch};
use tokio_stream::Stream as TokioStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request as GrpcRequest, Response, Status, Streaming};
use tracing::{debug, info, warn};

use super::node::Node;
use super::proxies::{Entry, Nack, Proxies};
use super::stream::{Push, Request, Standing, Stream};
use crate::render::{EnvoyVersion, ResourceType, Snapshot, Snapshots};

/// A table of 100,000 rules has some 10 MB.
const MAX_RESPONSE_BYTES: usize = 256 * 1024 * 1024;

/// The aggregated discovery service, state of the world.
#[derive(Debug)]
pub struct Ads {
    snapshots: watch::Receiver<Arc<Snapshots>>,
    proxies: Proxies,
}

impl Ads {
    /// A service that pushes what comes from `snapshots` and notes in `proxies` who has it.
    pub fn new(snapshots: watch::Receiver<Arc<Snapshots>>, proxies: Proxies) -> AggregatedDiscoveryServiceServer<Self> {
        AggregatedDiscoveryServiceServer::new(Self { snapshots, proxies }).max_encoding_message_size(MAX_RESPONSE_BYTES)
    }
}

type Responses<T> = Pin<Box<dyn TokioStream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl AggregatedDiscoveryService for Ads {
    type StreamAggregatedResourcesStream = Responses<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Responses<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        requests: GrpcRequest<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        // The protocol has one push under way, so a proxy that reads slowly fills nothing but its own place.
        let (responses, receiver) = mpsc::channel(1);
        let connection = Connection {
            requests: requests.into_inner(),
            responses,
            snapshots: self.snapshots.clone(),
            proxies: self.proxies.clone(),
        };
        tokio::spawn(connection.run());
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn delta_aggregated_resources(
        &self,
        _: GrpcRequest<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        Err(Status::unimplemented(
            "only state-of-the-world xDS is served: set api_type to GRPC",
        ))
    }
}

/// One Envoy's stream.
struct Connection {
    requests: Streaming<DiscoveryRequest>,
    responses: mpsc::Sender<Result<DiscoveryResponse, Status>>,
    snapshots: watch::Receiver<Arc<Snapshots>>,
    proxies: Proxies,
}

impl Connection {
    async fn run(mut self) {
        let Ok(Some(mut first)) = self.requests.message().await else {
            return;
        };
        let node = Node::new(first.node.take());
        let envoy = match node.envoy() {
            Ok(envoy) => envoy,
            Err(error) => {
                let reason = error.to_string();
                if self.proxies.refuse(&node.id, &reason) {
                    warn!(node = node.id, reason, "Envoy refused");
                }
                let _ = self.responses.send(Err(Status::failed_precondition(reason))).await;
                return;
            }
        };
        let Node { id: node, release, .. } = node;
        info!(node, release, "Envoy connected");
        let entry = self.proxies.enter(node.clone(), release);
        let reason = self.serve(first, &node, envoy, &entry).await;
        info!(node, reason, "Envoy disconnected");
    }

    /// The version of the configuration in force, and what it is for this Envoy.
    fn newest(&mut self, envoy: EnvoyVersion) -> (String, Arc<Snapshot>) {
        let snapshots = self.snapshots.borrow_and_update().clone();
        (snapshots.version().to_owned(), snapshots.of(envoy))
    }

    async fn serve(&mut self, first: DiscoveryRequest, node: &str, envoy: EnvoyVersion, entry: &Entry) -> &'static str {
        let mut stream = Stream::default();
        let (mut version, snapshot) = self.newest(envoy);
        let mut push = stream.snapshot(snapshot);
        let mut request = Some(first);
        loop {
            if let Some(request) = request.take() {
                push = answer(&mut stream, request, node, &version, entry);
            }
            note(&stream, node, &version, entry);
            if let Some(push) = push.take() {
                debug!(node, resources = %push.kind, version = push.version, "push");
                if self.responses.send(Ok(response(push))).await.is_err() {
                    return "it closed the stream";
                }
            }
            tokio::select! {
                message = self.requests.message() => match message {
                    Ok(Some(message)) => request = Some(message),
                    Ok(None) => return "it closed the stream",
                    Err(_) => return "the connection broke",
                },
                changed = self.snapshots.changed() => {
                    if changed.is_err() {
                        return "the agent stops";
                    }
                    let (new, snapshot) = self.newest(envoy);
                    version = new;
                    push = stream.snapshot(snapshot);
                }
            }
        }
    }
}

fn answer(stream: &mut Stream, request: DiscoveryRequest, node: &str, version: &str, entry: &Entry) -> Option<Push> {
    let Some(kind) = ResourceType::from_type_url(&request.type_url) else {
        debug!(
            node,
            type_url = request.type_url,
            "resources that this agent doesn't have"
        );
        return None;
    };
    let error = request.error_detail.map(|status| status.message);
    if let Some(message) = &error {
        warn!(node, resources = %kind, version, message, "Envoy refuses the configuration, the one before stays in force");
        let nack = Nack {
            version: version.to_owned(),
            resources: kind.to_string(),
            message: message.clone(),
        };
        entry.update(|proxy| proxy.nack = Some(nack));
    }
    let request = Request {
        version: request.version_info,
        nonce: request.response_nonce,
        names: request.resource_names,
        error,
    };
    stream.request(kind, request)
}

fn note(stream: &Stream, node: &str, version: &str, entry: &Entry) {
    if stream.standing() == Standing::InForce {
        entry.update(|proxy| {
            if proxy.in_force.as_deref() != Some(version) {
                info!(node, version, "in force at Envoy");
                proxy.in_force = Some(version.to_owned());
                proxy.nack = None;
            }
        });
    }
}

fn response(push: Push) -> DiscoveryResponse {
    DiscoveryResponse {
        version_info: push.version,
        type_url: push.kind.type_url(),
        nonce: push.nonce,
        resources: push.resources.iter().map(|resource| resource.body.clone()).collect(),
        ..Default::default()
    }
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
