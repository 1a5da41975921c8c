//! The file that keeps the API's rules across restarts.
//!
//! It is written whole beside itself, fsynced and renamed into its place, so at any instant there is the whole old one or
//! the whole new one. Nothing that this agent hasn't written or read as its own is ever overwritten: a file that is torn,
//! foreign, of another version or changed behind the agent's back is an error that says what to do. A lock keeps a second
//! agent out; it is taken when there is a file to read or to write, so that an agent whose API nobody uses leaves nothing
//! behind.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use rustix::fs::{FlockOperation, flock};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use thiserror::Error;
use twox_hash::XxHash64;

/// The format of the file.
const VERSION: u32 = 1;

/// More than the API's rules may have.
const MAX_BYTES: u64 = 256 * 1024 * 1024;

const MAX_LINKS: usize = 40;

/// The file, its lock, and what it was when it was read or written last.
#[derive(Debug)]
pub struct StateFile {
    path: PathBuf,
    lock: Option<File>,
    known: Option<Fingerprint>,
}

/// Why there is no state to begin with. Its display names the file and says what to do.
#[derive(Debug, Error)]
pub enum InvalidState {
    /// It can't be read.
    #[error("{}: can't be read: {error}; let this user read it, or set agent.stateFile to another place", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// It isn't what this agent writes.
    #[error(
        "{}: {what}; it is left as it is: put a good copy in its place, or move it away to begin without any rule of the API",
        path.display()
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// Another agent has it.
    #[error("{}: {}", path.display(), LOCKED)]
    Locked {
        /// The file.
        path: PathBuf,
    },
}

const LOCKED: &str = "another agent keeps its rules there: stop that one, or set agent.stateFile to a file of its own";

/// Why the rules can't be kept. Its display names the file and says what to do.
#[derive(Debug, Error)]
#[error("the rules can't be kept in {}: {what}", path.display())]
pub struct Unwritable {
    path: PathBuf,
    what: String,
}

/// What tells one writing of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fingerprint {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Stored<'a> {
    #[serde(rename = "sidetrackState")]
    _version: u32,
    checksum: String,
    #[serde(borrow)]
    rules: &'a RawValue,
}

impl StateFile {
    /// Reads the state at `path`: a JSON list of rules; nothing, if there is no file yet.
    ///
    /// # Errors
    ///
    /// See [`InvalidState`]; the file is as it was.
    pub fn open(path: &Path) -> Result<(Self, Option<Bytes>), InvalidState> {
        let path = behind_links(path);
        let unreadable = |error| InvalidState::Unreadable {
            path: path.clone(),
            error,
        };
        match fs::metadata(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let state = Self {
                    path,
                    lock: None,
                    known: None,
                };
                return Ok((state, None));
            }
            Err(error) => return Err(unreadable(error)),
            Ok(metadata) if !metadata.is_file() => {
                let what = "is no file".to_owned();
                return Err(InvalidState::Foreign { path, what });
            }
            Ok(_) => {}
        }
        let lock = match lock(&path) {
            Ok(lock) => Some(lock),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Err(InvalidState::Locked { path }),
            // Who can't write a lock can't write the state either, and is told when the API wants to.
            Err(_) => None,
        };
        let file = File::open(&path).map_err(unreadable)?;
        let known = file.metadata().map_err(unreadable)?;
        let mut text = Vec::new();
        io::Read::read_to_end(&mut io::Read::take(file, MAX_BYTES + 1), &mut text).map_err(unreadable)?;
        match rules_in(&text) {
            Ok(rules) => {
                let state = Self {
                    path,
                    lock,
                    known: Some(Fingerprint::of(&known)),
                };
                Ok((state, Some(rules)))
            }
            Err(what) => Err(InvalidState::Foreign { path, what }),
        }
    }

    /// Where it is, links followed.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Keeps these rules, elements of a JSON list, in place of those before. They are on the disk when this returns.
    ///
    /// # Errors
    ///
    /// See [`Unwritable`]: what was kept before is kept still, unless the disk failed in the very last step.
    pub fn write<'r>(&mut self, rules: impl Iterator<Item = &'r Bytes>) -> Result<(), Unwritable> {
        let written = self.try_write(rules);
        written.map_err(|what| Unwritable {
            path: self.path.clone(),
            what,
        })
    }

    fn try_write<'r>(&mut self, rules: impl Iterator<Item = &'r Bytes>) -> Result<(), String> {
        // One that isn't in its place any more keeps nobody out.
        let place = beside(&self.path, ".lock");
        if !self.lock.as_ref().is_some_and(|lock| is_at(lock, &place)) {
            self.lock = Some(lock(&self.path).map_err(|error| match error.kind() {
                ErrorKind::WouldBlock => LOCKED.to_owned(),
                _ => mend(&error),
            })?);
        }
        let mode = match fs::metadata(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => 0o600,
            Err(error) => return Err(mend(&error)),
            Ok(metadata) if self.known != Some(Fingerprint::of(&metadata)) => {
                return Err(
                    "it was changed by someone else: start the agent again to take it over, or move it away".to_owned(),
                );
            }
            Ok(metadata) => metadata.mode() & 0o777,
        };
        let text = text_of(rules);
        let new = beside(&self.path, ".tmp");
        let written = write_new(&new, &text, mode).and_then(|known| fs::rename(&new, &self.path).map(|()| known));
        match written {
            Ok(known) => {
                self.known = Some(known);
                File::open(directory(&self.path))
                    .and_then(|directory| directory.sync_all())
                    .map_err(|error| mend(&error))
            }
            Err(error) => {
                let _ = fs::remove_file(&new);
                Err(mend(&error))
            }
        }
    }
}

