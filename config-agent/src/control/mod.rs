//! The one place where rules change: takes what the file says and what the API asks for, and puts it into force.
//!
//! Changes of the API that wait together are one batch: each is checked by itself and fails by itself, then the whole is
//! written to the state file once and rendered once, at the same time, and published if it is kept. So the longer a batch
//! takes, the more changes the next one has; what doesn't fit into the queue waits in its connection.

mod beginning;
mod expiry;
mod told;

use std::mem;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use anyhow::ensure;
use bytes::Bytes;
use sidetrack_routing::{ValidAgent, ValidConfig};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::sleep;
use tracing::{error, info, warn};

use self::expiry::expired;
use self::told::{Told, log};
use crate::config::{self, InvalidConfig, Loaded, Reading};
use crate::metrics::{self, Metrics};
use crate::render::{Snapshots, now};
use crate::rules::{Change, Condition, FileRules, InvalidRules, Refused, RuleSet, Tag};
use crate::state::StateFile;
use crate::status::Status;

pub use beginning::Beginning;

/// How often it is looked whether files are there now that a configuration names.
const FILES_INTERVAL: Duration = Duration::from_secs(1);

/// How many changes wait, and so how many one batch has at most.
const QUEUE: usize = 1024;

/// What is in force at one moment.
#[derive(Debug)]
pub struct View {
    /// The rules, and whose they are.
    pub rules: RuleSet,
    /// What comes of them.
    pub snapshots: Arc<Snapshots>,
    /// Since when.
    pub since: SystemTime,
}

/// A change that was made and is on the disk.
#[derive(Clone, Debug)]
pub struct Done {
    /// The revision it is in force from.
    pub revision: u64,
    /// The version of the configuration then.
    pub version: String,
    /// How many rules it has.
    pub rules: usize,
    /// That of the rules the change is about, if any are left.
    pub tag: Option<Tag>,
}

/// By which changes are asked for. Clones ask the same.
#[derive(Clone, Debug)]
pub struct Control {
    commands: mpsc::Sender<Command>,
    view: watch::Receiver<Arc<View>>,
}

/// Who makes the changes.
#[derive(Debug)]
pub struct Controller {
    file: PathBuf,
    reading: Reading,
    commands: mpsc::Receiver<Command>,
    state: Arc<Mutex<StateFile>>,
    view: watch::Sender<Arc<View>>,
    snapshots: watch::Sender<Arc<Snapshots>>,
    status: Status,
    metrics: Metrics,
    last_rejected: String,
}

#[derive(Debug)]
struct Command {
    change: Change,
    condition: Condition,
    answer: oneshot::Sender<Result<Done, Refused>>,
}

impl Controller {
    /// One that begins with this, rendered as `snapshots`.
    pub fn new(
        file: PathBuf,
        reading: Reading,
        beginning: Beginning,
        snapshots: watch::Sender<Arc<Snapshots>>,
        status: Status,
        metrics: Metrics,
    ) -> (Self, Control) {
        let Beginning { rules, state } = beginning;
        let in_force = Arc::clone(&snapshots.borrow());
        note_in_force(&in_force, &file);
        let (view, receiver) = watch::channel(Arc::new(View {
            rules,
            snapshots: in_force,
            since: SystemTime::now(),
        }));
        let (commands, queue) = mpsc::channel(QUEUE);
        let control = Control {
            commands,
            view: receiver,
        };
        let controller = Self {
            file,
            reading,
            commands: queue,
            state: Arc::new(Mutex::new(state)),
            view,
            snapshots,
            status,
            metrics,
            last_rejected: String::new(),
        };
        (controller, control)
    }

