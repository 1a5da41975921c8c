//! The requests of a stream: gRPC messages, read from a body as they come.
//!
//! A request that says all that a proxy has can be large. Its memory is given back as soon as it is read: hundreds of proxies
//! may come back at once, and stay.

use bytes::{Buf, Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Body;
use tonic::Status;

use super::request::Request;
use super::state::Variant;

/// A proxy that comes back says what it has: some 90 bytes for each cluster and each cluster's endpoints.
const MAX_REQUEST_BYTES: usize = 32 << 20;

/// Whether it is compressed, and the length.
const HEADER_BYTES: usize = 5;

/// A buffer that is larger isn't kept.
const KEPT_BYTES: usize = 64 << 10;

/// Reads the requests of a stream.
#[derive(Debug)]
pub(super) struct Requests<B> {
    variant: Variant,
    body: B,
    buffer: BytesMut,
}

impl<B: Body<Data = Bytes> + Unpin> Requests<B> {
    pub(super) fn new(variant: Variant, body: B) -> Self {
        Self {
            variant,
            body,
            buffer: BytesMut::new(),
        }
    }

    /// The next one; none after the last. When this is cancelled nothing is lost.
    ///
    /// # Errors
    ///
    /// What came is no request, or the connection broke: then the status is `Unavailable`.
    pub(super) async fn next(&mut self) -> Result<Option<Request>, Status> {
        loop {
            if let Some(message) = self.message()? {
                return Request::decode(self.variant, message).map(Some);
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                Some(Err(_)) => return Err(Status::unavailable("the connection broke")),
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(Status::invalid_argument("the stream ends within a request")),
            }
        }
    }

    /// The next message, if it is there as a whole.
    fn message(&mut self) -> Result<Option<Bytes>, Status> {
        let Some((&[is_compressed, ref length @ ..], _)) = self.buffer.split_first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*length) as usize;
        if is_compressed != 0 {
            return Err(Status::unimplemented("compressed requests aren't read"));
        }
        if length > MAX_REQUEST_BYTES {
            return Err(Status::out_of_range(format!(
                "a request of {length} bytes: at most {MAX_REQUEST_BYTES}"
            )));
        }
        if self.buffer.len() < HEADER_BYTES + length {
            return Ok(None);
        }
        self.buffer.advance(HEADER_BYTES);
        let message = self.buffer.split_to(length);
        if self.buffer.capacity() + length > KEPT_BYTES {
            // What is left of it would hold on to all of it.
            self.buffer = BytesMut::from(&self.buffer[..]);
        }
        Ok(Some(message.freeze()))
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;
    use http_body_util::StreamBody;
    use hyper::body::Frame;
    use prost::Message;
    use tonic::Code;

    use super::*;

    /// The message with these many names of resources.
    fn message(names: usize) -> Vec<u8> {
        let request = DeltaDiscoveryRequest {
            type_url: names.to_string(),
            resource_names_subscribe: vec!["name".to_owned(); names],
            ..Default::default()
        };
        let bytes = request.encode_to_vec();
        [&[0][..], &(bytes.len() as u32).to_be_bytes(), &bytes].concat()
    }

    fn requests(bytes: &[u8], frame: usize) -> Requests<impl Body<Data = Bytes> + Unpin> {
        let frames: Vec<_> = bytes.chunks(frame).map(Bytes::copy_from_slice).collect();
        let frames = frames.into_iter().map(|bytes| Ok::<_, Infallible>(Frame::data(bytes)));
        Requests::new(Variant::Delta, StreamBody::new(tokio_stream::iter(frames)))
    }

    #[tokio::test]
    async fn requests_are_read_however_they_are_cut() {
        let sizes = [0, 1, 50_000, 3, 20_000, 0];
        let bytes: Vec<u8> = sizes.into_iter().flat_map(message).collect();
        for frame in [1, 7, 16_384, bytes.len()] {
            let mut requests = requests(&bytes, frame);
            for size in sizes {
                assert_eq!(
                    requests.next().await.unwrap().unwrap().type_url,
                    size.to_string(),
                    "{frame}"
                );
            }
            assert_eq!(requests.next().await.unwrap(), None);
        }
    }

    #[tokio::test]
    async fn a_large_request_leaves_nothing_behind() {
        let bytes = [message(400_000), message(1)].concat();
        let mut requests = requests(&bytes, 16_384);
        requests.next().await.unwrap().unwrap();
        assert!(
            requests.buffer.capacity() < KEPT_BYTES,
            "{}",
            requests.buffer.capacity()
        );
        requests.next().await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn what_is_no_request_is_an_error() {
        let whole = message(10);
        for (bytes, code) in [
            (&whole[..whole.len() - 1], Code::InvalidArgument),
            (&[1, 0, 0, 0, 0], Code::Unimplemented),
            (&[0, 255, 0, 0, 0], Code::OutOfRange),
            (&[0, 0, 0, 0, 1, 255], Code::InvalidArgument),
        ] {
            let status = requests(bytes, 100).next().await.unwrap_err();
            assert_eq!(status.code(), code, "{status}");
        }
    }
}
