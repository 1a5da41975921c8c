//! The API's rules of one route key.

use std::sync::Arc;

use bytes::Bytes;
use sidetrack_routing::{Problem, ValidRule, validate_rules, wire};

use super::{FileRules, OwnedRule, Source, Tag};

/// The most rules that the API takes for one route key. They are tried one after the other.
pub const MAX_RULES_OF_KEY: usize = 1_000;

/// The API's rules of one route key: checked, and as JSON. At least one.
#[derive(Debug)]
pub struct KeyRules {
    valid: Vec<Arc<ValidRule>>,
    json: Bytes,
}

impl KeyRules {
    /// Checks the rules of one key beside those of the file.
    ///
    /// # Errors
    ///
    /// Every problem; its path begins with the rule's index.
    pub(crate) fn check(wire: &[wire::Rule], file: &FileRules) -> Result<Self, Vec<Problem>> {
        let key = wire.first().map(|rule| rule.route_key.as_str()).unwrap_or_default();
        let valid = validate_rules(wire, file.config_for(key))?;
        let rules: Vec<String> = wire
            .iter()
            .map(|rule| {
                let source = Source::Api;
                OwnedRule { rule, source }.json()
            })
            .collect();
        Ok(Self {
            json: rules.join(",").into(),
            valid,
        })
    }

    /// Checked.
    pub fn valid(&self) -> &[Arc<ValidRule>] {
        &self.valid
    }

    /// As the elements of a JSON list, with commas between them.
    pub(crate) fn json(&self) -> &Bytes {
        &self.json
    }

    pub(crate) fn tag(&self) -> Tag {
        Tag::of(&self.json)
    }
}
