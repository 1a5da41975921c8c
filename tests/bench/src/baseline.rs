//! The regression guard: no request of ours may cost much more than it did.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use sidetrack_tests::artifacts;

use crate::arms::Arm;
use crate::results::Measured;

/// By how much a request may become dearer.
const ALLOWED: f64 = 1.03;

/// What requests cost when the baseline was written.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Baseline {
    /// The Envoy that it holds for.
    envoy: String,
    /// And the machine's kind.
    architecture: String,
    /// Instructions per request, by the arm's name: the plain listener, and ours.
    arms: BTreeMap<String, u64>,
}

/// What the guard says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing costs more than it may. With what has become cheaper by as much, so that the baseline should follow.
    Passed(Vec<String>),
    /// Something does, or has no baseline.
    Failed(Vec<String>),
    /// This run can't be compared.
    Skipped(String),
}

fn path() -> PathBuf {
    artifacts::workspace().join("tests/bench/baseline.json")
}

impl Baseline {
    /// The one that is committed.
    pub(crate) fn read() -> anyhow::Result<Self> {
        let text = fs::read_to_string(path()).with_context(|| path().display().to_string())?;
        serde_json::from_str(&text).with_context(|| path().display().to_string())
    }

    /// What was measured by this Envoy.
    pub(crate) fn of(measured: &[Measured], envoy: &str) -> Self {
        let counts = |arm: &&Measured| arm.ours || arm.arm == Arm::PLAIN.to_string();
        let arms = measured.iter().filter(counts);
        Self {
            envoy: envoy.to_owned(),
            architecture: std::env::consts::ARCH.to_owned(),
            arms: arms.map(|arm| (arm.arm.clone(), arm.median.round() as u64)).collect(),
        }
    }

    /// Makes this the one to be committed.
    pub(crate) fn write(&self) -> anyhow::Result<()> {
        fs::write(path(), serde_json::to_string_pretty(self)? + "\n")?;
        eprintln!("{} is written", path().display());
        Ok(())
    }

    /// Holds `now` against it. The plain listener isn't ours: where it costs other than it did (another libc, say), all
    /// are expected to cost other by the same factor.
    pub(crate) fn verdict(&self, now: &Self) -> Verdict {
        if (&self.envoy, &self.architecture) != (&now.envoy, &now.architecture) {
            return Verdict::Skipped(format!(
                "the baseline is of Envoy {} on {}, this is {} on {}",
                self.envoy, self.architecture, now.envoy, now.architecture
            ));
        }
        let plain = Arm::PLAIN.to_string();
        let (Some(plain_then), Some(plain_now)) = (self.arms.get(&plain), now.arms.get(&plain)) else {
            return Verdict::Failed(vec![format!("there is no arm `{plain}`")]);
        };
        let factor = *plain_now as f64 / *plain_then as f64;
        let (mut dearer, mut cheaper) = (Vec::new(), Vec::new());
        for (arm, now) in now.arms.iter().filter(|(arm, _)| **arm != plain) {
            let Some(then) = self.arms.get(arm) else {
                dearer.push(format!("{arm}: isn't in the baseline"));
                continue;
            };
            let expected = *then as f64 * factor;
            let ratio = *now as f64 / expected;
            let line = format!(
                "{arm}: {now} instructions, {:+.1} % of {expected:.0}",
                (ratio - 1.0) * 100.0
            );
            if ratio > ALLOWED {
                dearer.push(line);
            } else if ratio < 1.0 / ALLOWED {
                cheaper.push(line);
            }
        }
        let gone = self.arms.keys().filter(|arm| !now.arms.contains_key(*arm));
        dearer.extend(gone.map(|arm| format!("{arm}: isn't measured any more")));
        if dearer.is_empty() {
            Verdict::Passed(cheaper)
        } else {
            Verdict::Failed(dearer)
        }
    }
}

impl Verdict {
    /// Says it, and returns whether it is good enough.
    pub(crate) fn tell(&self) -> bool {
        let lines = |lines: &[String]| lines.iter().for_each(|line| eprintln!("  {line}"));
        match self {
            Self::Passed(cheaper) => {
                eprintln!("regression guard: no request of ours costs over 3 % more than the baseline says");
                if !cheaper.is_empty() {
                    eprintln!(
                        "these cost over 3 % less; hold them there with scripts/bench --quick --update-baseline:"
                    );
                    lines(cheaper);
                }
                true
            }
            Self::Failed(dearer) => {
                eprintln!("regression guard: these arms don't fit tests/bench/baseline.json:");
                lines(dearer);
                eprintln!("if that is meant: scripts/bench --quick --update-baseline, and say why in the commit");
                false
            }
            Self::Skipped(reason) => {
                eprintln!("warning: the regression guard was SKIPPED: {reason}");
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn baseline(envoy: &str, plain: u64, arms: &[(&str, u64)]) -> Baseline {
        let plain = (Arm::PLAIN.to_string(), plain);
        Baseline {
            envoy: envoy.to_owned(),
            architecture: "any".to_owned(),
            arms: arms
                .iter()
                .map(|(name, cost)| ((*name).to_owned(), *cost))
                .chain([plain])
                .collect(),
        }
    }

    #[track_caller]
    fn check(now: &Baseline, wanted: &str) {
        let then = baseline("1.40.0", 100_000, &[("key", 200_000)]);
        let verdict = format!("{:?}", then.verdict(now));
        assert!(verdict.starts_with(wanted), "{verdict}");
    }

    #[test]
    fn a_rise_of_more_than_three_percent_fails() {
        check(&baseline("1.40.0", 100_000, &[("key", 205_900)]), "Passed([])");
        check(
            &baseline("1.40.0", 100_000, &[("key", 206_100)]),
            "Failed([\"key: 206100",
        );
    }

    #[test]
    fn a_fall_is_told() {
        check(
            &baseline("1.40.0", 100_000, &[("key", 190_000)]),
            "Passed([\"key: 190000",
        );
    }

    #[test]
    fn what_the_plain_listener_costs_more_is_not_ours() {
        check(&baseline("1.40.0", 110_000, &[("key", 220_000)]), "Passed([])");
        check(&baseline("1.40.0", 90_000, &[("key", 200_000)]), "Failed");
    }

    #[test]
    fn arms_that_come_or_go_fail() {
        check(
            &baseline("1.40.0", 100_000, &[("key", 200_000), ("new", 1)]),
            "Failed([\"new",
        );
        check(&baseline("1.40.0", 100_000, &[]), "Failed([\"key");
    }

    #[test]
    fn another_envoy_is_not_compared() {
        check(&baseline("1.41.0", 100_000, &[("key", 900_000)]), "Skipped");
    }
}
