//! The route key of a request.

use std::fmt;

use crate::decide::{Destination, Reason, Recorder, RequestHead, RouteDecision};
use crate::layout::SourceKind;
use crate::names::MAX_ROUTE_KEY_BYTES;
use crate::sources::{Baggage, TraceState, cookie, host, list, percent, query};
use crate::table::{RouteTable, Source};

/// A valid route key that a request carries.
#[derive(Clone)]
pub struct FoundKey {
    bytes: [u8; MAX_ROUTE_KEY_BYTES],
    length: usize,
    is_in_route_key_header: bool,
}

impl FoundKey {
    /// The key.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    /// Whether a target finds it in the route key header as the client sent it.
    pub fn is_in_route_key_header(&self) -> bool {
        self.is_in_route_key_header
    }

    /// Puts it into `place`, if it is valid: not too long, and without characters that no key has, which a target must not
    /// get in a header.
    fn put(key: &[u8], is_in_route_key_header: bool, place: &mut Option<Self>) -> bool {
        let is_valid =
            key.len() <= MAX_ROUTE_KEY_BYTES && key.iter().all(|byte| byte.is_ascii_graphic() && *byte != b',');
        if is_valid {
            let found = place.insert(Self {
                bytes: [0; MAX_ROUTE_KEY_BYTES],
                length: key.len(),
                is_in_route_key_header,
            });
            found.bytes.iter_mut().zip(key).for_each(|(place, byte)| *place = *byte);
        }
        is_valid
    }
}

impl PartialEq for FoundKey {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl fmt::Debug for FoundKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        String::from_utf8_lossy(self.as_bytes()).fmt(f)
    }
}

/// Looks at the sources in their order, and writes to `decision`, which is of a request without a key, what it found. Those
/// after the first key are looked at, too: whether they agree is worth knowing, and a header that isn't there costs next to
/// nothing.
pub(crate) fn search<'t>(
    table: &'t RouteTable,
    head: &impl RequestHead<'t>,
    recorder: &mut impl Recorder,
    decision: &mut RouteDecision<'t>,
) {
    let mut is_invalid = false;
    for source in table.sources() {
        let mut seen = false;
        read(source, head, |key| {
            seen = true;
            recorder.source(source, Some(key));
            match &decision.key {
                Some(first) => decision.disagreement |= first.as_bytes() != key,
                None if is_invalid => {}
                None => {
                    let in_header = source.kind == SourceKind::Header && table.is_route_key_header(source.name);
                    is_invalid = !FoundKey::put(key, in_header, &mut decision.key);
                }
            }
        });
        if !seen {
            recorder.source(source, None);
        }
    }
    if is_invalid {
        decision.destination = Destination::Baseline(Reason::InvalidKey);
    }
}

/// Gives `found` the first non-empty key that `source` holds, decoded, of whatever length.
fn read<'t>(source: Source<'t>, head: &impl RequestHead<'t>, mut found: impl FnMut(&[u8])) {
    let name = source.name.as_bytes();
    let mut take = |key: Option<&[u8]>| match key {
        Some(key) => {
            found(key);
            true
        }
        None => false,
    };
    let mut take_decoded = |raw: Option<&[u8]>, plus_is_space| {
        let mut buffer = [0; MAX_ROUTE_KEY_BYTES];
        // What doesn't fit is too long for a key, decoded or not.
        take(raw.map(|raw| percent::decoded(raw, plus_is_space, &mut buffer).unwrap_or(raw)))
    };
    match source.kind {
        SourceKind::Header => head.any_value(source.name, |line| take(list::first_element(line))),
        SourceKind::Baggage => {
            let mut baggage = Baggage::default();
            head.any_value("baggage", |line| take_decoded(baggage.member(line, name), false))
        }
        SourceKind::Tracestate => {
            let mut tracestate = TraceState::default();
            head.any_value("tracestate", |line| take(tracestate.member(line, name)))
        }
        SourceKind::Cookie => head.any_value("cookie", |line| take(cookie::value(line, name))),
        SourceKind::Query => head.any_value(":path", |path| take_decoded(query::parameter(path, name), true)),
        SourceKind::Host => head.any_value(":authority", |authority| take(host::label(authority, name))),
    };
}
