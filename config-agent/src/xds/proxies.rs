//! Who is connected, and how each one stands to the configuration in force.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use schemars::JsonSchema;
use serde::{Serialize, Serializer};
use tokio::sync::watch;

use super::stream::Missing;
use crate::render::LeftOut;

/// Names that were given once only, as those of pods are, aren't kept for ever.
const MAX_REFUSED: usize = 100;

/// With 100,000 rules the list of proxies shall stay readable.
const MAX_LEFT_OUT: usize = 100;

/// A connected proxy.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Proxy {
    /// Its node id.
    pub node: String,
    /// Its node's cluster.
    pub cluster: String,
    /// What it is, such as `Envoy 1.40.0`.
    pub data_plane: String,
    /// Which release of Envoy it is, if it is one and says so.
    pub release: Option<String>,
    /// `delta` or `sotw`.
    pub protocol: &'static str,
    /// Which of `agent.scopes` it is in, if it is in one.
    pub scope: Option<String>,
    /// Since when, RFC 3339.
    #[serde(serialize_with = "rfc3339")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub connected_at: SystemTime,
    /// The version of the configuration that it is sent.
    pub sent: Option<String>,
    /// The version of the last configuration that it has accepted as a whole.
    pub accepted: Option<String>,
    /// Whether that is the one in force.
    pub in_force: bool,
    /// Why it isn't, in words: what the proxy refuses, or hasn't asked for or answered yet, by type and name.
    pub waiting_for: Option<String>,
    /// How many pushes it was sent.
    pub pushes: u64,
    /// How many of them it has accepted.
    pub acks: u64,
    /// How many of them it has refused.
    pub nacks: u64,
    /// How many milliseconds after its push the last acceptance came.
    pub ack_millis: Option<f64>,
    /// Why it refuses what it was sent last, if it does.
    pub nack: Option<Nack>,
    /// The rules, or parts of them, that it isn't sent because it couldn't follow them; at most the first 100. An Envoy can
    /// follow all.
    #[serde(serialize_with = "first", skip_serializing_if = "no_rules")]
    #[schemars(with = "Option<Vec<LeftOut>>")]
    pub left_out: Arc<[LeftOut]>,
    /// The revision of what it has accepted as a whole; 0 if nothing yet.
    #[serde(skip)]
    pub revision: u64,
    /// What it must do next before it has all of the newest configuration.
    #[serde(skip)]
    pub(super) missing: Option<Missing>,
}

/// A refused push.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Nack {
    /// The version of the configuration it was a part of.
    pub version: String,
    /// The type of the resources: CDS, EDS, LDS, SDS, RDS, ECDS.
    pub resources: String,
    /// What the proxy says.
    pub message: String,
    /// The revision of the configuration it was a part of.
    #[serde(skip)]
    pub revision: u64,
}

/// All connected proxies. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    connected: Arc<Mutex<Connected>>,
    refused: Arc<Mutex<BTreeMap<String, String>>>,
    changes: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Connected {
    proxies: BTreeMap<u64, Proxy>,
    /// How many have ever connected.
    count: u64,
}

/// A connected proxy's entry, gone with it.
#[derive(Debug)]
pub(super) struct Entry {
    proxies: Proxies,
    id: u64,
}

impl Proxies {
    /// The connected proxies, the longest connected first. In force is what has this `revision`.
    pub fn list(&self, revision: u64) -> Vec<Proxy> {
        let connected = self.lock();
        let with_standing = |proxy: &Proxy| {
            let waiting_for = proxy.waits_for(revision);
            Proxy {
                in_force: waiting_for.is_none(),
                waiting_for,
                ..proxy.clone()
            }
        };
        connected.proxies.values().map(with_standing).collect()
    }

    /// The nodes of those that don't have the configuration of this `revision` or a later one, each with the reason.
    pub fn waiting_for(&self, revision: u64) -> Vec<(String, String)> {
        let connected = self.lock();
        let waiting = |proxy: &Proxy| Some((proxy.node.clone(), proxy.waits_for(revision)?));
        connected.proxies.values().filter_map(waiting).collect()
    }

