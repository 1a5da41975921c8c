//! A configuration for every kind of data plane.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use sidetrack_routing::ValidConfig;
use tokio::sync::watch;
use tracing::info;

use super::envoy::EnvoyVersion;
use super::filter::FilterCode;
use super::snapshot::Snapshot;
use super::view::View;

/// A snapshot that no proxy asked for in so many revisions isn't kept up to date any more.
const KEPT: u64 = 256;

/// What proxies differ in, as far as it matters for what they get.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DataPlane {
    /// What kind it is.
    pub kind: DataPlaneKind,
    /// Which of the `agent.scopes` it is in, if it is in one.
    pub scope: Option<usize>,
}

/// What reads the resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DataPlaneKind {
    /// An Envoy of this version.
    Envoy(EnvoyVersion),
    /// A gRPC client that routes by itself.
    Grpc,
}

/// A configuration, and the snapshots of it: one for all proxies of a kind and scope, rendered when the first of them asks.
pub struct Snapshots {
    revision: u64,
    version: String,
    config: Arc<ValidConfig>,
    code: FilterCode,
    rendered: Mutex<Rendered>,
    /// When, in milliseconds since 1970, the first rule expires that is in a snapshot for those who can't tell the time.
    expiry: watch::Sender<Option<u64>>,
}

#[derive(Default)]
struct Rendered {
    views: BTreeMap<Option<usize>, Arc<View>>,
    /// Each with the revision at which it was asked for last.
    snapshots: BTreeMap<DataPlane, (Arc<Snapshot>, u64)>,
}

impl DataPlane {
    /// The newest Envoy, with all rules.
    pub const NEWEST: Self = Self {
        kind: DataPlaneKind::Envoy(EnvoyVersion::NEWEST),
        scope: None,
    };
}

impl Snapshots {
    /// The first: those of `config`, for Envoys that find the filter's code at `code`.
    pub fn new(config: ValidConfig, code: FilterCode) -> Self {
        Self::with(1, Arc::new(config), code, Rendered::default())
    }

    /// Those of `config`, which follow these. What didn't change is shared with these.
    #[must_use]
    pub fn next(&self, config: ValidConfig) -> Self {
        let config = Arc::new(config);
        let mut next = Rendered::default();
        let revision = self.revision + 1;
        // Whoever asks for these meanwhile needn't wait.
        let old = self
            .rendered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .snapshots
            .clone();
        // Scopes are told by their places.
        if self.config.agent.scopes == config.agent.scopes {
            for (plane, (snapshot, asked)) in &old {
                if revision - asked <= KEPT || *plane == DataPlane::NEWEST {
                    let view = next.views.entry(plane.scope);
                    let view = view.or_insert_with(|| Arc::new(snapshot.view().next(&config, plane.scope)));
                    let view = Arc::clone(view);
                    let snapshot = plane.next(snapshot, &view, &self.code);
                    next.snapshots.insert(*plane, (Arc::new(snapshot), *asked));
                }
            }
        }
        Self::with(revision, config, self.code.clone(), next)
    }

    fn with(revision: u64, config: Arc<ValidConfig>, code: FilterCode, rendered: Rendered) -> Self {
        let mut snapshots = Self {
            revision,
            version: String::new(),
            config,
            code,
            expiry: watch::Sender::new(rendered.expiry()),
            rendered: Mutex::new(rendered),
        };
        snapshots.version = snapshots.of(DataPlane::NEWEST).version();
        snapshots
    }

    /// The one for proxies like this.
    pub fn of(&self, plane: DataPlane) -> Arc<Snapshot> {
        let mut rendered = self.rendered.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((snapshot, asked)) = rendered.snapshots.get_mut(&plane) {
            *asked = self.revision;
            return Arc::clone(snapshot);
        }
        let view = rendered.view(&self.config, plane.scope);
        let snapshot = Arc::new(plane.render(&view, &self.code));
        rendered.snapshots.insert(plane, (Arc::clone(&snapshot), self.revision));
        let expiry = rendered.expiry();
        self.expiry
            .send_if_modified(|known| std::mem::replace(known, expiry) != expiry);
        snapshot
    }

    /// When, in milliseconds since 1970, what [`next`](Self::next) makes of the same configuration differs from these: the
    /// first expiry of a rule that data planes have which can't tell the time. It changes when the first of them asks.
    pub fn expiry(&self) -> watch::Receiver<Option<u64>> {
        self.expiry.subscribe()
    }

