//! The decision, slowly and obviously: the design's sentences as loops over the configuration as it was written.

use std::collections::{BTreeMap, BTreeSet};

use sidetrack_routing::{Request, wire};

use crate::patterns;
use crate::sources::{self, Found};

/// A request, and the two things a decision depends on that aren't in one.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    /// Names in lower case, and values, in the order they were sent.
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    /// Milliseconds since 1970.
    pub(crate) now: u64,
    /// Evenly distributed over all numbers.
    pub(crate) random: u64,
}

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Decision {
    /// The key, and whether the route key header is where it is.
    pub(crate) key: Option<(Vec<u8>, bool)>,
    /// Whether a later source has another.
    pub(crate) disagreement: bool,
    /// The matching rule's name and effects, or the reason for the baseline.
    pub(crate) outcome: Result<Effects, &'static str>,
}

/// What a matching rule does.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Effects {
    /// The rule's name.
    pub(crate) rule: String,
    /// The cluster that gets a copy.
    pub(crate) mirror: Option<String>,
    /// The headers that are set.
    pub(crate) set: BTreeMap<String, Vec<u8>>,
    /// The headers that are removed.
    pub(crate) removed: BTreeSet<String>,
}

/// Which of the rule's targets it is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Choice {
    /// The baseline, no target of a rule.
    None,
    /// This cluster.
    This(String),
    /// One of these clusters, and for this value always the same.
    AsAlwaysFor(Vec<u8>, BTreeSet<String>),
}

impl Case {
    /// The request as the table's decision takes it.
    pub(crate) fn request(&self) -> Request<'_, String, Vec<u8>> {
        Request {
            headers: &self.headers,
            now: self.now,
            random: self.random,
        }
    }

    /// The values of the header `name`, in their order.
    pub(crate) fn values(&self, name: &str) -> Vec<Vec<u8>> {
        let name = name.to_lowercase();
        let lines = self.headers.iter().filter(|(header, _)| *header == name);
        lines.map(|(_, value)| value.clone()).collect()
    }

    fn pseudo(&self, name: &str) -> Option<Vec<u8>> {
        self.values(name).into_iter().next()
    }
}

/// Decides `case` by `routing`.
pub(crate) fn decide(routing: &wire::Routing, case: &Case) -> (Decision, Choice) {
    let found = sources_of(routing)
        .into_iter()
        .map(|source| (read(&source, case), source));
    let mut found = found.filter_map(|(value, source)| Some((value?, source)));
    let first = found.next();
    let judged = Found::judge(first.as_ref().map(|(value, _)| value.clone()));
    let mut decision = Decision {
        key: None,
        disagreement: false,
        outcome: Err("no_key"),
    };
    let key = match judged {
        Found::Nothing => return (decision, Choice::None),
        Found::Invalid => {
            decision.outcome = Err("invalid_key");
            return (decision, Choice::None);
        }
        Found::Key(key) => key,
    };
    decision.disagreement = found.any(|(value, _)| value != key);
    let source = first.and_then(|(_, source)| source.header);
    let is_in_header = source.is_some_and(|name| name.eq_ignore_ascii_case(&routing.route_key_header));
    decision.key = Some((key.clone(), is_in_header));
    let mut of_key = routing
        .rules
        .iter()
        .filter(|rule| rule.route_key.as_bytes() == key)
        .peekable();
    // A key whose rules have all expired stays known: the configuration still has it.
    decision.outcome = Err(if of_key.peek().is_none() {
        "unknown_key"
    } else {
        "no_match"
    });
    let is_there = |rule: &wire::Rule| {
        rule.expires_at
            .as_ref()
            .is_none_or(|at| case.now < patterns::instant(at))
    };
    let Some(rule) = of_key.find(|rule| is_there(rule) && matches(rule, case)) else {
        return (decision, Choice::None);
    };
    let lower = |name: &String| name.to_lowercase();
    decision.outcome = Ok(Effects {
        rule: rule.name.clone().unwrap_or_default(),
        mirror: rule.mirror.as_ref().and_then(|mirror| mirrored(mirror, case.random)),
        set: rule
            .additional_headers
            .iter()
            .map(|(name, value)| (lower(name), value.clone().into_bytes()))
            .collect(),
        removed: rule.remove_headers.iter().map(lower).collect(),
    });
    (decision, choose(routing, rule, &key, case))
}

