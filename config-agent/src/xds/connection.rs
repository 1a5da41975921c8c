//! One proxy's stream: a task that reads what the proxy says, puts what is due into its response, and watches the time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::watch;
use tokio::task::{consume_budget, spawn_blocking};
use tokio::time::{Instant, sleep_until, timeout};
use tonic::{Code, Status};
use tracing::{debug, info, warn};

use super::node::Node;
use super::proxies::{Entry, Nack, Proxies, Proxy};
use super::request::Request;
use super::requests::Requests;
use super::response::{Outbox, Push};
use super::state::{Answer, Variant};
use super::stream::{Offer, Standing, Stream};
use crate::metrics::Metrics;
use crate::render::{DataPlane, LeftOut, ResourceType, Snapshots};

/// What all streams share.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    pub(super) snapshots: watch::Receiver<Arc<Snapshots>>,
    pub(super) proxies: Proxies,
    pub(super) metrics: Metrics,
    /// How long a proxy may take for an answer.
    pub(super) patience: Duration,
}

/// A stream that has been opened.
pub(super) struct Connection {
    pub(super) variant: Variant,
    pub(super) peer: SocketAddr,
    pub(super) requests: Requests<Incoming>,
    pub(super) outbox: Outbox,
    pub(super) shared: Shared,
}

/// A stream whose proxy is known.
struct Session {
    node: Node,
    plane: DataPlane,
    stream: Stream,
    entry: Entry,
    /// When the push of each type was sent that isn't answered.
    sent: [Option<Instant>; ResourceType::ALL.len()],
    outbox: Outbox,
    metrics: Metrics,
}

/// Why a stream ends.
#[derive(Debug)]
enum End {
    /// The proxy is gone.
    Gone(&'static str),
    /// It is sent away with this status.
    Closed(Status),
}

impl Connection {
    /// Serves the stream until its end. Whether its connection must be cut, because the proxy doesn't even take that.
    pub(super) async fn run(mut self) -> bool {
        let outbox = self.outbox.clone();
        let patience = self.shared.patience;
        let End::Closed(status) = self.serve().await else {
            return false;
        };
        let is_stuck = status.code() == Code::DeadlineExceeded;
        if outbox.try_send(Err(status)).is_err() {
            return true;
        }
        // It has what is on its way to it, or takes nothing at all.
        timeout(patience, outbox.closed()).await.is_err() && is_stuck
    }

    async fn serve(&mut self) -> End {
        let patience = self.shared.patience;
        let first = match timeout(patience, self.requests.next()).await {
            Ok(Ok(Some(first))) => first,
            Ok(Ok(None)) => return End::Gone("it closed the stream"),
            Ok(Err(status)) if status.code() == Code::Unavailable => return End::Gone("the connection broke"),
            Ok(Err(status)) => return self.turn_away(status),
            Err(_) => return self.turn_away(too_late("no request", patience)),
        };
        let snapshots = self.shared.snapshots.borrow_and_update().clone();
        let mut session = match self.admit(&first, &snapshots) {
            Ok(session) => session,
            Err(end) => return end,
        };
        let end = self.follow(&mut session, first, snapshots).await;
        match &end {
            End::Gone(reason) => {
                let unanswered = session.oldest().map(|(kind, _)| kind.to_string());
                info!(node = session.node.id, reason, unanswered, "proxy disconnected");
            }
            End::Closed(status) => {
                warn!(node = session.node.id, reason = status.message(), peer = %self.peer, "proxy disconnected by the agent");
            }
        }
        end
    }

    /// Looks who it is that sends the `first` request, and lets it in.
    fn admit(&self, first: &Request, snapshots: &Snapshots) -> Result<Session, End> {
        let node = Node::new(first.node().map_err(|status| self.turn_away(status))?);
        let kind = node.kind().map_err(|error| self.refuse(&node.id, error.to_string()))?;
        let (scope, scope_name) = place(&node, snapshots);
        let protocol = match self.variant {
            Variant::StateOfTheWorld => "sotw",
            Variant::Delta => "delta",
        };
        let data_plane = node.data_plane();
        let (id, cluster, peer) = (&node.id, &node.cluster, self.peer);
        info!(node = id, cluster, data_plane, protocol, scope = scope_name, %peer, "proxy connected");
        let entry = self.shared.proxies.enter(Proxy {
            release: node.release.clone(),
            scope: scope_name,
            ..Proxy::new(id.clone(), cluster.clone(), data_plane, protocol)
        });
        Ok(Session {
            node,
            plane: DataPlane { kind, scope },
            stream: Stream::new(self.variant),
            entry,
            sent: Default::default(),
            outbox: self.outbox.clone(),
            metrics: self.shared.metrics.clone(),
        })
    }

