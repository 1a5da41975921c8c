//! A terminal for a command, and what is on its screen.

use std::fs::File;
use std::io::Read as _;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::{Process, poll_until};

/// A command that runs on a terminal of its own.
pub struct Terminal {
    child: std::process::Child,
    screen: Arc<Mutex<Screen>>,
}

/// What a terminal shows. It knows what a table needs, and panics at everything else.
#[derive(Debug)]
struct Screen {
    rows: usize,
    columns: usize,
    cells: Vec<Vec<char>>,
    row: usize,
    column: usize,
    /// What has come of an escape sequence.
    escape: Option<String>,
    /// How often the cursor has left the last row.
    scrolled: usize,
}

impl Terminal {
    /// Starts `command` on a terminal of this size.
    ///
    /// # Panics
    /// If there is none.
    pub fn start(command: &mut Command, rows: u16, columns: u16) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&master).expect("a terminal of ours");
        unlockpt(&master).expect("a terminal of ours");
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&master, size).expect("a size");
        let name = ptsname(&master, Vec::new()).expect("a name");
        let slave = rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).expect("the other side");
        let child = command
            .stdin(Stdio::null())
            .stdout(slave)
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        let screen = Arc::new(Mutex::new(Screen::new(rows.into(), columns.into())));
        let mut output = File::from(master);
        let shown = Arc::clone(&screen);
        thread::spawn(move || {
            let mut pending = Vec::new();
            let mut chunk = [0; 4096];
            while let Ok(length @ 1..) = output.read(&mut chunk) {
                pending.extend_from_slice(&chunk[..length]);
                let whole = match std::str::from_utf8(&pending) {
                    Ok(text) => text.len(),
                    Err(error) => error.valid_up_to(),
                };
                let rest = pending.split_off(whole);
                shown.lock().unwrap().write(&String::from_utf8(pending).unwrap());
                pending = rest;
            }
        });
        Self { child, screen }
    }

    /// The lines on the screen, without the space at their ends and the empty ones below.
    ///
    /// # Panics
    /// If something came that no table needs.
    pub fn lines(&self) -> Vec<String> {
        self.screen.lock().expect("known sequences only").lines()
    }

    /// How many lines have left it at the top.
    ///
    /// # Panics
    /// As [`Terminal::lines`].
    pub fn scrolled(&self) -> usize {
        self.screen.lock().expect("known sequences only").scrolled
    }

    /// What Ctrl-C does.
    ///
    /// # Panics
    /// If it has ended.
    pub fn interrupt(&self) {
        kill_process(self.pid(), Signal::INT).expect("our own child takes signals");
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// If it is still running after `deadline`.
    pub async fn exit(&mut self, deadline: Duration) -> ExitStatus {
        poll_until(deadline, "the end of the command", async || {
            let status = self.child.try_wait().expect("our own child");
            status.ok_or_else(|| "it is running".to_owned())
        })
        .await
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            Process::kill(self.pid());
            let _ = self.child.wait();
        }
    }
}

impl Screen {
    fn new(rows: usize, columns: usize) -> Self {
        Self {
            rows,
            columns,
            // What was there before.
            cells: vec![vec!['$'; columns]; rows],
            row: rows / 2,
            column: 0,
            escape: None,
            scrolled: 0,
        }
    }

    fn write(&mut self, text: &str) {
        for character in text.chars() {
            match (&mut self.escape, character) {
                (Some(escape), _) => {
                    escape.push(character);
                    if character.is_ascii_alphabetic() {
                        let sequence = std::mem::take(escape);
                        self.escape = None;
                        self.control(&sequence);
                    }
                }
                (None, '\x1b') => self.escape = Some(String::new()),
                (None, '\r') => self.column = 0,
                (None, '\n') => self.next_row(),
                (None, _) => {
                    if self.column == self.columns {
                        self.column = 0;
                        self.next_row();
                    }
                    self.cells[self.row][self.column] = character;
                    self.column += 1;
                }
            }
        }
    }

    fn next_row(&mut self) {
        if self.row + 1 < self.rows {
            self.row += 1;
        } else {
            self.cells.remove(0);
            self.cells.push(vec![' '; self.columns]);
            self.scrolled += 1;
        }
    }

    fn control(&mut self, sequence: &str) {
        let (row, column) = (self.row, self.column.min(self.columns));
        match sequence {
            "[H" => (self.row, self.column) = (0, 0),
            "[2J" => self.cells.iter_mut().for_each(|row| row.fill(' ')),
            "[K" => self.cells[row][column..].fill(' '),
            "[J" => {
                self.cells[row][column..].fill(' ');
                self.cells[row + 1..].iter_mut().for_each(|row| row.fill(' '));
            }
            other => panic!("no table needs {other:?}"),
        }
    }

    fn lines(&self) -> Vec<String> {
        let text = |row: &Vec<char>| row.iter().collect::<String>().trim_end().to_owned();
        let mut lines: Vec<String> = self.cells.iter().map(text).collect();
        while lines.last().is_some_and(String::is_empty) {
            lines.pop();
        }
        lines
    }
}