/// Where the key is looked for.
fn sources_of(routing: &wire::Routing) -> Vec<wire::KeySource> {
    let baggage = |name: &str| wire::KeySource {
        baggage: Some(name.to_owned()),
        ..Default::default()
    };
    let tracestate = |name: &str| wire::KeySource {
        tracestate: Some(name.to_owned()),
        ..Default::default()
    };
    let header = |name: &str| wire::KeySource {
        header: Some(name.to_owned()),
        ..Default::default()
    };
    let mut all = routing.key_sources.clone();
    if all.is_empty() {
        all.push(header(&routing.route_key_header));
    }
    for dialect in &routing.key_dialects {
        match dialect {
            wire::KeyDialect::Signadot => all.extend([
                baggage("sd-routing-key"),
                baggage("sd-sandbox"),
                tracestate("sd-routing-key"),
                tracestate("sd-sandbox"),
                header("ot-baggage-sd-routing-key"),
                header("uberctx-sd-routing-key"),
            ]),
            wire::KeyDialect::Mirrord => all.extend([
                baggage("mirrord-session"),
                tracestate("mirrord-session"),
                wire::KeySource {
                    query: Some("mirrord-session".to_owned()),
                    ..Default::default()
                },
                wire::KeySource {
                    cookie: Some("mirrord-session".to_owned()),
                    ..Default::default()
                },
            ]),
            wire::KeyDialect::Okteto => all.push(baggage("okteto-divert")),
            wire::KeyDialect::BridgeToKubernetes => all.push(header("kubernetes-route-as")),
        }
    }
    all
}

fn read(source: &wire::KeySource, case: &Case) -> Option<Vec<u8>> {
    let header = source
        .header
        .as_ref()
        .and_then(|name| sources::header(&case.values(name)));
    let baggage = source
        .baggage
        .as_ref()
        .and_then(|name| sources::baggage(&case.values("baggage"), name));
    let tracestate = source
        .tracestate
        .as_ref()
        .and_then(|name| sources::tracestate(&case.values("tracestate"), name));
    let cookie = source
        .cookie
        .as_ref()
        .and_then(|name| sources::cookie(&case.values("cookie"), name));
    let query = source
        .query
        .as_ref()
        .and_then(|name| sources::query(&case.pseudo(":path")?, name));
    let host = source
        .host
        .as_ref()
        .and_then(|pattern| sources::host(&case.pseudo(":authority")?, &pattern[1..]));
    header.or(baggage).or(tracestate).or(cookie).or(query).or(host)
}

fn matches(rule: &wire::Rule, case: &Case) -> bool {
    let path = case.pseudo(":path");
    let only_path = path.as_ref().map(|path| until(path, b"?#"));
    let prefixes = rule.path_prefixes.iter().map(|prefix| wire::PathMatcher {
        prefix: Some(prefix.clone()),
        ..Default::default()
    });
    let mut paths = prefixes.chain(rule.paths.iter().cloned()).peekable();
    let path_matches =
        paths.peek().is_none() || only_path.is_some_and(|path| paths.any(|matcher| path_matches(&matcher, &path)));
    let method = case.pseudo(":method");
    let method_matches = rule.methods.is_empty()
        || rule
            .methods
            .iter()
            .any(|allowed| method.as_deref() == Some(allowed.as_bytes()));
    let authority = case.pseudo(":authority");
    let host_matches = rule.hosts.is_empty()
        || authority.is_some_and(|authority| rule.hosts.iter().any(|pattern| host_matches(pattern, &authority)));
    let headers_match = rule
        .header_matchers
        .iter()
        .all(|(name, matcher)| value_matches(matcher, &case.values(name)));
    let parameters = |name: &str| {
        path.as_ref()
            .map(|path| sources::parameters(path, name))
            .unwrap_or_default()
    };
    let queries_match = rule.query_matchers.iter().all(|(name, matcher)| {
        let values: Vec<Vec<u8>> = parameters(name).into_iter().map(comparable).collect();
        value_matches(matcher, &values)
    });
    path_matches && method_matches && host_matches && headers_match && queries_match
}

/// A query parameter's value is compared decoded. One that is longer than 256 bytes then is compared as it was sent.
fn comparable(raw: Vec<u8>) -> Vec<u8> {
    let decoded = sources::percent_decoded(&raw, true);
    if decoded.len() > 256 { raw } else { decoded }
}

fn path_matches(matcher: &wire::PathMatcher, path: &[u8]) -> bool {
    let exact = matcher.exact.as_ref().is_some_and(|exact| path == exact.as_bytes());
    let prefix = matcher.prefix.as_ref().is_some_and(|prefix| {
        // Both as lists of segments, except that a slash at the prefix's end wants one in the path, too.
        let path_segments: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
        let mut segments: Vec<&[u8]> = prefix.as_bytes().split(|byte| *byte == b'/').collect();
        let must_go_on = segments.len() > 1 && segments.last() == Some(&&b""[..]);
        if must_go_on {
            segments.pop();
        }
        path_segments.starts_with(&segments) && (!must_go_on || path_segments.len() > segments.len())
    });
    let regex = matcher
        .regex
        .as_ref()
        .is_some_and(|regex| patterns::matches(regex, path));
    exact || prefix || regex
}

