//! Who asks.

use std::collections::BTreeMap;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::core::v3::node::UserAgentVersionType;
use envoy_types::pb::google::protobuf::value::Kind;
use sidetrack_routing::ValidScope;
use thiserror::Error;

use crate::render::{DataPlaneKind, EnvoyVersion, InvalidEnvoyVersion};

/// What runs the filter. Some builds of Envoy are published without it.
const WASM: &str = "envoy.wasm.runtime.v8";

/// How the names of gRPC's libraries begin: `gRPC C-core linux`, `gRPC Node Pure JS`, `gRPC Go`, `gRPC Java`.
const GRPC: &str = "gRPC ";

/// What a client of the discovery service says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Node {
    /// Its id.
    pub(super) id: String,
    /// The cluster it says it belongs to.
    pub(super) cluster: String,
    /// What it calls itself.
    agent: String,
    /// The fields of its metadata that are texts.
    metadata: BTreeMap<String, String>,
    /// Which release of Envoy it is, such as `1.40.0`, if it is an Envoy.
    pub(super) release: Option<String>,
    /// Whether it says what is built into it, and [`WASM`] isn't.
    lacks_wasm: bool,
    is_grpc: bool,
}

/// Why a client gets nothing.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum UnfitEnvoy {
    #[error(transparent)]
    Version(#[from] InvalidEnvoyVersion),
    #[error("this Envoy {0} is built without {WASM}, which the filter needs: take another build")]
    WithoutWasm(String),
}

impl Node {
    /// The one of a stream's first request.
    pub(super) fn new(node: core::Node) -> Self {
        let is_envoy = node.user_agent_name == "envoy";
        let is_grpc = node.user_agent_name.starts_with(GRPC);
        let mut release = None;
        let mut agent = node.user_agent_name;
        match node.user_agent_version_type {
            Some(UserAgentVersionType::UserAgentBuildVersion(build)) if is_envoy => {
                release = build
                    .version
                    .map(|version| format!("{}.{}.{}", version.major_number, version.minor_number, version.patch));
            }
            Some(UserAgentVersionType::UserAgentVersion(version)) if (1..100).contains(&version.len()) => {
                agent = format!("{agent} {version}");
            }
            _ => {}
        }
        let metadata = node.metadata.into_iter().flat_map(|metadata| metadata.fields);
        let extensions = &node.extensions;
        Self {
            is_grpc,
            id: node.id,
            cluster: node.cluster,
            agent,
            metadata: metadata
                .filter_map(|(name, value)| match value.kind {
                    Some(Kind::StringValue(text)) => Some((name, text)),
                    _ => None,
                })
                .collect(),
            release,
            lacks_wasm: !extensions.is_empty() && extensions.iter().all(|extension| extension.name != WASM),
        }
    }

    /// What kind of data plane it is. A client that is neither an Envoy nor one of gRPC's libraries is treated as the newest
    /// Envoy.
    pub(super) fn kind(&self) -> Result<DataPlaneKind, UnfitEnvoy> {
        if self.is_grpc {
            return Ok(DataPlaneKind::Grpc);
        }
        let Some(release) = &self.release else {
            return Ok(DataPlaneKind::Envoy(EnvoyVersion::NEWEST));
        };
        let version = release.parse()?;
        match self.lacks_wasm {
            true => Err(UnfitEnvoy::WithoutWasm(release.clone())),
            false => Ok(DataPlaneKind::Envoy(version)),
        }
    }

    /// What it is, for people.
    pub(super) fn data_plane(&self) -> String {
        match &self.release {
            Some(release) => format!("Envoy {release}"),
            None => self.agent.clone(),
        }
    }

    /// Which of the `scopes` it is in: the first that matches.
    pub(super) fn scope(&self, scopes: &[ValidScope]) -> Option<usize> {
        let matches = |scope: &ValidScope| {
            let mut metadata = scope.metadata.iter();
            scope.cluster.as_ref().is_none_or(|cluster| *cluster == self.cluster)
                && metadata.all(|(name, text)| self.metadata.get(name) == Some(text))
        };
        scopes.iter().position(matches)
    }
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::r#type::v3::SemanticVersion;
    use envoy_types::pb::google::protobuf::{Struct, Value};

    use super::*;

