//! Which target a request goes to, and why. Allocates nothing.

use std::fmt;

use crate::key::{self, FoundKey};
use crate::layout::{EffectKind, Subject, Test};
use crate::sources::{cookie, host, percent, query};
use crate::split;
use crate::table::{Condition, RouteTable, Rule, Source};
use crate::valid::target_of;

/// The head of a request, and what else a decision may depend on, as whoever has them can show them to one who has a table
/// for `'t`.
pub trait RequestHead<'t> {
    /// Whether `test` holds for any value of the header `name` (lower case; `:path` and the other pseudo-headers
    /// count as headers). Values are given in the order they were sent, until one passes. `false` if there is no
    /// such header.
    fn any_value(&self, name: &'t str, test: impl FnMut(&[u8]) -> bool) -> bool;

    /// Milliseconds since 1970. Asked for only where a rule expires.
    fn now(&self) -> u64;

    /// A number, evenly distributed over all of `u64`, another one each time. Asked for only where chance decides.
    fn random(&self) -> u64;
}

/// What becomes of a request.
#[derive(Clone, Debug)]
pub struct RouteDecision<'t> {
    /// Where it goes.
    pub destination: Destination<'t>,
    /// Its route key, if it has a valid one.
    pub key: Option<FoundKey>,
    /// Whether another source holds another key.
    pub disagreement: bool,
}

/// Where a request goes.
#[derive(Clone, Copy, Debug)]
pub enum Destination<'t> {
    /// To a target of this rule, with its effects.
    Target {
        /// The rule.
        rule: Rule<'t>,
        /// The target's cluster.
        cluster: &'t str,
        /// The cluster that gets a copy.
        mirror: Option<&'t str>,
    },
    /// To the baseline, for this reason.
    Baseline(Reason),
}

/// Why a request goes to the baseline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It carries no route key.
    NoKey,
    /// Its route key is longer than 256 bytes, or has characters that no key has.
    InvalidKey,
    /// No rule has its route key.
    UnknownKey,
    /// No rule of its route key matches.
    NoMatch,
}

/// Sees what a decision looks at. All methods do nothing by default, and cost nothing then.
pub trait Recorder {
    /// A key source was looked at, and this is the key there, valid or not.
    fn source(&mut self, source: Source<'_>, key: Option<&[u8]>) {
        let _ = (source, key);
    }

    /// A rule is looked at; if `expired`, no further.
    fn rule(&mut self, rule: Rule<'_>, expired: bool) {
        let _ = (rule, expired);
    }

    /// A condition of that rule was compared with this value, or found none to compare with.
    fn condition(&mut self, condition: &Condition<'_>, actual: Option<&[u8]>, held: bool) {
        let _ = (condition, actual, held);
    }

    /// One of the alternatives seen since the last group held, or none did.
    fn group(&mut self, held: bool) {
        let _ = held;
    }
}

/// Sees nothing.
impl Recorder for () {}

impl Reason {
    /// The reason's name in headers, logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoKey => "no_key",
            Self::InvalidKey => "invalid_key",
            Self::UnknownKey => "unknown_key",
            Self::NoMatch => "no_match",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Finds the key of the request, the first of the key's rules that matches, and one of that rule's targets.
pub fn decide<'t>(table: &'t RouteTable, head: &impl RequestHead<'t>) -> RouteDecision<'t> {
    decide_with(table, head, &mut ())
}

/// The same, with somebody who watches.
pub fn decide_with<'t>(
    table: &'t RouteTable,
    head: &impl RequestHead<'t>,
    recorder: &mut impl Recorder,
) -> RouteDecision<'t> {
    let mut decision = RouteDecision {
        destination: Destination::Baseline(Reason::NoKey),
        key: None,
        disagreement: false,
    };
    key::search(table, head, recorder, &mut decision);
    if let Some(key) = &decision.key {
        decision.destination = destination(table, key, head, recorder);
    }
    decision
}

