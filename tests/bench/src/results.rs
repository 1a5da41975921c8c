//! What was measured, as it is kept in files.

use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sidetrack_tests::artifacts;

use crate::arms::Arm;

/// Everything that was measured in one run; what wasn't is `None`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Results {
    /// Instructions for each request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) instructions: Option<Section<Vec<Measured>>>,
    /// Nanoseconds of CPU of Envoy's worker for each request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cpu: Option<Section<Vec<Measured>>>,
    /// How long requests take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) latency: Option<Section<Vec<Latency>>>,
    /// What an update of the table costs Envoy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) updates: Option<Section<Updates>>,
    /// The filter's module.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) module: Option<Section<Module>>,
    /// The routing core alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) micro: Option<Section<Vec<Micro>>>,
}

impl Results {
    /// As text. Three digits after the point are enough, and the same number when they are read again.
    pub(crate) fn to_json(&self) -> anyhow::Result<String> {
        let mut value = serde_json::to_value(self)?;
        shorten(&mut value);
        Ok(serde_json::to_string_pretty(&value)? + "\n")
    }

    /// These, and `other` ones for what they don't have.
    pub(crate) fn or(self, other: Self) -> Self {
        Self {
            instructions: self.instructions.or(other.instructions),
            cpu: self.cpu.or(other.cpu),
            latency: self.latency.or(other.latency),
            updates: self.updates.or(other.updates),
            module: self.module.or(other.module),
            micro: self.micro.or(other.micro),
        }
    }
}

/// One arm under load that comes at its own times.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Latency {
    /// Its name.
    pub(crate) arm: String,
    /// The most requests per second that were answered.
    pub(crate) knee: f64,
    /// Requests per second while the times were measured.
    pub(crate) rate: f64,
    /// Microseconds.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

/// What updates of the table cost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Updates {
    /// Of tables of several sizes, the smallest first.
    pub(crate) sizes: Vec<Update>,
    /// Very many, under load.
    pub(crate) many: Option<ManyUpdates>,
    /// From a change that the API has accepted to the first request that is routed by it.
    pub(crate) until_routable: Option<UntilRoutable>,
    /// Of the agent, in bytes, with [`UntilRoutable::rules`] rules.
    pub(crate) agent_memory: Option<u64>,
    /// How often it wakes up in a second while nothing changes.
    pub(crate) agent_wake_ups: Option<f64>,
}

/// The filter's module.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Module {
    /// The size of the build that takes tables only.
    pub(crate) bytes: u64,
    /// That of the one that takes JSON, too.
    pub(crate) bytes_with_json: u64,
    /// Milliseconds of processor time that Envoy with one worker needs more when it starts with it.
    pub(crate) load: f64,
}

/// An update of a table of this size.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Update {
    /// How many rules it has.
    pub(crate) rules: usize,
    /// Its size.
    pub(crate) bytes: u64,
    /// Microseconds of CPU that each worker needs for it, when it can't serve requests.
    pub(crate) block: f64,
    /// Milliseconds from the new file to its being in force in all threads.
    pub(crate) in_force: f64,
    /// Bytes that Envoy has grown by for each VM.
    pub(crate) memory_per_vm: f64,
}

/// Updates without an end, under load.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ManyUpdates {
    /// How many, of a table of how many rules.
    pub(crate) updates: usize,
    pub(crate) rules: usize,
    /// Envoy's memory after a hundredth of them, and after all, in bytes.
    pub(crate) memory_before: u64,
    pub(crate) memory_after: u64,
    /// Requests meanwhile, and those of them that got no answer or the wrong one.
    pub(crate) requests: u64,
    pub(crate) wrong: u64,
}

/// How long a change takes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct UntilRoutable {
    /// How many rules there are.
    pub(crate) rules: usize,
    /// Milliseconds.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

/// Something that the routing core does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Micro {
    /// What.
    pub(crate) what: String,
    /// How long it takes, in nanoseconds; the median, and the limits that it is within with 95 % certainty.
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

/// A part of the results, with where and when it was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Section<F> {
    /// Where and when.
    pub(crate) conditions: Conditions,
    /// The figures.
    pub(crate) figures: F,
}

