//! Decisions, compared with those of a slow and obvious oracle that was written from the design and knows nothing of the
//! table. `SIDETRACK_CASES` says how many pairs of configuration and request; `cargo test --release` makes a million a
//! matter of minutes.

#![cfg(not(target_arch = "wasm32"))]
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test may panic"
)]

#[path = "oracle/decision.rs"]
mod decision;
#[path = "oracle/generate.rs"]
mod generate;
#[path = "oracle/patterns.rs"]
mod patterns;
#[allow(
    unreachable_pub,
    reason = "the fuzz targets, whose library has it as a module, are other crates"
)]
#[path = "oracle/sources.rs"]
mod sources;

use std::cell::RefCell;
use std::collections::BTreeMap;

use decision::{Case, Choice, Decision, Effects};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};
use sidetrack_routing::{Destination, Explanation, Outcome, Request, RouteTable, decide, explain, wire};

/// Requests that one configuration is compiled for, on average.
const REQUESTS: usize = 20;

/// How many pairs are compared unless `SIDETRACK_CASES` says otherwise: about ten seconds of an unoptimised build.
const PAIRS: usize = 20_000;

/// What [`decide`] makes of `case`, in the oracle's words, and the cluster.
fn decided(table: &RouteTable, case: &Case) -> (Decision, Option<String>) {
    let decision = decide(table, &case.request());
    let (outcome, cluster) = match decision.destination {
        Destination::Baseline(reason) => (Err(reason.as_str()), None),
        Destination::Target { rule, cluster, mirror } => {
            let set = rule
                .additional_headers()
                .map(|(name, value)| (name.to_owned(), value.to_vec()));
            let effects = Effects {
                rule: rule.name().to_owned(),
                mirror: mirror.map(str::to_owned),
                set: set.collect(),
                removed: rule.removed_headers().map(str::to_owned).collect(),
            };
            (Ok(effects), Some(cluster.to_owned()))
        }
    };
    let key = decision
        .key
        .map(|key| (key.as_bytes().to_vec(), key.is_in_route_key_header()));
    let decision = Decision {
        key,
        disagreement: decision.disagreement,
        outcome,
    };
    (decision, cluster)
}

/// Whether what is said about the rules agrees with `decision`, and in itself: a rule matches when its time isn't over
/// and all that was compared matched, and so does none but the last.
fn agrees(explanation: &Explanation, decision: &Decision, cluster: Option<&String>) -> bool {
    let same = match (&explanation.outcome, &decision.outcome) {
        (
            Outcome::Target {
                rule,
                cluster: said,
                mirror,
            },
            Ok(effects),
        ) => *rule == effects.rule && Some(said) == cluster && *mirror == effects.mirror,
        (Outcome::Baseline { reason: said }, Err(reason)) => said == reason,
        _ => false,
    };
    let rules = explanation.rules.iter().enumerate().all(|(index, rule)| {
        let held = !rule.expired && rule.matchers.iter().all(|matcher| matcher.matched);
        let is_it = decision.outcome.is_ok() && index + 1 == explanation.rules.len();
        rule.matched == held && held == is_it
    });
    same && rules && explanation.disagreement == decision.disagreement
}

/// Says where table and oracle differ on any of `cases`, and counts in `seen` what the decisions were.
fn compare(config: &Value, cases: &[Case], seen: &mut BTreeMap<&str, usize>) -> Result<(), String> {
    let table = RouteTable::from_configuration(config.to_string().into_bytes()).map_err(|error| error.to_string())?;
    let routing: wire::Routing = serde_json::from_value(config.clone()).map_err(|error| error.to_string())?;
    let mut stuck = BTreeMap::new();
    for case in cases {
        let (expected, choice) = decision::decide(&routing, case);
        let (actual, cluster) = decided(&table, case);
        let chosen_well = match (&choice, &cluster) {
            (Choice::None, None) => true,
            (Choice::This(expected), Some(cluster)) => expected == cluster,
            (Choice::AsAlwaysFor(value, clusters), Some(cluster)) => {
                let rule = actual.outcome.clone().map(|effects| effects.rule).ok();
                let before = stuck.entry((rule, value.clone())).or_insert_with(|| cluster.clone());
                clusters.contains(cluster) && before == cluster
            }
            _ => false,
        };
        if actual != expected || !chosen_well {
            return Err(format!(
                "{config}\n{case:?}\ndecided:  {actual:?} {cluster:?}\nexpected: {expected:?} {choice:?}"
            ));
        }
        let explanation = explain(&table, &case.request());
        if !agrees(&explanation, &actual, cluster.as_ref()) {
            return Err(format!(
                "{config}\n{case:?}\ndecided:   {actual:?} {cluster:?}\nexplained: {explanation:?}"
            ));
        }
        let effects = expected.outcome.as_ref();
        let of_effects = |test: &dyn Fn(&Effects) -> bool| effects.is_ok_and(test);
        for (what, is_so) in [
            ("pair", true),
            (expected.outcome.as_ref().err().copied().unwrap_or("target"), true),
            ("disagreement", expected.disagreement),
            (
                "key elsewhere than in its header",
                expected.key.is_some_and(|(_, in_header)| !in_header),
            ),
            ("sticky", matches!(choice, Choice::AsAlwaysFor(..))),
            ("mirror", of_effects(&|effects| effects.mirror.is_some())),
            (
                "headers",
                of_effects(&|effects| !effects.set.is_empty() && !effects.removed.is_empty()),
            ),
            ("not the first rule", of_effects(&|effects| effects.rule != "rule 0")),
        ] {
            *seen.entry(what).or_default() += usize::from(is_so);
        }
    }
    Ok(())
}

