//! What the agent itself uses, under the names that every Prometheus client library has for it.

use std::time::{Duration, SystemTime};

use rustix::time::{ClockId, clock_gettime};

use super::seconds;
use super::series::Series;

/// What was shown of the process before, and when it began.
#[derive(Debug)]
pub(super) struct Process {
    started: SystemTime,
    cpu: f64,
}

impl Default for Process {
    fn default() -> Self {
        Self {
            started: SystemTime::now(),
            cpu: 0.0,
        }
    }
}

impl Process {
    pub(super) fn observe(&mut self, series: &Series) {
        series.start_time.set(seconds(self.started));
        let used = clock_gettime(ClockId::ProcessCPUTime);
        if let Ok(used) = Duration::try_from(used) {
            let used = used.as_secs_f64();
            series.cpu.inc_by((used - self.cpu).max(0.0));
            self.cpu = used;
        }
        if let Some(bytes) = resident_bytes() {
            series.resident_memory.set(bytes);
        }
        // The directory's own descriptor is one of them.
        if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
            series
                .open_files
                .set(i64::try_from(open.count()).unwrap_or(i64::MAX) - 1);
        }
    }
}

/// The memory that the process has in RAM, where the system says so (Linux).
fn resident_bytes() -> Option<i64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: i64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    kilobytes.checked_mul(1024)
}
