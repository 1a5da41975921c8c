//! What proxies are sent, as gRPC messages that are written while they are read.
//!
//! All proxies share the encoded resources. A push holds references to them; their bytes are copied 16 KiB at a time, when
//! the proxy takes them, and large ones not at all. So a push to a slow proxy costs no memory but its list.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};
use hyper::HeaderMap;
use hyper::body::{Body, Frame};
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};
use tokio::sync::mpsc;
use tonic::Status;

use super::state::Variant;
use crate::render::{Resource, ResourceType};

/// How much is written at a time.
const CHUNK_BYTES: usize = 16 << 10;

/// What is larger is sent from where it is.
const SHARED_BYTES: usize = 4 << 10;

/// A resource that is larger isn't a table any more. gRPC's messages end at 4 GiB.
const MAX_RESPONSE_BYTES: usize = u32::MAX as usize;

/// The fields of `DiscoveryResponse` and `DeltaDiscoveryResponse`; where both have one, it has the same number.
const VERSION: u32 = 1;
const RESOURCES: u32 = 2;
const TYPE_URL: u32 = 4;
const NONCE: u32 = 5;
const REMOVED_RESOURCES: u32 = 6;

/// What to send.
#[derive(Clone, Debug)]
pub(super) struct Push {
    pub(super) kind: ResourceType,
    pub(super) variant: Variant,
    pub(super) version: String,
    pub(super) nonce: String,
    pub(super) resources: Vec<Arc<Resource>>,
    /// In delta: what is gone.
    pub(super) removed: Vec<Arc<str>>,
}

/// The parts of a stream's response, each a push or its end.
pub(super) type Outbox = mpsc::Sender<Result<Push, Status>>;

/// The response of a stream.
#[derive(Debug)]
pub(super) struct Responses {
    pushes: mpsc::Receiver<Result<Push, Status>>,
    message: Option<Message>,
    has_ended: bool,
}

/// A push that is being written.
#[derive(Debug)]
struct Message {
    /// What was written before it could be sent.
    ready: VecDeque<Bytes>,
    variant: Variant,
    resources: std::vec::IntoIter<Arc<Resource>>,
}

impl Push {
    /// How many bytes its message has.
    fn encoded_len(&self) -> usize {
        let resources = self
            .resources
            .iter()
            .map(|resource| bytes_of(&self.variant.body(resource)));
        let removed = self.removed.iter().map(|name| name.len());
        field_len(VERSION, self.version.len())
            + field_len(TYPE_URL, self.kind.type_url().len())
            + field_len(NONCE, self.nonce.len())
            + resources.map(|len| field_len(RESOURCES, len)).sum::<usize>()
            + removed.map(|len| field_len(REMOVED_RESOURCES, len)).sum::<usize>()
    }
}

impl Variant {
    /// Its bytes, in parts.
    fn body(self, resource: &Resource) -> [Bytes; 3] {
        match self {
            Self::StateOfTheWorld => resource.any(),
            Self::Delta => resource.whole(),
        }
    }
}

fn bytes_of(parts: &[Bytes]) -> usize {
    parts.iter().map(Bytes::len).sum()
}

fn field_len(tag: u32, len: usize) -> usize {
    key_len(tag) + encoded_len_varint(len as u64) + len
}

fn begin_field(tag: u32, len: usize, buffer: &mut BytesMut) {
    encode_key(tag, WireType::LengthDelimited, buffer);
    encode_varint(len as u64, buffer);
}

fn write_field(tag: u32, value: &[u8], buffer: &mut BytesMut) {
    begin_field(tag, value.len(), buffer);
    buffer.put_slice(value);
}

impl Message {
    fn new(push: Push) -> Result<Self, Status> {
        let len = push.encoded_len();
        if len > MAX_RESPONSE_BYTES {
            return Err(Status::out_of_range(format!("{}: {len} bytes are too many", push.kind)));
        }
        let mut head = BytesMut::with_capacity(256);
        // Not compressed, and the length.
        head.put_u8(0);
        head.put_u32(u32::try_from(len).unwrap_or(u32::MAX));
        write_field(VERSION, push.version.as_bytes(), &mut head);
        write_field(TYPE_URL, push.kind.type_url().as_bytes(), &mut head);
        write_field(NONCE, push.nonce.as_bytes(), &mut head);
        for name in &push.removed {
            write_field(REMOVED_RESOURCES, name.as_bytes(), &mut head);
        }
        Ok(Self {
            ready: [head.freeze()].into(),
            variant: push.variant,
            resources: push.resources.into_iter(),
        })
    }

    /// The next bytes of it.
    fn next(&mut self) -> Option<Bytes> {
        if let Some(bytes) = self.ready.pop_front() {
            return Some(bytes);
        }
        let mut buffer = BytesMut::new();
        while buffer.len() < CHUNK_BYTES
            && let Some(resource) = self.resources.next()
        {
            if buffer.capacity() == 0 {
                buffer.reserve(CHUNK_BYTES + SHARED_BYTES);
            }
            let body = self.variant.body(&resource);
            let bytes = bytes_of(&body);
            begin_field(RESOURCES, bytes, &mut buffer);
            if bytes > SHARED_BYTES {
                self.ready.extend(body.into_iter().filter(|part| !part.is_empty()));
                break;
            }
            body.iter().for_each(|part| buffer.put_slice(part));
        }
        (!buffer.is_empty()).then(|| buffer.freeze())
    }
}