fn destination<'t>(
    table: &'t RouteTable,
    key: &FoundKey,
    head: &impl RequestHead<'t>,
    recorder: &mut impl Recorder,
) -> Destination<'t> {
    let Some(mut rules) = table.rules_of(key.as_bytes()) else {
        return Destination::Baseline(Reason::UnknownKey);
    };
    let chosen = rules.find_map(|rule| {
        let matching = matches(rule, head, recorder)?;
        choose(matching, key, head).map(|cluster| (matching, cluster))
    });
    match chosen {
        Some((rule, cluster)) => Destination::Target {
            rule,
            cluster,
            mirror: mirror(rule, head),
        },
        None => Destination::Baseline(Reason::NoMatch),
    }
}

/// The rule with its label, if it is there, and of each group of alternatives one holds.
fn matches<'t>(rule: Rule<'t>, head: &impl RequestHead<'t>, recorder: &mut impl Recorder) -> Option<Rule<'t>> {
    let expired = expires_at(rule).is_some_and(|time| head.now() >= time);
    recorder.rule(rule, expired);
    if expired {
        return None;
    }
    let mut held = false;
    let mut label = None;
    for condition in rule.conditions() {
        if !held && holds(&condition, head, recorder) {
            held = true;
            label = if condition.labels { Some(condition.value) } else { label };
        }
        if condition.last {
            recorder.group(held);
            if !std::mem::take(&mut held) {
                return None;
            }
        }
    }
    Some(rule.chosen(label))
}

fn holds<'t>(condition: &Condition<'t>, head: &impl RequestHead<'t>, recorder: &mut impl Recorder) -> bool {
    let mut seen = false;
    let mut compare = |actual: &[u8]| {
        seen = true;
        let passed = test(condition, actual);
        recorder.condition(condition, Some(actual), passed && condition.test != Test::Absent);
        passed
    };
    let held = match condition.subject {
        Subject::Path => head.any_value(":path", |path| compare(query::path(path))),
        Subject::Method => head.any_value(":method", &mut compare),
        Subject::Host => head.any_value(":authority", &mut compare),
        Subject::Header => head.any_value(condition.name, &mut compare),
        Subject::Query => head.any_value(":path", |path| {
            query::values(path, condition.name.as_bytes()).any(|raw| {
                let mut buffer = [0; crate::names::MAX_ROUTE_KEY_BYTES];
                // What is longer than anything it could equal is compared as it was sent.
                compare(percent::decoded(raw, true, &mut buffer).unwrap_or(raw))
            })
        }),
    };
    if seen {
        return held != (condition.test == Test::Absent);
    }
    let held = condition.test == Test::Absent;
    recorder.condition(condition, None, held);
    held
}

/// Whether `actual` passes. Of `Absent`, whether there is something; the caller turns that round.
fn test(condition: &Condition<'_>, actual: &[u8]) -> bool {
    let value = condition.value;
    match condition.test {
        Test::Exact if condition.subject == Subject::Host => {
            let name = host::without_port(actual);
            name.strip_suffix(b".").unwrap_or(name).eq_ignore_ascii_case(value)
        }
        Test::Exact => actual == value,
        Test::SegmentPrefix => is_segment_prefix(value, actual),
        Test::Prefix => actual.starts_with(value),
        Test::Suffix => actual.ends_with(value),
        Test::Contains => contains(actual, value),
        Test::Regex => condition.pattern.is_some_and(|pattern| pattern.matches(actual)),
        Test::Present | Test::Absent => true,
        Test::OneLabelBefore => host::label(actual, value).is_some(),
    }
}

fn is_segment_prefix(prefix: &[u8], path: &[u8]) -> bool {
    match path.strip_prefix(prefix) {
        Some(rest) => rest.is_empty() || rest.starts_with(b"/") || prefix.ends_with(b"/"),
        None => false,
    }
}

