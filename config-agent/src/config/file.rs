//! A configuration file, from bytes to a valid configuration or to all that is wrong with it.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use sidetrack_routing::wire::{Config, Mode};
use sidetrack_routing::{Problem, ValidConfig, Warning, decode_then, validate, warnings};
use thiserror::Error;
use twox_hash::XxHash64;

use super::files;
use super::yaml::{self, Position};

/// The largest configuration file: some 100,000 rules have 20 MB.
const MAX_BYTES: u64 = 32 * 1024 * 1024;

/// How a configuration is read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reading {
    /// The mode that goes before the one in the file.
    pub mode: Option<Mode>,
    /// Whether Envoy is on this machine, so that the files it is to open must be here.
    pub envoy_is_here: bool,
}

/// What tells one text of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextHash(u64);

/// What a good file holds.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What it was read from.
    pub text: TextHash,
    /// The configuration.
    pub config: ValidConfig,
    /// As it is written, the mode aside if that comes from elsewhere.
    pub wire: Config,
    /// What is allowed in it but hardly meant, in the order of the rules.
    pub warnings: Vec<LocatedWarning>,
}

/// A warning and where it is. Its display is `FILE:LINE:COLUMN: warning: PATH: what is doubtful`, with the other place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocatedWarning {
    file: PathBuf,
    position: Position,
    warning: Warning,
    other: Position,
}

/// Why a file holds no configuration. Its display is one line for each problem.
#[derive(Debug, Error)]
pub enum InvalidConfig {
    /// It can't be read.
    #[error("{}: can't be read: {error}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// It is too large.
    #[error("{}: has more than {} MiB, a configuration file must have less", .0.display(), MAX_BYTES / 1024 / 1024)]
    TooLarge(PathBuf),
    /// It has these problems, at least one, in the order of the file.
    #[error("{}", Lines(.0))]
    Problems(Vec<Located>),
    /// It is right, but these files that it names can't be read or aren't what they must be.
    #[error("{}", Lines(.0))]
    UnreadableFiles(Vec<Located>),
}

/// A problem and where it is. Its display is `FILE:LINE:COLUMN: PATH: what is wrong`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// The file, as it was named by who asked for it.
    pub file: PathBuf,
    /// Where in it.
    pub position: Position,
    /// The path and what is wrong there.
    pub problem: Problem,
}

impl fmt::Display for Located {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            file,
            position: Position { line, column },
            problem,
        } = self;
        write!(f, "{}:{line}:{column}: {problem}", file.display())
    }
}

struct Lines<'p>(&'p [Located]);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            write!(f, "{}{problem}", if index == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl fmt::Display for LocatedWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            file,
            position: Position { line, column },
            warning,
            other,
        } = self;
        let file = file.display();
        write!(
            f,
            "{file}:{line}:{column}: warning: {}: {}",
            warning.path, warning.message
        )?;
        match &warning.other {
            Some(path) => write!(f, " {path} ({file}:{}:{})", other.line, other.column),
            None => Ok(()),
        }
    }
}

/// Reads the configuration file `path`.
///
/// # Errors
///
/// Every problem of form, or else every problem of content, or else every file that is missing; see [`InvalidConfig`].
pub fn load(path: &Path, reading: Reading) -> Result<Loaded, InvalidConfig> {
    parse(path, &read(path)?, reading)
}

/// Reads the configuration file `path`, unless its text is still `known`.
///
/// # Errors
///
/// The same as those of [`load`].
pub fn load_unless(path: &Path, reading: Reading, known: TextHash) -> Result<Option<Loaded>, InvalidConfig> {
    let bytes = read(path)?;
    if TextHash::of(&bytes) == known {
        return Ok(None);
    }
    parse(path, &bytes, reading).map(Some)
}

impl TextHash {
    fn of(text: &[u8]) -> Self {
        Self(XxHash64::oneshot(0, text))
    }
}

fn parse(path: &Path, bytes: &[u8], reading: Reading) -> Result<Loaded, InvalidConfig> {
    let at = |position, problem| Located {
        file: path.to_owned(),
        position,
        problem,
    };
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let before = bytes.get(..error.valid_up_to()).unwrap_or_default();
        let line_start = before
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |newline| newline + 1);
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        let position = Position {
            line,
            column: 1 + before.len() - line_start,
        };
        let message = "is no UTF-8 text, a configuration is a YAML text".to_owned();
        InvalidConfig::Problems(vec![at(
            position,
            Problem {
                path: Default::default(),
                message,
            },
        )])
    })?;
    let document = yaml::parse(text).map_err(|(position, message)| {
        InvalidConfig::Problems(vec![at(
            position,
            Problem {
                path: Default::default(),
                message,
            },
        )])
    })?;
    let located = |problems: Vec<Problem>| {
        let problems = document.problems.iter().cloned().chain(problems);
        let mut located: Vec<_> = problems
            .map(|problem| at(document.position(&problem.path), problem))
            .collect();
        located.sort_by_key(|problem| problem.position);
        located
    };
    let validate = |mut config: Config| {
        config.server.mode = reading.mode.or(config.server.mode);
        let valid = validate(&config)?;
        let unreadable = reading.envoy_is_here.then(|| files::unreadable(&config));
        Ok((valid, config, unreadable.unwrap_or_default()))
    };
    let decoded = decode_then(&document.value, validate);
    let (config, wire, unreadable) = decoded.map_err(|problems| InvalidConfig::Problems(located(problems)))?;
    if !document.problems.is_empty() {
        return Err(InvalidConfig::Problems(located(Vec::new())));
    }
    if !unreadable.is_empty() {
        return Err(InvalidConfig::UnreadableFiles(located(unreadable)));
    }
    let found = warnings(&config.routing, &sidetrack_routing::Path::root().key("routing"));
    let warnings = found.into_iter().map(|warning| LocatedWarning {
        file: path.to_owned(),
        position: document.position(&warning.path),
        other: warning
            .other
            .as_ref()
            .map(|other| document.position(other))
            .unwrap_or_default(),
        warning,
    });
    Ok(Loaded {
        text: TextHash::of(bytes),
        warnings: warnings.collect(),
        config,
        wire,
    })
}

