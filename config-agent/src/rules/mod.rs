//! Who owns which rule: those of the configuration file, those of the API, and what they are together.

mod file;
mod key;
mod read;
mod set;
mod tag;

use serde::Serialize;
use sidetrack_routing::wire;

pub use file::FileRules;
pub use key::{KeyRules, MAX_RULES_OF_KEY};
pub(crate) use read::within;
pub use read::{InvalidRules, Prepared};
pub use set::{Change, Refused, RuleSet};
pub use tag::{Condition, Tag, Tags};

/// Who owns a rule, and so by what way it is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Source {
    /// The configuration file.
    File,
    /// The API.
    Api,
}

/// A rule as the API shows it.
#[derive(Clone, Debug, Serialize)]
struct OwnedRule<'r> {
    #[serde(flatten)]
    rule: &'r wire::Rule,
    source: Source,
}

impl OwnedRule<'_> {
    /// Its JSON. A wire rule always has one.
    fn json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}
