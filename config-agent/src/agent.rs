//! The control plane: a configuration file and an API in, a discovery service out.

use std::ffi::OsString;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{anyhow, bail};
use sidetrack_routing::ValidAgent;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::api::{Access, Api};
use crate::config::{self, Loaded, Reading};
use crate::control::{Beginning, Controller};
use crate::metrics::Metrics;
use crate::render::{FilterCode, Snapshots};
use crate::status::Status;
use crate::xds::{Ads, Proxies};

/// Where the system says that a file may not grow any further. Without a handler that is the end of the process.
const FILE_SIZE_EXCEEDED: i32 = 25;

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
    xds: TcpListener,
    api: TcpListener,
    snapshots: watch::Receiver<Arc<Snapshots>>,
    proxies: Proxies,
    status: Status,
    metrics: Metrics,
    controller: Controller,
    calls: Api,
    access: Access,
}

impl Agent {
    /// Takes the configuration and the API's rules into force and binds the ports.
    ///
    /// # Errors
    ///
    /// A port is taken, or the files of tokens or of the API's rules can't be used.
    pub async fn start(options: Options, loaded: Loaded) -> anyhow::Result<Self> {
        let agent = loaded.config.agent.clone();
        let xds = bind(agent.bind_address, agent.xds_port, "agent.xdsPort").await?;
        let api = bind(agent.api_bind_address, agent.api_port, "agent.apiPort").await?;
        let access = match &agent.tokens_file {
            Some(file) => Access::by_tokens(beside(&options.config, file))?,
            None => Access::local(),
        };
        let beginning = Beginning::read(loaded, &state_file(&options.config, &agent))?;
        let snapshots = Snapshots::new(beginning.config(), options.code);
        let (sender, snapshots) = watch::channel(Arc::new(snapshots));
        let proxies = Proxies::default();
        let metrics = Metrics::default();
        let status = Status::new(snapshots.clone(), proxies.clone(), options.own_envoy);
        let (controller, control) = Controller::new(
            options.config,
            options.reading,
            beginning,
            sender,
            status.clone(),
            metrics.clone(),
        );
        Ok(Self {
            xds,
            api,
            snapshots,
            proxies,
            calls: Api::new(control, status.clone(), metrics.clone()),
            status,
            metrics,
            controller,
            access,
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
    /// A listener fails, or a file can't be watched.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) -> anyhow::Result<()> {
        let Self {
            xds,
            api,
            snapshots,
            proxies,
            metrics,
            controller,
            calls,
            access,
            ..
        } = self;
        info!(xds = %xds.local_addr()?, api = %api.local_addr()?, "listening");
        let _too_large = signal(SignalKind::from_raw(FILE_SIZE_EXCEEDED))?;
        let xds = Ads::new(snapshots, proxies, metrics).serve(xds, std::future::pending());
        // Each on its own: none makes the others wait. All end with this.
        let mut tasks: JoinSet<anyhow::Result<()>> = JoinSet::new();
        tasks.spawn(controller.run());
        tasks.spawn(follow_tokens(access.clone()));
        tasks.spawn(async move { match calls.serve(api, access).await {} });
        tokio::select! {
            () = xds => Ok(()),
            Some(ended) = tasks.join_next() => match ended {
                Ok(result) => result,
                Err(error) => bail!("a part of the agent failed: {error}"),
            },
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

/// Reads the tokens again whenever their file changes; waits for ever without one.
async fn follow_tokens(access: Access) -> anyhow::Result<()> {
    if let Some(file) = access.file() {
        let mut changes = config::watch(file.to_owned());
        access.reread();
        while changes.recv().await.is_some() {
            access.reread();
        }
        warn!(file = %file.display(), "the file isn't watched any more");
    }
    std::future::pending().await
}

/// Where the API's rules are kept.
fn state_file(config: &Path, agent: &ValidAgent) -> PathBuf {
    match &agent.state_file {
        Some(file) => beside(config, file),
        None => {
            let mut name: OsString = config.file_name().unwrap_or_default().to_owned();
            name.push(".state.json");
            config.with_file_name(name)
        }
    }
}

/// A file that the configuration file `config` names: relative to itself.
fn beside(config: &Path, file: &str) -> PathBuf {
    config.parent().unwrap_or(Path::new("")).join(file)
}
