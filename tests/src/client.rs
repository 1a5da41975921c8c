//! A client that keeps one connection.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Context as _;
use bytes::Bytes;
use http::header::{HOST, HeaderName, HeaderValue};
use http::{HeaderMap, Response, Uri};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::{Echo, Trust};

/// A request; its URI is the path.
pub type Request = http::Request<Full<Bytes>>;

/// The body of a request that is sent piece by piece.
pub type Body = UnsyncBoxBody<Bytes, Infallible>;

/// What the client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1 with keep-alive.
    Http1,
    /// HTTP/2; without TLS with prior knowledge.
    Http2,
}

/// A client of a port on loopback. It connects when it has no open connection.
pub struct Client {
    protocol: Protocol,
    address: SocketAddr,
    tls: Option<Trust>,
    certificate: Option<Vec<u8>>,
    connection: Option<Connection>,
}

enum Connection {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

/// The response to a request, whole.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The response's headers.
    pub headers: HeaderMap,
    /// The response's body.
    pub body: Bytes,
    /// The response's trailers.
    pub trailers: HeaderMap,
}

/// A GET request with these headers.
///
/// # Panics
/// If HTTP forbids the path or a header.
pub fn get(path: &str, headers: &[(&str, &str)]) -> Request {
    let mut request = Request::default();
    *request.uri_mut() = path.parse().unwrap();
    for (name, value) in headers {
        let name: HeaderName = name.parse().unwrap();
        request
            .headers_mut()
            .append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    request
}

impl Client {
    /// A client of this port, not yet connected.
    pub fn new(protocol: Protocol, port: u16) -> Self {
        Self {
            protocol,
            address: (Ipv4Addr::LOCALHOST, port).into(),
            tls: None,
            certificate: None,
            connection: None,
        }
    }

    /// A client that speaks TLS.
    pub fn over_tls(protocol: Protocol, port: u16, trust: &Trust) -> Self {
        Self {
            tls: Some(trust.clone()),
            ..Self::new(protocol, port)
        }
    }

    /// The certificate (DER) that the server has shown on the last connection.
    pub fn certificate(&self) -> Option<&[u8]> {
        self.certificate.as_deref()
    }

    /// Sends a request and reads the whole response.
    ///
    /// # Errors
    /// If there is no whole response.
    pub async fn send(&mut self, request: Request) -> anyhow::Result<Answer> {
        let response = self.begin(request.map(BodyExt::boxed_unsync)).await?;
        Answer::read(response).await
    }

    /// Sends a request until its response begins; the rest of its body meanwhile.
    ///
    /// # Errors
    /// If there is no response.
    pub async fn begin(&mut self, mut request: http::Request<Body>) -> anyhow::Result<Response<Incoming>> {
        let address = self.address.to_string();
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        Ok(match self.open_connection().await? {
            Connection::Http1(connection) => {
                let host = HeaderValue::try_from(address)?;
                request.headers_mut().entry(HOST).or_insert(host);
                connection.send_request(request).await?
            }
            Connection::Http2(connection) => {
                let path = request.uri().path_and_query().context("a request has a path")?.clone();
                let host = request.headers_mut().remove(HOST);
                let authority = host.as_ref().map_or(address.as_bytes(), HeaderValue::as_bytes);
                let uri = Uri::builder().scheme(scheme).authority(authority).path_and_query(path);
                *request.uri_mut() = uri.build()?;
                connection.send_request(request).await?
            }
        })
    }

    /// Opens a connection if none is open.
    ///
    /// # Errors
    /// If none can be opened.
    pub async fn connect(&mut self) -> anyhow::Result<()> {
        self.open_connection().await.map(drop)
    }

    /// Sends a GET request with these headers.
    ///
    /// # Errors
    /// If there is no whole response.
    pub async fn get(&mut self, path: &str, headers: &[(&str, &str)]) -> anyhow::Result<Answer> {
        self.send(get(path, headers)).await
    }

    async fn open_connection(&mut self) -> anyhow::Result<&mut Connection> {
        let mut open = self.connection.take();
        if let Some(connection) = &mut open
            && !connection.is_ready().await
        {
            open = None;
        }
        let open = match open {
            Some(connection) => connection,
            None => self.new_connection().await?,
        };
        Ok(self.connection.insert(open))
    }

    async fn new_connection(&mut self) -> anyhow::Result<Connection> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let Some(trust) = &self.tls else {
            return Connection::over(self.protocol, stream).await;
        };
        let offered = match self.protocol {
            Protocol::Http1 => "http/1.1",
            Protocol::Http2 => "h2",
        };
        let stream = trust.connect(stream, &[offered]).await?;
        let tls = stream.get_ref().1;
        let certificate = tls.peer_certificates().and_then(|certificates| certificates.first());
        self.certificate = certificate.map(|certificate| certificate.to_vec());
        anyhow::ensure!(tls.alpn_protocol() == Some(offered.as_bytes()), "not agreed: {offered}");
        Connection::over(self.protocol, stream).await
    }
}

impl Connection {
    async fn over(
        protocol: Protocol,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    ) -> anyhow::Result<Self> {
        let io = TokioIo::new(stream);
        // A connection's error reaches the request that waits on it.
        Ok(match protocol {
            Protocol::Http1 => {
                let (sender, connection) = http1::handshake(io).await?;
                tokio::spawn(connection.with_upgrades());
                Self::Http1(sender)
            }
            Protocol::Http2 => {
                let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
                tokio::spawn(connection);
                Self::Http2(sender)
            }
        })
    }

    async fn is_ready(&mut self) -> bool {
        match self {
            Self::Http1(connection) => connection.ready().await.is_ok(),
            Self::Http2(connection) => connection.ready().await.is_ok(),
        }
    }
}

impl Answer {
    /// Reads the rest of a response.
    ///
    /// # Errors
    /// If it breaks off.
    pub async fn read(response: Response<Incoming>) -> anyhow::Result<Self> {
        let (head, body) = response.into_parts();
        let body = body.collect().await?;
        Ok(Self {
            status: head.status.as_u16(),
            headers: head.headers,
            trailers: body.trailers().cloned().unwrap_or_default(),
            body: body.to_bytes(),
        })
    }

    /// What an echo server saw of the request.
    ///
    /// # Panics
    /// If the answer isn't that of an echo server.
    #[track_caller]
    pub fn echo(&self) -> Echo {
        match serde_json::from_slice(&self.body) {
            Ok(echo) if self.status == 200 => echo,
            _ => panic!("no echo server answered this: {} {}", self.status, self.text()),
        }
    }

    /// The name of the echo server that answered, or the status that Envoy did.
    pub fn served_by(&self) -> String {
        match serde_json::from_slice::<Echo>(&self.body) {
            Ok(echo) if self.status == 200 => echo.service,
            _ => self.status.to_string(),
        }
    }

    /// The first value of the header `name`, as text; empty if there is none.
    pub fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}
