//! The control plane: a configuration file in, a discovery service and an API out.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, ensure};
use sidetrack_routing::ValidConfig;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_stream::wrappers::TcpListenerStream;
use tracing::{error, info, warn};

use crate::api;
use crate::config::{self, InvalidConfig, Loaded, Reading};
use crate::render::{FilterCode, Snapshots};
use crate::status::Status;
use crate::xds::{Ads, Proxies};

/// How often it is looked whether files are there now that a configuration names.
const FILES_INTERVAL: Duration = Duration::from_secs(1);

/// What an agent is to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// The configuration file.
    pub config: PathBuf,
    /// How it is read.
    pub reading: Reading,
    /// Where Envoys find the filter's code.
    pub code: FilterCode,
    /// The node id of the Envoy that belongs to this agent, if one does.
    pub own_envoy: Option<String>,
}

/// An agent with its ports bound and its first configuration in force.
#[derive(Debug)]
pub struct Agent {
    options: Options,
    xds: TcpListener,
    api: TcpListener,
    snapshots: watch::Sender<Arc<Snapshots>>,
    proxies: Proxies,
    status: Status,
}

impl Agent {
    /// Takes the configuration into force and binds the ports.
    ///
    /// # Errors
    ///
    /// A port is taken.
    pub async fn start(options: Options, config: ValidConfig) -> anyhow::Result<Self> {
        let ip = config.agent.bind_address;
        let xds = bind(ip, config.agent.xds_port, "agent.xdsPort").await?;
        let api = bind(ip, config.agent.api_port, "agent.apiPort").await?;
        let snapshots = Snapshots::new(config, options.code.clone());
        note_in_force(&snapshots, &options.config);
        let (snapshots, receiver) = watch::channel(Arc::new(snapshots));
        let proxies = Proxies::default();
        let status = Status::new(receiver, proxies.clone(), options.own_envoy.clone());
        Ok(Self {
            options,
            xds,
            api,
            snapshots,
            proxies,
            status,
        })
    }

    /// How it is doing.
    pub fn status(&self) -> Status {
        self.status.clone()
    }

    /// Serves until `shutdown`.
    ///
    /// # Errors
    ///
    /// A listener fails.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) -> anyhow::Result<()> {
        let Self {
            options,
            xds,
            api,
            snapshots,
            proxies,
            status,
        } = self;
        info!(xds = %xds.local_addr()?, api = %api.local_addr()?, "listening");
        let ads = Ads::new(snapshots.subscribe(), proxies);
        let xds = tonic::transport::Server::builder()
            .http2_keepalive_interval(Some(Duration::from_secs(20)))
            .http2_keepalive_timeout(Some(Duration::from_secs(10)))
            .add_service(ads)
            .serve_with_incoming(TcpListenerStream::new(xds));
        let follow = follow(options, snapshots, status.clone());
        tokio::select! {
            result = xds => result.context("the discovery service failed"),
            result = api::serve(api, status, std::future::pending()) => result.context("the API failed"),
            result = follow => result,
            () = shutdown => Ok(()),
        }
    }
}

/// Binds `port` or says whose setting to change.
async fn bind(ip: IpAddr, port: u16, setting: &str) -> anyhow::Result<TcpListener> {
    let address = SocketAddr::new(ip, port);
    TcpListener::bind(address).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => anyhow!("{setting}: {address} is taken by another process; choose another"),
        _ => anyhow!("{setting}: {address} can't be bound: {error}"),
    })
}

/// Takes each good change of the file into force; says what is wrong with each bad one.
async fn follow(options: Options, snapshots: watch::Sender<Arc<Snapshots>>, status: Status) -> anyhow::Result<()> {
    let file = &options.config;
    let mut changes = config::watch(file.clone()).with_context(|| format!("{} can't be watched", file.display()))?;
    let mut last_rejected = String::new();
    // Once before the first change: the file may have changed before it was watched.
    loop {
        let mut waits_for_files = false;
        match load(file, options.reading).await {
            Ok(Loaded { config: new, .. }) if new == *snapshots.borrow().config() => {
                if !std::mem::take(&mut last_rejected).is_empty() {
                    info!(file = %file.display(), "the file is mended, the configuration in force is what it says");
                }
                status.set_rejected(Vec::new());
            }
            Ok(Loaded { config: new, warnings }) => {
                last_rejected.clear();
                for warning in warnings {
                    warn!("{warning}");
                }
                if needs_restart(snapshots.borrow().config(), &new) {
                    warn!("changes of agent.* and server.adminPort take effect when the agent is started again");
                }
                let new = Snapshots::new(new, options.code.clone());
                note_in_force(&new, file);
                snapshots.send_replace(Arc::new(new));
                status.set_rejected(Vec::new());
            }
            Err(invalid) => {
                waits_for_files = matches!(invalid, InvalidConfig::UnreadableFiles(_));
                let problems = invalid.to_string();
                if problems != last_rejected {
                    error!(file = %file.display(), "the configuration is rejected, the one before stays in force");
                    eprintln!("{problems}");
                    status.set_rejected(problems.lines().map(str::to_owned).collect());
                    last_rejected = problems;
                }
            }
        }
        tokio::select! {
            change = changes.recv() => ensure!(change.is_some(), "{} isn't watched any more", file.display()),
            () = sleep(FILES_INTERVAL), if waits_for_files => {}
        }
    }
}

fn needs_restart(old: &ValidConfig, new: &ValidConfig) -> bool {
    new.agent != old.agent || new.server.admin_port != old.server.admin_port
}

fn note_in_force(snapshots: &Snapshots, file: &Path) {
    let rules = snapshots.config().routing.rules.len();
    info!(version = snapshots.version(), rules, file = %file.display(), "configuration in force");
}

/// Reads a large file on a thread that may block.
async fn load(file: &Path, reading: Reading) -> Result<Loaded, InvalidConfig> {
    let path = file.to_owned();
    match tokio::task::spawn_blocking(move || config::load(&path, reading)).await {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}
