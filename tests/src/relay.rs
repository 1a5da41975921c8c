//! A network of its own between a client and a server, as bad as a test needs it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// As little as the kernel takes, so that what isn't read stays with the server.
const BUFFER: u32 = 4096;

/// What a relay does with the bytes of a server. Those of clients are passed on in any case but the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passing {
    /// Passed on as they come.
    All,
    /// One, and one more after each second.
    ByteASecond,
    /// Neither side's are, and nobody is told: the other end is gone without a word.
    Nothing,
}

/// Passes on connections to a port of loopback; dropping it closes them.
pub struct Relay {
    port: u16,
    server: watch::Sender<u16>,
    passing: watch::Sender<Passing>,
    accepting: JoinHandle<()>,
}

impl Relay {
    /// Starts one before the server on this port.
    ///
    /// # Panics
    /// If it can't.
    pub async fn start(server: u16, passing: Passing) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (server, passing) = (watch::Sender::new(server), watch::Sender::new(passing));
        let accepting = tokio::spawn(accept(listener, server.clone(), passing.clone()));
        Self {
            port,
            server,
            passing,
            accepting,
        }
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Closes all connections; later ones go to the server on this port.
    pub fn move_to(&self, server: u16) {
        self.server.send_replace(server);
    }

    /// What it does from now on.
    pub fn pass(&self, passing: Passing) {
        self.passing.send_replace(passing);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Connections end with this task.
async fn accept(listener: TcpListener, server: watch::Sender<u16>, passing: watch::Sender<Passing>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        connections.spawn(relay(client, server.subscribe(), passing.clone()));
        while connections.try_join_next().is_some() {}
    }
}

async fn relay(client: TcpStream, mut port: watch::Receiver<u16>, passing: watch::Sender<Passing>) -> io::Result<()> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, *port.borrow_and_update()));
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(BUFFER)?;
    let server = socket.connect(address).await?;
    for stream in [&client, &server] {
        stream.set_nodelay(true)?;
    }
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    // If either side closes, both do.
    tokio::select! {
        up = pass(from_client, to_server, passing.subscribe(), false) => up,
        down = pass(from_server, to_client, passing.subscribe(), true) => down,
        _ = port.changed() => Ok(()),
    }
}

async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut passing: watch::Receiver<Passing>,
    is_down: bool,
) -> io::Result<()> {
    let mut buffer = [0; BUFFER as usize];
    loop {
        let now = *passing.borrow_and_update();
        let length = match now {
            Passing::Nothing => {
                let _ = passing.changed().await;
                continue;
            }
            Passing::ByteASecond if is_down => 1,
            Passing::ByteASecond | Passing::All => buffer.len(),
        };
        let length = tokio::select! {
            read = from.read(&mut buffer[..length]) => read?,
            _ = passing.changed() => continue,
        };
        if length == 0 {
            return Ok(());
        }
        to.write_all(&buffer[..length]).await?;
        if now == Passing::ByteASecond && is_down {
            let _ = tokio::time::timeout(Duration::from_secs(1), passing.changed()).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bytes_pass_as_they_are_told_to() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let relay = Relay::start(listener.local_addr().unwrap().port(), Passing::All).await;
        let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, relay.port())).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        let mut buffer = [0; 10];

        server.write_all(b"all").await.unwrap();
        client.read_exact(&mut buffer[..3]).await.unwrap();
        assert_eq!(&buffer[..3], b"all");

        for (passing, expected) in [(Passing::Nothing, 0), (Passing::ByteASecond, 1)] {
            relay.pass(passing);
            server.write_all(b"slow").await.unwrap();
            let wait = Duration::from_millis(500);
            let read = tokio::time::timeout(wait, client.read(&mut buffer)).await;
            assert_eq!(read.map_or(0, |read| read.unwrap()), expected, "{passing:?}");
        }
    }
}
