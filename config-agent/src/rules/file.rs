//! The configuration file, and the rules it owns.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::Value;
use sidetrack_routing::{ValidConfig, wire};

use super::{OwnedRule, Source, Tag};
use crate::config::{Loaded, TextHash};

/// What the configuration file says.
#[derive(Debug)]
pub struct FileRules {
    text: TextHash,
    config: ValidConfig,
    /// The same without its rules.
    without_rules: ValidConfig,
    wire: wire::Config,
    /// Each rule as JSON, in the order of the file.
    json: Vec<Bytes>,
    /// Where in it the rules of each key are.
    keys: BTreeMap<String, Vec<usize>>,
    tag: Tag,
}

impl FileRules {
    /// Those of this file.
    pub fn new(loaded: Loaded) -> Self {
        let Loaded {
            text, mut wire, config, ..
        } = loaded;
        let rules = std::mem::take(&mut wire.routing.rules);
        let mut keys: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        let mut json: Vec<Bytes> = Vec::with_capacity(rules.len());
        let mut tag = Tag::of(b"");
        for (index, rule) in rules.into_iter().enumerate() {
            let source = Source::File;
            let rule_json: Bytes = OwnedRule { rule: &rule, source }.json().into();
            tag = tag.then(Tag::of(&rule_json));
            json.push(rule_json);
            keys.entry(rule.route_key).or_default().push(index);
        }
        let mut without_rules = config.clone();
        without_rules.routing.rules.clear();
        Self {
            text,
            config,
            without_rules,
            wire,
            json,
            keys,
            tag,
        }
    }

    /// What it was read from.
    pub(crate) fn text(&self) -> TextHash {
        self.text
    }

    /// The configuration with the file's rules alone.
    pub fn config(&self) -> &ValidConfig {
        &self.config
    }

    /// The configuration beside which further rules of `key` are checked, without what doesn't matter for it.
    pub(crate) fn config_for(&self, key: &str) -> &ValidConfig {
        if self.keys.contains_key(key) {
            &self.config
        } else {
            &self.without_rules
        }
    }

    /// Whether another file says the same.
    pub(crate) fn says(&self, other: &Self) -> bool {
        self.wire == other.wire && self.json == other.json && self.config == other.config
    }

    /// How many rules it has.
    pub(crate) fn len(&self) -> usize {
        self.json.len()
    }

    /// All rules as JSON.
    pub(crate) fn json(&self) -> &[Bytes] {
        &self.json
    }

    /// Those of a key.
    pub(crate) fn of_key(&self, key: &str) -> impl Iterator<Item = &Bytes> {
        let indices = self.keys.get(key).map(Vec::as_slice).unwrap_or_default();
        indices.iter().filter_map(|index| self.json.get(*index))
    }

    /// That of all rules.
    pub(crate) fn tag(&self) -> Tag {
        self.tag
    }

    /// All but the rules, as it is written, with what is there by default.
    pub(crate) fn rest(&self) -> Value {
        serde_json::to_value(&self.wire).unwrap_or_default()
    }
}