    /// Makes changes as they come, for ever.
    ///
    /// # Errors
    ///
    /// What tells of changes has ended, which is a bug of Sidetrack.
    pub async fn run(mut self) -> anyhow::Result<()> {
        let mut changes = config::watch(self.file.clone());
        let mut batch = Vec::new();
        // Once before the first change: the file may have changed before it was watched.
        let mut loading = Some(self.load());
        let mut waits_for_files = false;
        let mut changed_meanwhile = false;
        loop {
            let view = self.in_force();
            tokio::select! {
                loaded = async { loading.as_mut()?.await.ok() }, if loading.is_some() => {
                    loading = changed_meanwhile.then(|| self.load());
                    changed_meanwhile = false;
                    if let Some(loaded) = loaded {
                        waits_for_files = matches!(loaded, Err(InvalidConfig::UnreadableFiles(_)));
                        self.take_file(loaded).await;
                    }
                }
                change = changes.recv() => {
                    ensure!(change.is_some(), "{} isn't watched any more", self.file.display());
                    match loading {
                        None => loading = Some(self.load()),
                        Some(_) => changed_meanwhile = true,
                    }
                }
                () = sleep(FILES_INTERVAL), if waits_for_files && loading.is_none() => loading = Some(self.load()),
                () = expired(view.snapshots.expiry(), now, sleep) => self.expire(&view).await,
                received = self.commands.recv_many(&mut batch, QUEUE) => {
                    ensure!(received > 0, "nothing can ask for changes any more");
                    self.take_batch(mem::take(&mut batch)).await;
                }
            }
        }
    }

    /// Reads a large file on a thread that may block. None, if it is the one in force.
    fn load(&self) -> JoinHandle<Result<Option<Loaded>, InvalidConfig>> {
        let (file, reading) = (self.file.clone(), self.reading);
        let in_force = self.in_force().rules.file().text();
        spawn_blocking(move || config::load_unless(&file, reading, in_force))
    }

    fn in_force(&self) -> Arc<View> {
        Arc::clone(&self.view.borrow())
    }

    /// Takes a good change of the file into force; says what is wrong with a bad one.
    async fn take_file(&mut self, loaded: Result<Option<Loaded>, InvalidConfig>) {
        let file = self.file.display().to_string();
        let loaded = match loaded {
            Ok(loaded) => loaded,
            Err(invalid) => return self.reject(invalid.to_string()),
        };
        let view = self.in_force();
        let new = loaded.map(|mut loaded| (mem::take(&mut loaded.warnings), FileRules::new(loaded)));
        let Some((warnings, new)) = new.filter(|(_, new)| !view.rules.file().says(new)) else {
            if !mem::take(&mut self.last_rejected).is_empty() {
                info!(file, "the file is mended, the configuration in force is what it says");
            }
            self.status.set_rejected(Vec::new());
            return;
        };
        let rules = match view.rules.with_file(new) {
            Ok(rules) => rules,
            Err(InvalidRules(problems)) => {
                let lines = problems.iter().map(|problem| format!("{file}: {problem}"));
                return self.reject(lines.collect::<Vec<_>>().join("\n"));
            }
        };
        for warning in warnings {
            warn!("{warning}");
        }
        if needs_restart(view.rules.file().config(), rules.file().config()) {
            warn!(
                "changes of agent.*, but for scopes, and of server.adminPort take effect when the agent is started again"
            );
        }
        let previous = Arc::clone(&view.snapshots);
        let config = rules.config();
        match self.render(previous, config).await {
            Ok(snapshots) => {
                self.publish(rules, snapshots, SystemTime::now());
                self.metrics.changed(metrics::Source::File);
                note_in_force(&self.in_force().snapshots, &self.file);
                self.last_rejected.clear();
                self.status.set_rejected(Vec::new());
            }
            Err(error) => self.reject(format!(
                "{file}: can't be rendered, which is a bug of Sidetrack: {error}"
            )),
        }
    }

    fn reject(&mut self, problems: String) {
        if problems != self.last_rejected {
            let file = self.file.display();
            self.metrics.rejected(metrics::Source::File);
            error!(%file, "the configuration is rejected, the one before stays in force");
            eprintln!("{problems}");
            self.status.set_rejected(problems.lines().map(str::to_owned).collect());
            self.last_rejected = problems;
        }
    }

