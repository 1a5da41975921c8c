//! The service behind all listeners: a fixed answer as fast as it can be given, so that it is no part of what is measured.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

/// A server that answers every request with its name. It runs as long as the program.
pub(crate) struct Upstream {
    /// Where it listens.
    pub(crate) address: SocketAddr,
}

impl Upstream {
    /// Starts one.
    pub(crate) fn start(name: &'static str) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let address = listener.local_addr()?;
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{name}", name.len());
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let answer = answer.clone();
                // How a connection ends is the client's affair.
                thread::spawn(move || serve(connection, answer.as_bytes()));
            }
        });
        Ok(Self { address })
    }
}

/// Requests have no body, and a client waits for the answer before it sends the next.
fn serve(mut connection: TcpStream, answer: &[u8]) -> std::io::Result<()> {
    connection.set_nodelay(true)?;
    let mut head = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let length = connection.read(&mut chunk)?;
        if length == 0 {
            return Ok(());
        }
        head.extend_from_slice(&chunk[..length]);
        if head.ends_with(b"\r\n\r\n") {
            head.clear();
            connection.write_all(answer)?;
        }
    }
}
