//! The routing core alone: runs its benches and reads what they found.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use serde_json::Value;
use sidetrack_tests::artifacts;

use crate::results::Micro;

/// Runs `routing/benches` and returns the times of all of them, by name.
pub(crate) fn measure() -> anyhow::Result<Vec<Micro>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let target = target_directory(&cargo)?;
    let found = target.join("criterion");
    // What former benches have left.
    let _ = fs::remove_dir_all(&found);
    let mut command = Command::new(cargo);
    command.args(["bench", "--quiet", "-p", "sidetrack-routing", "--bench", "routing"]);
    let status = command.current_dir(artifacts::workspace()).status()?;
    ensure!(status.success(), "{command:?}: {status}");
    let mut benches = Vec::new();
    collect(&found, &mut benches)?;
    benches.sort_by_key(|bench| order(&bench.what));
    ensure!(!benches.is_empty(), "{} has no estimates", found.display());
    Ok(benches)
}

/// Numbers in names are compared as numbers.
fn order(name: &str) -> (String, u64) {
    let (rest, number) = name.rsplit_once('/').unwrap_or((name, ""));
    match number.parse() {
        Ok(number) => (rest.to_owned(), number),
        Err(_) => (name.to_owned(), 0),
    }
}

fn target_directory(cargo: &std::ffi::OsStr) -> anyhow::Result<PathBuf> {
    let mut command = Command::new(cargo);
    command.args(["metadata", "--format-version=1", "--no-deps", "--offline"]);
    let output = command.current_dir(artifacts::workspace()).output()?;
    let metadata: Value = serde_json::from_slice(&output.stdout).context("cargo metadata prints JSON")?;
    let directory = metadata["target_directory"]
        .as_str()
        .context("cargo has a target directory")?;
    Ok(directory.into())
}

/// Criterion keeps a directory `new` for each bench, with its name and its estimates.
fn collect(directory: &Path, benches: &mut Vec<Micro>) -> anyhow::Result<()> {
    if directory.ends_with("new") {
        benches.push(bench(directory)?);
        return Ok(());
    }
    for entry in fs::read_dir(directory).with_context(|| directory.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, benches)?;
        }
    }
    Ok(())
}

fn bench(directory: &Path) -> anyhow::Result<Micro> {
    let read = |file: &str| -> anyhow::Result<Value> {
        let path = directory.join(file);
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        Ok(serde_json::from_str(&text)?)
    };
    let (name, estimates) = (read("benchmark.json")?, read("estimates.json")?);
    let median = &estimates["median"];
    let number = |value: &Value| {
        value
            .as_f64()
            .with_context(|| format!("{}: {value}", directory.display()))
    };
    Ok(Micro {
        what: name["full_id"].as_str().context("a bench has a name")?.to_owned(),
        median: number(&median["point_estimate"])?,
        least: number(&median["confidence_interval"]["lower_bound"])?,
        most: number(&median["confidence_interval"]["upper_bound"])?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_in_order_of_size() {
        let mut names = ["a/1000", "a/10", "b", "a/200"];
        names.sort_by_key(|name| order(name));
        assert_eq!(names, ["a/10", "a/200", "a/1000", "b"]);
    }
}
