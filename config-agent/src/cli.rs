//! The command line.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Parser, Subcommand};
use sidetrack_routing::ValidConfig;
use sidetrack_routing::wire::Mode;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::agent::{Agent, Options};
use crate::config::{self, InvalidConfig, Loaded, Reading};
use crate::explain::{self, Question};
use crate::render::{EnvoyVersion, FilterCode, static_bootstrap, targets, to_yaml, whole_bootstrap};
use crate::{envoy, up};

/// Request-level sandboxes on Envoy: requests that carry a route key go to that key's sandbox, all others to the baseline.
#[derive(Debug, Parser)]
#[command(name = "sidetrack", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run agent and Envoy together on this machine.
    #[command(
        after_help = "Example:\n  sidetrack up -c envoy-config/demo.yaml\n\nCtrl-C stops both: Envoy finishes the \
                            requests under way first; a second Ctrl-C doesn't wait for them."
    )]
    Up {
        #[command(flatten)]
        config: ConfigFile,
        #[command(flatten)]
        filter: Filter,
        /// Envoy's program [default: func-e on PATH, else .tools/bin/envoy, else envoy on PATH]
        #[arg(long, env = "ENVOY_BIN", value_name = "PATH")]
        envoy: Option<PathBuf>,
        /// How much Envoy says: trace, debug, info, warning, error or off.
        #[arg(long, default_value = "warning", value_name = "LEVEL")]
        envoy_log_level: String,
    },
    /// Run the control plane alone; Envoys connect to agent.xdsPort.
    #[command(after_help = "Example:\n  sidetrack agent -c config.yaml --filter /etc/sidetrack/sidetrack_filter.wasm")]
    Agent {
        #[command(flatten)]
        config: ConfigFile,
        #[command(flatten)]
        filter: Filter,
    },
    /// Say whether a configuration is right, or everything that is wrong with it.
    #[command(after_help = "Example:\n  sidetrack check -c config.yaml\n  ok: 2 rules, 3 targets")]
    Check {
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Say where a request goes, and rule by rule why.
    #[command(
        after_help = "Example:\n  sidetrack explain -c config.yaml --path /api/v1/x -H 'X-Route-Key: sandbox-123'"
    )]
    Explain {
        #[command(flatten)]
        config: ConfigFile,
        /// The path as Envoy compares it, normalised; with its query if it has one.
        #[arg(long, value_parser = explain::parse_path)]
        path: String,
        /// The method.
        #[arg(long, default_value = "GET")]
        method: String,
        /// The host.
        #[arg(long, default_value = "")]
        host: String,
        /// A header; may be given several times.
        #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = explain::parse_header)]
        headers: Vec<(String, String)>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print the whole Envoy configuration as YAML, for an Envoy without an agent.
    #[command(
        after_help = "Example:\n  sidetrack render -c config.yaml > envoy.yaml\n  envoy -c envoy.yaml          # or: \
                            func-e run -c envoy.yaml\n\nWith --bootstrap, an Envoy that serves the baseline even if it \
                            starts while the agent is away, and gets its rules from the agent."
    )]
    Render {
        #[command(flatten)]
        config: ConfigFile,
        #[command(flatten)]
        filter: Filter,
        /// Only the bootstrap of an Envoy that gets its targets and rules from an agent.
        #[arg(long)]
        bootstrap: bool,
        /// The node id by which the agent knows this Envoy.
        #[arg(long, default_value = "sidetrack", value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
        node: String,
        /// The version of that Envoy, 1.37 or later.
        #[arg(long, default_value_t = EnvoyVersion::NEWEST, value_name = "VERSION")]
        envoy_version: EnvoyVersion,
    },
}

#[derive(Debug, Args)]
struct ConfigFile {
    /// The configuration file.
    #[arg(short, long, value_name = "CONFIG")]
    config: PathBuf,
    /// What Envoy stands before, sidecar or gateway; goes before server.mode.
    #[arg(long, env = "PROXY_MODE", value_name = "MODE", value_parser = parse_mode)]
    mode: Option<Mode>,
}

#[derive(Debug, Args)]
struct Filter {
    /// The filter's code, as a path on Envoy's machine [default: sidetrack_filter.wasm beside this program or in its
    /// checkout's target directory]
    #[arg(long, env = "SIDETRACK_FILTER", value_name = "PATH")]
    filter: Option<PathBuf>,
}

