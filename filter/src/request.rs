//! The head of the current request, read from Envoy.

use std::cell::{Cell, OnceCell, RefCell};
use std::time::UNIX_EPOCH;

use proxy_wasm::hostcalls;
use proxy_wasm::types::{Bytes, MapType};
use sidetrack_routing::RequestHead;

/// Reads a header from Envoy when it is asked for, once.
///
/// Only the calls that give bytes are used: those that give text trap on a value that isn't UTF-8, and any client can
/// send one.
#[derive(Default)]
pub(crate) struct EnvoyHead<'t> {
    /// The header that was read last: most requests need no other.
    latest: Cell<Option<FirstValue<'t>>>,
    /// Those before it.
    others: RefCell<Vec<FirstValue<'t>>>,
    /// All headers, once a header's first value wasn't enough.
    all: OnceCell<Vec<(String, Bytes)>>,
    /// Whether a number was drawn for this request.
    has_drawn: Cell<bool>,
}

/// A header's name, and its first value if it is there.
type FirstValue<'t> = (&'t str, Option<Bytes>);

impl<'t> RequestHead<'t> for EnvoyHead<'t> {
    /// A single read gives the first value only. Another one is looked for only where that one is there and fails the
    /// test: reading all headers costs about three single reads.
    fn any_value(&self, name: &'t str, mut test: impl FnMut(&[u8]) -> bool) -> bool {
        let value = self.take_first_value(name);
        let found = value.as_deref().map(&mut test);
        self.keep((name, value));
        match found {
            None | Some(true) => found.is_some(),
            Some(false) if name.starts_with(':') => false,
            Some(false) => self.further_values(name).any(test),
        }
    }

    fn now(&self) -> u64 {
        let since_1970 = hostcalls::get_current_time()
            .ok()
            .and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        since_1970
            .and_then(|since| u64::try_from(since.as_millis()).ok())
            .unwrap_or_default()
    }

    /// The host has no source of chance, so this goes round the circle in steps of the golden ratio, begun once for each
    /// VM with the time. The first number of a request is where it stands: of any long run of requests, shares are met
    /// to within a few requests. A further number, for the same request, is mixed (SplitMix64; Steele, Lea, Flood 2014),
    /// so that it doesn't depend on the first.
    fn random(&self) -> u64 {
        thread_local! {
            static STATE: Cell<u64> = Cell::new(seed());
        }
        let state = STATE.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        STATE.set(state);
        if !self.has_drawn.replace(true) {
            return state;
        }
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

fn seed() -> u64 {
    let since_1970 = hostcalls::get_current_time()
        .ok()
        .and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    since_1970.map_or(0, |since| since.as_secs() ^ u64::from(since.subsec_nanos()) << 32)
}

impl<'t> EnvoyHead<'t> {
    /// Takes the value out while it is tested, because a test may ask for further headers.
    fn take_first_value(&self, name: &'t str) -> Option<Bytes> {
        match self.latest.take() {
            Some((known, value)) if known == name => return value,
            other => self.latest.set(other),
        }
        let mut others = self.others.borrow_mut();
        match others.iter().position(|(known, _)| *known == name) {
            Some(index) => others.swap_remove(index).1,
            None => hostcalls::get_map_value_bytes(MapType::HttpRequestHeaders, name).unwrap_or_default(),
        }
    }

    fn keep(&self, read: FirstValue<'t>) {
        if let Some(other) = self.latest.replace(Some(read)) {
            self.others.borrow_mut().push(other);
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
