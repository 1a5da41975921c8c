//! The table of cases: what it says, and whether the routing core agrees.
//!
//! A case file has sections:
//!
//! ```text
//! === a fact, as a title
//! {"defaultTarget": "main", "rules": [{"routeKey": "k", "targetService": "a"}]}
//! ---
//! # METHOD AUTHORITY/PATH | NAME: VALUE | … => DESTINATION | EFFECT | …
//! GET shop.example/cart?page=2 | x-route-key: k => a
//! GET /cart => baseline no_key
//! ```
//!
//! The configuration is the JSON of `routing`. Without an authority a request has that of [`AUTHORITY`], without headers
//! none. In a request `\xff` is a byte and `\{257 K}` is 257 times K. Before the arrow there may be, too:
//!
//! | word | meaning |
//! |---|---|
//! | `@now 2026-12-01T00:00:00Z` | the time; otherwise it is [`NOW`] |
//! | `@random 0.25` | what chance gives, from 0 to 1; otherwise 0 |
//! | `@unsent WHY` | not sent through Envoy, which can't get or doesn't pass on such a request; so are those above |
//!
//! After the arrow is the target, without port 80, or `baseline` and the reason. All effects follow: `set NAME: VALUE`
//! and `remove NAME` for each header with which the target gets other values than the client sent, `mirror TARGET`, and
//! `disagreement` of key sources. Where it matters there are also `rule NAME`, `key KEY` and `cluster CLUSTER`.
//!
//! A line that begins with white space goes on with the one before it. A section with `--- refused` has the problems of
//! its configuration, one per line, instead of requests; there the configuration may be a whole config.yaml, as JSON.

use std::collections::BTreeSet;
use std::time::UNIX_EPOCH;

use serde_json::Value;
use sidetrack_routing::wire::Config;
use sidetrack_routing::{
    Destination, InvalidTable, Outcome, Request, RouteDecision, RouteTable, decide, decode, explain, merged_baggage,
    validate,
};

/// Every case file.
pub(crate) const FILES: &[(&str, &str)] = &[
    ("dialects", include_str!("../cases/dialects.cases")),
    ("effects", include_str!("../cases/effects.cases")),
    ("headers", include_str!("../cases/headers.cases")),
    ("hosts", include_str!("../cases/hosts.cases")),
    ("keys", include_str!("../cases/keys.cases")),
    ("paths", include_str!("../cases/paths.cases")),
    ("precedence", include_str!("../cases/precedence.cases")),
    ("queries", include_str!("../cases/queries.cases")),
    ("refused", include_str!("../cases/refused.cases")),
    ("refused_rules", include_str!("../cases/refused_rules.cases")),
    ("sources", include_str!("../cases/sources.cases")),
    ("split", include_str!("../cases/split.cases")),
];

/// The authority of a request that names none.
pub(crate) const AUTHORITY: &str = "shop.example";

/// 2026-07-01: no case has a rule that expires between this and the time at which the test runs.
pub(crate) const NOW: u64 = 1_782_864_000_000;

/// Something, or where it is wrong and why.
pub(crate) type Parsed<T> = Result<T, String>;

/// A configuration and what is known about it.
pub(crate) struct Section {
    /// `FILE:LINE: TITLE`.
    pub(crate) place: String,
    /// The configuration, JSON unless it is refused.
    pub(crate) config: String,
    /// The requests.
    pub(crate) cases: Vec<Case>,
    /// Its problems; none if it isn't refused.
    pub(crate) problems: Vec<String>,
}

/// A request and what becomes of it.
#[derive(Clone)]
pub(crate) struct Case {
    /// `FILE:LINE: the line`.
    pub(crate) place: String,
    /// The method.
    pub(crate) method: String,
    /// The authority.
    pub(crate) authority: Vec<u8>,
    /// The path with the query.
    pub(crate) path: Vec<u8>,
    /// The headers, names as they are written.
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    /// Milliseconds since 1970.
    pub(crate) now: u64,
    /// What chance gives.
    pub(crate) random: u64,
    /// Whether it can't be sent through Envoy.
    pub(crate) unsent: bool,
    /// The destination and the effects.
    pub(crate) expected: Vec<String>,
}

