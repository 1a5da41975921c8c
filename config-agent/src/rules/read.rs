//! From JSON to checked rules of the API, or everything that is wrong with them.

use std::collections::BTreeMap;
use std::sync::Arc;

use imbl::OrdMap;
use serde_json::Value;
use sidetrack_routing::{Path, Problem, Segment, decode, validate_rules, wire};

use super::{FileRules, KeyRules, MAX_RULES_OF_KEY};
use crate::json;

/// More are hardly read.
const MAX_PROBLEMS: usize = 100;

/// Checked rules by route key, and the file beside which they were checked.
#[derive(Clone, Debug)]
pub struct Prepared {
    pub(crate) keys: OrdMap<Arc<str>, Arc<KeyRules>>,
    pub(crate) file: Arc<FileRules>,
}

/// Everything that is wrong with rules. A path begins with the index in the list that was read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the rules aren't right")]
pub struct InvalidRules(pub Vec<Problem>);

/// Where rules of one key are in a list.
#[derive(Default)]
struct Group {
    indices: Vec<usize>,
    rules: Vec<wire::Rule>,
}

impl Prepared {
    /// Reads a JSON list of rules and checks them beside those of `file`. With `key` all are for that route key and needn't
    /// name it.
    ///
    /// # Errors
    ///
    /// Every problem of form and content, at most 100 and a last one that says so.
    pub fn read(text: &[u8], key: Option<&str>, file: &Arc<FileRules>) -> Result<Self, InvalidRules> {
        let mut problems = Vec::new();
        let mut groups: BTreeMap<String, Group> = BTreeMap::new();
        let read = json::read_list(text, |index, element| {
            // What comes after so many is read only to see that it is JSON.
            if problems.len() <= MAX_PROBLEMS {
                match read_rule(element, key, file) {
                    Ok(rule) => groups.entry(rule.route_key.clone()).or_default().push(index, rule),
                    Err(wrong) => problems.extend(
                        wrong
                            .iter()
                            .map(|problem| within(Path::root().index(index), 0, problem)),
                    ),
                }
            }
        });
        read.map_err(|problem| InvalidRules(vec![problem]))?;
        if let Some(key) = key
            && problems.is_empty()
            && groups.is_empty()
        {
            let message = format!("is empty: to remove the rules of {key}, use DELETE");
            problems.push(Problem {
                path: Path::root(),
                message,
            });
        }
        let mut keys = OrdMap::new();
        for (key, Group { indices, rules }) in groups {
            match checked(rules, file) {
                Ok(rules) => {
                    keys.insert(key.into(), Arc::new(rules));
                }
                Err(wrong) => problems.extend(wrong.iter().map(|problem| placed(&indices, problem))),
            }
            if problems.len() > MAX_PROBLEMS {
                break;
            }
        }
        if problems.is_empty() {
            let file = Arc::clone(file);
            return Ok(Self { keys, file });
        }
        problems.sort();
        if problems.len() > MAX_PROBLEMS {
            problems.truncate(MAX_PROBLEMS);
            let message = format!("the first {MAX_PROBLEMS} problems are shown; there may be more");
            problems.push(Problem {
                path: Path::root(),
                message,
            });
        }
        Err(InvalidRules(problems))
    }

    /// The same beside another file.
    ///
    /// # Errors
    ///
    /// Every problem; its path is `api.rules[KEY][INDEX]…`.
    pub(crate) fn beside(self, file: &Arc<FileRules>) -> Result<Self, InvalidRules> {
        if Arc::ptr_eq(&self.file, file) {
            return Ok(self);
        }
        let keys = recheck(&self.keys, file)?;
        let file = Arc::clone(file);
        Ok(Self { keys, file })
    }
}

impl Group {
    fn push(&mut self, index: usize, rule: wire::Rule) {
        self.indices.push(index);
        self.rules.push(rule);
    }
}