    /// Whether a connected proxy refuses a part of the configuration of this `revision` or a later one, so that waiting for
    /// it is in vain.
    pub fn is_refused(&self, revision: u64) -> bool {
        let connected = self.lock();
        connected.proxies.values().any(|proxy| proxy.refuses(revision))
    }

    /// Tells of every change from now on: of who is connected, and of what they have or refuse.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// The node ids of proxies that were turned away and haven't come back fit, each with the reason.
    pub fn refused(&self) -> BTreeMap<String, String> {
        self.lock_refused().clone()
    }

    /// Notes that a proxy is turned away; whether that is new. It will come again and again.
    pub(super) fn refuse(&self, node: &str, reason: &str) -> bool {
        let mut refused = self.lock_refused();
        if refused.get(node).is_some_and(|before| before == reason) {
            return false;
        }
        if refused.len() >= MAX_REFUSED {
            refused.clear();
        }
        refused.insert(node.to_owned(), reason.to_owned());
        true
    }

    pub(super) fn enter(&self, proxy: Proxy) -> Entry {
        self.lock_refused().remove(&proxy.node);
        let mut connected = self.lock();
        let id = connected.count;
        connected.count += 1;
        connected.proxies.insert(id, proxy);
        drop(connected);
        self.note_change();
        Entry {
            proxies: self.clone(),
            id,
        }
    }

    fn note_change(&self) {
        self.changes.send_modify(|changes| *changes += 1);
    }

