//! What is in force when an agent starts.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::anyhow;
use sidetrack_routing::{Path as Place, Segment, ValidConfig};
use tracing::info;

use crate::config::Loaded;
use crate::json;
use crate::rules::{Change, Condition, FileRules, InvalidRules, Prepared, RuleSet, within};
use crate::state::StateFile;

/// What is in force at first, and the file behind the API's part of it.
#[derive(Debug)]
pub struct Beginning {
    pub(super) rules: RuleSet,
    pub(super) state: StateFile,
}

impl Beginning {
    /// Reads the state at `path` and puts the API's rules beside the file's.
    ///
    /// # Errors
    ///
    /// The state can't be used, or doesn't fit the file; what to do is said.
    pub fn read(loaded: Loaded, path: &Path) -> anyhow::Result<Self> {
        let (state, kept) = StateFile::open(path)?;
        let mut rules = RuleSet::new(FileRules::new(loaded));
        if let Some(kept) = kept {
            let prepared = Prepared::read(&kept, None, rules.file());
            let prepared = prepared.map_err(|invalid| misfit(state.path(), &kept, invalid))?;
            let number = prepared.keys.len();
            rules.apply(Change::Replace(prepared), &Condition::default())?;
            info!(file = %state.path().display(), keys = number, rules = rules.of_api(), "rules of the API are back");
        }
        Ok(Self { rules, state })
    }

    /// The whole configuration.
    pub fn config(&self) -> ValidConfig {
        self.rules.config()
    }
}

/// What is said of rules that were kept and don't fit any more.
fn misfit(path: &Path, kept: &[u8], InvalidRules(problems): InvalidRules) -> anyhow::Error {
    // By key, as when the file changes: nobody counts in a file of 10,000 rules.
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut places = Vec::new();
    let _ = json::read_list(kept, |_, rule| {
        let key = rule["routeKey"].as_str().unwrap_or_default().to_owned();
        let index = seen.entry(key.clone()).or_default();
        places.push(Place::root().key("api").key("rules").key(key).index(*index));
        *index += 1;
    });
    let lines = problems.iter().map(|problem| {
        let problem = match problem.path.segments() {
            [Segment::Index(index), ..] => within(places.get(*index).cloned().unwrap_or_default(), 1, problem),
            _ => problem.clone(),
        };
        format!("{}: {problem}", path.display())
    });
    anyhow!(
        "rules that came through the API don't fit the configuration:\n{}\nchange the configuration, or move {} away to begin \
         without any rule of the API",
        lines.collect::<Vec<_>>().join("\n"),
        path.display()
    )
}
