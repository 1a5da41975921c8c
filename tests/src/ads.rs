//! A client of the discovery service that isn't Envoy: it subscribes as one does, looks at every push, and can be as slow,
//! deaf or contrary as a test needs it. It knows the protocol, and nothing of the agent's code.

mod held;
mod stream;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use sidetrack_routing::RouteTable;
use tokio::task::JoinHandle;

use crate::{PATIENCE, poll_until};
pub use held::{Held, table_in};

/// A type of resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AdsType {
    /// CDS.
    Clusters,
    /// EDS.
    Endpoints,
    /// LDS.
    Listeners,
    /// RDS.
    Routes,
    /// ECDS: the filter with its table.
    Filter,
}

/// Which form of the protocol is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// State of the world.
    Sotw,
    /// Incremental.
    Delta,
}

/// How pushes are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acks {
    /// Accepted at once.
    AtOnce,
    /// Accepted after this time.
    After(Duration),
    /// Not at all.
    Never,
    /// Refused.
    Refuse,
}

/// Looks at a table that was pushed, and at what the client has at that moment.
pub type TableCheck = Arc<dyn Fn(&RouteTable, &Held) -> Result<(), String> + Send + Sync>;

/// What a client is and does.
#[derive(Clone)]
pub struct AdsOptions {
    /// The node's id.
    pub node: String,
    /// The node's cluster.
    pub cluster: String,
    /// What it speaks.
    pub variant: Variant,
    /// How it answers.
    pub acks: Acks,
    /// What it asks for, in this order; no names are all of the type. The endpoints of clusters it asks for by itself.
    pub subscriptions: Vec<(AdsType, Vec<String>)>,
    /// Whether it connects again when it is disconnected, and says what it has.
    pub reconnects: bool,
    /// What every table must fulfil.
    pub check: Option<TableCheck>,
}

/// A push that arrived.
#[derive(Clone, Debug)]
pub struct AdsPush {
    /// Of which type.
    pub kind: AdsType,
    /// The version it says: of all resources of the type, or of the system.
    pub version: String,
    /// When it was complete.
    pub at: Instant,
    /// How many resources it has.
    pub resources: usize,
    /// Which it removes; by name, for a client of deltas only.
    pub removed: Vec<String>,
    /// Its size.
    pub bytes: usize,
}

/// All that a client has seen.
#[derive(Default)]
pub struct Seen {
    /// What it has now.
    pub held: Held,
    /// Every push, in order.
    pub pushes: Vec<AdsPush>,
    /// What was wrong: a table that isn't whole, a push before the one of its type is answered.
    pub problems: Vec<String>,
    /// How often it was connected.
    pub connections: usize,
    /// When it was disconnected, each time, and why.
    pub disconnected: Vec<(Instant, String)>,
}

/// A running client; dropping it breaks its connection.
pub struct AdsClient {
    seen: Arc<Mutex<Seen>>,
    running: JoinHandle<()>,
}

impl AdsType {
    const ALL: [Self; 5] = [
        Self::Clusters,
        Self::Endpoints,
        Self::Listeners,
        Self::Routes,
        Self::Filter,
    ];

    /// The type URL of the resources.
    pub fn url(self) -> String {
        let name = match self {
            Self::Clusters => "envoy.config.cluster.v3.Cluster",
            Self::Endpoints => "envoy.config.endpoint.v3.ClusterLoadAssignment",
            Self::Listeners => "envoy.config.listener.v3.Listener",
            Self::Routes => "envoy.config.route.v3.RouteConfiguration",
            Self::Filter => "envoy.config.core.v3.TypedExtensionConfig",
        };
        format!("type.googleapis.com/{name}")
    }

    fn of(url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.url() == url)
    }
}

impl AdsOptions {
    /// One that asks for what an Envoy with listeners of its own does, accepts everything at once, and connects once.
    pub fn new(node: &str, variant: Variant) -> Self {
        Self {
            node: node.to_owned(),
            cluster: String::new(),
            variant,
            acks: Acks::AtOnce,
            subscriptions: vec![
                (AdsType::Clusters, Vec::new()),
                (AdsType::Filter, vec!["sidetrack".to_owned()]),
            ],
            reconnects: false,
            check: None,
        }
    }

    /// One that asks for everything, as the Envoy of `sidetrack up` does.
    pub fn of_everything(node: &str, variant: Variant) -> Self {
        let mut options = Self::new(node, variant);
        options.subscriptions.extend([
            (AdsType::Listeners, Vec::new()),
            (AdsType::Routes, vec!["http".to_owned(), "grpc".to_owned()]),
        ]);
        options
    }
}

impl AdsClient {
    /// Starts a client of the discovery service on this port of loopback.
    pub fn start(port: u16, options: AdsOptions) -> Self {
        Self::start_with(port, options, Held::default())
    }

    /// The same, but it has all this from an earlier connection.
    pub fn start_with(port: u16, options: AdsOptions, held: Held) -> Self {
        let seen = Seen {
            held,
            ..Seen::default()
        };
        let seen = Arc::new(Mutex::new(seen));
        let running = tokio::spawn(stream::run(port, options, Arc::clone(&seen)));
        Self { seen, running }
    }

    /// What it has seen.
    ///
    /// # Panics
    /// If the client has panicked.
    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }

    /// Waits until `question` of what it has seen has an answer.
    ///
    /// # Panics
    /// If that takes longer than [`PATIENCE`].
    pub async fn until<T>(&self, what: &str, mut question: impl FnMut(&Seen) -> Option<T>) -> T {
        poll_until(PATIENCE, what, async || {
            let seen = self.seen();
            question(&seen).ok_or_else(|| format!("{seen:?}"))
        })
        .await
    }

    /// Waits until it has a table.
    ///
    /// # Panics
    /// If that takes longer than [`PATIENCE`].
    pub async fn has_table(&self) {
        self.until("a table", |seen| (seen.pushes(AdsType::Filter) > 0).then_some(()))
            .await;
    }
}

impl Drop for AdsClient {
    fn drop(&mut self) {
        self.running.abort();
    }
}

impl Seen {
    /// How many pushes of this type have come.
    pub fn pushes(&self, kind: AdsType) -> usize {
        self.pushes.iter().filter(|push| push.kind == kind).count()
    }

    /// When the last push of this type came.
    pub fn last(&self, kind: AdsType) -> Option<Instant> {
        let last = self.pushes.iter().rev().find(|push| push.kind == kind);
        last.map(|push| push.at)
    }

    /// The pushes, counted by type.
    pub fn counts(&self) -> BTreeMap<AdsType, usize> {
        let mut counts = BTreeMap::new();
        for push in &self.pushes {
            *counts.entry(push.kind).or_default() += 1;
        }
        counts
    }
}

impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seen")
            .field("pushes", &self.counts())
            .field("problems", &self.problems)
            .field("connections", &self.connections)
            .field("disconnected", &self.disconnected)
            .finish_non_exhaustive()
    }
}
