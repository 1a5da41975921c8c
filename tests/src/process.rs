//! Child processes that end with the value that owns them.

use std::fs;
use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::poll_until;

/// Linux counts in hundredths of a second for whoever asks, on every machine.
const MILLIS_IN_TICK: u64 = 10;

/// A running child process and all it has written so far.
///
/// Dropping it kills it and its descendants; if the test is failing, what it wrote is printed.
pub struct Process {
    name: String,
    child: Child,
    stdout: Captured,
    stderr: Captured,
}

impl Process {
    /// Starts `command`; `name` is what messages call it.
    ///
    /// # Panics
    /// If it can't be started.
    pub fn spawn(name: &str, command: &mut Command) -> Self {
        let command = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let stdout = Captured::from(child.stdout.take().unwrap());
        let stderr = Captured::from(child.stderr.take().unwrap());
        Self {
            name: name.to_owned(),
            child,
            stdout,
            stderr,
        }
    }

    /// All of standard output so far.
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// All of standard error so far.
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Both outputs, for messages.
    pub fn output(&self) -> String {
        let (stdout, stderr) = (self.stdout(), self.stderr());
        format!("--- {0}: stdout\n{stdout}\n--- {0}: stderr\n{stderr}", self.name)
    }

    /// Sends a signal; none is sent to a process that has ended.
    pub fn signal(&mut self, signal: Signal) {
        if self.exited().is_none() {
            kill_process(self.pid(), signal).expect("our own child takes signals");
        }
    }

    /// Its id.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// How it ended, if it has.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("our own child can be waited for")
    }

    /// Waits until it ends and its outputs are complete.
    ///
    /// # Panics
    /// If it is still running after `deadline`.
    pub async fn exit(&mut self, deadline: Duration) -> ExitStatus {
        let what = format!("the end of {}", self.name);
        let status = poll_until(deadline, &what, async || {
            self.exited().ok_or_else(|| "it is running".to_owned())
        });
        let status = status.await;
        poll_until(deadline, &what, async || {
            let complete = self.stdout.is_complete() && self.stderr.is_complete();
            complete
                .then_some(())
                .ok_or_else(|| "a child of its own still holds its output".to_owned())
        })
        .await;
        status
    }

    /// The processes it has started, and those they have (on Linux; elsewhere none are found).
    pub fn descendants(&self) -> Vec<Pid> {
        let mut found = vec![self.pid()];
        let mut next = 0;
        while let Some(pid) = found.get(next) {
            found.extend(children(*pid));
            next += 1;
        }
        found.split_off(1)
    }

    /// The most memory that the process with this id has had at one time, in bytes, since [`Process::forget_peak`].
    ///
    /// # Panics
    /// If there is no such process, or this isn't Linux.
    pub fn peak_memory(pid: Pid) -> u64 {
        bytes_in_status(pid, "VmHWM:")
    }

    /// The memory that the process with this id has now, in bytes.
    ///
    /// # Panics
    /// If there is no such process, or this isn't Linux.
    pub fn memory(pid: Pid) -> u64 {
        bytes_in_status(pid, "VmRSS:")
    }

    /// How long the process with this id has kept processors busy.
    ///
    /// # Panics
    /// If there is no such process, or this isn't Linux.
    pub fn cpu_time(pid: Pid) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("a running process");
        // The name, in brackets, may have any characters; the times in user and kernel mode are 12th and 13th after it.
        let (_, fields) = stat.rsplit_once(") ").expect("a name in brackets");
        let ticks = fields.split(' ').skip(11).take(2);
        let ticks: u64 = ticks.map(|ticks| ticks.parse::<u64>().expect("a number")).sum();
        Duration::from_millis(ticks * MILLIS_IN_TICK)
    }

    /// From here on what the process has now counts as the most.
    pub fn forget_peak(pid: Pid) {
        fs::write(format!("/proc/{pid}/clear_refs"), "5").expect("a process of our own");
    }

    /// Kills the process with this id; it may have ended.
    pub fn kill(pid: Pid) {
        let _ = kill_process(pid, Signal::KILL);
    }

    /// Whether a process with this id runs; one that has ended but wasn't waited for doesn't.
    pub fn exists(pid: Pid) -> bool {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // The state follows the name, which is in brackets and may have any characters.
        let is_zombie = stat.rsplit(") ").next().is_some_and(|state| state.starts_with('Z'));
        !is_zombie && test_kill_process(pid).is_ok()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Stopped first, so that it can't start another child meanwhile.
        if self.exited().is_none() {
            self.signal(Signal::STOP);
            for pid in self.descendants() {
                Self::kill(pid);
            }
            self.signal(Signal::KILL);
            let _ = self.child.wait();
        }
        if thread::panicking() {
            eprintln!("{}", self.output());
        }
    }
}

fn bytes_in_status(pid: Pid, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a running process");
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kilobytes.expect("a number of kB") * 1024
}

fn children(parent: Pid) -> Vec<Pid> {
    let tasks = fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten();
    tasks
        .flatten()
        .filter_map(|task| fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|line| line.split_whitespace().map(str::parse).collect::<Vec<_>>())
        .filter_map(|pid| Pid::from_raw(pid.ok()?))
        .collect()
}

/// What a pipe has delivered so far.
struct Captured {
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: thread::JoinHandle<()>,
}

impl Captured {
    fn from(mut pipe: impl Read + Send + 'static) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&bytes);
        let reader = thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(length @ 1..) = pipe.read(&mut chunk) {
                sink.lock().unwrap().extend_from_slice(&chunk[..length]);
            }
        });
        Self { bytes, reader }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes.lock().unwrap()).into_owned()
    }

    fn is_complete(&self) -> bool {
        self.reader.is_finished()
    }
}