fn host_matches(pattern: &str, authority: &[u8]) -> bool {
    let host = sources::host_of(authority).to_ascii_lowercase();
    let pattern = pattern.to_ascii_lowercase();
    match pattern.strip_prefix('*') {
        Some(suffix) => sources::host(authority, suffix).is_some(),
        None => host == pattern.as_bytes(),
    }
}

fn value_matches(matcher: &wire::ValueMatcher, values: &[Vec<u8>]) -> bool {
    let form = match matcher {
        wire::ValueMatcher::Exact(exact) => return values.iter().any(|value| value == exact.as_bytes()),
        wire::ValueMatcher::Form(form) => form,
    };
    if form.absent.is_some() {
        return values.is_empty();
    }
    // Any bytes as text, one character each, so that the text functions can be used.
    let text = |bytes: &[u8]| bytes.iter().map(|byte| char::from(*byte)).collect::<String>();
    let is = |part: &Option<String>, test: fn(&str, &str) -> bool, value: &[u8]| {
        part.as_ref()
            .is_some_and(|part| test(&text(value), &text(part.as_bytes())))
    };
    values.iter().any(|value| {
        form.present.is_some()
            || is(&form.exact, |value, part| value == part, value)
            || is(&form.prefix, |value, part| value.starts_with(part), value)
            || is(&form.suffix, |value, part| value.ends_with(part), value)
            || is(&form.contains, |value, part| value.contains(part), value)
            || form.regex.as_ref().is_some_and(|regex| patterns::matches(regex, value))
            || form.one_of.iter().flatten().any(|one| one.as_bytes() == value)
    })
}

fn choose(routing: &wire::Routing, rule: &wire::Rule, key: &[u8], case: &Case) -> Choice {
    let one = rule.target_service.iter().map(|service| (service.clone(), 1));
    let several = rule
        .targets
        .iter()
        .flatten()
        .map(|target| (target.service.clone(), target.weight));
    let clusters: Vec<(String, u32)> = one
        .chain(several)
        .map(|(service, weight)| (cluster(routing, rule, &service), weight))
        .collect();
    if let [(only, _)] = clusters.as_slice() {
        return Choice::This(only.clone());
    }
    let sticky = rule.sticky_by.as_ref().and_then(|sticky| {
        let header = sticky
            .header
            .as_ref()
            .and_then(|name| case.values(name).into_iter().find(|v| !v.is_empty()));
        let cookie = sticky
            .cookie
            .as_ref()
            .and_then(|name| sources::cookie(&case.values("cookie"), name));
        header.or(cookie).or(sticky.route_key.map(|_| key.to_vec()))
    });
    if let Some(value) = sticky {
        let weighted = clusters.into_iter().filter(|(_, weight)| *weight > 0);
        return Choice::AsAlwaysFor(value, weighted.map(|(cluster, _)| cluster).collect());
    }
    let index = share(
        &clusters.iter().map(|(_, weight)| *weight).collect::<Vec<_>>(),
        case.random,
    );
    Choice::This(clusters[index].0.clone())
}

/// The cluster of `service`: its own, or the one that falls back to the baseline, which the baseline itself has not.
fn cluster(routing: &wire::Routing, rule: &wire::Rule, service: &str) -> String {
    let baseline = match &routing.default_target {
        wire::DefaultTarget::One(service) => vec![target(service)],
        wire::DefaultTarget::Split(targets) => targets.iter().map(|one| target(&one.service)).collect(),
    };
    let target = target(service);
    if rule.fallback == wire::Fallback::None || baseline.contains(&target) {
        target
    } else {
        target + "|baseline"
    }
}

/// `HOST:PORT` in lower case, with port 80 unless there is one.
fn target(service: &str) -> String {
    let service = service.to_lowercase();
    if service.contains(':') {
        service
    } else {
        service + ":80"
    }
}

fn mirrored(mirror: &wire::Mirror, random: u64) -> Option<String> {
    let share_of_copies = patterns::per_million(mirror.percent);
    let is_copied = share(&[share_of_copies, 1_000_000 - share_of_copies], random) == 0;
    is_copied.then(|| target(&mirror.service))
}

/// The weights side by side, as long as all numbers there are together: the one that `random` lies in.
fn share(weights: &[u32], random: u64) -> usize {
    let sum: u128 = weights.iter().map(|weight| u128::from(*weight)).sum();
    let all_numbers = 1u128 << 64;
    let mut end = 0;
    for (index, weight) in weights.iter().enumerate() {
        end += u128::from(*weight) * all_numbers;
        // Not divided by the sum, but multiplied on the other side, so that nothing is rounded.
        if u128::from(random) * sum < end {
            return index;
        }
    }
    unreachable!("all weights are 0")
}

fn until(text: &[u8], ends: &[u8]) -> Vec<u8> {
    text.iter().copied().take_while(|byte| !ends.contains(byte)).collect()
}
