//! A disk of their own for the programs under test, that can be full.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Pid;
use tempfile::TempDir;

/// A small disk in memory, mounted for one program, which is in a mount namespace for it.
pub struct SmallDisk {
    directory: TempDir,
}

const KILOBYTES: usize = 64;

impl SmallDisk {
    /// One, if this machine lets us mount it: not every container does, nor every system without root.
    pub fn new() -> Option<Self> {
        let disk = Self {
            directory: tempfile::tempdir().unwrap(),
        };
        let output = disk.mounted_for(&Command::new("true")).output();
        let is_possible = output.is_ok_and(|output| output.status.success());
        is_possible.then_some(disk)
    }

    /// Where it is, for the program only.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// `command` with the disk, in the same process.
    pub fn mounted_for(&self, command: &Command) -> Command {
        let mount = format!("mount -t tmpfs -o size={KILOBYTES}k none \"$0\" && exec \"$@\"");
        let mut mounted = Command::new("unshare");
        mounted.args(["--mount", "--map-root-user", "sh", "-c", &mount]);
        mounted.arg(self.path());
        wrap(mounted, command)
    }

    /// Fills it to the last byte, where the program with this id has it.
    ///
    /// # Panics
    /// If there is no such program.
    pub fn fill(&self, program: Pid) {
        let mut ballast = File::create(self.ballast(program)).expect("the disk is mounted");
        for chunk in [&[0; 4096][..], &[0]] {
            while let Ok(1..) = ballast.write(chunk) {}
        }
        let full = ballast.write(&[0]).map_err(|error| error.kind());
        assert_eq!(full, Err(io::ErrorKind::StorageFull));
    }

    /// There is room again.
    ///
    /// # Panics
    /// If it wasn't full.
    pub fn make_room(&self, program: Pid) {
        fs::remove_file(self.ballast(program)).unwrap();
    }

    fn ballast(&self, program: Pid) -> PathBuf {
        let ballast = self.path().join("ballast");
        Path::new(&format!("/proc/{program}/root")).join(ballast.strip_prefix("/").unwrap())
    }
}

/// `command`, but that root has no more rights to files than others. Nothing changes for them.
///
/// # Panics
/// If that can't be found out.
pub fn bound_by_permissions(command: Command) -> Command {
    if !rustix::process::geteuid().is_root() {
        return command;
    }
    let mut bound = Command::new("setpriv");
    let without = "-dac_override,-dac_read_search";
    bound.args(["--inh-caps", without, "--bounding-set", without]);
    wrap(bound, &command)
}

/// The program `wrapper`, whose last arguments are `command`.
fn wrap(mut wrapper: Command, command: &Command) -> Command {
    wrapper.arg(command.get_program()).args(command.get_args());
    let set = |(name, value): (&OsStr, Option<&OsStr>)| Some((name.to_owned(), value?.to_owned()));
    wrapper.envs(command.get_envs().filter_map(set));
    wrapper
}
