//! Which Envoy to run.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::bail;

/// How to start an Envoy: a program and the arguments before Envoy's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvoyCommand {
    /// The program.
    pub program: PathBuf,
    /// What it wants before Envoy's arguments.
    pub arguments: Vec<OsString>,
}

/// The Envoy that was asked for, or else func-e on PATH, or else `.tools/bin/envoy` here or in a directory above this
/// program or this directory, or else an Envoy on PATH.
///
/// # Errors
///
/// There is none; the message says how to get one.
pub fn find(asked_for: Option<&Path>) -> anyhow::Result<EnvoyCommand> {
    if let Some(program) = asked_for {
        if !program.is_file() {
            bail!("there is no Envoy at {}: see --envoy and ENVOY_BIN", program.display());
        }
        return Ok(EnvoyCommand {
            program: program.to_owned(),
            arguments: Vec::new(),
        });
    }
    if let Some(program) = on_path("func-e") {
        return Ok(EnvoyCommand {
            program,
            arguments: vec!["run".into()],
        });
    }
    let here = std::env::current_dir().ok();
    let program = std::env::current_exe().ok();
    let above = [here, program].into_iter().flatten().flat_map(|place| {
        place
            .ancestors()
            .map(|directory| directory.join(".tools").join("bin").join("envoy"))
            .collect::<Vec<_>>()
    });
    match above
        .into_iter()
        .find(|program| program.is_file())
        .or_else(|| on_path("envoy"))
    {
        Some(program) => Ok(EnvoyCommand {
            program,
            arguments: Vec::new(),
        }),
        None => bail!(
            "no Envoy found: give its path by --envoy or ENVOY_BIN, install func-e, or run scripts/install-tools in a \
             checkout of Sidetrack"
        ),
    }
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|directory| directory.join(name))
        .find(|program| program.is_file())
}
