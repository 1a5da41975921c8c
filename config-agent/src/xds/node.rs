//! Who asks.

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::core::v3::node::UserAgentVersionType;

use thiserror::Error;

use crate::render::{EnvoyVersion, InvalidEnvoyVersion};

/// What runs the filter. Some builds of Envoy are published without it.
const WASM: &str = "envoy.wasm.runtime.v8";

/// What a client of the discovery service says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Node {
    /// Its id.
    pub(super) id: String,
    /// Which release of Envoy it is, such as `1.40.0`, if it is an Envoy.
    pub(super) release: Option<String>,
    /// Whether it says what is built into it, and [`WASM`] isn't.
    lacks_wasm: bool,
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
    pub(super) fn new(node: Option<core::Node>) -> Self {
        let node = node.unwrap_or_default();
        let build = match node.user_agent_version_type {
            Some(UserAgentVersionType::UserAgentBuildVersion(build)) if node.user_agent_name == "envoy" => build,
            _ => core::BuildVersion::default(),
        };
        let release = build
            .version
            .map(|version| format!("{}.{}.{}", version.major_number, version.minor_number, version.patch));
        let extensions = &node.extensions;
        Self {
            id: node.id,
            release,
            lacks_wasm: !extensions.is_empty() && extensions.iter().all(|extension| extension.name != WASM),
        }
    }

    /// For which version it gets its configuration. A client that isn't an Envoy, as gRPC's libraries, is treated as the
    /// newest.
    pub(super) fn envoy(&self) -> Result<EnvoyVersion, UnfitEnvoy> {
        let Some(release) = &self.release else {
            return Ok(EnvoyVersion::NEWEST);
        };
        let version = release.parse()?;
        match self.lacks_wasm {
            true => Err(UnfitEnvoy::WithoutWasm(release.clone())),
            false => Ok(version),
        }
    }
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::r#type::v3::SemanticVersion;

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

    #[test]
    fn the_version_is_that_of_an_envoy_and_otherwise_the_newest() {
        for (name, version, release, envoy) in [
            ("envoy", build(1, 39, 3), Some("1.39.3"), Ok(EnvoyVersion::V1_39)),
            ("envoy", build(1, 41, 0), Some("1.41.0"), Ok(EnvoyVersion::NEWEST)),
            (
                "envoy",
                build(1, 36, 2),
                Some("1.36.2"),
                Err(InvalidEnvoyVersion::TooOld { major: 1, minor: 36 }.into()),
            ),
            ("other", build(1, 36, 2), None, Ok(EnvoyVersion::NEWEST)),
            (
                "gRPC Go",
                UserAgentVersionType::UserAgentVersion("1.36.2".to_owned()),
                None,
                Ok(EnvoyVersion::NEWEST),
            ),
        ] {
            let node = Node::new(Some(core::Node {
                id: "id".to_owned(),
                user_agent_name: name.to_owned(),
                user_agent_version_type: Some(version),
                ..Default::default()
            }));
            assert_eq!((node.release.as_deref(), node.envoy()), (release, envoy), "{name}");
            assert_eq!(node.id, "id");
        }
        assert_eq!(Node::new(None).envoy(), Ok(EnvoyVersion::NEWEST));
    }

    #[test]
    fn an_envoy_that_cant_run_the_filter_is_unfit() {
        for (extensions, expected) in [
            (&[][..], Ok(EnvoyVersion::V1_38)),
            (&["envoy.wasm.runtime.null", WASM], Ok(EnvoyVersion::V1_38)),
            (
                &["envoy.wasm.runtime.null"],
                Err(UnfitEnvoy::WithoutWasm("1.38.3".to_owned())),
            ),
        ] {
            let node = Node::new(Some(core::Node {
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
            }));
            assert_eq!(node.envoy(), expected, "{extensions:?}");
        }
    }
}
