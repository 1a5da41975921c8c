//! A wall clock of their own for the programs under test.

use std::os::unix::fs::FileExt as _;
use std::process::Command;

use tempfile::NamedTempFile;

use crate::Preload;

/// The clock of the programs that are started with it; it can be set while they run. Their monotonic clock is the system's.
pub struct Clock {
    shift: NamedTempFile,
    library: Preload,
}

impl Clock {
    /// One that is right.
    ///
    /// # Panics
    /// If it can't be built.
    pub fn new() -> Self {
        let clock = Self {
            shift: NamedTempFile::new().unwrap(),
            library: Preload::new("clock"),
        };
        clock.set(0);
        clock
    }

    /// A program started by this has this clock.
    pub fn give<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        self.library
            .give(command)
            .env("SIDETRACK_TEST_CLOCK", self.shift.path())
    }

    /// From now on it is so many seconds ahead; behind, if there are fewer than none.
    pub fn set(&self, seconds: i64) {
        let nanoseconds = seconds * 1_000_000_000;
        self.shift
            .as_file()
            .write_all_at(&nanoseconds.to_ne_bytes(), 0)
            .unwrap();
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}
