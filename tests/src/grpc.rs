//! gRPC streams by hand: messages of bytes, framed as the protocol says, over one HTTP/2 connection.

use std::net::Ipv4Addr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use anyhow::Context as _;
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, TE};
use http::{HeaderMap, Method, Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

/// The media type of gRPC.
pub(crate) const GRPC: &str = "application/grpc";

/// The response header in which an echo server says its name.
pub(crate) const SERVED_BY: &str = "x-served-by";

/// Whether a message is compressed, and its length.
const PREFIX: usize = 5;

/// A connection for gRPC calls.
#[derive(Clone)]
pub struct GrpcConnection {
    authority: String,
    sender: http2::SendRequest<Messages>,
}

/// A call whose both sides stream.
pub struct GrpcStream {
    sender: mpsc::Sender<Bytes>,
    headers: HeaderMap,
    body: Incoming,
    received: BytesMut,
    trailers: Option<HeaderMap>,
}

/// Sends messages of a call.
#[derive(Clone)]
pub struct GrpcSender(mpsc::Sender<Bytes>);

/// The messages of a request, as they are sent.
struct Messages(mpsc::Receiver<Bytes>);

impl GrpcConnection {
    /// Connects to this port on loopback.
    ///
    /// # Errors
    /// If nothing there speaks HTTP/2.
    pub async fn open(port: u16) -> anyhow::Result<Self> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        // Its error reaches the calls.
        tokio::spawn(connection);
        Ok(Self {
            authority: format!("127.0.0.1:{port}"),
            sender,
        })
    }

    /// Begins a call.
    ///
    /// # Errors
    /// If it isn't answered by a gRPC server.
    ///
    /// # Panics
    /// If HTTP forbids the path or a header.
    pub async fn call(&self, path: &str, headers: &[(&str, &str)]) -> anyhow::Result<GrpcStream> {
        self.call_with(path, headers, None).await
    }

    /// Begins a call with its first message, which the server may want to see before it answers.
    ///
    /// # Errors
    /// If it isn't answered by a gRPC server.
    ///
    /// # Panics
    /// If HTTP forbids the path or a header.
    pub async fn call_with(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        first: Option<&[u8]>,
    ) -> anyhow::Result<GrpcStream> {
        let (sender, messages) = mpsc::channel(1);
        if let Some(first) = first {
            sender.try_send(framed(first)?)?;
        }
        let mut request = Request::new(Messages(messages));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = format!("http://{}{path}", self.authority).parse()?;
        let own = [(TE.as_str(), "trailers"), (CONTENT_TYPE.as_str(), GRPC)];
        for (name, value) in own.iter().chain(headers) {
            let name: HeaderName = name.parse().unwrap();
            request
                .headers_mut()
                .append(name, HeaderValue::from_str(value).unwrap());
        }
        let (head, body) = self.sender.clone().send_request(request).await?.into_parts();
        let is_grpc = head.status == 200 && head.headers.get(CONTENT_TYPE).is_some_and(|media| media == GRPC);
        anyhow::ensure!(
            is_grpc,
            "no gRPC server answered this: {} {:?}",
            head.status,
            head.headers
        );
        Ok(GrpcStream {
            sender,
            headers: head.headers,
            body,
            received: BytesMut::new(),
            trailers: None,
        })
    }
}

impl GrpcStream {
    /// The name of the echo server that answers.
    pub fn served_by(&self) -> &str {
        let name = self.headers.get(SERVED_BY).and_then(|name| name.to_str().ok());
        name.unwrap_or("nobody who says so")
    }

    /// Sends a message.
    ///
    /// # Errors
    /// If the call has ended.
    pub async fn send(&self, message: &[u8]) -> anyhow::Result<()> {
        self.sender().send(message).await
    }

    /// The way to send its messages while others come. The request ends when all that can send are gone.
    pub fn sender(&self) -> GrpcSender {
        GrpcSender(self.sender.clone())
    }

    /// Waits for the next message; `None` after the last.
    ///
    /// # Errors
    /// If the call breaks.
    pub async fn receive(&mut self) -> anyhow::Result<Option<Bytes>> {
        loop {
            if let Some(length) = self.received.get(1..PREFIX) {
                let length = PREFIX + length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
                if self.received.len() >= length {
                    let mut message = self.received.split_to(length);
                    message.advance(PREFIX);
                    return Ok(Some(message.freeze()));
                }
            }
            match self.body.frame().await.transpose()?.map(Frame::into_data) {
                Some(Ok(data)) => self.received.extend_from_slice(&data),
                Some(Err(frame)) => self.trailers = frame.into_trailers().ok(),
                None => {
                    anyhow::ensure!(self.received.is_empty(), "it ends within a message");
                    return Ok(None);
                }
            }
        }
    }

    /// How the call has ended, if [`GrpcStream::receive`] has seen that: the status and its message.
    pub fn status(&self) -> String {
        // A call that is refused at once has it in the headers.
        let ended = self.trailers.as_ref().unwrap_or(&self.headers);
        let values = ["grpc-status", "grpc-message"].map(|name| ended.get(name).and_then(|value| value.to_str().ok()));
        let known: Vec<_> = values.into_iter().flatten().collect();
        if known.is_empty() {
            "no status".to_owned()
        } else {
            known.join(" ")
        }
    }

    /// Sends no more messages, and waits for the call's status.
    ///
    /// # Errors
    /// If the call breaks, or there are more messages.
    pub async fn finish(mut self) -> anyhow::Result<String> {
        // A sender that is gone ends the request.
        self.sender = mpsc::channel(1).0;
        let message = self.receive().await?;
        anyhow::ensure!(message.is_none(), "one more message: {message:?}");
        let trailers = self.trailers.context("no trailers")?;
        let status = trailers.get("grpc-status").context("no grpc-status")?;
        Ok(status.to_str()?.to_owned())
    }
}

impl GrpcSender {
    /// Sends a message.
    ///
    /// # Errors
    /// If the call has ended.
    pub async fn send(&self, message: &[u8]) -> anyhow::Result<()> {
        let sent = self.0.send(framed(message)?).await;
        sent.context("the call has ended")
    }
}

fn framed(message: &[u8]) -> anyhow::Result<Bytes> {
    let mut framed = BytesMut::with_capacity(PREFIX + message.len());
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len())?);
    framed.put_slice(message);
    Ok(framed.freeze())
}

impl Body for Messages {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.poll_recv(context).map(|message| Some(Ok(Frame::data(message?))))
    }
}

/// The request's messages and the status 0: what an echo server answers to gRPC.
pub(crate) fn echo(name: &str, request: Request<Incoming>) -> Response<Echoed> {
    let mut response = Response::new(Echoed(Some(request.into_body())));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(GRPC));
    headers.extend(HeaderValue::from_str(name).map(|name| (HeaderName::from_static(SERVED_BY), name)));
    response
}

/// A request's body, and trailers behind it.
pub(crate) struct Echoed(Option<Incoming>);

impl Body for Echoed {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        while let Some(body) = &mut self.0 {
            match ready!(Pin::new(body).poll_frame(context)) {
                // The end of a request comes with nothing in it. Sent on as a frame it would be one of those that Envoy
                // takes for a flood when two of them follow each other, and closes the connection with all its streams.
                Some(Ok(frame)) if frame.data_ref().is_some_and(Bytes::is_empty) => {}
                Some(frame) => return Poll::Ready(Some(frame)),
                None => {
                    self.0 = None;
                    let mut trailers = HeaderMap::new();
                    trailers.insert("grpc-status", HeaderValue::from_static("0"));
                    return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                }
            }
        }
        Poll::Ready(None)
    }
}
