//! Metrics, read as Prometheus reads them: by its own parser, linter and query engine, in `tests/promcheck/`.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};

use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use crate::suite::installed;
use crate::{Client, Protocol};

/// Reads the metrics of this port.
///
/// # Panics
/// If it doesn't answer as it must.
pub async fn scrape(port: u16) -> String {
    let mut client = Client::new(Protocol::Http1, port);
    let answer = client.get("/metrics", &[]).await.expect("metrics");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let content_type = answer.headers.get("content-type").expect("a type");
    assert!(content_type.to_str().unwrap().starts_with("text/plain"));
    answer.text()
}

/// What Prometheus makes of scrapes, rules and queries.
#[derive(Clone, Debug, Deserialize)]
pub struct Prometheus {
    /// What the linter objects to, in the scrapes and in the rules.
    #[serde(deserialize_with = "nullable")]
    pub problems: Vec<String>,
    /// The type of each metric.
    pub families: BTreeMap<String, String>,
    /// All series of the last scrape.
    #[serde(deserialize_with = "nullable")]
    pub series: Vec<Sample>,
    /// What came of the queries, at the time of the last scrape.
    #[serde(deserialize_with = "nullable")]
    pub results: Vec<Evaluated>,
    /// The rules, in their order.
    #[serde(deserialize_with = "nullable")]
    pub alerts: Vec<Alert>,
}

/// One value.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Sample {
    /// The labels, `__name__` among them.
    pub labels: BTreeMap<String, String>,
    /// The value.
    #[serde(deserialize_with = "number")]
    pub value: f64,
}

/// What came of a query.
#[derive(Clone, Debug, Deserialize)]
pub struct Evaluated {
    /// Why it came to nothing.
    pub error: String,
    /// What it came to.
    #[serde(deserialize_with = "nullable")]
    pub samples: Vec<Sample>,
}

/// An alert.
#[derive(Clone, Debug, Deserialize)]
pub struct Alert {
    /// Its name.
    pub name: String,
    /// What makes it fire.
    pub firing: Evaluated,
    /// What its condition compares.
    pub compared: Evaluated,
}

impl Prometheus {
    /// Reads these scrapes, as (second, text).
    ///
    /// # Panics
    /// If one of them can't be parsed.
    pub fn read(scrapes: &[(u64, &str)], queries: &[&str], rules: &str) -> Self {
        let scrapes: Vec<Value> = scrapes
            .iter()
            .map(|(at, text)| json!({"at": at, "text": text}))
            .collect();
        let request = json!({"scrapes": scrapes, "queries": queries, "rules": rules});
        let mut command = Command::new(installed("promcheck", "promcheck"));
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("promcheck");
        let mut input = child.stdin.take().expect("its input");
        input.write_all(request.to_string().as_bytes()).expect("it reads all");
        drop(input);
        let output = child.wait_with_output().expect("its answer");
        assert!(output.status.success(), "it refuses: {scrapes:#?}");
        serde_json::from_slice(&output.stdout).expect("an answer")
    }

    /// The value of the series with this name and exactly these labels.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let found = self.series.iter().find(|sample| {
            sample.name() == name
                && sample.labels.len() == labels.len() + 1
                && labels.iter().all(|(name, value)| sample.label(name) == *value)
        });
        found.map(|sample| sample.value)
    }

    /// The series with this name, by the values of these labels; it must have no others.
    ///
    /// # Panics
    /// If it has.
    pub fn values<const N: usize>(&self, name: &str, labels: [&str; N]) -> BTreeMap<[String; N], f64> {
        let found = self.series.iter().filter(|sample| sample.name() == name);
        found
            .map(|sample| {
                assert_eq!(sample.labels.len(), N + 1, "{sample:?}");
                (labels.map(|label| sample.label(label).to_owned()), sample.value)
            })
            .collect()
    }
}

impl Sample {
    /// The name.
    pub fn name(&self) -> &str {
        self.label("__name__")
    }

    /// The value of a label; empty if there is none.
    pub fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }
}

/// Go writes no elements as `null`.
fn nullable<'de, T: Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<Vec<T>, D::Error> {
    Option::deserialize(from).map(Option::unwrap_or_default)
}

/// Prometheus writes numbers as texts, for there are some that JSON hasn't.
fn number<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    let text = String::deserialize(from)?;
    text.parse().map_err(serde::de::Error::custom)
}