    /// Turns a client away before it is known.
    fn turn_away(&self, status: Status) -> End {
        warn!(reason = status.message(), peer = %self.peer, "client of the discovery service turned away");
        End::Closed(status)
    }

    /// Turns away a proxy that can't be served. It will come again and again.
    fn refuse(&self, node: &str, reason: String) -> End {
        if self.shared.proxies.refuse(node, &reason) {
            warn!(node, reason, peer = %self.peer, "proxy refused");
        }
        End::Closed(Status::failed_precondition(reason))
    }

    async fn follow(&mut self, session: &mut Session, first: Request, snapshots: Arc<Snapshots>) -> End {
        let patience = self.shared.patience;
        let plane = session.plane;
        // Rendering the first one of a kind takes its time; those that follow are ready before they are told of.
        let rendered = spawn_blocking(move || offer(&snapshots, plane)).await;
        let Ok(first_offer) = rendered else {
            return End::Closed(Status::internal("the configuration couldn't be rendered"));
        };
        session.take(first_offer);
        let mut request = Some(first);
        loop {
            if let Some(request) = request.take()
                && let Err(status) = session.request(request)
            {
                return End::Closed(status);
            }
            if let Err(end) = session.send_what_is_due() {
                return end;
            }
            // A client that never stops talking doesn't keep others waiting.
            consume_budget().await;
            let oldest = session.oldest();
            tokio::select! {
                message = self.requests.next() => match message {
                    Ok(Some(message)) => request = Some(message),
                    Ok(None) => return End::Gone("it closed the stream"),
                    Err(status) if status.code() == Code::Unavailable => return End::Gone("the connection broke"),
                    Err(status) => return End::Closed(status),
                },
                changed = self.shared.snapshots.changed() => {
                    if changed.is_err() {
                        return End::Closed(Status::unavailable("the agent stops"));
                    }
                    let snapshots = self.shared.snapshots.borrow_and_update().clone();
                    session.offer(&snapshots);
                }
                () = session.outbox.closed() => return End::Gone("it closed the stream"),
                kind = overdue(oldest, patience) => {
                    self.shared.metrics.dropped();
                    return End::Closed(too_late(&format!("no answer to {kind}"), patience));
                }
            }
        }
    }
}

impl Session {
    fn offer(&mut self, snapshots: &Snapshots) {
        // Scopes may have changed with the rest.
        let (scope, scope_name) = place(&self.node, snapshots);
        self.plane.scope = scope;
        self.entry.update(|proxy| proxy.scope = scope_name);
        self.take(offer(snapshots, self.plane));
    }

    fn take(&mut self, (offer, left_out): (Offer, Arc<[LeftOut]>)) {
        self.stream.offer(offer);
        self.entry.update(|proxy| proxy.left_out = left_out);
    }

    fn request(&mut self, request: Request) -> Result<(), Status> {
        let Some(kind) = ResourceType::from_type_url(&request.type_url) else {
            let type_url = request.type_url;
            debug!(node = self.node.id, type_url, "resources that this agent doesn't have");
            return Ok(());
        };
        let Request { nonce, error, ask, .. } = request;
        let answer = self.stream.request(kind, &nonce, error.is_some(), ask);
        let answer = answer.map_err(|_| Status::resource_exhausted("too many names of resources"))?;
        if answer == Answer::None {
            return Ok(());
        }
        let after = self.sent[kind as usize]
            .take()
            .map(|sent| sent.elapsed())
            .unwrap_or_default();
        match error {
            None => {
                self.metrics.acknowledged(kind, after);
                self.entry.update(|proxy| proxy.accept(after));
            }
            Some(message) => {
                self.metrics.refused(kind);
                self.note_refusal(kind, message);
            }
        }
        Ok(())
    }

