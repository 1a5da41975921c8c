//! What proxies send, with limits: a request costs no more memory than a small multiple of what it may have.
//!
//! The messages are Envoy's `DiscoveryRequest` and `DeltaDiscoveryRequest`, as far as they matter here. The node, which can
//! hold anything, is read once and only if it is small.

use bytes::{Buf, Bytes};
use envoy_types::pb::envoy::config::core::v3 as core;
use prost::Message;
use prost::encoding::{DecodeContext, decode_key, skip_field};
use tonic::Status;

use super::state::Variant;

/// How many names there may be in a request, and in the subscriptions of a stream. 100,000 rules have 300,000.
pub(super) const MAX_NAMES: usize = 500_000;

/// Envoy lists its extensions in its node: some 100 KB.
const MAX_NODE_BYTES: usize = 1 << 20;

/// Names of resources are names of targets, with something behind them.
const MAX_NAME_BYTES: usize = 2048;

/// How much of an error message is kept. Envoy repeats whole resources in some.
const MAX_ERROR_BYTES: usize = 4096;

/// What a proxy says about one type.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Request {
    /// Who it is, encoded; only in the first request for sure.
    node: Bytes,
    pub(super) type_url: String,
    /// The push it answers, empty if none.
    pub(super) nonce: String,
    /// Why it refuses the push it answers.
    pub(super) error: Option<String>,
    pub(super) ask: Ask,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// In the state of the world.
    World {
        /// The version the proxy has, empty if none.
        version: String,
        /// All names it wants.
        names: Vec<String>,
    },
    /// In delta.
    Delta {
        subscribe: Vec<String>,
        unsubscribe: Vec<String>,
        /// What it has from an earlier stream: name and version.
        versions: Vec<(String, String)>,
    },
}

#[derive(Clone, PartialEq, Message)]
struct World {
    #[prost(string, tag = "1")]
    version: String,
    #[prost(bytes = "bytes", tag = "2")]
    node: Bytes,
    #[prost(string, repeated, tag = "3")]
    names: Vec<String>,
    #[prost(string, tag = "4")]
    type_url: String,
    #[prost(string, tag = "5")]
    nonce: String,
    #[prost(message, optional, tag = "6")]
    error: Option<Error>,
}

#[derive(Clone, PartialEq, Message)]
struct Delta {
    #[prost(bytes = "bytes", tag = "1")]
    node: Bytes,
    #[prost(string, tag = "2")]
    type_url: String,
    #[prost(string, repeated, tag = "3")]
    subscribe: Vec<String>,
    #[prost(string, repeated, tag = "4")]
    unsubscribe: Vec<String>,
    #[prost(message, repeated, tag = "5")]
    versions: Vec<Version>,
    #[prost(string, tag = "6")]
    nonce: String,
    #[prost(message, optional, tag = "7")]
    error: Option<Error>,
}

/// An entry of `initial_resource_versions`.
#[derive(Clone, PartialEq, Message)]
struct Version {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    version: String,
}

/// A `google.rpc.Status`.
#[derive(Clone, PartialEq, Message)]
struct Error {
    #[prost(string, tag = "2")]
    message: String,
}

impl Request {
    /// Who sends it.
    pub(super) fn node(&self) -> Result<core::Node, Status> {
        if self.node.len() > MAX_NODE_BYTES {
            return Err(Status::invalid_argument(format!(
                "the node has {} bytes: at most {MAX_NODE_BYTES}",
                self.node.len()
            )));
        }
        let node = core::Node::decode(self.node.clone());
        let node = node.map_err(|error| Status::invalid_argument(format!("the node: {error}")))?;
        let names = [&node.id, &node.cluster, &node.user_agent_name];
        if names.iter().any(|name| name.len() > MAX_NAME_BYTES) {
            return Err(Status::invalid_argument(format!(
                "the node's id, cluster or user agent is longer than {MAX_NAME_BYTES} bytes"
            )));
        }
        Ok(node)
    }

    /// Reads one of `variant`.
    pub(super) fn decode(variant: Variant, bytes: Bytes) -> Result<Self, Status> {
        let invalid = |error| Status::invalid_argument(format!("not a discovery request: {error}"));
        let names = count_names(variant, bytes.clone()).map_err(invalid)?;
        if names > MAX_NAMES {
            return Err(Status::resource_exhausted(format!(
                "{names} names in a request: at most {MAX_NAMES}"
            )));
        }
        let request = match variant {
            Variant::StateOfTheWorld => World::decode(bytes).map(Self::from),
            Variant::Delta => Delta::decode(bytes).map(Self::from),
        };
        let request = request.map_err(invalid)?;
        if request.ask.names().any(|name| name.len() > MAX_NAME_BYTES) {
            return Err(Status::invalid_argument(format!(
                "a resource's name is longer than {MAX_NAME_BYTES} bytes"
            )));
        }
        Ok(request)
    }
}

impl Ask {
    fn names(&self) -> impl Iterator<Item = &String> {
        let (names, unsubscribe, versions) = match self {
            Self::World { names, .. } => (names, None, None),
            Self::Delta {
                subscribe,
                unsubscribe,
                versions,
            } => (subscribe, Some(unsubscribe), Some(versions)),
        };
        let versions = versions.into_iter().flatten().map(|(name, _)| name);
        names.iter().chain(unsubscribe.into_iter().flatten()).chain(versions)
    }
}

/// How many names there are in a request that isn't decoded yet: a short one takes many times its place once it is.
fn count_names(variant: Variant, mut bytes: Bytes) -> Result<usize, prost::DecodeError> {
    let mut names = 0;
    while bytes.has_remaining() {
        let (tag, wire_type) = decode_key(&mut bytes)?;
        skip_field(wire_type, tag, &mut bytes, DecodeContext::default())?;
        names += usize::from(match variant {
            Variant::StateOfTheWorld => tag == 3,
            Variant::Delta => matches!(tag, 3..=5),
        });
    }
    Ok(names)
}