fn read(path: &Path) -> Result<Vec<u8>, InvalidConfig> {
    let unreadable = |error| InvalidConfig::Unreadable {
        path: path.to_owned(),
        error,
    };
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes))
        .map_err(unreadable)?;
    if bytes.len() as u64 > MAX_BYTES {
        Err(InvalidConfig::TooLarge(path.to_owned()))
    } else {
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said of `text`, without the file's name.
    fn said(text: impl AsRef<[u8]>) -> Vec<String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        match load(file.path(), Reading::default()) {
            Ok(_) => Vec::new(),
            Err(invalid) => {
                let name = format!("{}:", file.path().display());
                invalid
                    .to_string()
                    .lines()
                    .map(|line| line.strip_prefix(&name).unwrap_or(line).to_owned())
                    .collect()
            }
        }
    }

    #[test]
    fn a_good_file_says_nothing() {
        assert!(said("routing: {defaultTarget: a}\n").is_empty());
        assert!(said("server:\nrouting:\n  defaultTarget: a\n  rules:\n").is_empty());
    }

    #[test]
    fn the_examples_of_the_documents_are_right() {
        for document in ["README.md", "docs/configuration.md", "docs/api.md"] {
            let text =
                std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(document)).unwrap();
            let examples: Vec<_> = text
                .split("```yaml\n")
                .skip(1)
                .filter_map(|rest| rest.split("```").next())
                .collect();
            assert!(!examples.is_empty(), "{document}");
            for example in examples {
                assert_eq!(said(example), [] as [&str; 0], "{document}");
            }
        }
    }

    #[test]
    fn every_problem_has_its_line_and_column() {
        let text = "server:\n  httpPort: no\n  grpcPrt: 1\nrouting:\n  defaultTarget: a\n  rules:\n    - routeKey: 17\n      \
                    targetService: b\n    - targetService: c\n";
        assert_eq!(
            said(text),
            [
                "2:3: server.httpPort: is the text \"no\", must be a number from 0 to 65535",
                "3:3: server.grpcPrt: unknown field, did you mean `grpcPort`?",
                "7:7: routing.rules[0].routeKey: is the number 17, must be text: put it in quotes",
                "9:7: routing.rules[1]: `routeKey` is missing",
            ]
        );
    }

    #[test]
    fn a_warning_names_both_places() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = "routing:\n  defaultTarget: a\n  rules:\n    - {routeKey: k, targetService: b}\n    - {routeKey: k, \
                    targetService: c}\n";
        std::fs::write(file.path(), text).unwrap();
        let name = file.path().display().to_string();
        let warnings: Vec<_> = load(file.path(), Reading::default())
            .unwrap()
            .warnings
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            warnings,
            [format!(
                "{name}:5:7: warning: routing.rules[1]: can never match, because what it matches is matched before by \
                 routing.rules[0] ({name}:4:7)"
            )]
        );
    }

    #[test]
    fn what_is_no_yaml_says_where() {
        assert_eq!(
            said("routing: {defaultTarget: a\n")[0].split(": ").nth(1),
            Some("the configuration")
        );
        assert_eq!(
            said("a: 1\na: 2\n"),
            ["2:1: the configuration: this name is given twice in one mapping: leave one out"]
        );
        assert_eq!(
            said(b"ab\n\xff\xfe"),
            ["2:1: the configuration: is no UTF-8 text, a configuration is a YAML text"]
        );
        assert_eq!(said(""), ["1:1: the configuration: is empty, must be a mapping"]);
        assert_eq!(
            said("routing: {defaultTarget: a}\n---\nb: 1\n"),
            ["3:1: the configuration: a second document begins, a configuration is one"]
        );
    }

    #[test]
    fn a_bomb_is_no_configuration() {
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
        for depth in 1..12 {
            let reference = format!("*a{}, ", depth - 1).repeat(9);
            bomb += &format!("a{depth}: &a{depth} [{reference}]\n");
        }
        assert!(!said(bomb).is_empty());
        assert!(!said("[".repeat(100_000)).is_empty());
        assert!(!said("a: ".repeat(5)).is_empty());
        assert!(said(vec![b'#'; 33 * 1024 * 1024])[0].contains("has more than 32 MiB"));
    }

    #[test]
    fn a_missing_file_is_named() {
        assert!(
            load(Path::new("no/such.yaml"), Reading::default())
                .unwrap_err()
                .to_string()
                .starts_with("no/such.yaml: can't be read: ")
        );
    }
}