/// Where and when something was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Conditions {
    /// Year, month and day, UTC.
    pub(crate) date: String,
    /// The checkout.
    pub(crate) commit: String,
    /// Processors and kernel.
    pub(crate) machine: String,
    /// The release of Envoy.
    pub(crate) envoy: String,
    /// What else took part: emulator, compilers.
    pub(crate) with: Vec<String>,
    /// Processes that wanted to run, on average of the last minute, when it began.
    pub(crate) load: String,
}

impl Conditions {
    /// Of here and now.
    pub(crate) fn now(with: impl IntoIterator<Item = String>) -> Self {
        let now = humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string();
        let date = now.split('T').next().unwrap_or_default().to_owned();
        let mut with: Vec<_> = with.into_iter().collect();
        with.push(printed(Command::new("rustc").arg("--version")));
        Self {
            date,
            commit: commit(),
            machine: machine(),
            envoy: artifacts::release(&artifacts::envoy()),
            with,
            load: first_word(Path::new("/proc/loadavg")),
        }
    }
}

impl<F> Section<F> {
    pub(crate) fn new(conditions: Conditions, figures: F) -> Self {
        Self { conditions, figures }
    }
}

/// The commit, and whether something differs from it beside what is written here.
fn commit() -> String {
    let commit = printed(Command::new("git").args(["describe", "--always", "--abbrev=12"]));
    let mut difference = Command::new("git");
    difference.args(["diff", "--quiet", "HEAD", "--", ".", ":(exclude)docs/benchmarks*"]);
    let status = difference.current_dir(artifacts::workspace()).status();
    if status.is_ok_and(|status| status.success()) {
        commit
    } else {
        format!("{commit}-dirty")
    }
}

fn shorten(value: &mut Value) {
    match value {
        Value::Number(number) if number.is_f64() => {
            let short = number.as_f64().map(|number| (number * 1e3).round() / 1e3);
            *value = short.into();
        }
        Value::Array(elements) => elements.iter_mut().for_each(shorten),
        Value::Object(fields) => fields.values_mut().for_each(shorten),
        _ => {}
    }
}

fn machine() -> String {
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split(':').nth(1));
    let count = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let kernel = printed(Command::new("uname").args(["-sr"]));
    let kernel = kernel.split('-').next().unwrap_or_default();
    format!("{count} × {}, {kernel}", model.unwrap_or(std::env::consts::ARCH).trim())
}

/// What a program prints, `unknown` if it doesn't.
pub(crate) fn printed(command: &mut Command) -> String {
    let output = command.current_dir(artifacts::workspace()).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    text.ok()
        .filter(|text| !text.is_empty())
        .unwrap_or_else(|| "unknown".to_owned())
}

fn first_word(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}

/// One arm's figures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Measured {
    /// [`Arm`]'s name.
    pub(crate) arm: String,
    /// Its listener's, without the number of sandboxes.
    pub(crate) family: String,
    /// What its requests are.
    pub(crate) requests: String,
    /// How many sandboxes there are, 0 where there is no such number.
    pub(crate) sandboxes: usize,
    /// The name of the arm of its listener's requests without a key.
    pub(crate) keyless: String,
    /// Whether it is ours.
    pub(crate) ours: bool,
    /// The middle of all rounds.
    pub(crate) median: f64,
    /// The smallest and the largest.
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Measured {
    /// Of the values of all rounds.
    ///
    /// # Panics
    /// If there are none.
    pub(crate) fn new(arm: Arm, mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let last = values.len() - 1;
        Self {
            arm: arm.to_string(),
            family: arm.listener.family(),
            requests: arm.requests.to_string(),
            sandboxes: arm.listener.sandboxes(),
            keyless: arm.keyless().to_string(),
            ours: arm.is_ours(),
            median: values[last / 2],
            least: values[0],
            most: values[last],
        }
    }

    /// How far its rounds are apart, as a share of the median.
    pub(crate) fn spread(&self) -> f64 {
        (self.most - self.least) / self.median
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_the_same_when_they_are_read_again() {
        let values = vec![1.0, 208_586.858_333_333_34, f64::from(1u8) / 3.0];
        let results = Results {
            cpu: Some(Section::new(
                Conditions::now([]),
                vec![Measured::new(Arm::PLAIN, values)],
            )),
            ..Results::default()
        };
        let text = results.to_json().unwrap();
        let again: Results = serde_json::from_str(&text).unwrap();
        assert_eq!(again.to_json().unwrap(), text);
        assert!(text.contains("208586.858,") || text.contains("208586.858\n"), "{text}");
    }
}