impl From<World> for Request {
    fn from(message: World) -> Self {
        Self {
            node: message.node,
            type_url: message.type_url,
            nonce: message.nonce,
            error: message.error.map(Error::text),
            ask: Ask::World {
                version: message.version,
                names: message.names,
            },
        }
    }
}

impl From<Delta> for Request {
    fn from(message: Delta) -> Self {
        let versions = message.versions.into_iter();
        Self {
            node: message.node,
            type_url: message.type_url,
            nonce: message.nonce,
            error: message.error.map(Error::text),
            ask: Ask::Delta {
                subscribe: message.subscribe,
                unsubscribe: message.unsubscribe,
                versions: versions.map(|entry| (entry.name, entry.version)).collect(),
            },
        }
    }
}

impl Error {
    fn text(self) -> String {
        let mut text = self.message;
        text.truncate(text.floor_char_boundary(MAX_ERROR_BYTES));
        text
    }
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
    use envoy_types::pb::google::rpc;
    use tonic::Code;

    use super::*;

    fn node() -> core::Node {
        core::Node {
            id: "n".to_owned(),
            ..Default::default()
        }
    }

    fn error(message: &str) -> Option<rpc::Status> {
        Some(rpc::Status {
            code: 13,
            message: message.to_owned(),
            details: Vec::new(),
        })
    }

    #[test]
    fn both_messages_are_read_as_envoy_writes_them() {
        let world = DiscoveryRequest {
            version_info: "v".to_owned(),
            node: Some(node()),
            resource_names: vec!["a".to_owned(), "b".to_owned()],
            type_url: "t".to_owned(),
            response_nonce: "1".to_owned(),
            error_detail: error("bad"),
            ..Default::default()
        };
        let read = Request::decode(Variant::StateOfTheWorld, world.encode_to_vec().into()).unwrap();
        assert_eq!(read.node().unwrap(), node());
        assert_eq!(
            (&*read.type_url, &*read.nonce, read.error.as_deref()),
            ("t", "1", Some("bad"))
        );
        let names = vec!["a".to_owned(), "b".to_owned()];
        assert_eq!(
            read.ask,
            Ask::World {
                version: "v".to_owned(),
                names: names.clone()
            }
        );
        let delta = DeltaDiscoveryRequest {
            node: Some(node()),
            type_url: "t".to_owned(),
            resource_names_subscribe: names.clone(),
            resource_names_unsubscribe: vec!["c".to_owned()],
            initial_resource_versions: [("d".to_owned(), "1".to_owned())].into(),
            response_nonce: "1".to_owned(),
            error_detail: error("bad"),
            ..Default::default()
        };
        let read = Request::decode(Variant::Delta, delta.encode_to_vec().into()).unwrap();
        assert_eq!(read.node().unwrap(), node());
        assert_eq!(
            (&*read.type_url, &*read.nonce, read.error.as_deref()),
            ("t", "1", Some("bad"))
        );
        assert_eq!(
            read.ask,
            Ask::Delta {
                subscribe: names,
                unsubscribe: vec!["c".to_owned()],
                versions: vec![("d".to_owned(), "1".to_owned())]
            }
        );
    }

    #[test]
    fn what_is_too_much_is_refused_with_the_limit() {
        let names = |count: usize, name: &str| DeltaDiscoveryRequest {
            resource_names_subscribe: vec![name.to_owned(); count],
            ..Default::default()
        };
        let check = |request: DeltaDiscoveryRequest, expected: Result<(), (Code, &str)>| {
            let read = Request::decode(Variant::Delta, request.encode_to_vec().into());
            let node = read.and_then(|read| read.node()).map(drop);
            assert_eq!(
                node.as_ref()
                    .map(|&()| ())
                    .map_err(|status| (status.code(), status.message())),
                expected
            );
        };
        check(names(MAX_NAMES, "n"), Ok(()));
        check(
            names(MAX_NAMES + 1, "n"),
            Err((Code::ResourceExhausted, "500001 names in a request: at most 500000")),
        );
        check(
            names(1, &"n".repeat(MAX_NAME_BYTES + 1)),
            Err((Code::InvalidArgument, "a resource's name is longer than 2048 bytes")),
        );
        let node = core::Node {
            id: "n".repeat(MAX_NAME_BYTES + 1),
            ..Default::default()
        };
        let message = "the node's id, cluster or user agent is longer than 2048 bytes";
        check(
            DeltaDiscoveryRequest {
                node: Some(node),
                ..Default::default()
            },
            Err((Code::InvalidArgument, message)),
        );
        let node = core::Node {
            id: "n".repeat(MAX_NODE_BYTES),
            ..Default::default()
        };
        check(
            DeltaDiscoveryRequest {
                node: Some(node),
                ..Default::default()
            },
            Err((Code::InvalidArgument, "the node has 1048580 bytes: at most 1048576")),
        );
        let garbage = Request::decode(Variant::Delta, Bytes::from_static(b"\xff\xff")).unwrap_err();
        assert_eq!(garbage.code(), Code::InvalidArgument);
        let long = World {
            error: Some(Error {
                message: "ä".repeat(MAX_ERROR_BYTES),
            }),
            ..World::default()
        };
        let read = Request::decode(Variant::StateOfTheWorld, long.encode_to_vec().into()).unwrap();
        assert_eq!(read.error.unwrap().len(), MAX_ERROR_BYTES);
    }
}