impl Fingerprint {
    fn of(metadata: &fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }
}

fn write_new(path: &Path, text: &[u8], mode: u32) -> io::Result<Fingerprint> {
    // What a killed agent has left.
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(text)?;
    file.sync_all()?;
    Ok(Fingerprint::of(&file.metadata()?))
}

/// The whole file.
fn text_of<'r>(rules: impl Iterator<Item = &'r Bytes>) -> Vec<u8> {
    let mut list = b"[".to_vec();
    for (index, rules) in rules.enumerate() {
        list.extend_from_slice(if index == 0 { b"\n" } else { b",\n" });
        list.extend_from_slice(rules);
    }
    list.push(b']');
    // Without a line end: every byte counts, so that a file that lacks one is torn.
    let mut text = format!(
        "{{\"sidetrackState\":{VERSION},\"checksum\":\"{}\",\"rules\":",
        checksum(&list)
    )
    .into_bytes();
    text.append(&mut list);
    text.push(b'}');
    text
}

/// The list of rules in a file with this text, or what is wrong with it.
fn rules_in(text: &[u8]) -> Result<Bytes, String> {
    const FOREIGN: &str = "is no state of Sidetrack's API";
    const TORN: &str = "is torn: its end is missing or was overwritten";
    if text.len() as u64 > MAX_BYTES {
        return Err(format!("{FOREIGN}: it has more than {} MiB", MAX_BYTES / 1024 / 1024));
    }
    if text.is_empty() {
        return Err(format!("{TORN}, it is empty"));
    }
    let begins = text.starts_with(b"{\"sidetrackState\"") || b"{\"sidetrackState\"".starts_with(text);
    let torn = || if begins { TORN } else { FOREIGN }.to_owned();
    let text = std::str::from_utf8(text).map_err(|_| torn())?;
    let whole: Value = serde_json::from_str::<Value>(text).map_err(|_| torn())?;
    match whole.get("sidetrackState").and_then(Value::as_u64) {
        None => return Err(FOREIGN.to_owned()),
        Some(version) if version != u64::from(VERSION) => {
            return Err(format!(
                "has the format {version}, this agent knows the format {VERSION} only"
            ));
        }
        Some(_) => {}
    }
    drop(whole);
    let stored: Stored<'_> = serde_json::from_str(text).map_err(|error| format!("{FOREIGN}: {error}"))?;
    let rules = stored.rules.get();
    if checksum(rules.as_bytes()) != stored.checksum {
        return Err("was damaged or changed by hand: its checksum isn't that of its rules".to_owned());
    }
    Ok(Bytes::copy_from_slice(rules.as_bytes()))
}

fn checksum(rules: &[u8]) -> String {
    format!("{:016x}", XxHash64::oneshot(0, rules))
}

/// What the system says, and what to do about it.
fn mend(error: &io::Error) -> String {
    const ELSEWHERE: &str = "or set agent.stateFile to a place that can be written";
    let what = match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "make room on its disk",
        ErrorKind::FileTooLarge => "raise the limit on the size of files",
        ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied => "let this user write its directory",
        ErrorKind::NotFound | ErrorKind::NotADirectory => "make its directory",
        _ => "mend that",
    };
    format!("{error}: {what}, {ELSEWHERE}")
}

/// The lock of the state at `path`; it ends with the process, however that ends.
fn lock(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(beside(path, ".lock"))?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    Ok(file)
}

fn is_at(file: &File, path: &Path) -> bool {
    let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    match (file.metadata(), fs::metadata(path)) {
        (Ok(file), Ok(there)) => identity(file) == identity(there),
        _ => false,
    }
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name: OsString = path.file_name().unwrap_or_default().to_owned();
    name.push(ending);
    path.with_file_name(name)
}

fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Where the links lead that `path` may be, so that they stay when the file is replaced.
fn behind_links(path: &Path) -> PathBuf {
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        match fs::read_link(&path) {
            Ok(target) => path = directory(&path).join(target),
            Err(_) => break,
        }
    }
    path
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