impl Responses {
    /// A response, and where to put its parts. It has room for `places` pushes that the proxy doesn't read.
    pub(super) fn new(places: usize) -> (Outbox, Self) {
        let (outbox, pushes) = mpsc::channel(places);
        let responses = Self {
            pushes,
            message: None,
            has_ended: false,
        };
        (outbox, responses)
    }

    /// A response without a part.
    pub(super) fn none() -> Self {
        let (_, mut responses) = Self::new(1);
        responses.has_ended = true;
        responses
    }

    fn end(&mut self, status: &Status) -> Option<Result<Frame<Bytes>, Status>> {
        self.has_ended = true;
        self.message = None;
        let mut trailers = HeaderMap::new();
        Some(status.add_header(&mut trailers).map(|()| Frame::trailers(trailers)))
    }
}

impl Default for Responses {
    fn default() -> Self {
        Self::none()
    }
}

impl Body for Responses {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        loop {
            if let Some(message) = &mut self.message {
                if let Some(bytes) = message.next() {
                    return Poll::Ready(Some(Ok(Frame::data(bytes))));
                }
                self.message = None;
            }
            let push = match std::task::ready!(self.pushes.poll_recv(context)) {
                Some(Ok(push)) => push,
                Some(Err(status)) => return Poll::Ready(self.end(&status)),
                None => return Poll::Ready(self.end(&Status::ok(""))),
            };
            match Message::new(push) {
                Ok(message) => self.message = Some(message),
                Err(status) => return Poll::Ready(self.end(&status)),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.has_ended
    }
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::config::cluster::v3::Cluster;
    use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryResponse, DiscoveryResponse};
    use http_body_util::BodyExt;
    use prost::Message as _;

    use super::*;

    /// Clusters whose names have these lengths.
    fn clusters(lengths: &[usize]) -> Vec<Arc<Resource>> {
        let clusters = lengths.iter().enumerate().map(|(i, length)| {
            let name = format!("{i}{}", "n".repeat(*length));
            let message = Cluster {
                name: name.clone(),
                ..Default::default()
            };
            Arc::new(Resource::new(&name, &message))
        });
        clusters.collect()
    }

    fn push(variant: Variant, resources: Vec<Arc<Resource>>) -> Push {
        Push {
            kind: ResourceType::Cluster,
            variant,
            version: "v".to_owned(),
            nonce: "7".to_owned(),
            resources,
            removed: vec!["gone".into(), "also".into()],
        }
    }

    /// The frames that are sent for `push`, and then the trailers.
    async fn frames(push: Push) -> (Vec<Bytes>, HeaderMap) {
        let (outbox, mut responses) = Responses::new(2);
        outbox.send(Ok(push)).await.unwrap();
        outbox.send(Err(Status::unavailable("it stops"))).await.unwrap();
        let mut frames = Vec::new();
        loop {
            match responses.frame().await.unwrap().unwrap().into_data() {
                Ok(data) => frames.push(data),
                Err(trailers) => return (frames, trailers.into_trailers().unwrap()),
            }
        }
    }

    #[tokio::test]
    async fn responses_are_read_as_envoy_reads_them_whatever_their_sizes() {
        for lengths in [
            &[][..],
            &[1],
            &[1, 5000, 1, 100_000, 9000, 1],
            &[3000; 40],
            &[5000, 5000],
        ] {
            let clusters = clusters(lengths);
            let names: Vec<_> = clusters.iter().map(|cluster| cluster.name.to_string()).collect();

            let (frames_of_delta, trailers) = frames(push(Variant::Delta, clusters.clone())).await;
            let bytes = frames_of_delta.concat();
            assert_eq!(bytes[..5], [&[0][..], &(bytes.len() as u32 - 5).to_be_bytes()].concat());
            let delta = DeltaDiscoveryResponse::decode(&bytes[5..]).unwrap();
            assert_eq!(
                delta.resources.iter().map(|r| r.name.clone()).collect::<Vec<_>>(),
                names
            );
            assert_eq!((&*delta.system_version_info, &*delta.nonce), ("v", "7"));
            assert_eq!(delta.removed_resources, ["gone", "also"]);
            assert_eq!(delta.type_url, ResourceType::Cluster.type_url());
            assert_eq!(
                (&trailers["grpc-status"], &trailers["grpc-message"]),
                (&"14".parse().unwrap(), &"it%20stops".parse().unwrap())
            );

            let mut world = push(Variant::StateOfTheWorld, clusters.clone());
            world.removed.clear();
            let bytes = frames(world).await.0.concat();
            let world = DiscoveryResponse::decode(&bytes[5..]).unwrap();
            let read = world
                .resources
                .iter()
                .map(|any| Cluster::decode(&*any.value).unwrap().name);
            assert_eq!(read.collect::<Vec<_>>(), names);
            assert_eq!((&*world.version_info, &*world.nonce), ("v", "7"));
            assert_eq!(world.type_url, ResourceType::Cluster.type_url());
        }
    }

    #[tokio::test]
    async fn large_resources_are_sent_from_where_they_are_and_small_ones_together() {
        let clusters = clusters(&[100_000, 10, 10]);
        let [large, ..] = clusters[0].whole();
        let (frames, _) = frames(push(Variant::Delta, clusters)).await;
        let shared = frames
            .iter()
            .find(|frame| frame.len() == large.len())
            .expect("the large one");
        assert_eq!(shared.as_ptr(), large.as_ptr());
        assert_eq!(
            frames.len(),
            4,
            "the head, the large one's length, itself, the small ones"
        );
    }
}