/// The sections of all files.
pub(crate) fn sections() -> Parsed<Vec<Section>> {
    let files = FILES.iter().map(|(name, text)| parse(name, text));
    Ok(files.collect::<Parsed<Vec<_>>>()?.into_iter().flatten().collect())
}

fn parse(file: &str, text: &str) -> Parsed<Vec<Section>> {
    let mut sections: Vec<Section> = Vec::new();
    // What the lines are that follow: configuration, requests, problems.
    let mut part = "";
    for (number, line) in joined(text) {
        let place = format!("{file}.cases:{number}: {line}");
        if let Some(title) = line.strip_prefix("=== ") {
            part = "config";
            sections.push(Section {
                place: format!("{file}.cases:{number}: {title}"),
                config: String::new(),
                cases: Vec::new(),
                problems: Vec::new(),
            });
            continue;
        }
        let section = sections.last_mut().ok_or(format!("{place}: no section yet"))?;
        match (part, line.as_str()) {
            ("config", "---") => part = "requests",
            ("config", "--- refused") => part = "problems",
            ("config", _) => section.config.push_str(&format!("{line}\n")),
            ("requests", _) => section.cases.push(case(&line, &place)?),
            _ => section.problems.push(line),
        }
    }
    let mut without = sections
        .iter()
        .filter(|section| section.cases.is_empty() == section.problems.is_empty());
    match without.next() {
        Some(section) => Err(section.says("it has no cases")),
        None => Ok(sections),
    }
}

/// The lines and their numbers, without comments, those that go on put together.
fn joined(text: &str) -> Vec<(usize, String)> {
    let mut lines: Vec<(usize, String)> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        match lines.last_mut() {
            _ if line.trim().is_empty() || line.starts_with('#') => {}
            Some((_, before)) if line.starts_with([' ', '\t']) => before.push_str(&format!(" {}", line.trim())),
            _ => lines.push((index + 1, line.trim_end().to_owned())),
        }
    }
    lines
}

fn case(line: &str, place: &str) -> Parsed<Case> {
    let wrong = |what: &str| format!("{place}: {what}");
    let (request, expected) = line.split_once(" => ").ok_or(wrong("no ` => `"))?;
    let mut parts = request.split(" | ");
    let head = parts.next().unwrap_or_default();
    let (method, target) = head.split_once(' ').ok_or(wrong("no method"))?;
    let path_start = target.find(['/', '*', '?']).ok_or(wrong("no path"))?;
    let (authority, path) = target.split_at(path_start);
    let authority = if authority.is_empty() { AUTHORITY } else { authority };
    let mut case = Case {
        place: place.to_owned(),
        method: method.to_owned(),
        authority: unescaped(authority).ok_or(wrong("a wrong escape"))?,
        path: unescaped(path).ok_or(wrong("a wrong escape"))?,
        headers: Vec::new(),
        now: NOW,
        random: 0,
        unsent: false,
        expected: Vec::new(),
    };
    for fact in expected.split(" | ") {
        let fact = unescaped(fact).ok_or(wrong("a wrong escape"))?;
        case.expected.push(text(&fact));
    }
    for part in parts {
        case.unsent |= part.starts_with('@');
        if let Some(time) = part.strip_prefix("@now ") {
            let time = humantime::parse_rfc3339(time).map_err(|error| wrong(&error.to_string()))?;
            let since = time.duration_since(UNIX_EPOCH).map_err(|_| wrong("before 1970"))?;
            case.now = u64::try_from(since.as_millis()).map_err(|_| wrong("too late"))?;
        } else if let Some(share) = part.strip_prefix("@random ") {
            let share: f64 = share.parse().map_err(|_| wrong("no number"))?;
            case.random = (share * 2f64.powi(64)) as u64;
        } else if !part.starts_with("@unsent ") {
            let (name, value) = part.split_once(':').ok_or(wrong("a header without a colon"))?;
            let value = unescaped(value.trim()).ok_or(wrong("a wrong escape"))?;
            case.headers.push((name.to_owned(), value));
        }
    }
    Ok(case)
}

