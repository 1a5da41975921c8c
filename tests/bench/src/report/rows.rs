//! Tables that are the same on a terminal and on the page.

use super::text::count;
use crate::results::{Latency, Micro, Updates};

/// A head and rows of as many cells.
pub(super) struct Table {
    pub(super) head: Vec<&'static str>,
    pub(super) rows: Vec<Vec<String>>,
}

pub(super) fn latency(latencies: &[Latency]) -> Table {
    let row = |arm: &Latency| {
        let [p50, p99] = [arm.p50, arm.p99].map(|time| format!("{time:.0} µs"));
        vec![arm.arm.clone(), count(arm.knee), count(arm.rate), p50, p99]
    };
    Table {
        head: vec!["arm", "most per second", "sent per second", "p50", "p99"],
        rows: latencies.iter().map(row).collect(),
    }
}

pub(super) fn updates(updates: &Updates) -> Table {
    let rows = updates.sizes.iter().map(|update| {
        vec![
            count(update.rules as f64),
            count(update.bytes as f64),
            format!("{:.1}", update.bytes as f64 / update.rules as f64),
            format!("{:.2} ms", update.block / 1_000.0),
            format!("{:.1} ms", update.in_force),
            format!("{:.2}", update.memory_per_vm / update.bytes as f64),
        ]
    });
    Table {
        head: vec![
            "rules",
            "table, bytes",
            "bytes per rule",
            "block per worker",
            "in force after",
            "memory per VM / table",
        ],
        rows: rows.collect(),
    }
}

pub(super) fn micro(benches: &[Micro]) -> Table {
    let rows = benches.iter().map(|bench| {
        let (divisor, unit) = match bench.median {
            1e6.. => (1e6, "ms"),
            1e3.. => (1e3, "µs"),
            _ => (1.0, "ns"),
        };
        let [median, least, most] =
            [bench.median, bench.least, bench.most].map(|time| format!("{:.1} {unit}", time / divisor));
        vec![bench.what.clone(), median, format!("{least} to {most}")]
    });
    Table {
        head: vec!["what", "median", "95 % certainly"],
        rows: rows.collect(),
    }
}
