//! `sidetrack rules`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::Value;

use super::options::ApiOptions;
use super::print::{harmless, print};
use super::rules_file::RulesFile;
use super::table;
use crate::client::{ApiError, Change, Condition, Write};
use crate::render::json_to_yaml;

/// How long the agent lets anybody wait.
const MAX_WAIT: Duration = Duration::from_secs(60);

#[derive(Debug, Subcommand)]
pub(super) enum RulesCommand {
    /// List the rules in force, in the order in which they are tried.
    #[command(after_help = "Example:\n  sidetrack rules list\n  sidetrack rules list pr-17 --source api --json")]
    List {
        /// Only those of this route key.
        key: Option<String>,
        /// Only those that this one owns.
        #[arg(long)]
        source: Option<Owner>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        api: ApiOptions,
    },
    /// Print a key's rules as YAML, to be changed and put back.
    #[command(
        after_help = "Example:\n  sidetrack rules get pr-17 --source api > rules.yaml\n\nThe ETag in the first line is what put \
                      and delete take as --if-match."
    )]
    Get {
        /// The route key.
        key: String,
        /// Only those that this one owns. Rules of the file can't be put.
        #[arg(long)]
        source: Option<Owner>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        api: ApiOptions,
    },
    /// Give a key these rules instead of those that it has by the API.
    #[command(
        after_help = "Example:\n  sidetrack rules put pr-17 -f rules.yaml --wait 5s\n  sidetrack rules put --all -f all.yaml\n  echo \
                      '{targetService: shop.pr-17}' | sidetrack rules put pr-17 -f - --new\n\nNothing is changed if any of \
                      them is wrong. Exit status 1 with --wait also if the rules are kept but not in force everywhere in time."
    )]
    Put {
        /// The route key; may be left out of the rules then.
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        key: Option<String>,
        /// Instead of one key's rules, all that came by the API.
        #[arg(long)]
        all: bool,
        /// The rules, as YAML or JSON: a list, or one rule; - is standard input.
        #[arg(short, long, value_name = "FILE")]
        file: PathBuf,
        /// Only if the key has no rules yet.
        #[arg(long, conflicts_with_all = ["if_match", "all"])]
        new: bool,
        #[command(flatten)]
        change: ChangeOptions,
    },
    /// Remove the rules that a key has by the API.
    #[command(after_help = "Example:\n  sidetrack rules delete pr-17 --wait 5s")]
    Delete {
        /// The route key.
        key: String,
        #[command(flatten)]
        change: ChangeOptions,
    },
}

#[derive(Debug, Args)]
pub(super) struct ChangeOptions {
    /// How long to wait until every connected proxy has it, at most 60s.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    wait: Option<Duration>,
    /// Only if the rules still have this ETag.
    #[arg(long, value_name = "ETAG")]
    if_match: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    api: ApiOptions,
}

/// Who owns a rule.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Owner {
    /// The configuration file.
    File,
    /// The API.
    Api,
}

impl RulesCommand {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::List { key, source, json, api } => {
                let listed = api.client()?.rules(key.as_deref(), source.map(Owner::name)).await?;
                match json {
                    true => print(&indented(&listed.json)?)?,
                    false => print(&overview(&listed.json)?)?,
                }
            }
            Self::Get { key, source, json, api } => {
                let listed = api.client()?.rules(Some(&key), source.map(Owner::name)).await?;
                let etag = listed.etag.unwrap_or_default();
                match json {
                    true => print(&indented(&listed.json)?)?,
                    false => print(&format!("# ETag: {etag}\n{}", json_to_yaml(&listed.json)?))?,
                }
            }
            Self::Put {
                key,
                all: _,
                file,
                new,
                change,
            } => {
                let file = RulesFile::read(&file)?;
                let write = Write {
                    key,
                    rules: Some(file.rules().clone()),
                    wait: change.wait,
                    condition: match (&change.if_match, new) {
                        (_, true) => Condition::IsNew,
                        (Some(etag), _) => Condition::IsStill(etag.clone()),
                        (None, false) => Condition::None,
                    },
                };
                change.make(write, Some(&file)).await?;
            }
            Self::Delete { key, change } => {
                let write = Write {
                    key: Some(key),
                    rules: None,
                    wait: change.wait,
                    condition: change.if_match.clone().map(Condition::IsStill).unwrap_or_default(),
                };
                change.make(write, None).await?;
            }
        }
        Ok(())
    }
}

