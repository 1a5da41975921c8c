//! An OpenTelemetry collector that keeps the spans it gets.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use bytes::{Buf as _, Bytes};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// A running collector: OTLP over gRPC, without TLS. Dropping it closes its port and its connections.
pub struct Collector {
    address: SocketAddr,
    spans: Arc<Mutex<Vec<Span>>>,
    accepting: JoinHandle<()>,
}

/// A span that has arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// `service.name` of who made it.
    pub service: String,
    /// In hexadecimal, as in `traceparent`.
    pub trace_id: String,
    /// In hexadecimal.
    pub span_id: String,
    /// In hexadecimal; empty if the trace begins with this span.
    pub parent_id: String,
    /// What it is called.
    pub name: String,
    /// Attributes that are texts, by name.
    pub attributes: Vec<(String, String)>,
}

impl Span {
    /// The attribute `name`.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        let found = self.attributes.iter().find(|(found, _)| found == name);
        found.map(|(_, value)| value.as_str())
    }
}

impl Collector {
    /// Listens on a port of loopback.
    ///
    /// # Panics
    /// If it can't.
    pub async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let spans = Arc::default();
        let accepting = tokio::spawn(accept(listener, Arc::clone(&spans)));
        Self {
            address,
            spans,
            accepting,
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The spans so far, in the order of their arrival.
    pub fn spans(&self) -> Vec<Span> {
        self.spans.lock().unwrap().clone()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Connections end with this task.
async fn accept(listener: TcpListener, spans: Arc<Mutex<Vec<Span>>>) {
    let mut connections = JoinSet::new();
    loop {
        if let Ok((connection, _)) = listener.accept().await {
            let spans = Arc::clone(&spans);
            let export = service_fn(move |request| export(request, Arc::clone(&spans)));
            let server = http2::Builder::new(TokioExecutor::new());
            connections.spawn(server.serve_connection(TokioIo::new(connection), export));
        }
        while connections.try_join_next().is_some() {}
    }
}

type Answer = http_body_util::combinators::UnsyncBoxBody<Bytes, Infallible>;

async fn export(request: Request<Incoming>, spans: Arc<Mutex<Vec<Span>>>) -> Result<Response<Answer>, Infallible> {
    let is_export = request.uri().path() == EXPORT;
    let body = request.into_body().collect().await;
    let mut message = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    // A byte for compression and four for the length, then the message.
    let is_whole = message.len() >= 5 && message.get_u8() == 0 && message.get_u32() as usize == message.len();
    let decoded = wire::Export::decode(message);
    let status = match decoded {
        Ok(export) if is_export && is_whole => {
            spans.lock().unwrap().extend(export.spans());
            HeaderValue::from_static("0")
        }
        _ => HeaderValue::from_static("3"),
    };
    let trailers: HeaderMap = [(http::HeaderName::from_static("grpc-status"), status)]
        .into_iter()
        .collect();
    let empty_message = Full::from(&[0_u8; 5][..]);
    let body = empty_message.with_trailers(std::future::ready(Some(Ok(trailers))));
    let mut response = Response::new(body.boxed_unsync());
    let grpc = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(http::header::CONTENT_TYPE, grpc);
    Ok(response)
}

/// The few fields of OTLP's messages that are looked at.
mod wire {
    use prost::Message;

    #[derive(Message)]
    pub(super) struct Export {
        #[prost(message, repeated, tag = "1")]
        resource_spans: Vec<ResourceSpans>,
    }

    #[derive(Message)]
    struct ResourceSpans {
        #[prost(message, optional, tag = "1")]
        resource: Option<Resource>,
        #[prost(message, repeated, tag = "2")]
        scope_spans: Vec<ScopeSpans>,
    }

    #[derive(Message)]
    struct Resource {
        #[prost(message, repeated, tag = "1")]
        attributes: Vec<KeyValue>,
    }

    #[derive(Message)]
    struct ScopeSpans {
        #[prost(message, repeated, tag = "2")]
        spans: Vec<Span>,
    }

    #[derive(Message)]
    struct Span {
        #[prost(bytes, tag = "1")]
        trace_id: Vec<u8>,
        #[prost(bytes, tag = "2")]
        span_id: Vec<u8>,
        #[prost(bytes, tag = "4")]
        parent_span_id: Vec<u8>,
        #[prost(string, tag = "5")]
        name: String,
        #[prost(message, repeated, tag = "9")]
        attributes: Vec<KeyValue>,
    }

    #[derive(Message)]
    struct KeyValue {
        #[prost(string, tag = "1")]
        key: String,
        #[prost(message, optional, tag = "2")]
        value: Option<AnyValue>,
    }

    #[derive(Message)]
    struct AnyValue {
        #[prost(string, optional, tag = "1")]
        string_value: Option<String>,
    }

    impl Export {
        pub(super) fn spans(self) -> Vec<super::Span> {
            let mut spans = Vec::new();
            for resource_spans in self.resource_spans {
                let resource = texts(resource_spans.resource.unwrap_or_default().attributes);
                let service = resource.into_iter().find(|(name, _)| name == "service.name");
                let service = service.map(|(_, value)| value).unwrap_or_default();
                let scopes = resource_spans.scope_spans.into_iter();
                spans.extend(scopes.flat_map(|scope| scope.spans).map(|span| super::Span {
                    service: service.clone(),
                    trace_id: hexadecimal(&span.trace_id),
                    span_id: hexadecimal(&span.span_id),
                    parent_id: hexadecimal(&span.parent_span_id),
                    name: span.name,
                    attributes: texts(span.attributes),
                }));
            }
            spans
        }
    }

    fn texts(attributes: Vec<KeyValue>) -> Vec<(String, String)> {
        let texts = attributes.into_iter();
        texts
            .filter_map(|KeyValue { key, value }| Some((key, value?.string_value?)))
            .collect()
    }

    fn hexadecimal(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