/// The bytes that `text` stands for.
fn unescaped(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some((plain, escape)) = rest.split_once('\\') {
        bytes.extend(plain.as_bytes());
        if let Some(repeated) = escape.strip_prefix('{') {
            let (inner, after) = repeated.split_once('}')?;
            let (count, part) = inner.split_once(' ')?;
            bytes.extend(part.repeat(count.parse().ok()?).as_bytes());
            rest = after;
        } else {
            let (digits, after) = escape.strip_prefix('x')?.split_at_checked(2)?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = after;
        }
    }
    bytes.extend(rest.as_bytes());
    Some(bytes)
}

impl Section {
    /// The table of its configuration.
    pub(crate) fn table(&self) -> Parsed<RouteTable> {
        RouteTable::from_configuration(self.config.clone().into_bytes()).map_err(|error| self.says(&error.to_string()))
    }

    /// What the routing core does otherwise than this section says.
    pub(crate) fn failures(&self) -> Vec<String> {
        if !self.problems.is_empty() {
            let actual = problems(&self.config);
            return if actual == self.problems {
                Vec::new()
            } else {
                vec![self.says(&format!("has\n{}", actual.join("\n")))]
            };
        }
        match self.table() {
            Ok(table) => self.cases.iter().filter_map(|case| case.failure(&table)).collect(),
            Err(error) => vec![error],
        }
    }

    fn says(&self, what: &str) -> String {
        format!("{}: {what}", self.place)
    }
}

/// What is wrong with a configuration, a line each.
fn problems(config: &str) -> Vec<String> {
    let lines = |list: Vec<sidetrack_routing::Problem>| list.iter().map(ToString::to_string).collect();
    let whole: Option<Value> = serde_json::from_str(config)
        .ok()
        .filter(|value: &Value| value.get("routing").is_some());
    match whole {
        Some(whole) => decode(&whole, |config: &Config| validate(config))
            .err()
            .map_or(Vec::new(), lines),
        None => match RouteTable::from_configuration(config.into()) {
            Ok(_) => Vec::new(),
            Err(InvalidTable::Problems(list)) => lines(list),
            Err(other) => vec![other.to_string()],
        },
    }
}