impl ChangeOptions {
    /// Makes the change and says what came of it.
    async fn make(&self, write: Write, file: Option<&RulesFile>) -> anyhow::Result<()> {
        let rules = write.rules.as_ref().and_then(Value::as_array).map(Vec::len);
        let key = write.key.clone();
        let change = match (self.api.client()?.write(write).await, file) {
            (Err(ApiError::Refused(reported)), Some(file)) if reported.is_of_body() => {
                return Err(file.invalid(reported.problems()).into());
            }
            (result, _) => result?,
        };
        if self.json {
            print(&format!("{}\n", serde_json::to_string_pretty(&change)?))?;
        } else if change.in_force != Some(false) {
            print(&said(&change, key.as_deref(), rules))?;
        }
        if change.in_force == Some(false) {
            bail!(not_in_force(&change));
        }
        Ok(())
    }
}

impl Owner {
    fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Api => "api",
        }
    }
}

fn said(change: &Change, key: Option<&str>, rules: Option<usize>) -> String {
    let what = match (rules, key) {
        (Some(1), Some(key)) => format!("{key} has 1 rule"),
        (Some(rules), Some(key)) => format!("{key} has {rules} rules"),
        (Some(rules), None) => format!("{rules} rules"),
        (None, key) => format!("the rules of {} are gone", key.unwrap_or("all keys")),
    };
    let force = if change.in_force == Some(true) {
        ", in force everywhere"
    } else {
        ""
    };
    format!(
        "ok: {what} (version {}, revision {}){force}\n",
        change.version, change.revision
    )
}

fn not_in_force(change: &Change) -> String {
    let waiting = change.waiting_for.iter();
    let waiting: Vec<String> = waiting
        .map(|waiting| format!("\n  {}: {}", harmless(&waiting.node), harmless(&waiting.reason)))
        .collect();
    format!(
        "kept (version {}), but not in force everywhere yet:{}",
        change.version,
        waiting.concat()
    )
}

fn indented(json: &str) -> anyhow::Result<String> {
    let value: Value = serde_json::from_str(json)?;
    Ok(format!("{value:#}\n"))
}

/// The rules as a table.
fn overview(json: &str) -> anyhow::Result<String> {
    let rules: Vec<Value> = serde_json::from_str(json)?;
    if rules.is_empty() {
        return Ok("no rules\n".to_owned());
    }
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let row = |rule: &Value| {
        let targets = match rule["targets"].as_array() {
            Some(targets) => targets
                .iter()
                .map(|target| format!("{} {}", text(&target["service"]), target["weight"]))
                .collect::<Vec<_>>()
                .join(", "),
            None => text(&rule["targetService"]),
        };
        [
            text(&rule["routeKey"]),
            text(&rule["source"]),
            targets,
            text(&rule["name"]),
            conditions(rule),
        ]
    };
    let rows: Vec<_> = rules.iter().map(row).collect();
    let lines = table::lines(["KEY", "SOURCE", "TARGET", "NAME", "MATCHES"], &rows);
    Ok(lines.join("\n") + "\n")
}

