//! Figures that a test has measured.

use std::fmt;
use std::io::Write as _;
use std::time::Duration;

/// Prints a figure. It is seen although the test passes.
pub fn figure(text: impl fmt::Display) {
    // A test's standard error isn't captured if it is written to like this.
    let _ = writeln!(std::io::stderr(), "figure: {text}");
}

/// Measured times, in order of length. They are shown by their quantiles.
#[derive(Clone, Debug, Default)]
pub struct Durations(Vec<Duration>);

impl Durations {
    /// The longest of the shortest `share` of them, such as 0.99.
    ///
    /// # Panics
    /// If there are none.
    pub fn quantile(&self, share: f64) -> Duration {
        let rank = (self.0.len() as f64 * share).ceil() as usize;
        self.0[rank.clamp(1, self.0.len()) - 1]
    }

    /// The one in the middle.
    ///
    /// # Panics
    /// If there are none.
    pub fn median(&self) -> Duration {
        self.quantile(0.5)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<Duration> for Durations {
    fn from_iter<T: IntoIterator<Item = Duration>>(durations: T) -> Self {
        let mut durations: Vec<_> = durations.into_iter().collect();
        durations.sort_unstable();
        Self(durations)
    }
}

impl fmt::Display for Durations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("none measured");
        }
        let milliseconds = |share| self.quantile(share).as_secs_f64() * 1000.0;
        write!(
            f,
            "p50 {:.1} ms, p90 {:.1} ms, p99 {:.1} ms, longest {:.1} ms of {}",
            milliseconds(0.5),
            milliseconds(0.9),
            milliseconds(0.99),
            milliseconds(1.0),
            self.len()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_one_of_the_measured_times() {
        let durations: Durations = (1..=200).rev().map(Duration::from_millis).collect();
        for (share, milliseconds) in [(0.0, 1), (0.5, 100), (0.99, 198), (1.0, 200)] {
            assert_eq!(
                durations.quantile(share),
                Duration::from_millis(milliseconds),
                "{share}"
            );
        }
        let one: Durations = [Duration::from_secs(1)].into_iter().collect();
        assert_eq!(one.quantile(0.99), Duration::from_secs(1));
        assert_eq!(Durations::default().to_string(), "none measured");
    }
}
