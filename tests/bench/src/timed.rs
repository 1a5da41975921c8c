//! Processor time for each request, and how long requests take: on a machine that does nothing else.

use std::num::NonZero;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use sidetrack_tests::Durations;

use crate::arms::Arm;
use crate::connection::Connection;
use crate::native::Native;
use crate::results::{Latency, Measured};

/// How often all arms are measured: once in their order and once backwards, so that a drift hits all alike.
const ROUNDS: usize = 20;

/// Of a round.
const CONNECTIONS: usize = 4;
const REQUESTS: usize = 500;

/// Enough that the server is never idle.
const MANY_CONNECTIONS: usize = 16;
const UNTIL_KNEE: Duration = Duration::from_secs(3);

/// Of the most that can be answered.
const SHARE: f64 = 0.4;
const UNDER_LOAD: Duration = Duration::from_secs(10);

/// Nanoseconds of the server for each request.
pub(crate) fn cpu(arms: &[Arm], native: &Native) -> anyhow::Result<Vec<Measured>> {
    let mut connections = Vec::new();
    for arm in arms {
        let mut all = (0..CONNECTIONS)
            .map(|_| native.connect(*arm))
            .collect::<anyhow::Result<Vec<_>>>()?;
        send(&mut all, REQUESTS)?;
        connections.push(all);
    }
    let mut values = vec![Vec::new(); arms.len()];
    for round in 0..ROUNDS {
        for turn in 0..arms.len() {
            let index = if round % 2 == 0 { turn } else { arms.len() - 1 - turn };
            let before = native.nanoseconds(arms[index])?;
            send(&mut connections[index], REQUESTS)?;
            let took = native.nanoseconds(arms[index])? - before;
            values[index].push(took as f64 / (CONNECTIONS * REQUESTS) as f64);
        }
    }
    Ok(arms
        .iter()
        .zip(values)
        .map(|(arm, values)| Measured::new(*arm, values))
        .collect())
}

/// How long each arm's requests take while they come at their own times.
pub(crate) fn latency(arms: &[Arm], native: &Native) -> anyhow::Result<Vec<Latency>> {
    // Threads that sleep until a request is due shall wake up then, and not 50 microseconds later.
    rustix::thread::set_current_timer_slack(Some(NonZero::<u64>::MIN))?;
    arms.iter()
        .map(|arm| {
            let mut connections = (0..MANY_CONNECTIONS)
                .map(|_| native.connect(*arm))
                .collect::<anyhow::Result<Vec<_>>>()?;
            let knee = knee(&mut connections)?;
            let rate = knee * SHARE;
            let times = open_loop(&mut connections, rate)?;
            let microseconds = |share| times.quantile(share).as_secs_f64() * 1e6;
            Ok(Latency {
                arm: arm.to_string(),
                knee,
                rate,
                p50: microseconds(0.5),
                p99: microseconds(0.99),
            })
        })
        .collect()
}

/// `requests` on each connection, all connections at once.
fn send(connections: &mut [Connection], requests: usize) -> anyhow::Result<()> {
    on_each(connections, |connection| {
        (0..requests).try_for_each(|_| connection.get())
    })
}

/// The most requests per second.
fn knee(connections: &mut [Connection]) -> anyhow::Result<f64> {
    let answered = AtomicU64::new(0);
    let begun = Instant::now();
    on_each(connections, |connection| {
        while begun.elapsed() < UNTIL_KNEE {
            connection.get()?;
            answered.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    })?;
    Ok(answered.into_inner() as f64 / begun.elapsed().as_secs_f64())
}

/// How long requests take from the time at which they are due to their answer. When they are due doesn't depend on answers.
fn open_loop(connections: &mut [Connection], rate: f64) -> anyhow::Result<Durations> {
    let due = poisson(rate);
    let next = AtomicUsize::new(0);
    let times = Mutex::new(Vec::with_capacity(due.len()));
    let begun = Instant::now();
    on_each(connections, |connection| {
        let mut own = Vec::new();
        while let Some(due) = due.get(next.fetch_add(1, Ordering::Relaxed)) {
            thread::sleep(due.saturating_sub(begun.elapsed()));
            connection.get()?;
            own.push(begun.elapsed().saturating_sub(*due));
        }
        times.lock().expect("no thread panics").extend(own);
        Ok(())
    })?;
    Ok(times.into_inner().expect("no thread panics").into_iter().collect())
}

/// Times of requests that don't know of each other, the same in every run.
fn poisson(rate: f64) -> Vec<Duration> {
    let mut state: u64 = 1;
    let mut at = 0.0;
    let mut times = Vec::new();
    while at < UNDER_LOAD.as_secs_f64() {
        // MMIX's generator (Knuth); its high bits are chance enough.
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let chance = ((state >> 11) + 1) as f64 / (1u64 << 53) as f64;
        at -= chance.ln() / rate;
        times.push(Duration::from_secs_f64(at));
    }
    times
}

/// Does `work` on every connection at once.
fn on_each(
    connections: &mut [Connection],
    work: impl Fn(&mut Connection) -> anyhow::Result<()> + Sync,
) -> anyhow::Result<()> {
    thread::scope(|scope| {
        let threads: Vec<_> = connections
            .iter_mut()
            .map(|connection| scope.spawn(|| work(connection)))
            .collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().expect("a thread that sends doesn't panic"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_come_at_the_rate_that_is_asked_for() {
        let times = poisson(1_000.0);
        let expected = 1_000.0 * UNDER_LOAD.as_secs_f64();
        assert!((times.len() as f64 / expected - 1.0).abs() < 0.05, "{}", times.len());
        assert!(times.is_sorted());
    }
}