/// What a rule matches, shortened: of headers and query parameters the names.
fn conditions(rule: &Value) -> String {
    let list = |field: &str| rule[field].as_array().cloned().unwrap_or_default();
    let names = |field: &str| rule[field].as_object().cloned().unwrap_or_default();
    let plain = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let path = |path: &Value| match (&path["exact"], &path["prefix"], &path["regex"]) {
        (Value::String(exact), _, _) => format!("={exact}"),
        (_, Value::String(prefix), _) => format!("{prefix}…"),
        (_, _, regex) => format!("~{}", plain(regex)),
    };
    let prefixes = list("pathPrefixes")
        .iter()
        .map(|prefix| format!("{}…", plain(prefix)))
        .collect();
    let parts: [Vec<String>; 5] = [
        list("hosts").iter().map(plain).collect(),
        list("methods").iter().map(plain).collect(),
        [prefixes, list("paths").iter().map(path).collect::<Vec<_>>()].concat(),
        names("headerMatchers").keys().map(|name| format!("{name}:")).collect(),
        names("queryMatchers").keys().map(|name| format!("?{name}")).collect(),
    ];
    let given = parts.iter().filter(|part| !part.is_empty()).map(|part| part.join(","));
    let given: Vec<String> = given.collect();
    if given.is_empty() {
        "everything".to_owned()
    } else {
        given.join(" ")
    }
}

fn parse_time(text: &str) -> Result<Duration, String> {
    let time = sidetrack_routing::parse_duration(text).map_err(|error| error.to_string())?;
    let is_short = time <= MAX_WAIT;
    is_short.then_some(time).ok_or_else(|| "must be at most 60s".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_each_rule_in_a_line() {
        let rules = r#"[{"routeKey": "pr-17", "targetService": "shop", "source": "file", "pathPrefixes": ["/a"],
            "paths": [{"exact": "/b"}, {"prefix": "/c"}, {"regex": "/d+"}], "methods": ["GET", "PUT"], "hosts": ["x", "*.y"],
            "headerMatchers": {"X-A": "1", "X-B": {"present": true}}, "queryMatchers": {"q": "1"}, "fallback": "none"},
            {"routeKey": "z", "name": "split", "source": "api", "targets": [{"service": "a", "weight": 9}, {"service": "b", "weight": 1}]}]"#;
        let expected = "\
KEY    SOURCE  TARGET    NAME   MATCHES
pr-17  file    shop             x,*.y GET,PUT /a…,=/b,/c…,~/d+ X-A:,X-B: ?q
z      api     a 9, b 1  split  everything
";
        assert_eq!(overview(rules).unwrap(), expected);
        assert_eq!(overview("[]").unwrap(), "no rules\n");
    }

    #[test]
    fn what_came_of_a_change_is_one_line() {
        let mut change: Change =
            serde_json::from_str(r#"{"revision": 7, "version": "00ff", "rules": 3, "inForce": true}"#).unwrap();
        assert_eq!(
            said(&change, Some("pr-17"), Some(1)),
            "ok: pr-17 has 1 rule (version 00ff, revision 7), in force everywhere\n"
        );
        change.in_force = None;
        for (key, rules, expected) in [
            (None, Some(2), "ok: 2 rules (version 00ff, revision 7)\n"),
            (
                Some("k"),
                None,
                "ok: the rules of k are gone (version 00ff, revision 7)\n",
            ),
        ] {
            assert_eq!(said(&change, key, rules), expected);
        }
        change.waiting_for = serde_json::from_str(r#"[{"node": "e", "reason": "refuses\u001b[2J"}]"#).unwrap();
        assert_eq!(
            not_in_force(&change),
            "kept (version 00ff), but not in force everywhere yet:\n  e: refuses\u{fffd}[2J"
        );
    }

    #[test]
    fn a_time_has_a_unit() {
        assert_eq!(parse_time("1500ms"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_time("1m"), Ok(Duration::from_secs(60)));
        for text in ["", "5", "s", "-1s", "1.5s", "99999999999s", "5h", "61s"] {
            assert!(parse_time(text).is_err(), "{text}");
        }
    }
}
