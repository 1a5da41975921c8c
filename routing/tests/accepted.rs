//! Whatever the agent accepts, the filter accepts: a hundred thousand configurations by chance, fewer where the build isn't
//! optimised. `SIDETRACK_CONFIGS` says how many; `cargo test --release -p sidetrack-routing --test accepted` takes 15 s.
//!
//! The agent decodes and validates a whole configuration, compiles it and pushes the table. The filter loads the table, or
//! reads the JSON form of `routing` itself. Rules that come through the API are validated against the configuration in force
//! and added to it, without the rest being looked at again: that must come to the same as if all had been in one file.

#![cfg(not(target_arch = "wasm32"))]
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test may panic"
)]

#[allow(unreachable_pub, reason = "other packages' tests have it as a module, too")]
#[path = "support/configs.rs"]
mod configs;

use std::collections::BTreeMap;
use std::thread;

use serde_json::Value;
use sidetrack_routing::{
    InvalidTable, Problem, Request, RouteTable, ValidConfig, compile, decide, decode, explain, validate,
    validate_rules, wire,
};

const CONFIGS: u64 = if cfg!(debug_assertions) { 5_000 } else { 100_000 };

/// Why the two sides, or the two ways, don't agree; or what the verdict was.
type Checked = Result<&'static str, String>;

fn accepted(config: &Value) -> Result<ValidConfig, Vec<Problem>> {
    decode(config, validate)
}

/// The filter's way from the JSON form.
fn read(config: &Value) -> Result<RouteTable, InvalidTable> {
    RouteTable::from_configuration(config.get("routing").unwrap_or(&Value::Null).to_string().into_bytes())
}

/// What must be so of one configuration.
fn check(config: &Value) -> Checked {
    let valid = match accepted(config) {
        Ok(valid) => valid,
        Err(problems) => return refused(config, &problems),
    };
    let bytes = compile(&valid.routing);
    if compile(&valid.routing) != bytes {
        return Err("one configuration is compiled to two tables".to_owned());
    }
    let table = RouteTable::load(bytes).map_err(|error| format!("the filter refuses the table: {error}"))?;
    let from_json = read(config).map_err(|error| format!("the filter refuses the JSON form: {error}"))?;
    // What routes know of services is in the names of clusters only.
    if valid.routing.route_policies.is_empty() && from_json != table {
        return Err("the JSON form is another table".to_owned());
    }
    let written: wire::Config = serde_json::from_value(without_nulls(config)).map_err(|error| error.to_string())?;
    let again = accepted(&serde_json::to_value(&written).map_err(|error| error.to_string())?);
    if again.as_ref() != Ok(&valid) {
        return Err(format!("written out again it is another: {again:?}"));
    }
    ask(&table, &written);
    Ok("accepted")
}

fn refused(config: &Value, problems: &[Problem]) -> Checked {
    if problems.is_empty() || problems.iter().any(|problem| problem.message.is_empty()) {
        return Err("it is refused without a word".to_owned());
    }
    // With nothing else in it, there is nothing else that could be wrong.
    let is_routing_alone = config.as_object().is_some_and(|fields| fields.keys().eq(["routing"]));
    match read(config) {
        Ok(_) if is_routing_alone => Err(format!("only the agent refuses it: {problems:?}")),
        Err(InvalidTable::Problems(said)) if is_routing_alone && said.len() != problems.len() => Err(format!(
            "agent and filter say different things: {problems:?} and {said:?}"
        )),
        _ => Ok("refused"),
    }
}

/// A field without a value counts as absent.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Array(elements) => elements.iter().map(without_nulls).collect(),
        Value::Object(fields) => {
            let given = fields.iter().filter(|(_, field)| !field.is_null());
            Value::Object(
                given
                    .map(|(name, field)| (name.clone(), without_nulls(field)))
                    .collect(),
            )
        }
        other => other.clone(),
    }
}

/// Nothing that a table decides may panic.
fn ask(table: &RouteTable, config: &wire::Config) {
    for rule in config.routing.rules.iter().take(4) {
        let path = rule.path_prefixes.first().map_or("/api/v1/x?k=a", String::as_str);
        let head = [
            ("x-route-key", rule.route_key.as_str()),
            (":path", path),
            (":method", "GET"),
            (":authority", "a.shop.example"),
        ];
        let request = Request::new(&head);
        let decided = format!("{:?}", decide(table, &request));
        let explained = explain(table, &request);
        assert!(!decided.is_empty() && explained.rules.len() <= config.routing.rules.len());
    }
}