    fn build(major_number: u32, minor_number: u32, patch: u32) -> UserAgentVersionType {
        let version = Some(SemanticVersion {
            major_number,
            minor_number,
            patch,
        });
        UserAgentVersionType::UserAgentBuildVersion(core::BuildVersion {
            version,
            ..Default::default()
        })
    }

    fn envoy(version: EnvoyVersion) -> Result<DataPlaneKind, UnfitEnvoy> {
        Ok(DataPlaneKind::Envoy(version))
    }

    #[test]
    fn the_kind_is_grpc_or_the_version_of_an_envoy_and_otherwise_the_newest() {
        let text = |version: &str| UserAgentVersionType::UserAgentVersion(version.to_owned());
        for (name, version, release, kind) in [
            ("envoy", build(1, 39, 3), Some("1.39.3"), envoy(EnvoyVersion::V1_39)),
            ("envoy", build(1, 41, 0), Some("1.41.0"), envoy(EnvoyVersion::NEWEST)),
            (
                "envoy",
                build(1, 36, 2),
                Some("1.36.2"),
                Err(InvalidEnvoyVersion::TooOld { major: 1, minor: 36 }.into()),
            ),
            ("other", build(1, 36, 2), None, envoy(EnvoyVersion::NEWEST)),
            (
                "gRPC C-core linux",
                text("C-core 54.0.0"),
                None,
                Ok(DataPlaneKind::Grpc),
            ),
            ("gRPC Node Pure JS", text("1.14.1"), None, Ok(DataPlaneKind::Grpc)),
            ("gRPC Go", text("1.85.0"), None, Ok(DataPlaneKind::Grpc)),
            ("grpcurl", text("1.9.3"), None, envoy(EnvoyVersion::NEWEST)),
        ] {
            let node = Node::new(core::Node {
                id: "id".to_owned(),
                user_agent_name: name.to_owned(),
                user_agent_version_type: Some(version),
                ..Default::default()
            });
            assert_eq!((node.release.as_deref(), node.kind()), (release, kind), "{name}");
            assert_eq!(node.id, "id");
        }
        assert_eq!(Node::new(core::Node::default()).kind(), envoy(EnvoyVersion::NEWEST));
    }

    #[test]
    fn an_envoy_that_cant_run_the_filter_is_unfit() {
        for (extensions, expected) in [
            (&[][..], envoy(EnvoyVersion::V1_38)),
            (&["envoy.wasm.runtime.null", WASM], envoy(EnvoyVersion::V1_38)),
            (
                &["envoy.wasm.runtime.null"],
                Err(UnfitEnvoy::WithoutWasm("1.38.3".to_owned())),
            ),
        ] {
            let node = Node::new(core::Node {
                user_agent_name: "envoy".to_owned(),
                user_agent_version_type: Some(build(1, 38, 3)),
                extensions: extensions
                    .iter()
                    .map(|name| core::Extension {
                        name: (*name).to_owned(),
                        ..Default::default()
                    })
                    .collect(),
                ..Default::default()
            });
            assert_eq!(node.kind(), expected, "{extensions:?}");
        }
    }

    #[test]
    fn a_scope_is_the_first_that_matches_cluster_and_metadata() {
        let scope = |cluster: Option<&str>, metadata: &[(&str, &str)]| ValidScope {
            name: String::new(),
            cluster: cluster.map(str::to_owned),
            metadata: metadata
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
            hosts: Vec::new(),
        };
        let scopes = [
            scope(Some("edge"), &[("team", "a"), ("zone", "1")]),
            scope(Some("edge"), &[]),
            scope(None, &[("team", "a")]),
        ];
        let text = |text: &str| Kind::StringValue(text.to_owned());
        for (cluster, metadata, expected) in [
            ("edge", vec![("team", text("a")), ("zone", text("1"))], Some(0)),
            (
                "edge",
                vec![("team", text("a")), ("zone", Kind::NumberValue(1.0))],
                Some(1),
            ),
            ("other", vec![("team", text("a"))], Some(2)),
            ("other", vec![("zone", text("a"))], None),
            ("", vec![], None),
        ] {
            let fields = metadata
                .into_iter()
                .map(|(name, kind)| (name.to_owned(), Value { kind: Some(kind) }));
            let node = Node::new(core::Node {
                cluster: cluster.to_owned(),
                metadata: Some(Struct {
                    fields: fields.collect(),
                }),
                ..Default::default()
            });
            assert_eq!(node.scope(&scopes), expected, "{cluster}");
        }
    }
}
