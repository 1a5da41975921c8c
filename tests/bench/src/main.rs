//! What routing costs, measured on a real Envoy. `scripts/bench --help` says how to call it.

mod arms;
mod baseline;
mod cli;
mod connection;
mod emulator;
mod instructions;
mod listeners;
mod materials;
mod micro;
mod module;
mod native;
mod report;
mod results;
mod run;
mod sandboxes;
mod targets;
mod timed;
mod updates;
mod upstream;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    match run::run(&cli::Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