#[test]
fn the_table_decides_as_the_oracle_does() {
    let pairs =
        std::env::var("SIDETRACK_CASES").map_or(PAIRS, |count| count.parse().expect("SIDETRACK_CASES is a number"));
    let cases = u32::try_from(pairs.div_ceil(REQUESTS)).expect("SIDETRACK_CASES is below 80 billion");
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    let both = (
        generate::routing(),
        proptest::collection::vec(generate::case(), 1..2 * REQUESTS),
    );
    let seen = RefCell::new(BTreeMap::new());
    let result = TestRunner::new(config).run(&both, |(config, cases)| {
        compare(&config, &cases, &mut seen.borrow_mut()).map_err(TestCaseError::fail)
    });
    result.unwrap_or_else(|error| panic!("{error}"));
    let seen = seen.into_inner();
    println!("{seen:?}");
    let pairs = seen["pair"];
    // Of few pairs none may be of a kind by chance.
    for (what, count) in seen.iter().filter(|_| pairs > 10_000) {
        assert!(
            count * 200 > pairs,
            "{what} only {count} times of {pairs}: the generator is blunt"
        );
    }
}

/// The clusters that 10,000 users get, who stick by a header.
fn users(targets: &Value, fallback: &str) -> Vec<String> {
    let config = json!({"defaultTarget": "d", "rules": [
        {"routeKey": "k", "targets": targets, "stickyBy": {"header": "X-User"}, "fallback": fallback}]});
    let table = RouteTable::from_configuration(config.to_string().into_bytes()).unwrap();
    let user = |number: u64| Case {
        headers: vec![
            ("x-route-key".to_owned(), b"k".to_vec()),
            ("x-user".to_owned(), format!("user-{number}").into_bytes()),
        ],
        now: 0,
        random: number.wrapping_mul(0x9e37_79b9_7f4a_7c15),
    };
    (0..10_000)
        .map(|number| decided(&table, &user(number)).1.unwrap())
        .collect()
}

/// Targets of these weights, from `a` on.
fn weighted(weights: &[u32]) -> Value {
    let targets = weights.iter().zip('a'..);
    targets
        .map(|(weight, name)| json!({"service": name, "weight": weight}))
        .collect()
}

proptest! {
    #![proptest_config(Config { cases: 16, failure_persistence: None, ..Config::default() })]

    #[test]
    fn users_move_only_to_the_target_that_grew(
        weights in proptest::collection::vec(0..50u32, 2..5),
        grown in any::<proptest::sample::Index>(),
        by in 1..50u32,
    ) {
        let grown = grown.index(weights.len());
        let mut more = weights.clone();
        more[grown] += by;
        prop_assume!(weights.iter().sum::<u32>() > 0);
        let (before, after) = (users(&weighted(&weights), "none"), users(&weighted(&more), "none"));
        let name = format!("{}:80", char::from(b'a' + grown as u8));
        for (old, new) in before.iter().zip(&after) {
            prop_assert!(old == new || *new == name, "{} moved to {}, but {} grew", old, new, name);
        }
    }

    #[test]
    fn users_are_shared_out_as_the_weights_say(weights in proptest::collection::vec(0..50u32, 2..5)) {
        let sum = weights.iter().sum::<u32>();
        prop_assume!(sum > 0);
        let users = users(&weighted(&weights), "none");
        for (weight, name) in weights.iter().zip('a'..) {
            let count = users.iter().filter(|cluster| **cluster == format!("{name}:80")).count() as f64;
            let share = f64::from(*weight) / f64::from(sum);
            // Five times the standard deviation: not once in a million.
            let slack = 5.0 * (10_000.0 * share * (1.0 - share)).sqrt();
            prop_assert!((count - 10_000.0 * share).abs() <= slack, "{} has {} of share {}", name, count, share);
        }
    }
}

/// Cases are `path | header: value | … => cluster or reason`.
#[track_caller]
fn check(rules: Value, cases: &[&str]) {
    let config = json!({"defaultTarget": "d", "rules": rules});
    let table = RouteTable::from_configuration(config.to_string().into_bytes()).unwrap();
    for case in cases {
        let (request, expected) = case.split_once(" => ").unwrap();
        let (path, headers) = request.split_once(" | ").unwrap_or((request, ""));
        let lines = headers.split(" | ").filter_map(|line| line.split_once(": "));
        let pairs = std::iter::once((":path", path)).chain(lines);
        let head: Vec<(&str, &[u8])> = pairs.map(|(name, value)| (name, value.as_bytes())).collect();
        let request = Request {
            now: 5000,
            ..Request::new(&head)
        };
        let actual = match decide(&table, &request).destination {
            Destination::Target { cluster, .. } => cluster.trim_end_matches(":80|baseline"),
            Destination::Baseline(reason) => reason.as_str(),
        };
        assert_eq!(actual, expected, "{case}");
    }
}

#[test]
fn a_key_whose_rules_have_all_expired_stays_known() {
    check(
        json!([{"routeKey": "k", "targetService": "a", "expiresAt": "1970-01-01T00:00:01Z"}]),
        &[
            "/ | x-route-key: k => no_match",
            "/ | x-route-key: other => unknown_key",
        ],
    );
}

#[test]
fn users_stay_when_the_fallback_changes() {
    let split = weighted(&[1, 1]);
    let plain = |clusters: Vec<String>| -> Vec<String> {
        clusters
            .iter()
            .map(|cluster| cluster.trim_end_matches("|baseline").to_owned())
            .collect()
    };
    assert!(plain(users(&split, "none")) == plain(users(&split, "baseline")));
}
