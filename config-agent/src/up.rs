//! Agent and Envoy together on one machine.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use rustix::process::Signal;
use sidetrack_routing::ValidConfig;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;
use tracing::info;

use crate::agent::{Agent, Options};
use crate::config::Loaded;
use crate::envoy::{Admin, Envoy, EnvoyCommand};
use crate::render::{EnvoyNode, dynamic_bootstrap, to_yaml};
use crate::status::Status;

/// Runs an agent and an Envoy until `shutdown`, or until one of them fails.
///
/// Envoy is stopped gently; a second `shutdown` cuts that short.
///
/// # Errors
///
/// Envoy isn't fit, a port is taken, the filter's code is missing, or Envoy or the agent ended by itself.
pub async fn run(
    mut options: Options,
    loaded: Loaded,
    command: &EnvoyCommand,
    log_level: &str,
    mut shutdown: impl AsyncFnMut(),
) -> anyhow::Result<()> {
    let version = tokio::select! {
        version = command.version() => version?,
        () = shutdown() => return Ok(()),
    };
    let config = loaded.config.clone();
    check_ports(&config)?;
    let code = options.code.path();
    ensure!(
        code.is_file(),
        "there is no filter at {}: build it by scripts/build-filter, or see --filter",
        code.display()
    );
    let node = format!("sidetrack-up-{}", std::process::id());
    options.own_envoy = Some(node.clone());
    let agent = Agent::start(options, loaded).await?;
    let status = agent.status();

    let directory = tempfile::Builder::new()
        .prefix("sidetrack-")
        .tempdir()
        .context("no place for the bootstrap")?;
    let bootstrap: PathBuf = directory.path().join("bootstrap.yaml");
    std::fs::write(
        &bootstrap,
        to_yaml(&dynamic_bootstrap(&config, &EnvoyNode::new(&node)))?,
    )
    .context("the bootstrap can't be written")?;
    let admin = Admin::on(config.server.admin_port);
    let mut envoy = Envoy::start(command, &bootstrap, log_level, admin)?;
    info!(program = %command.program.display(), %version, pid = envoy.id(), "Envoy started");

    let mut reopen_logs = signal(SignalKind::user_defined1())?;
    let mut agent = std::pin::pin!(agent.run(std::future::pending()));
    let mut announced = std::pin::pin!(announce(status.clone(), admin, &config));
    let mut is_announced = false;
    let ended = loop {
        tokio::select! {
            result = &mut agent => break result,
            status = envoy.exited() => bail!("Envoy ended by itself: {}; what it said is above", status?),
            result = &mut announced, if !is_announced => {
                is_announced = true;
                result?;
            }
            _ = reopen_logs.recv() => envoy.signal(Signal::USR1),
            () = shutdown() => break Ok(()),
        }
    };
    info!("stopping");
    let drain_time = status.config().server.drain_time;
    envoy.stop(drain_time, shutdown()).await;
    ended
}

/// Says once where requests can be sent: when Envoy serves the configuration.
async fn announce(status: Status, admin: Admin, config: &ValidConfig) -> anyhow::Result<()> {
    let poll = Duration::from_millis(20);
    let not_refused = || status.own_envoy_refused().map_or(Ok(()), |reason| bail!(reason));
    while !admin.is_live().await {
        not_refused()?;
        sleep(poll).await;
    }
    status.set_own_envoy_live();
    while status.report().waiting_for.is_some() {
        not_refused()?;
        sleep(poll).await;
    }
    let ip = config.server.bind_address;
    let ip = if ip.is_unspecified() {
        IpAddr::V4(Ipv4Addr::LOCALHOST)
    } else {
        ip
    };
    let scheme = if config.server.tls.is_some() { "https" } else { "http" };
    println!(
        "ready: HTTP on {scheme}://{}",
        SocketAddr::new(ip, config.server.http_port)
    );
    println!(
        "       gRPC on {scheme}://{}",
        SocketAddr::new(ip, config.server.grpc_port)
    );
    println!(
        "       metrics on http://{}/metrics",
        SocketAddr::new(ip, config.server.metrics_port)
    );
    println!("       admin on http://127.0.0.1:{}", config.server.admin_port);
    Ok(())
}

/// Envoys share ports without a word, so ours must be free before it starts.
fn check_ports(config: &ValidConfig) -> anyhow::Result<()> {
    let server = &config.server;
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    for (setting, ip, port) in [
        ("server.httpPort", server.bind_address, server.http_port),
        ("server.grpcPort", server.bind_address, server.grpc_port),
        ("server.metricsPort", server.bind_address, server.metrics_port),
        ("server.adminPort", loopback, server.admin_port),
    ] {
        let address = SocketAddr::new(ip, port);
        if let Err(error) = TcpListener::bind(address) {
            match error.kind() {
                std::io::ErrorKind::AddrInUse => bail!(
                    "{setting}: {address} is taken by another process; stop it (an Envoy whose agent was killed goes on \
                     serving) or choose another port"
                ),
                _ => bail!("{setting}: {address} can't be bound: {error}"),
            }
        }
    }
    Ok(())
}
