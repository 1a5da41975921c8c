//! Libraries put before the C library of a program under test, to show it a system that is out of the ordinary.

use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use crate::artifacts;

/// One of them, built from `tests/preload/`.
pub struct Preload {
    library: PathBuf,
    _directory: TempDir,
}

impl Preload {
    /// That of this name, with the compiler that Rust links with.
    ///
    /// # Panics
    /// If it can't be built.
    pub fn new(name: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let library = directory.path().join(name).with_extension("so");
        let source = artifacts::workspace()
            .join("tests/preload")
            .join(name)
            .with_extension("c");
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o"]);
        let output = compiler.arg(&library).arg(source).output();
        let output = output.expect("cc, which Rust links with");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Self {
            library,
            _directory: directory,
        }
    }

    /// A program started by this has it.
    pub fn give<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        command.env("LD_PRELOAD", &self.library)
    }
}