    /// Says of no expiry any more.
    pub fn forget_expiry(&self) {
        self.expiry.send_replace(None);
    }

    /// How many there were before these in this process, and these: whoever has these has what was asked for before them.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The hash of the content, as 16 hexadecimal digits: equal configurations have equal versions everywhere, and one
    /// configuration has the same for proxies of every kind. It is that of the newest Envoy with all rules.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The configuration.
    pub fn config(&self) -> &Arc<ValidConfig> {
        &self.config
    }
}

impl Rendered {
    fn view(&mut self, config: &Arc<ValidConfig>, scope: Option<usize>) -> Arc<View> {
        let view = self.views.entry(scope);
        Arc::clone(view.or_insert_with(|| Arc::new(View::new(config, scope))))
    }

    fn expiry(&self) -> Option<u64> {
        self.snapshots
            .values()
            .filter_map(|(snapshot, _)| snapshot.expiry())
            .min()
    }
}

impl DataPlane {
    fn render(self, view: &Arc<View>, code: &FilterCode) -> Snapshot {
        match self.kind {
            DataPlaneKind::Envoy(version) => Snapshot::render(view, code, version),
            DataPlaneKind::Grpc => log_left_out(Snapshot::render_for_grpc(view, now(), None), None),
        }
    }

    fn next(self, old: &Snapshot, view: &Arc<View>, code: &FilterCode) -> Snapshot {
        match self.kind {
            DataPlaneKind::Envoy(version) => old.next(view, code, version),
            DataPlaneKind::Grpc => log_left_out(Snapshot::render_for_grpc(view, now(), Some(old)), Some(old)),
        }
    }
}

/// Says what gRPC clients don't get, if that is something else than in `old`.
fn log_left_out(snapshot: Snapshot, old: Option<&Snapshot>) -> Snapshot {
    let left_out = snapshot.left_out();
    let before = old.map_or(&[][..], |old| old.left_out());
    if **left_out != *before {
        match left_out.first() {
            Some(first) => info!(
                parts = left_out.len(),
                first = %first,
                "gRPC clients don't get the whole configuration, see leftOut in /api/v1/proxies"
            ),
            None => info!("gRPC clients get the whole configuration again"),
        }
    }
    snapshot
}

/// In milliseconds since 1970.
pub(crate) fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

impl fmt::Debug for Snapshots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "revision {} version {}", self.revision, self.version)
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

    fn plane(version: EnvoyVersion) -> DataPlane {
        DataPlane {
            kind: DataPlaneKind::Envoy(version),
            scope: None,
        }
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
            assert!(
                Arc::ptr_eq(&snapshots.of(plane(envoy)), &snapshots.of(plane(envoy))),
                "{envoy}"
            );
        }
    }

    #[test]
    fn an_expiry_counts_where_somebody_cannot_tell_the_time() {
        let config = |rules| decode(&json!({"routing": {"defaultTarget": "d", "rules": rules}}), validate).unwrap();
        let rule = |target: &str, expiry: &str| json!({"routeKey": "k", "targetService": target, "expiresAt": expiry});
        let (soon, later) = (rule("a", "2100-01-01T00:00:00Z"), rule("b", "2100-01-01T00:00:01Z"));
        let past = rule("c", "2001-01-01T00:00:00Z");
        let moment = Some(4_102_444_800_000);
        let snapshots = Snapshots::new(
            config(json!([past, later, soon])),
            FilterCode::file("/filter.wasm".into()),
        );
        let mut expiry = snapshots.expiry();
        snapshots.of(plane(EnvoyVersion::NEWEST));
        assert!(!expiry.has_changed().unwrap());
        assert_eq!(*expiry.borrow_and_update(), None);
        snapshots.of(DataPlane {
            kind: DataPlaneKind::Grpc,
            scope: None,
        });
        assert!(expiry.has_changed().unwrap());
        assert_eq!(*expiry.borrow(), moment);
        let next = snapshots.next(config(json!([past, later])));
        assert_eq!(*next.expiry().borrow(), moment.map(|moment| moment + 1000));
        assert_eq!(*next.next(config(json!([past]))).expiry().borrow(), None);
    }

    /// Where a version differs from the one before it; `tests/tests/versions.rs` shows that it must, and that no more does.
    #[test]
    fn versions_differ_in_few_resources() {
        let snapshots = snapshots("a");
        let differ = |older, newer| {
            let (older, newer) = (snapshots.of(plane(older)), snapshots.of(plane(newer)));
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
