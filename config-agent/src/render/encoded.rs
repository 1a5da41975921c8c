//! Encoded messages with a large part in them that isn't copied.

use bytes::Bytes;
use envoy_types::pb::google::protobuf::Any;
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};

/// An encoded message: some bytes, a large part that is shared, some bytes. The fields of a message may come in any order,
/// so what is small is put around what is large.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Encoded {
    pub(super) before: Vec<u8>,
    pub(super) shared: Bytes,
    pub(super) after: Vec<u8>,
}

impl Encoded {
    /// These bytes, shared.
    pub(super) fn sharing(shared: Bytes) -> Self {
        Self {
            shared,
            ..Self::default()
        }
    }

    /// `message`, with nothing that is shared.
    pub(super) fn message(message: &impl Message) -> Self {
        Self {
            before: message.encode_to_vec(),
            ..Self::default()
        }
    }

    pub(super) fn len(&self) -> usize {
        self.before.len() + self.shared.len() + self.after.len()
    }

    /// A message with this as its field `tag`: bytes, or a message.
    pub(super) fn into_field(self, tag: u32) -> Self {
        let mut before = Vec::with_capacity(self.before.len() + 16);
        encode_key(tag, WireType::LengthDelimited, &mut before);
        encode_varint(self.len() as u64, &mut before);
        before.extend_from_slice(&self.before);
        Self { before, ..self }
    }

    /// The same message with the fields of `rest` besides. What is a message in both is merged.
    pub(super) fn and(mut self, rest: &impl Message) -> Self {
        self.after.reserve(rest.encoded_len());
        // Room is made for as long as there is memory.
        let _ = rest.encode(&mut self.after);
        self
    }

    /// An `Any` of this message, whose type it is told.
    pub(super) fn into_any(self, type_url: String) -> Self {
        const VALUE: u32 = 2;
        self.into_field(VALUE).and(&Any {
            type_url,
            value: Vec::new(),
        })
    }

    /// Its bytes, in order.
    pub(super) fn parts(&self) -> [&[u8]; 3] {
        [&self.before, &self.shared, &self.after]
    }
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::google::protobuf::BytesValue;
    use prost::Name;

    use super::*;

    #[test]
    fn it_is_what_prost_reads_and_shares_the_bytes() {
        let large = Bytes::from(vec![7; 100_000]);
        let value = Encoded::sharing(large.clone()).into_field(1);
        let any = value.into_any(BytesValue::type_url());
        assert_eq!(any.shared.as_ptr(), large.as_ptr());
        let read = Any::decode(any.parts().concat().as_slice()).unwrap();
        let expected = Any {
            type_url: BytesValue::type_url(),
            value: BytesValue { value: large.into() }.encode_to_vec(),
        };
        assert_eq!((&read, any.len()), (&expected, read.encoded_len()));
        assert_eq!(Encoded::message(&read).parts().concat(), read.encode_to_vec());
    }
}
