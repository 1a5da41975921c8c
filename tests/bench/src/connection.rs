//! A client that sends one request again and again, on one connection.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use sidetrack_tests::Process;

use crate::arms::{Arm, PATH};

/// Even an Envoy in an emulator answers within this time.
const PATIENCE: Duration = Duration::from_secs(60);

/// An Envoy in an emulator compiles the filter slowly.
const UNTIL_READY: Duration = Duration::from_secs(600);

/// A connection to one listener, and the request of one arm.
pub(crate) struct Connection {
    stream: TcpStream,
    request: Vec<u8>,
    /// The body that says that the request was routed as it should be.
    answer: &'static [u8],
    received: Vec<u8>,
}

impl Connection {
    /// Connects to `port`, where requests of `arm` are to be sent.
    pub(crate) fn open(port: u16, arm: Arm) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let headers = arm.headers().into_iter();
        let lines: String = headers.map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        Ok(Self {
            stream,
            request: format!("GET {PATH} HTTP/1.1\r\nhost: shop.example\r\n{lines}\r\n").into_bytes(),
            answer: arm.answer().as_bytes(),
            received: Vec::with_capacity(4096),
        })
    }

    /// The same as soon as `server` listens there.
    pub(crate) fn when_ready(port: u16, arm: Arm, server: &mut Process) -> anyhow::Result<Self> {
        let end = Instant::now() + UNTIL_READY;
        loop {
            match Self::open(port, arm) {
                Ok(connection) => return Ok(connection),
                Err(error) if Instant::now() > end => return Err(error),
                Err(_) => {}
            }
            if let Some(status) = server.exited() {
                bail!("it ended before it was ready: {status}");
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Sends the request and waits for the answer.
    pub(crate) fn get(&mut self) -> anyhow::Result<()> {
        self.stream.write_all(&self.request)?;
        self.received.clear();
        let mut chunk = [0; 4096];
        // The body is shorter than a head, so it isn't mistaken for a part of one.
        while !self.is_complete() {
            let length = self.stream.read(&mut chunk).context("no answer")?;
            ensure!(length > 0, "the connection was closed after {:?}", self.text());
            self.received.extend_from_slice(&chunk[..length]);
        }
        let is_right = self.received.starts_with(b"HTTP/1.1 200 ") && self.received.ends_with(self.answer);
        ensure!(
            is_right,
            "the answer isn't {:?} but {:?}",
            String::from_utf8_lossy(self.answer),
            self.text()
        );
        Ok(())
    }

    /// Whether what was received is a head and as many bytes as it says.
    fn is_complete(&self) -> bool {
        let text = &self.received;
        let Some(end) = text.windows(4).position(|four| four == b"\r\n\r\n") else {
            return false;
        };
        let head = String::from_utf8_lossy(&text[..end]).to_ascii_lowercase();
        let length = head.split("content-length:").nth(1).and_then(|rest| {
            let digits = rest.split("\r\n").next()?;
            digits.trim().parse::<usize>().ok()
        });
        length.is_some_and(|length| text.len() >= end + 4 + length)
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.received).into_owned()
    }
}
