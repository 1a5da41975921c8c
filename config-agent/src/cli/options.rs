//! Options that several commands have.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use clap::Args;
use sidetrack_routing::ValidConfig;
use sidetrack_routing::wire::Mode;

use crate::client::Api;
use crate::config::{self, InvalidConfig, Loaded, Reading};
use crate::render::FilterCode;

#[derive(Debug, Args)]
pub(super) struct ConfigFile {
    /// The configuration file.
    #[arg(short, long, value_name = "CONFIG")]
    pub(super) config: PathBuf,
    /// What Envoy stands before, sidecar or gateway; goes before server.mode.
    #[arg(long, env = "PROXY_MODE", value_name = "MODE", value_parser = parse_mode)]
    mode: Option<Mode>,
}

#[derive(Debug, Args)]
pub(super) struct Filter {
    /// The filter's code, as a path on Envoy's machine [default: sidetrack_filter_table.wasm or sidetrack_filter.wasm beside
    /// this program or in its checkout's target directory]
    #[arg(long, env = "SIDETRACK_FILTER", value_name = "PATH")]
    filter: Option<PathBuf>,
}

/// Where the agent is, and what it wants to see.
#[derive(Debug, Args)]
pub(super) struct ApiOptions {
    /// The agent's API.
    #[arg(
        long,
        env = "SIDETRACK_API",
        value_name = "URL",
        default_value = "http://127.0.0.1:9902"
    )]
    api: String,
    /// A file with the token that the agent wants to see, if it has tokens; without it, the environment's SIDETRACK_TOKEN.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
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
    pub(super) fn load(&self) -> Result<ValidConfig, InvalidConfig> {
        Ok(self.load_as(self.reading())?.config)
    }

    pub(super) fn reading(&self) -> Reading {
        Reading {
            mode: self.mode,
            envoy_is_here: false,
        }
    }

    pub(super) fn load_as(&self, reading: Reading) -> Result<Loaded, InvalidConfig> {
        let loaded = config::load(&self.config, reading)?;
        for warning in &loaded.warnings {
            eprintln!("{warning}");
        }
        Ok(loaded)
    }
}

impl Filter {
    pub(super) fn code(self) -> anyhow::Result<FilterCode> {
        /// The smaller build first: what an agent sends it takes as well, in less time.
        const NAMES: [&str; 2] = ["sidetrack_filter_table.wasm", "sidetrack_filter.wasm"];
        const BUILT: &str = "wasm32-unknown-unknown/wasm";
        if let Some(path) = self.filter {
            return Ok(FilterCode::file(std::path::absolute(path)?));
        }
        let program = std::env::current_exe().context("where this program is")?;
        let beside = program.parent().unwrap_or(Path::new("/"));
        let places = [
            Some(beside.to_owned()),
            beside.parent().map(|target| target.join(BUILT)),
        ];
        let mut files = places
            .into_iter()
            .flatten()
            .flat_map(|place| NAMES.map(|name| place.join(name)));
        let found = files.find(|file| file.is_file());
        Ok(FilterCode::file(
            found.unwrap_or_else(|| program.with_file_name(NAMES[0])),
        ))
    }
}

impl ApiOptions {
    pub(super) fn client(&self) -> anyhow::Result<Api> {
        let token = match &self.token_file {
            Some(file) => {
                let text =
                    std::fs::read_to_string(file).with_context(|| format!("{} can't be read", file.display()))?;
                Some(token(&text).with_context(|| file.display().to_string())?)
            }
            None => match std::env::var("SIDETRACK_TOKEN") {
                Ok(text) if !text.is_empty() => Some(token(&text).context("SIDETRACK_TOKEN")?),
                _ => None,
            },
        };
        Ok(Api::new(&self.api, token)?)
    }
}

/// A token, white space around it aside.
fn token(text: &str) -> anyhow::Result<String> {
    let token = text.trim();
    // What it is mustn't be shown.
    ensure!(
        !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()),
        "must hold one token and nothing else"
    );
    Ok(token.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_one_word() {
        assert_eq!(token("abc=\n").unwrap(), "abc=");
        for text in ["", "\n", "a b", "a\nb", "é"] {
            let error = token(text).unwrap_err().to_string();
            assert_eq!(error, "must hold one token and nothing else");
        }
    }
}