/// Checks rules anew, beside another file.
pub(super) fn recheck(
    keys: &OrdMap<Arc<str>, Arc<KeyRules>>,
    file: &FileRules,
) -> Result<OrdMap<Arc<str>, Arc<KeyRules>>, InvalidRules> {
    let mut checked = OrdMap::new();
    let mut problems = Vec::new();
    for (key, rules) in keys {
        let given = as_given(rules.json(), file);
        match given.and_then(|rules| KeyRules::check(&rules, file)) {
            Ok(rules) => {
                checked.insert(Arc::clone(key), Arc::new(rules));
            }
            Err(wrong) => {
                let place = Path::root().key("api").key("rules").key(&**key);
                problems.extend(wrong.iter().map(|problem| within(place.clone(), 0, problem)));
            }
        }
    }
    if problems.is_empty() {
        Ok(checked)
    } else {
        Err(InvalidRules(problems))
    }
}

/// The rules that a key's JSON is made of. They are needed when the file changes, so they aren't kept beside it.
fn as_given(json: &[u8], file: &FileRules) -> Result<Vec<wire::Rule>, Vec<Problem>> {
    let mut rules = Vec::new();
    let mut problems = Vec::new();
    let list = [b"[", json, b"]"].concat();
    let read = json::read_list(&list, |_, rule| match read_rule(rule, None, file) {
        Ok(rule) => rules.push(rule),
        Err(wrong) => problems.extend(wrong),
    });
    problems.extend(read.err());
    if problems.is_empty() { Ok(rules) } else { Err(problems) }
}

fn checked(rules: Vec<wire::Rule>, file: &FileRules) -> Result<KeyRules, Vec<Problem>> {
    if rules.len() > MAX_RULES_OF_KEY {
        let key = rules.first().map(|rule| rule.route_key.as_str()).unwrap_or_default();
        let message = format!(
            "has {} rules for the route key {key}, must have at most {MAX_RULES_OF_KEY}",
            rules.len()
        );
        return Err(vec![Problem {
            path: Path::root(),
            message,
        }]);
    }
    KeyRules::check(&rules, file)
}

/// Reads one rule. What GET adds to it, `source`, may be there. Its content is checked only if its form isn't right, so that
/// everything is said at once.
fn read_rule(mut element: Value, key: Option<&str>, file: &FileRules) -> Result<wire::Rule, Vec<Problem>> {
    let mut problems = Vec::new();
    if let Value::Object(fields) = &mut element {
        let mut problem = |field: &str, message: String| {
            problems.push(Problem {
                path: Path::root().key(field),
                message,
            });
        };
        match fields.remove("source") {
            None => {}
            Some(source) if source == "api" => {}
            Some(source) if source == "file" => {
                let message =
                    "is \"file\": rules of the file are changed there; leave them out, as GET ?source=api does";
                problem("source", message.to_owned());
            }
            Some(_) => problem("source", "must be \"api\", or left out".to_owned()),
        }
        if let Some(key) = key {
            match fields.get("routeKey") {
                None => {
                    fields.insert("routeKey".to_owned(), key.into());
                }
                Some(Value::String(given)) if given != key => {
                    problem(
                        "routeKey",
                        format!("is {given:?}, must be {key:?} as in the address, or left out"),
                    );
                    fields.insert("routeKey".to_owned(), key.into());
                }
                Some(_) => {}
            }
        }
    }
    let read = decode(&element, |rule: &wire::Rule| Ok(rule.clone()));
    if let (Ok(rule), true) = (read, problems.is_empty()) {
        return Ok(rule);
    }
    let check = |rule: &wire::Rule| {
        let checked = validate_rules(std::slice::from_ref(rule), file.config_for(&rule.route_key));
        checked.map_err(|wrong| wrong.iter().map(|problem| within(Path::root(), 1, problem)).collect())
    };
    problems.extend(decode(&element, check).err().unwrap_or_default());
    Err(problems)
}

/// `problem`, whose path begins with an index into `indices`, by what is there.
fn placed(indices: &[usize], problem: &Problem) -> Problem {
    match problem.path.segments() {
        [Segment::Index(index), ..] => {
            let index = indices.get(*index).copied().unwrap_or(*index);
            within(Path::root().index(index), 1, problem)
        }
        _ => problem.clone(),
    }
}

/// `problem` of something at `place`, without the first `skipped` segments of its path.
pub(crate) fn within(place: Path, skipped: usize, problem: &Problem) -> Problem {
    let segments = problem.path.segments().iter().skip(skipped);
    let path = segments.fold(place, |path, segment| match segment {
        Segment::Key(key) => path.key(key),
        Segment::Index(index) => path.index(*index),
    });
    Problem {
        path,
        message: problem.message.clone(),
    }
}
