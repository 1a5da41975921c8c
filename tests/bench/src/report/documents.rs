//! The committed documents: all of them are made from docs/benchmarks/results.json.

use std::fs;
use std::path::PathBuf;

use anyhow::Context as _;
use sidetrack_tests::artifacts;

use super::{markdown, plots};
use crate::results::Results;

fn directory() -> PathBuf {
    artifacts::workspace().join("docs/benchmarks")
}

/// Puts `results` in the place of the figures that were there, keeps those of parts that they don't have, and writes
/// figures, docs/benchmarks.md and the plots.
pub(crate) fn write(results: Results) -> anyhow::Result<()> {
    let figures = directory().join("results.json");
    let known: Results = match fs::read_to_string(&figures) {
        Ok(text) => serde_json::from_str(&text).with_context(|| figures.display().to_string())?,
        Err(_) => Results::default(),
    };
    let text = results.or(known).to_json()?;
    // As they will be read next time, so that the same figures make the same page.
    let results = serde_json::from_str(&text)?;
    fs::create_dir_all(directory())?;
    fs::write(&figures, text)?;
    let plots = plots::plots(&results);
    for (file, svg) in &plots {
        fs::write(directory().join(file), svg)?;
    }
    let names: Vec<&str> = plots.iter().map(|(file, _)| *file).collect();
    let document = artifacts::workspace().join("docs/benchmarks.md");
    fs::write(&document, markdown::document(&results, &names))?;
    eprintln!("{} is written, and its plots", document.display());
    Ok(())
}
