//! Suites that nobody here wrote: their verdicts, and what comes of comparing them.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;

use crate::artifacts;

/// How often a verdict that differs is asked for again. In many cases two things race, such as an answer and the end of its
/// connection, and on a busy machine any may be too late.
pub const SECOND_LOOKS: usize = 3;

/// Whether suites run in full: `SIDETRACK_FULL`, which `scripts/test --full` sets.
pub fn is_full() -> bool {
    std::env::var_os("SIDETRACK_FULL").is_some_and(|value| !value.is_empty())
}

/// A file that `scripts/install-tools TOOL` has put into `.tools/`.
///
/// # Panics
/// If it isn't there.
pub fn installed(tool: &str, file: &str) -> PathBuf {
    let path = artifacts::workspace().join(".tools").join(tool).join(file);
    assert!(path.exists(), "no {}: run scripts/install-tools {tool}", path.display());
    path
}

/// What a suite says of each of its cases.
#[derive(Clone, Debug, Default)]
pub struct Verdicts(BTreeMap<String, Verdict>);

/// What a suite says of one case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it passed.
    pub passed: bool,
    /// By the suite's own words; empty if it has only passed and failed.
    pub grade: String,
}

impl Verdict {
    /// Of a suite that has only passed and failed.
    pub fn plain(passed: bool) -> Self {
        Self {
            passed,
            grade: String::new(),
        }
    }
}

impl Verdicts {
    /// Prints the line that sums them up. It is seen although the test passes.
    pub fn print(&self, suite: &str, way: &str) {
        let passed = self.0.values().filter(|verdict| verdict.passed).count();
        let failed = self.0.len() - passed;
        // A test's standard error isn't captured if it is written to like this.
        let _ = writeln!(std::io::stderr(), "{suite}, {way}: {passed} passed, {failed} failed");
    }

    /// How many cases there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The cases that didn't pass.
    pub fn failed(&self) -> Vec<&str> {
        let failed = self.0.iter().filter(|(_, verdict)| !verdict.passed);
        failed.map(|(case, _)| case.as_str()).collect()
    }

    /// Those of the cases that `other` has, too.
    pub fn of_cases_in(&self, other: &Self) -> Self {
        let cases = self.0.iter().filter(|(case, _)| other.0.contains_key(*case));
        cases.map(|(case, verdict)| (case.clone(), verdict.clone())).collect()
    }

    /// Takes over `other`'s verdicts of the cases that are in it.
    pub fn replace(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// The cases whose verdicts differ, each with the verdict here and that of `other`.
    pub fn differences<'v>(&'v self, other: &'v Self) -> Vec<Difference<'v>> {
        let cases = self
            .0
            .keys()
            .chain(other.0.keys().filter(|case| !self.0.contains_key(*case)));
        let pairs = cases.map(|case| (case.as_str(), self.0.get(case), other.0.get(case)));
        pairs.filter(|(_, here, there)| here != there).collect()
    }
}

/// A case, and its two verdicts.
pub type Difference<'v> = (&'v str, Option<&'v Verdict>, Option<&'v Verdict>);

impl FromIterator<(String, Verdict)> for Verdicts {
    fn from_iter<T: IntoIterator<Item = (String, Verdict)>>(cases: T) -> Self {
        Self(cases.into_iter().collect())
    }
}

/// `found` has the verdicts `expected`; cases that differ get [`SECOND_LOOKS`] by `again`, at both.
///
/// # Panics
/// If a case differs each time, calling the way to `found` by its `name`.
pub async fn assert_same(
    name: &str,
    mut expected: Verdicts,
    mut found: Verdicts,
    again: impl AsyncFn(&[&str]) -> (Verdicts, Verdicts),
) {
    for _ in 0..SECOND_LOOKS {
        let differences = expected.differences(&found);
        if differences.is_empty() {
            return;
        }
        let cases: Vec<_> = differences.into_iter().map(|(case, ..)| case).collect();
        let (expected_now, found_now) = again(&cases).await;
        expected.replace(expected_now);
        found.replace(found_now);
    }
    let differences = expected.differences(&found);
    assert!(differences.is_empty(), "{name}: {differences:#?}");
}
