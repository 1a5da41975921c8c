//! As many requests as the machine gives.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::task::JoinSet;

/// How many other answers are kept.
const SHOWN: usize = 3;

/// How requests are sent: prebuilt, in turn, on each connection its own, several before the first is answered.
#[derive(Clone, Copy, Debug)]
pub struct Flood {
    /// To this port of loopback.
    pub port: u16,
    /// So many on each connection before the answer to the first.
    pub depth: usize,
    /// So many in a second at most, all together.
    pub rate: u32,
    /// For this time.
    pub lasts: Duration,
}

/// What became of them.
#[derive(Clone, Debug, Default)]
pub struct Flooded {
    /// How many were sent on each connection; all of them were answered.
    pub sent: Vec<usize>,
    /// How many were answered otherwise than 2xx.
    pub refused: usize,
    /// Some of those answers.
    pub refusals: Vec<String>,
    /// Until the last answer.
    pub took: Duration,
}

impl Flood {
    /// Sends requests (of HTTP/1.1, whole), those of each list on a connection of its own, round and round; and waits for
    /// the answers to all that were sent.
    ///
    /// # Panics
    /// If a connection can't be opened or breaks.
    pub async fn send(self, requests: Vec<Vec<Vec<u8>>>) -> Flooded {
        let begun = Instant::now();
        let all = Arc::new(AtomicU32::new(0));
        let connections = requests.len();
        let mut senders = JoinSet::new();
        for (index, requests) in requests.into_iter().enumerate() {
            let all = Arc::clone(&all);
            senders.spawn(async move {
                let connection = Connection::open(self.port).await;
                let flooded = connection
                    .expect("a connection")
                    .flood(self, requests, begun, &all)
                    .await;
                (index, flooded.expect("a connection that stays"))
            });
        }
        let mut flooded = Flooded {
            sent: vec![0; connections],
            ..Flooded::default()
        };
        while let Some(ended) = senders.join_next().await {
            let (index, connection) = ended.unwrap();
            flooded.sent[index] = connection.sent;
            flooded.refused += connection.refused;
            flooded.refusals.extend(connection.refusals);
        }
        flooded.refusals.truncate(SHOWN);
        flooded.took = begun.elapsed();
        flooded
    }
}

struct Connection {
    read: BufReader<OwnedReadHalf>,
    write: OwnedWriteHalf,
    sent: usize,
    refused: usize,
    refusals: Vec<String>,
}

impl Connection {
    async fn open(port: u16) -> io::Result<Self> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        stream.set_nodelay(true)?;
        let (read, write) = stream.into_split();
        Ok(Self {
            read: BufReader::new(read),
            write,
            sent: 0,
            refused: 0,
            refusals: Vec::new(),
        })
    }

    async fn flood(
        mut self,
        flood: Flood,
        requests: Vec<Vec<u8>>,
        begun: Instant,
        all: &AtomicU32,
    ) -> io::Result<Self> {
        let mut answered = 0;
        while begun.elapsed() < flood.lasts {
            // As many as there is room for, in one write.
            let mut batch = Vec::new();
            while self.sent < answered + flood.depth {
                let due = begun + Duration::from_secs(1) / flood.rate * all.fetch_add(1, Ordering::Relaxed);
                if due > Instant::now() {
                    self.write.write_all(&std::mem::take(&mut batch)).await?;
                    tokio::time::sleep_until(due.into()).await;
                }
                batch.extend_from_slice(&requests[self.sent % requests.len()]);
                self.sent += 1;
            }
            self.write.write_all(&batch).await?;
            while answered < self.sent {
                self.answer().await?;
                answered += 1;
                if self.read.buffer().is_empty() {
                    break;
                }
            }
        }
        while answered < self.sent {
            self.answer().await?;
            answered += 1;
        }
        Ok(self)
    }

    async fn answer(&mut self) -> io::Result<()> {
        let mut status = String::new();
        if self.read.read_line(&mut status).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut length = 0;
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            self.read.read_line(&mut line).await?;
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().map_err(io::Error::other)?;
            }
        }
        let mut body = vec![0; length];
        self.read.read_exact(&mut body).await?;
        if !status.starts_with("HTTP/1.1 2") {
            self.refused += 1;
            if self.refusals.len() < SHOWN {
                let body = String::from_utf8_lossy(&body);
                self.refusals.push(format!("{}: {body}", status.trim_end()));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::EchoServer;

    #[tokio::test]
    async fn every_request_is_answered_and_counted() {
        let server = EchoServer::bind("a", (Ipv4Addr::LOCALHOST, 0).into()).await.unwrap();
        let request = |query: &str| {
            let head = format!("PUT /{query} HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{{}}");
            head.into_bytes()
        };
        let flood = Flood {
            port: server.address().port(),
            depth: 4,
            rate: 1_000,
            lasts: Duration::from_millis(200),
        };
        let lists = vec![vec![request("")], vec![request(""), request("?status=503")]];
        let flooded = flood.send(lists).await;
        assert_eq!(flooded.sent.iter().sum::<usize>() as u64, server.requests());
        assert_eq!(flooded.refused, flooded.sent[1] / 2);
        let shown = &flooded.refusals[0];
        assert!(shown.starts_with("HTTP/1.1 503 Service Unavailable: {"), "{shown}");
    }
}
