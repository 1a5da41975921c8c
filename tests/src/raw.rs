//! Requests no HTTP library would send, and servers that none would be.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::HeaderMap;
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderName, HeaderValue};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::Answer;

/// An HTTP/1.1 connection that sends bytes as they are given, and is opened again after the other end has announced to
/// close it.
pub struct RawConnection {
    port: u16,
    stream: Option<BufReader<TcpStream>>,
}

impl RawConnection {
    /// A connection to this port on loopback, not yet open.
    pub fn new(port: u16) -> Self {
        Self { port, stream: None }
    }

    /// Sends the bytes of one whole request and reads the response, which must have a `content-length`.
    ///
    /// # Errors
    /// If there is no whole response.
    pub async fn send(&mut self, request: &[u8]) -> io::Result<Answer> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => BufReader::new(TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await?),
        };
        // Who refuses a request may close before all of it is sent: what counts is the answer.
        let sent = stream.get_mut().write_all(request).await;
        let answer = match read_answer(&mut stream).await {
            Ok(answer) => answer,
            Err(error) => return Err(sent.err().unwrap_or(error)),
        };
        let closes = answer.headers.get(CONNECTION).is_some_and(|value| value == "close");
        if !closes {
            self.stream = Some(stream);
        }
        Ok(answer)
    }
}

/// A server that answers any request with the same bytes and closes the connection; with none, it closes it at once after
/// the request's head.
pub struct RawServer {
    port: u16,
    requests: Arc<AtomicU64>,
    accepting: JoinHandle<()>,
}

impl RawServer {
    /// Listens on loopback.
    ///
    /// # Panics
    /// If it can't.
    pub async fn start(answer: &'static [u8]) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&requests);
        let accepting = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let count = Arc::clone(&count);
                tokio::spawn(async move {
                    if stream.read(&mut [0; 4096]).await.is_ok_and(|length| length > 0) {
                        count.fetch_add(1, Ordering::SeqCst);
                        let _ = stream.write_all(answer).await;
                    }
                });
            }
        });
        Self {
            port,
            requests,
            accepting,
        }
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// How many requests have arrived.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::SeqCst)
    }
}

impl Drop for RawServer {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// A port where connections are neither accepted nor refused: nobody takes those that wait there, and no more may wait.
pub struct SilentPort {
    port: u16,
    _listener: TcpListener,
    _waiting: Vec<TcpStream>,
}

impl SilentPort {
    /// Takes a port of loopback.
    ///
    /// # Panics
    /// If it can't.
    pub async fn take() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let listener = socket.listen(1).unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        let mut waiting = Vec::new();
        while let Ok(Ok(stream)) = timeout(Duration::from_millis(500), TcpStream::connect(address)).await {
            waiting.push(stream);
        }
        Self {
            port: address.port(),
            _listener: listener,
            _waiting: waiting,
        }
    }

    /// Its number.
    pub fn port(&self) -> u16 {
        self.port
    }
}

async fn read_answer(stream: &mut BufReader<TcpStream>) -> io::Result<Answer> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8(head).map_err(invalid)?;
    let mut lines = head.trim_end().split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1));
    let status = status.and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| invalid(format!("no status line: {head:?}")))?;
    let mut headers = HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(':').ok_or_else(|| invalid(line))?;
        let name: HeaderName = name.parse().map_err(invalid)?;
        headers.append(name, HeaderValue::from_str(value.trim()).map_err(invalid)?);
    }
    let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    let length = length.and_then(|value| value.parse().ok());
    let length: usize = length.ok_or_else(|| invalid(format!("no content-length: {head:?}")))?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Ok(Answer {
        status,
        headers,
        body: body.into(),
        trailers: HeaderMap::new(),
    })
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