    async fn take_batch(&mut self, batch: Vec<Command>) {
        let view = self.in_force();
        let mut rules = view.rules.clone();
        let mut told = Vec::new();
        let mut outcomes = Vec::with_capacity(batch.len());
        for Command {
            change,
            condition,
            answer,
        } in batch
        {
            // Whoever asked is gone, and will never know.
            if answer.is_closed() {
                continue;
            }
            let tell = Told::of(&change);
            let outcome = rules.apply(change, &condition);
            let tag = match &tell.key {
                Some(key) => rules.tag_of(key),
                None => Some(rules.tag()),
            };
            if let Ok(true) = outcome {
                told.push(tell);
            }
            outcomes.push((answer, outcome.map(|_| tag)));
        }
        if !told.is_empty()
            && let Err(refused) = self.put_into_force(&view, rules).await
        {
            for (answer, outcome) in outcomes {
                // What was wrong by itself is wrong still; what depends on others of the batch isn't known.
                let refused = match outcome {
                    Err(Refused::Invalid(problems)) => Refused::Invalid(problems),
                    _ => refused.clone(),
                };
                let _ = answer.send(Err(refused));
            }
            return;
        }
        let view = self.in_force();
        for _ in &told {
            self.metrics.changed(metrics::Source::Api);
        }
        log(&told, &view);
        for (answer, outcome) in outcomes {
            let done = outcome.map(|tag| Done {
                revision: view.snapshots.revision(),
                version: view.snapshots.version().to_owned(),
                rules: view.rules.len(),
                tag,
            });
            let _ = answer.send(done);
        }
    }

    /// Keeps and publishes `rules`, or neither.
    async fn put_into_force(&mut self, before: &View, rules: RuleSet) -> Result<(), Refused> {
        let config = rules.config();
        let previous = Arc::clone(&before.snapshots);
        let rendering = self.render(previous, config);
        let kept = self.keep(&rules).await;
        let rendered = rendering.await;
        self.status.set_unkept(kept.as_ref().err().cloned());
        kept.map_err(Refused::Unwritable)?;
        match rendered {
            Ok(snapshots) => {
                self.publish(rules, snapshots, SystemTime::now());
                Ok(())
            }
            Err(error) => {
                error!(%error, "rules can't be rendered, which is a bug of Sidetrack; those before stay in force");
                let _ = self.keep(&before.rules).await;
                Err(Refused::Broken)
            }
        }
    }

    fn render(&self, previous: Arc<Snapshots>, config: ValidConfig) -> JoinHandle<Snapshots> {
        let metrics = self.metrics.clone();
        spawn_blocking(move || {
            let began = Instant::now();
            let snapshots = previous.next(config);
            metrics.rendered(began.elapsed());
            snapshots
        })
    }

    async fn keep(&self, rules: &RuleSet) -> Result<(), String> {
        let json: Vec<Bytes> = rules.api_json().cloned().collect();
        let state = Arc::clone(&self.state);
        let write = move || {
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            state.write(json.iter()).map_err(|error| error.to_string())
        };
        let began = Instant::now();
        let written = spawn_blocking(write).await;
        let written = written.unwrap_or_else(|error| Err(error.to_string()));
        match written {
            Ok(()) => self.metrics.state_written(began.elapsed()),
            Err(_) => self.metrics.state_write_failed(),
        }
        written
    }

    fn publish(&self, rules: RuleSet, snapshots: Snapshots, since: SystemTime) {
        let snapshots = Arc::new(snapshots);
        self.view.send_replace(Arc::new(View {
            rules,
            snapshots: Arc::clone(&snapshots),
            since,
        }));
        self.snapshots.send_replace(snapshots);
    }
}

impl Control {
    /// What is in force.
    pub fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.borrow())
    }

    /// Makes `change` if `condition` holds. When this returns it is on the disk and on its way to the proxies.
    ///
    /// # Errors
    ///
    /// See [`Refused`]; nothing has changed.
    pub async fn change(&self, change: Change, condition: Condition) -> Result<Done, Refused> {
        let (answer, done) = oneshot::channel();
        let command = Command {
            change,
            condition,
            answer,
        };
        self.commands.send(command).await.map_err(|_| Refused::Stopping)?;
        done.await.map_err(|_| Refused::Stopping)?
    }
}

fn note_in_force(snapshots: &Snapshots, file: &Path) {
    let rules = snapshots.config().routing.rules.len();
    let (revision, version) = (snapshots.revision(), snapshots.version());
    info!(source = "file", version, revision, rules, file = %file.display(), "configuration in force");
}

fn needs_restart(old: &ValidConfig, new: &ValidConfig) -> bool {
    // Scopes are followed.
    let fixed = |config: &ValidConfig| ValidAgent {
        scopes: Vec::new(),
        ..config.agent.clone()
    };
    fixed(new) != fixed(old) || new.server.admin_port != old.server.admin_port
}