/// Runs the command that this process was started with.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_from_env("SIDETRACK_LOG").unwrap_or_else(|_| EnvFilter::new("info")))
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .with_writer(std::io::stderr)
        .init();
    match run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Problems of a configuration stand as they are, so that editors find the places.
            match error.downcast_ref::<InvalidConfig>() {
                Some(invalid) => eprintln!("{invalid}"),
                None => eprintln!("sidetrack: {error:#}"),
            }
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Up {
            config: file,
            filter,
            envoy,
            envoy_log_level,
        } => {
            let reading = Reading {
                envoy_is_here: true,
                ..file.reading()
            };
            let config = file.load_as(reading)?;
            let command = envoy::find(envoy.as_deref())?;
            let options = Options {
                config: file.config,
                reading,
                code: filter.code()?,
                own_envoy: None,
            };
            serve(async |mut stop: Stop| {
                up::run(options, config, &command, &envoy_log_level, async || {
                    stop.signalled().await;
                })
                .await
            })
        }
        Command::Agent { config: file, filter } => {
            let config = file.load()?;
            let options = Options {
                reading: file.reading(),
                config: file.config,
                code: filter.code()?,
                own_envoy: None,
            };
            serve(async |mut stop: Stop| Agent::start(options, config).await?.run(stop.signalled()).await)
        }
        Command::Check { config } => {
            let config = config.load()?;
            println!(
                "ok: {} rules, {} targets",
                config.routing.rules.len(),
                targets(&config).len()
            );
            Ok(())
        }
        Command::Explain {
            config,
            path,
            method,
            host,
            headers,
            json,
        } => {
            let question = Question {
                method,
                host,
                path,
                headers,
            };
            let answer = explain::answer(&config.load()?.routing, question)?;
            match json {
                true => println!("{}", serde_json::to_string_pretty(&answer)?),
                false => print!("{}", answer.to_text()),
            }
            Ok(())
        }
        Command::Render {
            config,
            filter,
            bootstrap,
            node,
            envoy_version,
        } => {
            let render = if bootstrap { static_bootstrap } else { whole_bootstrap };
            let bootstrap = render(&config.load()?, &node, &filter.code()?, envoy_version);
            print!("{}", to_yaml(&bootstrap)?);
            Ok(())
        }
    }
}

/// Runs `work` on a runtime, with the signals that stop it.
fn serve(work: impl AsyncFnOnce(Stop) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("no runtime")?;
    let result = runtime.block_on(async { work(Stop::new()?).await });
    // Streams of Envoys may be open; they end with the process.
    runtime.shutdown_background();
    result
}

/// The signals that stop a server: Ctrl-C, SIGTERM, and the terminal's end.
struct Stop {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Stop {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    async fn signalled(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hang_up.recv() => {}
        }
    }
}

fn parse_mode(text: &str) -> Result<Mode, &'static str> {
    match text {
        "sidecar" => Ok(Mode::Sidecar),
        "gateway" => Ok(Mode::Gateway),
        _ => Err("must be sidecar or gateway"),
    }
}

impl ConfigFile {
    /// The configuration; what is doubtful in it goes to standard error.
    fn load(&self) -> Result<ValidConfig, InvalidConfig> {
        self.load_as(self.reading())
    }

    fn reading(&self) -> Reading {
        Reading {
            mode: self.mode,
            envoy_is_here: false,
        }
    }

    fn load_as(&self, reading: Reading) -> Result<ValidConfig, InvalidConfig> {
        let Loaded { config, warnings } = config::load(&self.config, reading)?;
        for warning in warnings {
            eprintln!("{warning}");
        }
        Ok(config)
    }
}

impl Filter {
    fn code(self) -> anyhow::Result<FilterCode> {
        const NAME: &str = "sidetrack_filter.wasm";
        const BUILT: &str = "wasm32-unknown-unknown/wasm";
        if let Some(path) = self.filter {
            return Ok(FilterCode::file(std::path::absolute(path)?));
        }
        let program = std::env::current_exe().context("where this program is")?;
        let beside = program.with_file_name(NAME);
        let built = program
            .parent()
            .and_then(Path::parent)
            .map(|target| target.join(BUILT).join(NAME));
        Ok(FilterCode::file(
            [Some(beside.clone()), built]
                .into_iter()
                .flatten()
                .find(|p| p.is_file())
                .unwrap_or(beside),
        ))
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_an_example() {
        for command in Cli::command().get_subcommands() {
            let help = command.clone().render_long_help().to_string();
            assert!(help.contains("Example:\n  sidetrack "), "{}", command.get_name());
        }
    }
}