    fn lock_refused(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, Connected> {
        self.connected.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Proxy {
    /// One that connects now and was sent nothing yet.
    pub(super) fn new(node: String, cluster: String, data_plane: String, protocol: &'static str) -> Self {
        Self {
            node,
            cluster,
            data_plane,
            release: None,
            protocol,
            scope: None,
            connected_at: SystemTime::now(),
            sent: None,
            accepted: None,
            in_force: false,
            waiting_for: None,
            pushes: 0,
            acks: 0,
            nacks: 0,
            ack_millis: None,
            nack: None,
            left_out: Arc::default(),
            revision: 0,
            missing: None,
        }
    }

    /// Why it doesn't serve the configuration of this `revision` or a later one, if it doesn't. A proxy may refuse a part
    /// after it has accepted all it had asked for until then.
    fn waits_for(&self, revision: u64) -> Option<String> {
        if self.revision >= revision && !self.refuses(revision) {
            return None;
        }
        Some(match (&self.nack, &self.missing) {
            (Some(nack), _) => format!("refuses {}: {}", nack.resources, nack.message),
            (None, Some(missing)) => missing.to_string(),
            // It is about to be sent.
            (None, None) => "hasn't accepted it yet".to_owned(),
        })
    }

    fn refuses(&self, revision: u64) -> bool {
        self.nack.as_ref().is_some_and(|nack| nack.revision >= revision)
    }

    /// It has accepted a push, so long after it was sent.
    pub(super) fn accept(&mut self, after: Duration) {
        self.acks += 1;
        // To a microsecond, which is what a clock is good for.
        self.ack_millis = Some((after.as_secs_f64() * 1e6).round() / 1e3);
    }
}

impl Entry {
    /// Changes it. Those who wait hear of it if that is what they wait for.
    pub(super) fn update(&self, change: impl FnOnce(&mut Proxy)) {
        let mut connected = self.proxies.lock();
        let Some(proxy) = connected.proxies.get_mut(&self.id) else {
            return;
        };
        let standing = |proxy: &Proxy| (proxy.revision, proxy.nack.as_ref().map(|nack| nack.revision));
        let before = standing(proxy);
        change(proxy);
        let is_news = standing(proxy) != before;
        drop(connected);
        if is_news {
            self.proxies.note_change();
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.proxies.lock().proxies.remove(&self.id);
        self.proxies.note_change();
    }
}

fn first<S: Serializer>(left_out: &Arc<[LeftOut]>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(left_out.iter().take(MAX_LEFT_OUT))
}

fn no_rules(left_out: &Arc<[LeftOut]>) -> bool {
    left_out.is_empty()
}

fn rfc3339<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_rfc3339_millis(*time))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::render::ResourceType;

    fn enter(proxies: &Proxies, node: &str) -> Entry {
        proxies.enter(Proxy::new(
            node.to_owned(),
            "c".to_owned(),
            "Envoy 1.40.0".to_owned(),
            "delta",
        ))
    }

    #[test]
    fn a_refusal_is_new_once_and_ends_when_the_envoy_is_fit() {
        let proxies = Proxies::default();
        for (reason, is_new) in [("old", true), ("old", false), ("without Wasm", true)] {
            assert_eq!(proxies.refuse("a", reason), is_new, "{reason}");
        }
        assert_eq!(proxies.refused(), [("a".to_owned(), "without Wasm".to_owned())].into());
        let _entry = enter(&proxies, "a");
        assert_eq!(proxies.refused(), BTreeMap::new());
    }

    #[test]
    fn refusals_are_bounded() {
        let proxies = Proxies::default();
        for node in 0..10 * MAX_REFUSED {
            proxies.refuse(&node.to_string(), "old");
        }
        assert!(proxies.refused().len() <= MAX_REFUSED);
    }

    #[test]
    fn a_revision_is_waited_for_until_all_who_are_connected_have_it_or_a_later_one() {
        let proxies = Proxies::default();
        let (a, b) = (enter(&proxies, "a"), enter(&proxies, "b"));
        a.update(|proxy| proxy.revision = 8);
        let nack = Nack {
            version: "v".to_owned(),
            resources: "ECDS".to_owned(),
            message: "no".to_owned(),
            revision: 6,
        };
        b.update(|proxy| proxy.nack = Some(nack));
        assert_eq!(
            proxies.waiting_for(7),
            [("b".to_owned(), "refuses ECDS: no".to_owned())]
        );
        assert!(!proxies.is_refused(7), "it refuses an older one, this one may be good");
        assert!(proxies.is_refused(6));
        let list = proxies.list(7);
        assert_eq!(
            list.iter().map(|proxy| proxy.in_force).collect::<Vec<_>>(),
            [true, false]
        );

        let mut changed = proxies.changed();
        drop(b);
        assert!(changed.has_changed().unwrap());
        changed.mark_unchanged();
        assert_eq!(proxies.waiting_for(7), []);
        assert_eq!(
            proxies.waiting_for(9),
            [("a".to_owned(), "hasn't accepted it yet".to_owned())]
        );
        a.update(|proxy| proxy.missing = Some(Missing::Answer(ResourceType::Endpoints)));
        let reason = "hasn't answered the push of EDS yet";
        assert_eq!(proxies.waiting_for(9), [("a".to_owned(), reason.to_owned())]);
        assert_eq!(proxies.list(9)[0].waiting_for.as_deref(), Some(reason));
        assert_eq!(proxies.list(8)[0].waiting_for, None, "it has that");
        drop(a);
        assert!(changed.has_changed().unwrap());
        assert_eq!(proxies.waiting_for(9), []);
    }

    #[test]
    fn a_proxy_reads_as_documented() {
        let mut proxy = Proxy::new("n".to_owned(), "c".to_owned(), "Envoy 1.40.0".to_owned(), "delta");
        proxy.connected_at = SystemTime::UNIX_EPOCH;
        proxy.accept(Duration::from_nanos(1_234_567));
        assert_eq!(
            serde_json::to_value(&proxy).unwrap(),
            json!({
                "node": "n", "cluster": "c", "dataPlane": "Envoy 1.40.0", "release": null, "protocol": "delta", "scope": null,
                "connectedAt": "1970-01-01T00:00:00.000Z", "sent": null, "accepted": null, "inForce": false,
                "waitingFor": null, "pushes": 0, "acks": 1, "nacks": 0, "ackMillis": 1.235, "nack": null,
            })
        );
    }
}