impl Case {
    /// How the routing core decides otherwise than this case says, or that `explain` says something else.
    pub(crate) fn failure(&self, table: &RouteTable) -> Option<String> {
        let pseudo = [
            (":method", self.method.as_bytes()),
            (":authority", &self.authority),
            (":path", &self.path),
        ];
        let pseudo = pseudo
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.to_vec()));
        let headers: Vec<_> = pseudo.chain(self.sent()).collect();
        let request = Request {
            headers: &headers,
            now: self.now,
            random: self.random,
        };
        let decision = decide(table, &request);

        let explained = explain(table, &request);
        let key = decision.key.as_ref().map(|key| text(key.as_bytes()));
        if (&explained.outcome, &explained.key, explained.disagreement)
            != (&outcome(&decision), &key, decision.disagreement)
        {
            return Some(format!("{}: explained as {explained:?}", self.place));
        }
        let mut facts = vec![destination(&decision.destination)];
        facts.extend(self.changes(&self.received(table, &decision)));
        facts.extend(decision.disagreement.then(|| "disagreement".to_owned()));
        facts.extend(key.map(|key| format!("key {key}")));
        if let Destination::Target { rule, cluster, mirror } = decision.destination {
            facts.extend([format!("rule {}", rule.name()), format!("cluster {cluster}")]);
            facts.extend(mirror.map(|cluster| format!("mirror {}", service(cluster))));
        }
        self.differs(&facts)
    }

    /// The facts, if they aren't those that are expected. Those that needn't be named count only where they are.
    pub(crate) fn differs(&self, facts: &[String]) -> Option<String> {
        const OPTIONAL: [&str; 3] = ["rule ", "key ", "cluster "];
        let optional = |fact: &str| OPTIONAL.iter().any(|kind| fact.starts_with(kind));
        let expected: BTreeSet<&str> = self.expected.iter().map(String::as_str).collect();
        let counted = facts
            .iter()
            .map(String::as_str)
            .filter(|fact| !optional(fact) || expected.contains(fact));
        let counted: BTreeSet<&str> = counted.collect();
        (counted != expected).then(|| format!("{}\n    is {}", self.place, facts.join(" | ")))
    }

    /// The headers with their names as Envoy has them.
    fn sent(&self) -> impl Iterator<Item = (String, Vec<u8>)> {
        let headers = self.headers.iter();
        headers.map(|(name, value)| (name.to_ascii_lowercase(), value.clone()))
    }

    /// Which headers differ from those that were sent.
    pub(crate) fn changes(&self, received: &[(String, String)]) -> Vec<String> {
        let sent: Vec<_> = self.sent().map(|(name, value)| (name, text(&value))).collect();
        let names: BTreeSet<&str> = sent.iter().chain(received).map(|(name, _)| name.as_str()).collect();
        let values = |headers: &[(String, String)], name: &str| {
            // A proxy may put several lines into one.
            let separator = if name == "cookie" { "; " } else { "," };
            let lines = headers.iter().filter(|(header, _)| header == name);
            let lines: Vec<&str> = lines.map(|(_, value)| value.as_str()).collect();
            (!lines.is_empty()).then(|| lines.join(separator))
        };
        let changes = names
            .into_iter()
            .map(|name| match (values(&sent, name), values(received, name)) {
                (Some(_), None) => Some(format!("remove {name}")),
                (before, Some(after)) if before.as_ref() != Some(&after) => {
                    Some(format!("set {name}: {after}").trim_end().to_owned())
                }
                _ => None,
            });
        changes.flatten().collect()
    }

    /// The headers that the target gets, as the filter makes them.
    fn received(&self, table: &RouteTable, decision: &RouteDecision<'_>) -> Vec<(String, String)> {
        let mut headers: Vec<(String, Vec<u8>)> = self.sent().collect();
        let set = |headers: &mut Vec<(String, Vec<u8>)>, name: &str, value: &[u8]| {
            headers.retain(|(header, _)| header != name);
            headers.push((name.to_owned(), value.to_vec()));
        };
        if let Destination::Target { rule, .. } = decision.destination {
            headers.retain(|(name, _)| !rule.removed_headers().any(|removed| removed == name));
            for (name, value) in rule.additional_headers() {
                set(&mut headers, name, value);
            }
        }
        if let Some(key) = &decision.key {
            if !key.is_in_route_key_header() {
                set(&mut headers, table.route_key_header(), key.as_bytes());
            }
            if let Some(member) = table.propagated_baggage() {
                let lines = headers.iter().filter(|(name, _)| name == "baggage");
                let lines = lines.map(|(_, line)| line.as_slice());
                let mut merged = Vec::new();
                merged_baggage(lines, member, key.as_bytes(), &mut merged);
                set(&mut headers, "baggage", &merged);
            }
        }
        headers.into_iter().map(|(name, value)| (name, text(&value))).collect()
    }
}

/// What `explain` must say.
fn outcome(decision: &RouteDecision<'_>) -> Outcome {
    match decision.destination {
        Destination::Target { rule, cluster, mirror } => Outcome::Target {
            rule: rule.name().to_owned(),
            cluster: cluster.to_owned(),
            mirror: mirror.map(str::to_owned),
        },
        Destination::Baseline(reason) => Outcome::Baseline {
            reason: reason.as_str(),
        },
    }
}

fn destination(destination: &Destination<'_>) -> String {
    match destination {
        Destination::Target { cluster, .. } => service(cluster).to_owned(),
        Destination::Baseline(reason) => format!("baseline {reason}"),
    }
}

/// The service of a cluster.
pub(crate) fn service(cluster: &str) -> &str {
    let target = cluster.strip_suffix("|baseline").unwrap_or(cluster);
    target.strip_suffix(":80").unwrap_or(target)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
