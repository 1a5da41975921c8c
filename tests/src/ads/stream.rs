//! One connection after another, and the protocol on each.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use envoy_types::pb::google::rpc::Status;
use prost::Message;

use super::held::{HeldResource, endpoints_of, name_in, table_in};
use super::{Acks, AdsOptions, AdsPush, AdsType, Seen, Variant};
use crate::{GrpcConnection, GrpcSender};

const SERVICE: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/";

/// Before it connects again.
const PAUSE: Duration = Duration::from_millis(50);

/// INVALID_ARGUMENT, as Envoy says it.
const REFUSAL: i32 = 3;

/// A push, whichever form it came in.
struct Received {
    kind: AdsType,
    version: String,
    nonce: String,
    resources: BTreeMap<String, HeldResource>,
    removed: Vec<String>,
}

/// What is to be sent.
#[derive(Default)]
struct Reply {
    version: String,
    nonce: String,
    added: Vec<String>,
    dropped: Vec<String>,
    initial: BTreeMap<String, String>,
    refused: bool,
}

/// The client's side of one stream.
struct Stream {
    options: Arc<AdsOptions>,
    seen: Arc<Mutex<Seen>>,
    sender: GrpcSender,
    node: Option<Node>,
    /// What is asked for by name.
    names: BTreeMap<AdsType, BTreeSet<String>>,
    nonces: BTreeMap<AdsType, String>,
    /// The types of pushes that aren't answered yet.
    waiting: Arc<Mutex<BTreeSet<AdsType>>>,
}

