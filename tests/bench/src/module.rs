//! The filter's module: the size of its builds, and what loading the one that agents use costs.

use std::fs;
use std::process::Command;

use anyhow::Context as _;
use sidetrack_tests::artifacts;

use crate::arms::{Arm, Listener};
use crate::connection::Connection;
use crate::listeners::Bootstrap;
use crate::materials::Materials;
use crate::native::{ran, tasks};
use crate::results::Module;

/// How often Envoy is started.
const STARTS: usize = 5;

/// Measures it.
pub(crate) fn measure(materials: &Materials) -> anyhow::Result<Module> {
    let ours = Arm {
        listener: Listener::ours(10),
        ..Arm::PLAIN
    };
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for _ in 0..STARTS {
        without.push(start(&[Arm::PLAIN], materials)?);
        with.push(start(&[Arm::PLAIN, ours], materials)?);
    }
    let median = |mut values: Vec<u64>| {
        values.sort_unstable();
        values[values.len() / 2] as f64
    };
    Ok(Module {
        bytes: size("sidetrack_filter_table.wasm")?,
        bytes_with_json: size("sidetrack_filter.wasm")?,
        load: (median(with) - median(without)) / 1e6,
    })
}

fn size(build: &str) -> anyhow::Result<u64> {
    let builds = artifacts::workspace().join("target/wasm32-unknown-unknown/wasm");
    Ok(fs::metadata(builds.join(build))?.len())
}

/// How many nanoseconds all of Envoy's threads have run when it is ready.
fn start(arms: &[Arm], materials: &Materials) -> anyhow::Result<u64> {
    let directory = tempfile::tempdir()?;
    let bootstrap = Bootstrap::of(arms, materials)?;
    let mut envoy = bootstrap.spawn(Command::new(artifacts::envoy()), directory.path())?;
    for arm in arms {
        let port = bootstrap.port(*arm).context("no listener of Envoy")?;
        Connection::when_ready(port, *arm, &mut envoy)?.get()?;
    }
    tasks(envoy.pid())?
        .iter()
        .map(|task| ran(&task.join("schedstat")))
        .sum()
}
