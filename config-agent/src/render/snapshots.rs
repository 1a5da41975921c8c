//! A configuration for Envoys of every version.

use std::sync::{Arc, OnceLock};

use sidetrack_routing::ValidConfig;

use super::envoy::EnvoyVersion;
use super::filter::FilterCode;
use super::snapshot::Snapshot;

/// A configuration, and the snapshots of it: one for all Envoys of a version, rendered when the first of them asks.
#[derive(Debug)]
pub struct Snapshots {
    config: ValidConfig,
    code: FilterCode,
    snapshots: [OnceLock<Arc<Snapshot>>; EnvoyVersion::ALL.len()],
    version: String,
}

impl Snapshots {
    /// Those of `config`, for Envoys that find the filter's code at `code`.
    pub fn new(config: ValidConfig, code: FilterCode) -> Self {
        let newest = Snapshot::render(&config, &code, EnvoyVersion::NEWEST);
        let version = newest.version();
        let snapshots = Self {
            config,
            code,
            snapshots: Default::default(),
            version,
        };
        let _ = snapshots.snapshots[EnvoyVersion::NEWEST as usize].set(Arc::new(newest));
        snapshots
    }

    /// The one for Envoys of this version.
    pub fn of(&self, envoy: EnvoyVersion) -> Arc<Snapshot> {
        let snapshot = &self.snapshots[envoy as usize];
        Arc::clone(snapshot.get_or_init(|| Arc::new(Snapshot::render(&self.config, &self.code, envoy))))
    }

    /// The configuration.
    pub fn config(&self) -> &ValidConfig {
        &self.config
    }

    /// The hash of the content, as 16 hexadecimal digits: equal configurations have equal versions everywhere, and one
    /// configuration has the same for Envoys of every version. It is that of the newest.
    pub fn version(&self) -> &str {
        &self.version
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use sidetrack_routing::{decode, validate};

    use super::*;
    use crate::render::ResourceType;

    fn snapshots(target: &str) -> Snapshots {
        let config = json!({"routing": {"defaultTarget": "d", "rules": [{"routeKey": "k", "targetService": target}]}});
        let config = decode(&config, validate).unwrap();
        Snapshots::new(config, FilterCode::file("/filter.wasm".into()))
    }

    #[test]
    fn equal_configurations_have_equal_versions() {
        assert_eq!(snapshots("a").version(), snapshots("a").version());
        assert_ne!(snapshots("a").version(), snapshots("b").version());
    }

    #[test]
    fn envoys_of_one_version_share_a_snapshot() {
        let snapshots = snapshots("a");
        for envoy in EnvoyVersion::ALL {
            assert!(Arc::ptr_eq(&snapshots.of(envoy), &snapshots.of(envoy)), "{envoy}");
        }
    }

    /// Where a version differs from the one before it; `tests/tests/versions.rs` shows that it must, and that no more does.
    #[test]
    fn versions_differ_in_few_resources() {
        let snapshots = snapshots("a");
        let differ = |older, newer| {
            let (older, newer) = (snapshots.of(older), snapshots.of(newer));
            let mut kinds = ResourceType::ALL.to_vec();
            kinds.retain(|kind| older.resources(*kind) != newer.resources(*kind));
            kinds
        };
        for (older, newer, expected) in [
            (EnvoyVersion::V1_37, EnvoyVersion::V1_38, &[][..]),
            // The prefix of statistics.
            (EnvoyVersion::V1_38, EnvoyVersion::V1_39, &[ResourceType::Listener]),
            // The capabilities of the filter.
            (
                EnvoyVersion::V1_39,
                EnvoyVersion::V1_40,
                &[ResourceType::Listener, ResourceType::FilterConfig],
            ),
        ] {
            assert_eq!(differ(older, newer), expected, "{older} and {newer}");
        }
    }
}