/// Time grows with the product of the lengths; both are bounded by Envoy's limit on headers and ours on values.
fn contains(actual: &[u8], part: &[u8]) -> bool {
    part.is_empty() || actual.windows(part.len()).any(|window| window == part)
}

fn expires_at(rule: Rule<'_>) -> Option<u64> {
    let first = rule
        .effects()
        .next()
        .filter(|effect| effect.kind == EffectKind::Expires)?;
    first.value.first_chunk().map(|time| u64::from_le_bytes(*time))
}

/// One of the rule's targets. `None` only if the table gives none a weight.
fn choose<'t>(rule: Rule<'t>, key: &FoundKey, head: &impl RequestHead<'t>) -> Option<&'t str> {
    let mut targets = rule.targets();
    let first = targets.next()?;
    if targets.next().is_none() {
        return Some(first.0);
    }
    let index = match sticky_choice(rule, key, head) {
        Some(choice) => choice,
        None => split::by_chance(rule.targets().map(|(_, weight)| weight), head.random()),
    };
    index
        .and_then(|index| rule.targets().nth(index))
        .map(|(cluster, _)| cluster)
}

/// The choice by what the client sticks by, or `None` if it has no such thing.
fn sticky_choice<'t>(rule: Rule<'t>, key: &FoundKey, head: &impl RequestHead<'t>) -> Option<Option<usize>> {
    // The target's own name: whether its cluster falls back makes no difference to who goes there.
    let own = |cluster: &'t str| target_of(cluster).as_bytes();
    let by_value =
        |value: &[u8]| split::by_value(rule.targets().map(|(cluster, weight)| (own(cluster), weight)), value);
    let mut choice = None;
    let sticky = rule.effects().find(|effect| {
        matches!(
            effect.kind,
            EffectKind::StickyHeader | EffectKind::StickyCookie | EffectKind::StickyKey
        )
    })?;
    let mut choose = |value: &[u8]| {
        choice = Some(by_value(value));
        true
    };
    match sticky.kind {
        EffectKind::StickyHeader => head.any_value(sticky.name, |value| !value.is_empty() && choose(value)),
        EffectKind::StickyCookie => head.any_value("cookie", |line| {
            cookie::value(line, sticky.name.as_bytes()).is_some_and(&mut choose)
        }),
        _ => choose(key.as_bytes()),
    };
    choice
}

fn mirror<'t>(rule: Rule<'t>, head: &impl RequestHead<'t>) -> Option<&'t str> {
    const MILLION: u32 = 1_000_000;
    let effect = rule.effects().find(|effect| effect.kind == EffectKind::Mirror)?;
    let share = effect
        .value
        .first_chunk()
        .map_or(0, |share| u32::from_le_bytes(*share))
        .min(MILLION);
    let chosen = share == MILLION || split::by_chance([share, MILLION - share].into_iter(), head.random()) == Some(0);
    chosen.then_some(effect.name)
}

/// A request in memory: headers as (lower-case name, value), and the two things that aren't in a request.
#[derive(Clone, Copy, Debug)]
pub struct Request<'r, N, V> {
    /// The headers, pseudo-headers among them.
    pub headers: &'r [(N, V)],
    /// Milliseconds since 1970.
    pub now: u64,
    /// What every call of `random` gives.
    pub random: u64,
}

impl<'r, N, V> Request<'r, N, V> {
    /// A request at the beginning of time.
    pub fn new(headers: &'r [(N, V)]) -> Self {
        Self {
            headers,
            now: 0,
            random: 0,
        }
    }
}

impl<N: AsRef<str>, V: AsRef<[u8]>> RequestHead<'_> for Request<'_, N, V> {
    fn any_value(&self, name: &str, mut test: impl FnMut(&[u8]) -> bool) -> bool {
        self.headers
            .iter()
            .any(|(header, value)| header.as_ref() == name && test(value.as_ref()))
    }

    fn now(&self) -> u64 {
        self.now
    }

    fn random(&self) -> u64 {
        self.random
    }
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
