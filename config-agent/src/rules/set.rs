//! All rules, those of the file and those of the API, and how they change.

use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use imbl::OrdMap;
use serde_json::Value;
use sidetrack_routing::{Problem, ValidConfig};

use super::read::recheck;
use super::{Condition, FileRules, InvalidRules, KeyRules, Prepared, Source, Tag};

/// The most bytes that the API's rules may have as JSON: some 200,000 rules.
const MAX_BYTES: usize = 64 * 1024 * 1024;

/// All rules at one moment. Within a key the file's come before the API's; keys don't touch each other. So the whole is the
/// same in whatever order it came about.
#[derive(Clone, Debug)]
pub struct RuleSet {
    file: Arc<FileRules>,
    /// A clone shares what doesn't change.
    api: OrdMap<Arc<str>, Arc<KeyRules>>,
    /// Of the API's rules.
    len: usize,
    bytes: usize,
    tag: Tag,
}

/// What the API does to its rules.
#[derive(Clone, Debug)]
pub enum Change {
    /// Puts these in place of those that their key has.
    Put(Prepared),
    /// Puts these in place of all.
    Replace(Prepared),
    /// Removes those of this key.
    Delete(String),
}

/// Why a change isn't made. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The rules don't fit the file.
    #[error("the rules aren't right")]
    Invalid(Vec<Problem>),
    /// What is there isn't what the client named.
    #[error("the rules have changed since they were read: read them again, and send their ETag as If-Match")]
    Condition,
    /// There is nothing to remove.
    #[error("there is no rule for the route key {0}")]
    Absent(String),
    /// What is there isn't the API's.
    #[error("the rules for {0} are the configuration file's: change them there")]
    OfTheFile(String),
    /// It would be too much.
    #[error("the API's rules would have more than {} MiB: remove some that aren't needed any more", MAX_BYTES / 1024 / 1024)]
    TooMany,
    /// It can't be kept, so it isn't made.
    #[error("{0}")]
    Unwritable(String),
    /// It can't be rendered, although it is right.
    #[error("the rules can't be rendered, which is a bug of Sidetrack; its log says more")]
    Broken,
    /// The agent stops.
    #[error("the agent is stopping")]
    Stopping,
}

impl RuleSet {
    /// The file's alone.
    pub fn new(file: FileRules) -> Self {
        Self {
            file: Arc::new(file),
            api: OrdMap::new(),
            len: 0,
            bytes: 0,
            tag: Tag::of(b""),
        }
    }

    /// The same rules of the API beside another file.
    ///
    /// # Errors
    ///
    /// They don't fit. A problem's path is `api.rules[KEY][INDEX]…`.
    pub fn with_file(&self, file: FileRules) -> Result<Self, InvalidRules> {
        let api = recheck(&self.api, &file)?;
        let file = Arc::new(file);
        Ok(Self {
            file,
            api,
            ..self.clone()
        })
    }

    /// The file's part.
    pub fn file(&self) -> &Arc<FileRules> {
        &self.file
    }

