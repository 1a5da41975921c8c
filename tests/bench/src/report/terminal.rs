//! Tables for a terminal.

use super::rows::{self, Table};
use super::text::{count, difference, table};
use crate::results::{Latency, Measured, Micro, Updates};
use crate::targets::Target;

/// Instructions for each request. The first arm is what the others are compared with.
pub(crate) fn instructions(measured: &[Measured]) -> String {
    costs(measured, "instructions")
        + "User-space instructions of Envoy's worker for each request. Added and ratio: against the first line. For the key: against \
           the same listener's request without a key.\nSpread: between the lowest and the highest of the rounds.\n"
}

/// Nanoseconds for each request.
pub(crate) fn processor_time(measured: &[Measured]) -> String {
    costs(measured, "CPU ns") + "Nanoseconds on a processor for each request, kernel included.\n"
}

/// How long requests take.
pub(crate) fn latency(latencies: &[Latency]) -> String {
    shared(&rows::latency(latencies))
}

/// What changes of the rules cost.
pub(crate) fn updates(updates: &Updates) -> String {
    shared(&rows::updates(updates))
}

/// The routing core alone.
pub(crate) fn micro(benches: &[Micro]) -> String {
    shared(&rows::micro(benches))
}

/// What we want, and what is so.
pub(crate) fn targets(targets: &[Target]) -> String {
    let rows = targets.iter().filter_map(|target| {
        let found = target.found.as_ref()?;
        let verdict = if found.reached { "reached" } else { "not reached" };
        Some(
            [target.what, target.wanted, &found.text, verdict]
                .map(str::to_owned)
                .to_vec(),
        )
    });
    let rows: Vec<_> = rows.collect();
    if rows.is_empty() {
        String::new()
    } else {
        table(&["target", "wanted", "measured", ""], &rows)
    }
}

fn shared(shown: &Table) -> String {
    table(&shown.head, &shown.rows)
}

fn costs(measured: &[Measured], unit: &str) -> String {
    let Some(plain) = measured.first() else {
        return "no arms\n".to_owned();
    };
    let mut rows = Vec::new();
    let mut listener = None;
    for arm in measured {
        if listener.is_some_and(|before| before != (&arm.family, arm.sandboxes)) {
            rows.push(Vec::new());
        }
        listener = Some((&arm.family, arm.sandboxes));
        let keyless = measured
            .iter()
            .find(|other| other.arm == arm.keyless && other.arm != arm.arm);
        rows.push(vec![
            arm.arm.clone(),
            count(arm.median),
            difference(arm.median - plain.median),
            format!("{:.3}", arm.median / plain.median),
            keyless.map_or_else(String::new, |keyless| difference(arm.median - keyless.median)),
            format!("{:.2} %", arm.spread() * 100.0),
        ]);
    }
    table(&["arm", unit, "added", "ratio", "for the key", "spread"], &rows) + "\n"
}