/// Adding rules of one key to what is in force must come to the same as having all in one configuration.
fn check_added(config: &Value, rules: &Value) -> Checked {
    let (Ok(mut valid), Some(list)) = (accepted(config), rules.as_array()) else {
        return Ok("nothing to add to, or nothing to add");
    };
    let before = compile(&valid.routing);
    let added = decode(rules, |rules: &Vec<wire::Rule>| validate_rules(rules, &valid));
    if compile(&valid.routing) != before {
        return Err("what is in force is another after rules were validated".to_owned());
    }
    let mut whole = config.clone();
    let all = &mut whole["routing"]["rules"];
    let mut together = all.as_array().cloned().unwrap_or_default();
    together.extend(list.iter().cloned());
    *all = Value::from(together);
    match (added, accepted(&whole)) {
        (Ok(added), Ok(whole)) => {
            valid.routing.rules.extend(added);
            let (one, other) = (compile(&valid.routing), compile(&whole.routing));
            RouteTable::load(one.clone())
                .map_err(|error| format!("the filter refuses the table with them: {error}"))?;
            match one == other {
                true => Ok("added"),
                false => Err("added to it, they make another table than within it".to_owned()),
            }
        }
        (Err(_), Err(_)) => Ok("not added"),
        (Ok(_), Err(problems)) => Err(format!("added to it they are right, within it not: {problems:?}")),
        (Err(problems), Ok(_)) => Err(format!("within it they are right, added to it not: {problems:?}")),
    }
}

/// `value` without what doesn't matter for `fails`.
fn smallest(value: &Value, fails: &dyn Fn(&Value) -> bool) -> Value {
    let mut smallest = value.clone();
    while let Some(smaller) = smaller(&smallest).into_iter().find(|smaller| fails(smaller)) {
        smallest = smaller;
    }
    smallest
}

/// `value` without one of its parts, in every way.
fn smaller(value: &Value) -> Vec<Value> {
    let mut found = Vec::new();
    let with = |part: Value, at: &dyn Fn(&mut Value) -> &mut Value| {
        let mut changed = value.clone();
        *at(&mut changed) = part;
        changed
    };
    match value {
        Value::Array(elements) => {
            for (index, element) in elements.iter().enumerate() {
                let mut without = elements.clone();
                without.remove(index);
                found.push(Value::from(without));
                found.extend(
                    smaller(element)
                        .into_iter()
                        .map(|part| with(part, &|value| &mut value[index])),
                );
            }
        }
        Value::Object(fields) => {
            for (name, field) in fields {
                let mut without = fields.clone();
                without.remove(name);
                found.push(Value::from(without));
                found.extend(
                    smaller(field)
                        .into_iter()
                        .map(|part| with(part, &|value| &mut value[name])),
                );
            }
        }
        _ => {}
    }
    found
}

/// Counts the verdicts on these numbers' configurations, or shows the smallest in which something is wrong.
fn verdicts(numbers: impl Iterator<Item = u64>) -> Result<BTreeMap<&'static str, u64>, String> {
    let mut seen = BTreeMap::new();
    for number in numbers {
        let config = configs::config(number);
        let verdict = check(&config).map_err(|error| {
            let smallest = smallest(&config, &|config| check(config).is_err());
            format!("configuration {number}: {error}\n{smallest}: {:?}", check(&smallest))
        })?;
        *seen.entry(verdict).or_default() += 1;
        let rules = configs::rules_of_a_key(number);
        let verdict = check_added(&config, &rules).map_err(|error| {
            let rules = smallest(&rules, &|rules| check_added(&config, rules).is_err());
            let config = smallest(&config, &|config| check_added(config, &rules).is_err());
            format!(
                "configuration {number}: {error}\n{config}\n{rules}: {:?}",
                check_added(&config, &rules)
            )
        })?;
        *seen.entry(verdict).or_default() += 1;
    }
    Ok(seen)
}

#[test]
fn whatever_the_agent_accepts_the_filter_accepts() {
    let configs = std::env::var("SIDETRACK_CONFIGS").map_or(CONFIGS, |text| text.parse().expect("a number"));
    let threads = thread::available_parallelism().map_or(1, |threads| threads.get() as u64);
    let seen = thread::scope(|scope| {
        let parts: Vec<_> = (0..threads)
            .map(|part| scope.spawn(move || verdicts((part..configs).step_by(usize::try_from(threads).unwrap()))))
            .collect();
        let mut seen: BTreeMap<&str, u64> = BTreeMap::new();
        for part in parts {
            for (verdict, times) in part.join().expect("no panic").unwrap_or_else(|error| panic!("{error}")) {
                *seen.entry(verdict).or_default() += times;
            }
        }
        seen
    });
    println!("{configs} configurations: {seen:?}");
    for verdict in ["accepted", "refused", "added", "not added"] {
        assert!(
            seen.get(verdict).is_some_and(|times| *times >= configs / 10),
            "{verdict}: {seen:?}"
        );
    }
}
