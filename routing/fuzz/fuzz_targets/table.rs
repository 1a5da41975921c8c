//! A compiled table by somebody who gets magic, version, checksum and total length right, and nothing else: refused, or
//! a table that decides.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use sidetrack_fuzz::{Everywhere, decide_twice};
use sidetrack_routing::{RouteTable, compile, decode, validate_routing};
use twox_hash::XxHash64;

/// Bytes before what the checksum is of: magic, version, checksum.
const CHECKED_FROM: usize = 20;
/// Sections, each with its length in front of all of them.
const SECTIONS: usize = 8;

/// Magic and version.
static BEGINNING: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let smallest = serde_json::json!({"defaultTarget": "d"});
    compile(&decode(&smallest, validate_routing).unwrap())[..CHECKED_FROM - 8].to_vec()
});

fuzz_target!(|data: &[u8]| {
    let Some(table) = RouteTable::load(made_right(data)).ok() else {
        return;
    };
    // The texts come last: what ends them may well be somebody's key.
    let (_, last) = data.split_at(data.len().saturating_sub(3));
    for value in [&b"k"[..], b"a", b"k=a", b"sandbox-123", b"", last] {
        for path in [&b"/"[..], b"/api/v1?k=a", b"/a%20b?k=%61&a=+", last] {
            decide_twice(
                &table,
                &Everywhere {
                    path,
                    values: &[value, b"7", b"\xff"],
                    now: 1 << 40,
                },
            );
        }
    }
    let _ = (
        table.keys(),
        table.rules(),
        table.route_key_header(),
        table.propagated_baggage(),
    );
});

/// `checked` after magic, version and its checksum. The last section has the length that is left for it.
fn made_right(checked: &[u8]) -> Vec<u8> {
    let mut checked = checked.to_vec();
    let mut rest = checked.len().checked_sub(4 * SECTIONS);
    for section in 0..SECTIONS - 1 {
        let length = checked
            .get(4 * section..4 * section + 4)
            .and_then(|word| word.first_chunk());
        let length = length.map_or(0, |word| u32::from_le_bytes(*word) as usize);
        rest = rest.and_then(|rest| rest.checked_sub(length));
    }
    if let (Some(rest), Some(place)) = (rest, checked.get_mut(4 * (SECTIONS - 1)..4 * SECTIONS)) {
        place.copy_from_slice(&u32::try_from(rest).unwrap_or(0).to_le_bytes());
    }
    let sum = XxHash64::oneshot(0, &checked);
    [BEGINNING.as_slice(), &sum.to_le_bytes(), &checked].concat()
}
