//! The command line.

mod options;
mod print;
mod proxies;
mod rules;
mod rules_file;
mod serve;
mod table;

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::NonEmptyStringValueParser;
use clap::{Parser, Subcommand};
use sidetrack_routing::Target;
use tracing_subscriber::EnvFilter;

use self::options::{ApiOptions, ConfigFile, Filter};
use self::proxies::Watched;
use self::rules::RulesCommand;
use self::rules_file::InvalidRules;
use self::serve::{Stop, ask, serve};
use crate::agent::{Agent, Options};
use crate::config::{InvalidConfig, Reading};
use crate::explain::{self, Question};
use crate::render::{EnvoyNode, EnvoyVersion, static_bootstrap, targets, to_yaml, whole_bootstrap};
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
        /// The node cluster of this Envoy, by which agent.scopes can tell it from others.
        #[arg(long, default_value = EnvoyNode::CLUSTER, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
        cluster: String,
        /// Where its agent is, if not where the configuration says; several times for several agents.
        #[arg(long = "agent", value_name = "HOST:PORT", value_parser = Target::parse, requires = "bootstrap")]
        agents: Vec<Target>,
        /// The version of that Envoy, 1.37 or later.
        #[arg(long, default_value_t = EnvoyVersion::NEWEST, value_name = "VERSION")]
        envoy_version: EnvoyVersion,
    },
    /// Show and change the rules of a running agent.
    #[command(
        subcommand,
        after_help = "Example:\n  sidetrack rules put pr-17 -f rules.yaml --wait 5s\n  sidetrack rules list\n  sidetrack rules \
                      delete pr-17"
    )]
    Rules(RulesCommand),
    /// Show who is connected to a running agent, and who has what.
    #[command(
        after_help = "Example:\n  sidetrack proxies --watch\n\nOn a terminal --watch shows the table anew in its place; Ctrl-C \
                      ends it. Elsewhere it prints a table each time."
    )]
    Proxies {
        #[command(flatten)]
        api: ApiOptions,
        #[command(flatten)]
        watched: Watched,
    },
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
            if let Some(invalid) = error.downcast_ref::<InvalidConfig>() {
                eprintln!("{invalid}");
            } else if let Some(invalid) = error.downcast_ref::<InvalidRules>() {
                eprintln!("{invalid}");
            } else if print::is_closed(&error) {
                // Whoever reads has seen enough.
                return ExitCode::SUCCESS;
            } else {
                eprintln!("sidetrack: {error:#}");
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
            let loaded = file.load_as(reading)?;
            let command = envoy::find(envoy.as_deref())?;
            let options = Options {
                config: file.config,
                reading,
                code: filter.code()?,
                own_envoy: None,
            };
            serve(async |mut stop: Stop| {
                up::run(options, loaded, &command, &envoy_log_level, async || {
                    stop.signalled().await;
                })
                .await
            })
        }
        Command::Agent { config: file, filter } => {
            let loaded = file.load_as(file.reading())?;
            let options = Options {
                reading: file.reading(),
                config: file.config,
                code: filter.code()?,
                own_envoy: None,
            };
            serve(async |mut stop: Stop| Agent::start(options, loaded).await?.run(stop.signalled()).await)
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
            cluster,
            agents,
            envoy_version,
        } => {
            let render = if bootstrap { static_bootstrap } else { whole_bootstrap };
            let node = EnvoyNode {
                id: node,
                cluster,
                agents,
            };
            let bootstrap = render(&config.load()?, &node, &filter.code()?, envoy_version);
            print!("{}", to_yaml(&bootstrap)?);
            Ok(())
        }
        Command::Rules(command) => ask(command.run()),
        Command::Proxies { api, watched } => ask(proxies::run(api, watched)),
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
        fn check(command: &clap::Command, name: &str) {
            for command in command.get_subcommands() {
                let name = format!("{name} {}", command.get_name());
                let help = command.clone().render_long_help().to_string();
                let example = help.split("Example:\n  ").nth(1).unwrap_or_default();
                assert!(example.starts_with(&name), "{name}: {help}");
                check(command, &name);
            }
        }
        check(&Cli::command(), "sidetrack");
    }

    #[test]
    fn what_an_example_says_is_a_command() {
        fn check(command: &clap::Command) {
            let help = command.clone().render_long_help().to_string();
            for line in help.lines().filter_map(|line| line.strip_prefix("  sidetrack ")) {
                let shell = ["|", ">"]
                    .iter()
                    .fold(line, |line, end| line.split(end).next().unwrap());
                let words = shell.split_whitespace().map(|word| word.trim_matches('\''));
                // What a header's value is makes no difference here.
                let words = words.filter(|word| !word.starts_with("sandbox-"));
                if let Err(error) = Cli::try_parse_from(std::iter::once("sidetrack").chain(words)) {
                    panic!("{line}: {error}");
                }
            }
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }
}
