//! The seeds of the fuzz target `table` are those of `config`, compiled: so they follow the table's layout.
//! `SIDETRACK_UPDATE=1` writes them anew.

#![cfg(not(target_arch = "wasm32"))]
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::Path;

use sidetrack_routing::{compile, decode, validate_routing};

/// Bytes that the fuzz target puts in front itself: magic, version, checksum.
const BEGINNING: usize = 20;

#[test]
fn the_seeds_are_tables_of_this_layout() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
    let mut compiled = Vec::new();
    for entry in fs::read_dir(seeds.join("config")).unwrap() {
        let entry = entry.unwrap();
        let value = serde_json::from_slice(&fs::read(entry.path()).unwrap()).unwrap();
        // One of them is wrong on purpose.
        let Ok(routing) = decode(&value, validate_routing) else {
            continue;
        };
        let table = compile(&routing).split_off(BEGINNING);
        let seed = seeds.join("table").join(entry.file_name());
        if std::env::var_os("SIDETRACK_UPDATE").is_some() {
            fs::write(&seed, &table).unwrap();
        }
        let is_current = fs::read(&seed).is_ok_and(|bytes| bytes == table);
        assert!(
            is_current,
            "{} is of another layout: write it anew with SIDETRACK_UPDATE=1",
            seed.display()
        );
        compiled.push(entry.file_name());
    }
    for entry in fs::read_dir(seeds.join("table")).unwrap() {
        let name = entry.unwrap().file_name();
        assert!(compiled.contains(&name), "{} has no configuration", name.display());
    }
}
