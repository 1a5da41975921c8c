//! Demo services: each answers with its name and the request as it arrived.

use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use sidetrack_tests::EchoServer;
use tokio::signal::unix::{SignalKind, signal};

/// Runs echo services until it gets SIGINT or SIGTERM.
///
/// Each speaks HTTP/1.1 and HTTP/2 without TLS and answers every request with JSON: its name, and method, path and
/// headers as they arrived. A query `?delay_ms=N` delays the answer.
#[derive(Parser)]
#[command(after_help = "Example: echo default-service=127.0.0.1:9001 service-a=127.0.0.1:9002")]
struct Arguments {
    /// A service's name and the address to listen on
    #[arg(value_name = "NAME=ADDRESS", required = true, value_parser = named_address)]
    services: Vec<(String, SocketAddr)>,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("echo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let mut interrupted = signal(SignalKind::interrupt())?;
    let mut terminated = signal(SignalKind::terminate())?;
    let mut servers = Vec::new();
    for (name, address) in arguments.services {
        let server = EchoServer::bind(&name, address).await;
        servers.push(server.with_context(|| format!("{name} can't listen on {address}"))?);
        println!("{name} listens on {address}");
    }
    tokio::select! {
        _ = interrupted.recv() => {}
        _ = terminated.recv() => {}
    }
    Ok(())
}

fn named_address(argument: &str) -> Result<(String, SocketAddr), String> {
    let (name, address) = argument.split_once('=').ok_or("must be NAME=ADDRESS")?;
    let address = address.parse().map_err(|_| format!("{address:?} is no IP:PORT"))?;
    Ok((name.to_owned(), address))
}
