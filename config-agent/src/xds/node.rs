//! Who asks.

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::core::v3::node::UserAgentVersionType;

use crate::render::{EnvoyVersion, InvalidEnvoyVersion};

/// What a client of the discovery service says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Node {
    /// Its id.
    pub(super) id: String,
    /// Which release of Envoy it is, such as `1.40.0`, if it is an Envoy.
    pub(super) release: Option<String>,
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
        Self { id: node.id, release }
    }

    /// For which version it gets its configuration. A client that isn't an Envoy, as gRPC's libraries, is treated as the
    /// newest.
    pub(super) fn envoy(&self) -> Result<EnvoyVersion, InvalidEnvoyVersion> {
        self.release.as_deref().map_or(Ok(EnvoyVersion::NEWEST), str::parse)
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
                Err(InvalidEnvoyVersion::TooOld { major: 1, minor: 36 }),
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
}
