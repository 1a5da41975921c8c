//! The `sidetrack` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    sidetrack_config_agent::cli::main()
}