pub(super) async fn run(port: u16, options: AdsOptions, seen: Arc<Mutex<Seen>>) {
    let options = Arc::new(options);
    loop {
        let ended = connect(port, &options, &seen).await;
        let reason = ended.unwrap_or_else(|error| format!("{error:#}"));
        seen.lock().unwrap().disconnected.push((Instant::now(), reason));
        if !options.reconnects {
            return;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Until the stream ends: with which status.
async fn connect(port: u16, options: &Arc<AdsOptions>, seen: &Arc<Mutex<Seen>>) -> anyhow::Result<String> {
    let method = match options.variant {
        Variant::Sotw => "StreamAggregatedResources",
        Variant::Delta => "DeltaAggregatedResources",
    };
    let connection = GrpcConnection::open(port).await?;
    let node = Node {
        id: options.node.clone(),
        cluster: options.cluster.clone(),
        ..Default::default()
    };
    let mut subscriptions = options.subscriptions.clone();
    let endpoints = wanted_endpoints(&seen.lock().unwrap())?;
    if !endpoints.is_empty() {
        subscriptions.push((AdsType::Endpoints, endpoints.into_iter().collect()));
    }
    let mut names = BTreeMap::new();
    let mut firsts = Vec::new();
    let mut node = Some(node);
    for (kind, subscribed) in &subscriptions {
        let reply = first(&seen.lock().unwrap(), *kind, subscribed);
        firsts.push(reply.encode(options.variant, *kind, node.take(), subscribed));
        names.insert(*kind, subscribed.iter().cloned().collect());
    }
    let mut firsts = firsts.into_iter();
    let path = format!("{SERVICE}{method}");
    let mut call = connection.call_with(&path, &[], firsts.next().as_deref()).await?;
    seen.lock().unwrap().connections += 1;
    let mut stream = Stream {
        options: Arc::clone(options),
        seen: Arc::clone(seen),
        sender: call.sender(),
        node,
        names,
        nonces: BTreeMap::new(),
        waiting: Arc::default(),
    };
    for first in firsts {
        // Who doesn't want it says why in the status.
        let _ = stream.sender.send(&first).await;
    }
    while let Some(message) = call.receive().await? {
        stream.take(message).await?;
    }
    Ok(call.status())
}

/// The first request of a type on a stream says what there is from earlier ones.
fn first(seen: &Seen, kind: AdsType, subscribed: &[String]) -> Reply {
    let versions = seen.held.versions(kind).into_iter();
    let initial = versions.filter(|(name, _)| subscribed.is_empty() || subscribed.iter().any(|one| one == name));
    Reply {
        version: seen.held.version(kind).to_owned(),
        initial: initial
            .map(|(name, version)| (name.to_owned(), version.to_owned()))
            .collect(),
        added: subscribed.to_vec(),
        ..Reply::default()
    }
}

/// The endpoints that the clusters there are ask for.
fn wanted_endpoints(seen: &Seen) -> anyhow::Result<BTreeSet<String>> {
    let clusters = seen.held.bodies(AdsType::Clusters);
    let wanted = clusters.values().map(|cluster| endpoints_of(cluster));
    wanted.filter_map(Result::transpose).collect()
}

impl Stream {
    async fn take(&mut self, message: Bytes) -> anyhow::Result<()> {
        let bytes = message.len();
        let received = match self.options.variant {
            Variant::Sotw => Received::sotw(DiscoveryResponse::decode(message)?)?,
            Variant::Delta => Received::delta(DeltaDiscoveryResponse::decode(message)?)?,
        };
        let kind = received.kind;
        self.nonces.insert(kind, received.nonce.clone());
        let is_second = !self.waiting.lock().unwrap().insert(kind);
        let version = received.version.clone();
        {
            let mut seen = self.seen.lock().unwrap();
            if is_second {
                seen.problems.push(format!(
                    "two pushes of {kind:?} without an answer, the second {version}"
                ));
            }
            seen.pushes.push(AdsPush {
                kind,
                version: version.clone(),
                at: Instant::now(),
                resources: received.resources.len(),
                removed: received.removed.clone(),
                bytes,
            });
        }
        let refused = self.options.acks == Acks::Refuse;
        if !refused {
            self.keep(received)?;
        }
        if kind == AdsType::Clusters && !refused {
            self.ask_for_endpoints().await?;
        }
        let reply = Reply {
            version: self.seen.lock().unwrap().held.version(kind).to_owned(),
            nonce: self.nonces[&kind].clone(),
            refused,
            ..Reply::default()
        };
        self.answer(kind, reply).await
    }

    /// Takes over what a push says, and looks whether it can be right.
    fn keep(&self, received: Received) -> anyhow::Result<()> {
        let mut seen = self.seen.lock().unwrap();
        let seen = &mut *seen;
        let held = seen.held.types.entry(received.kind).or_default();
        held.version = received.version;
        // Of clusters and listeners the state of the world is all there is, of the others what was asked for.
        if self.options.variant == Variant::Sotw && matches!(received.kind, AdsType::Clusters | AdsType::Listeners) {
            held.resources.clear();
        }
        held.resources.extend(received.resources);
        for name in received.removed {
            held.resources.remove(&name);
        }
        if received.kind == AdsType::Filter
            && let Some((_, filter)) = held.resources.first_key_value()
            && let Some(check) = &self.options.check
        {
            let body = filter.body.clone();
            let checked = table_in(&body).map_err(|error| format!("{error:#}"));
            let checked = checked.and_then(|table| check(&table, &seen.held));
            seen.problems.extend(checked.err());
        }
        Ok(())
    }

    /// Asks for the endpoints of the clusters there are now, and for no others any more.
    async fn ask_for_endpoints(&mut self) -> anyhow::Result<()> {
        let kind = AdsType::Endpoints;
        let mut reply = Reply::default();
        let wanted;
        {
            let mut seen = self.seen.lock().unwrap();
            wanted = wanted_endpoints(&seen)?;
            if let Some(held) = seen.held.types.get_mut(&kind) {
                held.resources.retain(|name, _| wanted.contains(name));
            }
            let before = self.names.get(&kind);
            if before.is_none() {
                let names: Vec<_> = wanted.iter().cloned().collect();
                reply = first(&seen, kind, &names);
            }
            let before = before.cloned().unwrap_or_default();
            reply.added = wanted.difference(&before).cloned().collect();
            reply.dropped = before.difference(&wanted).cloned().collect();
            reply.version = seen.held.version(kind).to_owned();
        }
        if reply.added.is_empty() && reply.dropped.is_empty() {
            return Ok(());
        }
        self.names.insert(kind, wanted);
        if self.options.variant == Variant::Sotw {
            reply.nonce = self.nonces.get(&kind).cloned().unwrap_or_default();
        }
        // Further names say nothing of the last push in a delta; in the state of the world they accept it once more.
        self.send(kind, reply).await
    }

    async fn answer(&mut self, kind: AdsType, reply: Reply) -> anyhow::Result<()> {
        match self.options.acks {
            Acks::Never => Ok(()),
            Acks::AtOnce | Acks::Refuse => {
                self.waiting.lock().unwrap().remove(&kind);
                self.send(kind, reply).await
            }
            Acks::After(delay) => {
                let message = self.encode(kind, reply);
                let (sender, waiting) = (self.sender.clone(), Arc::clone(&self.waiting));
                tokio::spawn(async move {
                    tokio::time::sleep(delay).await;
                    waiting.lock().unwrap().remove(&kind);
                    // A stream that has ended takes no answers.
                    let _ = sender.send(&message).await;
                });
                Ok(())
            }
        }
    }

    async fn send(&mut self, kind: AdsType, reply: Reply) -> anyhow::Result<()> {
        let message = self.encode(kind, reply);
        self.sender.send(&message).await
    }

    fn encode(&mut self, kind: AdsType, reply: Reply) -> Vec<u8> {
        let names: Vec<_> = self.names.get(&kind).into_iter().flatten().cloned().collect();
        reply.encode(self.options.variant, kind, self.node.take(), &names)
    }
}

impl Reply {
    /// As a request; `names` are all that are asked for.
    fn encode(self, variant: Variant, kind: AdsType, node: Option<Node>, names: &[String]) -> Vec<u8> {
        let error_detail = self.refused.then(|| Status {
            code: REFUSAL,
            message: "this client refuses everything".to_owned(),
            ..Default::default()
        });
        match variant {
            Variant::Sotw => DiscoveryRequest {
                version_info: self.version,
                node,
                resource_names: names.to_vec(),
                type_url: kind.url(),
                response_nonce: self.nonce,
                error_detail,
                ..Default::default()
            }
            .encode_to_vec(),
            Variant::Delta => DeltaDiscoveryRequest {
                node,
                type_url: kind.url(),
                resource_names_subscribe: self.added,
                resource_names_unsubscribe: self.dropped,
                initial_resource_versions: self.initial.into_iter().collect(),
                response_nonce: self.nonce,
                error_detail,
                ..Default::default()
            }
            .encode_to_vec(),
        }
    }
}

impl Received {
    fn sotw(response: DiscoveryResponse) -> anyhow::Result<Self> {
        let kind = AdsType::of(&response.type_url).context("a type nobody asked for")?;
        let mut resources = BTreeMap::new();
        for any in response.resources {
            let name = name_in(&any.value)?;
            let version = String::new();
            let body = any.value.into();
            if resources.insert(name.clone(), HeldResource { version, body }).is_some() {
                bail!("{name} is there twice");
            }
        }
        Ok(Self {
            kind,
            version: response.version_info,
            nonce: response.nonce,
            resources,
            removed: Vec::new(),
        })
    }

    fn delta(response: DeltaDiscoveryResponse) -> anyhow::Result<Self> {
        let kind = AdsType::of(&response.type_url).context("a type nobody asked for")?;
        let mut resources = BTreeMap::new();
        for resource in response.resources {
            let name = resource.name;
            let version = resource.version;
            let body: Bytes = resource
                .resource
                .with_context(|| format!("{name} is empty"))?
                .value
                .into();
            if name_in(&body)? != name {
                bail!("{name} calls itself {}", name_in(&body)?);
            }
            if resources.insert(name.clone(), HeldResource { version, body }).is_some() {
                bail!("{name} is there twice");
            }
        }
        Ok(Self {
            kind,
            version: response.system_version_info,
            nonce: response.nonce,
            resources,
            removed: response.removed_resources,
        })
    }
}