    /// How many rules there are.
    pub fn len(&self) -> usize {
        self.file.len() + self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many of them are the API's.
    pub fn of_api(&self) -> usize {
        self.len
    }

    /// The whole configuration.
    pub fn config(&self) -> ValidConfig {
        let mut config = self.file.config().clone();
        let api = self.api.values().flat_map(|rules| rules.valid());
        config.routing.rules.extend(api.cloned());
        config
    }

    /// The API's rules as elements of a JSON list, one part for each key.
    pub(crate) fn api_json(&self) -> impl Iterator<Item = &Bytes> {
        self.api.values().map(|rules| rules.json())
    }

    /// The rules of the API of the first key after `key`, as elements of a JSON list; of the very first, if none is given.
    pub(crate) fn api_json_after(&self, key: Option<&str>) -> Option<(&Arc<str>, &Bytes)> {
        let after = key.map_or(Bound::Unbounded, |key| Bound::Excluded(Arc::from(key)));
        let next = self.api.range((after, Bound::Unbounded)).next();
        next.map(|(key, rules)| (key, rules.json()))
    }

    /// The rules of a key, of both sources or of one, as elements of a JSON list.
    pub(crate) fn key_json(&self, key: &str, source: Option<Source>) -> Vec<Bytes> {
        let mut json = Vec::new();
        if source != Some(Source::Api) {
            json.extend(self.file.of_key(key).cloned());
        }
        if source != Some(Source::File) {
            json.extend(self.api.get(key).map(|rules| rules.json().clone()));
        }
        json
    }

    /// That of a key's rules, if it has any.
    pub fn tag_of(&self, key: &str) -> Option<Tag> {
        let file = self.file.of_key(key).map(|json| Tag::of(json));
        let api = self.api.get(key).map(|rules| rules.tag());
        file.chain(api).reduce(Tag::then)
    }

    /// That of all rules.
    pub fn tag(&self) -> Tag {
        self.file.tag().then(self.tag)
    }

    /// All but the rules, as the file has it.
    pub(crate) fn rest(&self) -> Value {
        self.file.rest()
    }

    /// Makes `change`, if `condition` holds; whether anything is different afterwards.
    ///
    /// # Errors
    ///
    /// See [`Refused`]. Nothing has changed.
    pub fn apply(&mut self, change: Change, condition: &Condition) -> Result<bool, Refused> {
        let current = match &change {
            Change::Put(prepared) => prepared.keys.keys().next().and_then(|key| self.tag_of(key)),
            Change::Delete(key) => self.tag_of(key),
            Change::Replace(_) => Some(self.tag()),
        };
        if let (Change::Delete(key), None) = (&change, current) {
            return Err(Refused::Absent(key.clone()));
        }
        if !condition.holds(current) {
            return Err(Refused::Condition);
        }
        match change {
            Change::Put(prepared) => {
                let prepared = self.beside_this_file(prepared)?;
                let old = prepared.keys.keys().filter_map(|key| self.api.get(key));
                let old: usize = old.map(|rules| rules.json().len()).sum();
                self.ensure_room(self.bytes - old, &prepared)?;
                let put = prepared.keys.into_iter().map(|(key, rules)| self.put(key, rules));
                Ok(put.fold(false, |changed, put| changed | put))
            }
            Change::Replace(prepared) => {
                let prepared = self.beside_this_file(prepared)?;
                self.ensure_room(0, &prepared)?;
                let gone = self.api.keys().filter(|key| !prepared.keys.contains_key(*key));
                let gone: Vec<_> = gone.cloned().collect();
                let mut changed = !gone.is_empty();
                for key in gone {
                    self.remove(&key);
                }
                for (key, rules) in prepared.keys {
                    changed |= self.put(key, rules);
                }
                Ok(changed)
            }
            Change::Delete(key) if self.remove(&key) => Ok(true),
            Change::Delete(key) => Err(Refused::OfTheFile(key)),
        }
    }

    fn beside_this_file(&self, prepared: Prepared) -> Result<Prepared, Refused> {
        let prepared = prepared.beside(&self.file);
        prepared.map_err(|InvalidRules(problems)| Refused::Invalid(problems))
    }

    fn ensure_room(&self, kept: usize, prepared: &Prepared) -> Result<(), Refused> {
        let new: usize = prepared.keys.values().map(|rules| rules.json().len()).sum();
        if kept + new > MAX_BYTES {
            Err(Refused::TooMany)
        } else {
            Ok(())
        }
    }

    /// Whether it differs from what was there.
    fn put(&mut self, key: Arc<str>, rules: Arc<KeyRules>) -> bool {
        if self.api.get(&key).is_some_and(|old| old.json() == rules.json()) {
            return false;
        }
        self.remove(&key);
        self.len += rules.valid().len();
        self.bytes += rules.json().len();
        self.tag = self.tag.with(rules.tag());
        self.api.insert(key, rules);
        true
    }

    /// Whether there was anything to remove.
    fn remove(&mut self, key: &str) -> bool {
        let Some(old) = self.api.remove(key) else {
            return false;
        };
        self.len -= old.valid().len();
        self.bytes -= old.json().len();
        self.tag = self.tag.without(old.tag());
        true
    }
}