    fn note_refusal(&self, kind: ResourceType, message: String) {
        let Some(Offer { revision, version, .. }) = self.stream.offered() else {
            return;
        };
        warn!(node = self.node.id, resources = %kind, %version, message, "proxy refuses the configuration, the one before stays in force");
        self.entry.update(|proxy| {
            proxy.nacks += 1;
            proxy.nack = Some(Nack {
                version: version.to_string(),
                resources: kind.to_string(),
                message,
                revision: *revision,
            });
        });
    }

    fn send_what_is_due(&mut self) -> Result<(), End> {
        while let Some(push) = self.stream.next() {
            self.send(push)?;
        }
        let standing = self.stream.standing();
        let (offered, in_force) = (self.stream.offered(), self.stream.in_force());
        let missing = self.stream.missing();
        self.entry.update(|proxy| {
            proxy.missing = missing;
            let sent = offered.map(|offer| offer.version.as_ref());
            if proxy.sent.as_deref() != sent {
                proxy.sent = sent.map(str::to_owned);
            }
            if let Some(Offer { revision, version, .. }) = in_force
                && proxy.revision != *revision
            {
                debug!(node = self.node.id, %version, revision, "in force at proxy");
                proxy.revision = *revision;
                proxy.accepted = Some(version.to_string());
            }
            match (&mut proxy.nack, offered) {
                (Some(nack), Some(offer)) if standing == Standing::Refused => nack.revision = offer.revision,
                (nack, _) => *nack = None,
            }
        });
        Ok(())
    }

    fn send(&mut self, push: Push) -> Result<(), End> {
        let kind = push.kind;
        debug!(
            node = self.node.id,
            resources = %kind,
            version = push.version,
            sent = push.resources.len(),
            removed = push.removed.len(),
            "push"
        );
        self.sent[kind as usize] = Some(Instant::now());
        self.metrics.pushed(kind);
        self.entry.update(|proxy| proxy.pushes += 1);
        self.outbox.try_send(Ok(push)).map_err(|error| match error {
            TrySendError::Closed(_) => End::Gone("it closed the stream"),
            // Only one that accepts what it hasn't read gets here.
            TrySendError::Full(_) => End::Closed(Status::resource_exhausted("pushes are answered but not read")),
        })
    }

    /// The push that waits longest for its answer, and since when.
    fn oldest(&self) -> Option<(ResourceType, Instant)> {
        let waiting = ResourceType::ALL
            .into_iter()
            .filter_map(|kind| Some((kind, self.sent[kind as usize]?)));
        waiting.min_by_key(|(_, sent)| *sent)
    }
}

/// The place and the name of the scope that `node` is in, if it is in one.
fn place(node: &Node, snapshots: &Snapshots) -> (Option<usize>, Option<String>) {
    let scopes = &snapshots.config().agent.scopes;
    let scope = node.scope(scopes);
    let found = scope.and_then(|scope| scopes.get(scope));
    (scope, found.map(|scope| scope.name.clone()))
}

/// What `snapshots` are for this data plane, and what it can't follow of them.
fn offer(snapshots: &Snapshots, plane: DataPlane) -> (Offer, Arc<[LeftOut]>) {
    let snapshot = snapshots.of(plane);
    let offer = Offer {
        revision: snapshots.revision(),
        version: snapshots.version().into(),
        resources: ResourceType::ALL.map(|kind| snapshot.resources(kind).clone()),
    };
    (offer, Arc::clone(snapshot.left_out()))
}

/// Returns when the answer is overdue.
async fn overdue(oldest: Option<(ResourceType, Instant)>, patience: Duration) -> ResourceType {
    match oldest {
        Some((kind, sent)) => {
            sleep_until(sent + patience).await;
            kind
        }
        None => std::future::pending().await,
    }
}

fn too_late(what: &str, patience: Duration) -> Status {
    Status::deadline_exceeded(format!("{what} within {patience:?}"))
}
