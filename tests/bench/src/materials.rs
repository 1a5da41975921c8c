//! What listeners are made with, built before it is used.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use sidetrack_tests::artifacts;

use crate::arms::{BASELINE, Extent, SANDBOX};
use crate::upstream::Upstream;

/// The programs and services that take part.
pub(crate) struct Materials {
    /// The program that renders ours.
    pub(crate) sidetrack: PathBuf,
    /// The least module.
    pub(crate) floor: PathBuf,
    /// The two services.
    pub(crate) baseline: SocketAddr,
    pub(crate) sandbox: SocketAddr,
}

impl Materials {
    /// Builds the programs and starts the services.
    pub(crate) fn gather(extent: Extent) -> anyhow::Result<Self> {
        let sidetrack = match extent {
            Extent::Quick => artifacts::sidetrack(),
            // 100,000 rules take long in one that isn't optimised.
            Extent::Full => artifacts::sidetrack_release(),
        };
        Ok(Self {
            sidetrack: sidetrack.to_owned(),
            floor: floor()?,
            baseline: Upstream::start(BASELINE)?.address,
            sandbox: Upstream::start(SANDBOX)?.address,
        })
    }
}

/// Where what is built and measured here is kept.
pub(crate) fn directory() -> anyhow::Result<PathBuf> {
    let directory = artifacts::workspace().join("target/bench");
    fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
    Ok(directory)
}

fn floor() -> anyhow::Result<PathBuf> {
    let module = directory()?.join("floor.wasm");
    let mut rustc = Command::new("rustc");
    rustc
        .current_dir(artifacts::workspace())
        .args(["--edition", "2024", "--target", "wasm32-unknown-unknown"]);
    rustc.args([
        "--crate-type",
        "cdylib",
        "-C",
        "opt-level=3",
        "-C",
        "panic=abort",
        "-C",
        "strip=symbols",
        "-o",
    ]);
    let output = rustc
        .arg(&module)
        .arg(Path::new("tests/bench/floor.rs"))
        .output()
        .context("rustc")?;
    ensure!(
        output.status.success(),
        "{rustc:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(module)
}
