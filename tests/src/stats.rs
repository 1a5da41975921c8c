//! Envoy's counters and gauges.

use std::collections::BTreeMap;

use crate::{Client, Protocol};

/// A reading of Envoy's statistics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stats(BTreeMap<String, u64>);

impl Stats {
    /// Reads those whose name contains a match of the regular expression `filter` from the admin port.
    ///
    /// # Panics
    /// If Envoy doesn't answer.
    pub async fn read(admin_port: u16, filter: &str) -> Self {
        let mut admin = Client::new(Protocol::Http1, admin_port);
        let answer = admin.get(&format!("/stats?filter={filter}"), &[]).await;
        let text = answer.expect("Envoy's admin interface").text();
        let lines = text.lines().filter_map(|line| line.split_once(": "));
        // Text and histograms are left out.
        Self(
            lines
                .filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)))
                .collect(),
        )
    }

    /// The one of this name, of a cluster: it is there from the cluster's first request on, and counts nothing before.
    pub fn of_cluster(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or_default()
    }

    /// The sum of those whose name ends so.
    ///
    /// # Panics
    /// If there is none.
    #[track_caller]
    pub fn sum(&self, suffix: &str) -> u64 {
        let matching: Vec<u64> = self.ending(suffix).map(|(_, value)| value).collect();
        assert!(!matching.is_empty(), "no *{suffix} among {:?}", self.0);
        matching.iter().sum()
    }

    /// Those whose name contains `part` and that aren't 0.
    pub fn not_zero(&self, part: &str) -> Vec<(&str, u64)> {
        let found = self
            .0
            .iter()
            .filter(|(name, value)| name.contains(part) && **value != 0);
        found.map(|(name, value)| (name.as_str(), *value)).collect()
    }

    fn ending(&self, suffix: &str) -> impl Iterator<Item = (&str, u64)> {
        let found = self.0.iter().filter(move |(name, _)| name.ends_with(suffix));
        found.map(|(name, value)| (name.as_str(), *value))
    }
}
