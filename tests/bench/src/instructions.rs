//! User-space instructions of Envoy's worker for each request: the same on a busy machine as on a quiet one.

use std::time::Instant;

use anyhow::Context as _;
use sidetrack_tests::artifacts;

use crate::arms::Arm;
use crate::connection::Connection;
use crate::emulator::{Counters, Emulator};
use crate::listeners::Bootstrap;
use crate::materials::Materials;
use crate::results::Measured;

/// How often all arms are measured, in turns.
const ROUNDS: usize = 5;

/// What an arm may take in each round: a request that costs much is sent less often.
const INSTRUCTIONS_PER_ROUND: u64 = 25_000_000;
const REQUESTS_PER_ROUND: std::ops::RangeInclusive<u64> = 4..=150;

/// Requests before the first that counts: the first of a connection cost more.
const WARM_UP: u64 = 40;

/// Measures these arms in one Envoy, the first being what the others are compared with.
pub(crate) fn measure(arms: &[Arm], materials: &Materials, emulator: &Emulator) -> anyhow::Result<Vec<Measured>> {
    let bootstrap = Bootstrap::of(arms, materials)?;
    let directory = tempfile::tempdir()?;
    let (command, mut counters) = emulator.command(&artifacts::envoy())?;
    let mut envoy = bootstrap.spawn(command, directory.path())?;
    let mut lines = Vec::new();
    let begun = Instant::now();
    for arm in arms {
        let port = bootstrap.port(*arm).context("no listener of Envoy")?;
        let connection = Connection::when_ready(port, *arm, &mut envoy).with_context(|| envoy.output())?;
        lines.push(Line::new(connection, &mut counters).with_context(|| format!("{arm}"))?);
    }
    eprintln!("{} arms are ready after {:.0?}", arms.len(), begun.elapsed());
    for _ in 0..ROUNDS {
        for (line, arm) in lines.iter_mut().zip(arms) {
            line.round(&mut counters).with_context(|| format!("{arm}"))?;
        }
    }
    eprintln!("measured after {:.0?}", begun.elapsed());
    Ok(arms
        .iter()
        .zip(lines)
        .map(|(arm, line)| Measured::new(*arm, line.values))
        .collect())
}

/// One arm while it is measured.
struct Line {
    connection: Connection,
    requests: u64,
    /// Instructions for each request, one value for each round.
    values: Vec<f64>,
}

impl Line {
    /// Warms up, and finds out how many requests a round has.
    fn new(mut connection: Connection, counters: &mut Counters) -> anyhow::Result<Self> {
        connection.get()?;
        let once = counters.during(|| connection.get())?;
        let requests =
            (INSTRUCTIONS_PER_ROUND / once.max(1)).clamp(*REQUESTS_PER_ROUND.start(), *REQUESTS_PER_ROUND.end());
        for _ in 0..requests.min(WARM_UP) {
            connection.get()?;
        }
        Ok(Self {
            connection,
            requests,
            values: Vec::new(),
        })
    }

    fn round(&mut self, counters: &mut Counters) -> anyhow::Result<()> {
        let instructions = counters.during(|| (0..self.requests).try_for_each(|_| self.connection.get()))?;
        self.values.push(instructions as f64 / self.requests as f64);
        Ok(())
    }
}
