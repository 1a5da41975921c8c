//! Suites that nobody here wrote: their verdicts, and what comes of comparing them.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;

use crate::artifacts;

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
