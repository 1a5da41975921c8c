//! Which Envoy to run, and which version that is.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use tokio::process::Command;

use crate::render::EnvoyVersion;

/// How to start an Envoy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvoyCommand {
    /// The program.
    pub program: PathBuf,
    /// Whether it is func-e, which downloads an Envoy and runs that.
    pub is_func_e: bool,
}

impl EnvoyCommand {
    /// Asks which version of Envoy it is.
    ///
    /// # Errors
    ///
    /// It isn't supported, or the program doesn't say.
    pub async fn version(&self) -> anyhow::Result<EnvoyVersion> {
        let mut program = self.program.clone();
        if self.is_func_e {
            program = output(&program, "which").await?.trim().into();
        }
        let text = output(&program, "--version").await?;
        let release = release(&text).with_context(|| {
            let said = text.trim().lines().next().unwrap_or_default();
            format!("{} isn't an Envoy: --version prints `{said}`", program.display())
        })?;
        release.parse().with_context(|| program.display().to_string())
    }
}

/// The release in `envoy  version: COMMIT/1.40.0/Clean/RELEASE/BoringSSL`.
fn release(text: &str) -> Option<&str> {
    text.split_once("version: ")?.1.split('/').nth(1)
}

/// What `program` prints when it is given this argument.
async fn output(program: &Path, argument: &str) -> anyhow::Result<String> {
    let mut command = Command::new(program);
    let output = command.arg(argument).kill_on_drop(true).output().await;
    let output = output.with_context(|| format!("{} can't be started", program.display()))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{} {argument}: {}: {}",
        program.display(),
        output.status,
        errors.trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
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
            is_func_e: false,
        });
    }
    if let Some(program) = on_path("func-e") {
        return Ok(EnvoyCommand {
            program,
            is_func_e: true,
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
            is_func_e: false,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_release_is_read_from_what_envoy_prints() {
        for (text, expected) in [
            (
                "\nenvoy  version: 9e5580933739775e8bce696a57a2e1bc99368f23/1.40.0/Clean/RELEASE/BoringSSL\n\n",
                Some("1.40.0"),
            ),
            (
                "envoy  version: 0/1.41.0-dev/Modified/DEBUG/BoringSSL",
                Some("1.41.0-dev"),
            ),
            ("nginx version: nginx", None),
            ("", None),
        ] {
            assert_eq!(release(text), expected, "{text}");
        }
    }
}
