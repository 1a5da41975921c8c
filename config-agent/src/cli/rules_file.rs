//! The file of `sidetrack rules put`: rules as YAML or JSON, and where each part of them is.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path as FilePath, PathBuf};

use anyhow::{Context as _, ensure};
use serde_json::Value;
use sidetrack_routing::{Path, Problem, Segment};
use thiserror::Error;

use crate::config::yaml::{self, Position};

/// As much as the agent takes.
const MAX_BYTES: u64 = 32 * 1024 * 1024;

/// Rules as they were written.
#[derive(Debug)]
pub(super) struct RulesFile {
    name: String,
    text: String,
    rules: Value,
    /// Whether the file is one rule instead of a list.
    is_single: bool,
}

/// What is wrong with the rules of a file. Its display is a line `FILE:LINE:COLUMN: PATH: what is wrong` for each.
#[derive(Debug, Error)]
pub(super) struct InvalidRules(Vec<String>);

impl RulesFile {
    /// Reads the rules in the file `path`; `-` is standard input.
    ///
    /// # Errors
    ///
    /// It can't be read, or is no YAML.
    pub(super) fn read(path: &FilePath) -> anyhow::Result<Self> {
        let (name, text) = if path == FilePath::new("-") {
            let name = PathBuf::from("<stdin>");
            let text = text(std::io::stdin().lock(), &name)?;
            (name, text)
        } else {
            let file = File::open(path).with_context(|| format!("{} can't be read", path.display()))?;
            (path.to_owned(), text(file, path)?)
        };
        Ok(Self::parse(name.display().to_string(), text)?)
    }

    fn parse(name: String, text: String) -> Result<Self, InvalidRules> {
        let (value, mut problems) = yaml::parse(&text)
            .map(|document| (document.value, document.problems))
            .map_err(|(position, message)| InvalidRules(vec![line(&name, position, None, &message)]))?;
        let file = Self {
            is_single: value.is_object(),
            rules: match value {
                rule @ Value::Object(_) => Value::Array(vec![rule]),
                rules => rules,
            },
            name,
            text,
        };
        let message = "must be a list of rules, or one rule".to_owned();
        if !file.rules.is_array() {
            problems.push(Problem {
                path: Path::root(),
                message,
            });
        }
        match problems.is_empty() {
            true => Ok(file),
            false => Err(file.invalid_at(problems)),
        }
    }

    /// The rules, as a list.
    pub(super) fn rules(&self) -> &Value {
        &self.rules
    }

    /// These problems of the list, with their places.
    pub(super) fn invalid(&self, problems: Vec<Problem>) -> InvalidRules {
        let within = |problem: Problem| match self.is_single {
            true => Problem {
                path: without_index(&problem.path),
                ..problem
            },
            false => problem,
        };
        self.invalid_at(problems.into_iter().map(within).collect())
    }

    fn invalid_at(&self, problems: Vec<Problem>) -> InvalidRules {
        let document = yaml::parse(&self.text);
        let place = |problem: &Problem| {
            document
                .as_ref()
                .map(|document| document.position(&problem.path))
                .unwrap_or_default()
        };
        let mut problems: Vec<_> = problems.into_iter().map(|problem| (place(&problem), problem)).collect();
        problems.sort_by_key(|(position, _)| *position);
        let lines = problems.iter().map(|(position, problem)| {
            let path = (!problem.path.segments().is_empty()).then_some(&problem.path);
            line(&self.name, *position, path, &problem.message)
        });
        InvalidRules(lines.collect())
    }
}

impl fmt::Display for InvalidRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

fn text(from: impl Read, name: &FilePath) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    let name = name.display();
    from.take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .with_context(|| format!("{name} can't be read"))?;
    ensure!(
        bytes.len() as u64 <= MAX_BYTES,
        "{name} has more than {} MiB, the agent takes no more",
        MAX_BYTES / 1024 / 1024
    );
    String::from_utf8(bytes)
        .ok()
        .with_context(|| format!("{name} is no UTF-8 text"))
}

fn line(name: &str, Position { line, column }: Position, path: Option<&Path>, message: &str) -> String {
    match path {
        Some(path) => format!("{name}:{line}:{column}: {path}: {message}"),
        None => format!("{name}:{line}:{column}: {message}"),
    }
}

/// The path within the only rule.
fn without_index(path: &Path) -> Path {
    let mut segments = path.segments().iter();
    let Some(Segment::Index(0)) = segments.next() else {
        return path.clone();
    };
    segments.fold(Path::root(), |path, segment| match segment {
        Segment::Key(key) => path.key(key),
        Segment::Index(index) => path.index(*index),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(text: &str) -> Result<RulesFile, String> {
        RulesFile::parse("rules".to_owned(), text.to_owned()).map_err(|invalid| invalid.to_string())
    }

    #[test]
    fn a_list_or_one_rule_is_a_list_of_rules() {
        let rule = json!({"routeKey": "k", "pathPrefixes": ["/a"]});
        for text in [
            "- routeKey: k\n  pathPrefixes: [/a]\n",
            "routeKey: k\npathPrefixes:\n  - /a\n",
            "# a comment\n[{\"routeKey\": \"k\", \"pathPrefixes\": [\"/a\"]}]",
            "{\n\t\"routeKey\": \"k\",\n\t\"pathPrefixes\": [\n\t\t\"/a\"\n\t]\n}\n",
        ] {
            assert_eq!(parse(text).unwrap().rules(), &json!([rule]), "{text}");
        }
        assert_eq!(parse("[]").unwrap().rules(), &json!([]));
    }

    #[test]
    fn what_is_no_list_of_rules_says_where() {
        for (text, expected) in [
            ("", "rules:1:1: must be a list of rules, or one rule"),
            ("# nothing\n7", "rules:2:1: must be a list of rules, or one rule"),
            (
                "- a: !x y\n",
                "rules:1:3: [0].a: is no plain value: leave out tags (!…) and references to anchors that don't exist",
            ),
            (
                "a: 1\na: 2\n",
                "rules:2:1: this name is given twice in one mapping: leave one out",
            ),
        ] {
            assert_eq!(parse(text).unwrap_err(), expected, "{text}");
        }
    }

    #[test]
    fn problems_of_the_agent_have_their_places() {
        let problem = |path: Path| Problem {
            path,
            message: "is wrong".to_owned(),
        };
        let root = Path::root();
        let list = parse("- routeKey: k\n  targetService: a b\n- pathPrefixes:\n    - /\n    - x\n").unwrap();
        let problems = vec![
            problem(root.index(1).key("pathPrefixes").index(1)),
            problem(root.index(0).key("targetService")),
            problem(Path::root()),
        ];
        assert_eq!(
            list.invalid(problems).to_string(),
            "rules:1:1: is wrong\nrules:2:3: [0].targetService: is wrong\nrules:5:7: [1].pathPrefixes[1]: is wrong"
        );
        let single = parse("{\"routeKey\": \"k\",\n \"targetService\": \"a b\"}").unwrap();
        assert_eq!(
            single
                .invalid(vec![problem(root.index(0).key("targetService"))])
                .to_string(),
            "rules:2:2: targetService: is wrong"
        );
    }
}
