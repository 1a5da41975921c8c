//! The head of the current request, read from Envoy.

use std::cell::{OnceCell, RefCell};

use proxy_wasm::hostcalls;
use proxy_wasm::types::{Bytes, MapType};
use sidetrack_routing::RequestHead;

/// Reads a header from Envoy when it is asked for, once.
///
/// Only the calls that give bytes are used: those that give text trap on a value that isn't UTF-8, and any client can
/// send one.
#[derive(Default)]
pub(crate) struct EnvoyHead {
    /// The first value of each header read so far.
    first_values: RefCell<Vec<(String, Option<Bytes>)>>,
    /// All headers, once a header's first value wasn't enough.
    all: OnceCell<Vec<(String, Bytes)>>,
}

impl RequestHead for EnvoyHead {
    /// A single read gives the first value only. Another one is looked for only where that one is there and fails the
    /// test: reading all headers costs about three single reads.
    fn any_value(&self, name: &str, mut test: impl FnMut(&[u8]) -> bool) -> bool {
        let value = self.take_first_value(name);
        let found = value.as_deref().map(&mut test);
        self.first_values.borrow_mut().push((name.to_owned(), value));
        match found {
            None | Some(true) => found.is_some(),
            Some(false) if name.starts_with(':') => false,
            Some(false) => self.further_values(name).any(test),
        }
    }
}

impl EnvoyHead {
    /// Takes the value out while it is tested, because a test may ask for further headers.
    fn take_first_value(&self, name: &str) -> Option<Bytes> {
        let mut read = self.first_values.borrow_mut();
        match read.iter().position(|(known, _)| known == name) {
            Some(index) => read.swap_remove(index).1,
            None => hostcalls::get_map_value_bytes(MapType::HttpRequestHeaders, name).unwrap_or_default(),
        }
    }

    fn further_values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        let all = self
            .all
            .get_or_init(|| hostcalls::get_map_bytes(MapType::HttpRequestHeaders).unwrap_or_default());
        all.iter()
            .filter(move |(known, _)| known == name)
            .skip(1)
            .map(|(_, value)| value.as_slice())
    }
}
