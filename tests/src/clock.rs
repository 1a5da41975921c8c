//! A wall clock of their own for the programs under test.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use crate::artifacts;

/// The clock of the programs that are started with it; it can be set while they run. Their monotonic clock is the system's.
pub struct Clock {
    shift: fs::File,
    library: PathBuf,
    directory: TempDir,
}

impl Clock {
    /// One that is right. It is a library put before the C library of a program (`tests/clock/clock.c`); the compiler is the
    /// one that Rust links with.
    ///
    /// # Panics
    /// If it can't be built.
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let library = directory.path().join("clock.so");
        let shift = fs::File::create(directory.path().join("shift")).unwrap();
        let mut compiler = Command::new("cc");
        compiler
            .args(["-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o"])
            .arg(&library);
        let output = compiler
            .arg(artifacts::workspace().join("tests/clock/clock.c"))
            .output();
        let output = output.expect("cc, which Rust links with");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let clock = Self {
            shift,
            library,
            directory,
        };
        clock.set(0);
        clock
    }

    /// A program started by this has this clock.
    pub fn give<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        command
            .env("LD_PRELOAD", &self.library)
            .env("SIDETRACK_TEST_CLOCK", self.directory.path().join("shift"))
    }

    /// From now on it is so many seconds ahead; behind, if there are fewer than none.
    pub fn set(&self, seconds: i64) {
        let nanoseconds = seconds * 1_000_000_000;
        self.shift.write_all_at(&nanoseconds.to_ne_bytes(), 0).unwrap();
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}
