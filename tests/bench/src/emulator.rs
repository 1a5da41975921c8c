//! An emulator that counts the instructions of what runs in it.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail, ensure};
use sidetrack_tests::artifacts;
use tempfile::TempDir;

/// The versions that QEMU's interface for plugins has had, or may soon have. Each QEMU takes one or a few.
const API_VERSIONS: std::ops::RangeInclusive<u32> = 1..=12;

/// qemu-user with the counting plugin.
pub(crate) struct Emulator {
    program: PathBuf,
    plugin: PathBuf,
    directory: TempDir,
}

/// The counters of a program that runs in the emulator, one for each of its threads.
pub(crate) struct Counters(File);

impl Emulator {
    /// Builds the plugin for the QEMU that there is.
    ///
    /// # Errors
    /// There is none, or no C compiler, or they don't work together.
    pub(crate) fn find() -> anyhow::Result<Self> {
        let name = format!("qemu-{}", std::env::consts::ARCH);
        let installed = artifacts::workspace().join(".tools/qemu").join(&name);
        let program = if installed.is_file() { installed } else { name.into() };
        let version = run(Command::new(&program).arg("--version"))
            .with_context(|| format!("no {}: run scripts/install-tools qemu", program.display()))?;
        let directory = tempfile::tempdir()?;
        let emulator = Self {
            plugin: directory.path().join("insn_plugin.so"),
            program,
            directory,
        };
        let mut reason = None;
        for api in API_VERSIONS {
            match emulator.build(api).and_then(|()| emulator.try_out()) {
                Ok(()) => return Ok(emulator),
                Err(error) => reason = reason.or(Some(error)),
            }
        }
        let reason = reason.context("no version was tried")?;
        Err(reason.context(format!(
            "the plugin doesn't run in {}",
            version.lines().next().unwrap_or_default()
        )))
    }

    /// Which QEMU it is.
    pub(crate) fn version(&self) -> anyhow::Result<String> {
        let text = run(Command::new(&self.program).arg("--version"))?;
        Ok(text.lines().next().unwrap_or_default().to_owned())
    }

    /// `program` in the emulator, ready to be given its arguments, and its counters.
    pub(crate) fn command(&self, program: &Path) -> anyhow::Result<(Command, Counters)> {
        let counts = self.directory.path().join("counts");
        fs::write(&counts, [])?;
        let mut command = Command::new(&self.program);
        command
            .arg("-plugin")
            .arg(&self.plugin)
            .arg(program)
            .env("INSN_COUNTS", &counts);
        Ok((command, Counters(File::open(counts)?)))
    }

    fn build(&self, api: u32) -> anyhow::Result<()> {
        let source = artifacts::workspace().join("tests/bench/insn_plugin.c");
        let mut cc = Command::new("cc");
        cc.args(["-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o"])
            .arg(&self.plugin);
        run(cc.arg(format!("-DAPI_VERSION={api}")).arg(source)).map(drop)
    }

    /// Whether it counts.
    fn try_out(&self) -> anyhow::Result<()> {
        let (mut command, mut counters) = self.command(Path::new("/bin/true"))?;
        run(&mut command)?;
        ensure!(counters.read()?.iter().sum::<u64>() > 1_000, "nothing was counted");
        Ok(())
    }
}

impl Counters {
    /// What they stand at now.
    pub(crate) fn read(&mut self) -> anyhow::Result<Vec<u64>> {
        use std::io::{Seek as _, SeekFrom};
        let mut bytes = Vec::new();
        self.0.seek(SeekFrom::Start(0))?;
        self.0.read_to_end(&mut bytes)?;
        let (numbers, _) = bytes.as_chunks::<8>();
        Ok(numbers.iter().map(|number| u64::from_ne_bytes(*number)).collect())
    }

    /// How many instructions the busiest thread executes while `work` is done.
    pub(crate) fn during(&mut self, work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<u64> {
        let before = self.read()?;
        work()?;
        let after = self.read()?;
        let most = before
            .iter()
            .zip(&after)
            .map(|(before, after)| after.wrapping_sub(*before))
            .max();
        most.context("there are no counters")
    }
}

fn run(command: &mut Command) -> anyhow::Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("{command:?}"))?;
    if !output.status.success() {
        bail!(
            "{command:?}: {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
