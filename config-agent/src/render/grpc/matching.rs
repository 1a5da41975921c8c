//! Which calls a route is for, in the words that gRPC clients know (gRFC A28, A63).

use envoy_types::pb::envoy::config::route::v3::HeaderMatcher;
use envoy_types::pb::envoy::config::route::v3::route_match::PathSpecifier;
use envoy_types::pb::envoy::r#type::matcher::v3::RegexMatcher;
use envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use sidetrack_routing::{HeaderName, KeySource, PathTest, ValidRouting, ValueTest};

use super::left_out::Reason;
use super::regex::{escaped, is_portable};
use crate::render::matching::{absent, containing, exact, matching_regex, not, string_match};

/// Each source that may be looked at before another doubles the routes; beyond that, only requests without any of their
/// headers are looked at further.
const MAX_CASES: usize = 1 << MAX_MEMBER_SOURCES;

/// So many sources that are members of a header may come before another.
pub(super) const MAX_MEMBER_SOURCES: usize = 3;

/// What a path must be; one of these.
pub(super) fn paths(tests: &[PathTest]) -> Result<Vec<PathSpecifier>, Reason> {
    if tests.is_empty() {
        return Ok(vec![any_path()]);
    }
    let mut specifiers = Vec::new();
    for test in tests {
        match test {
            PathTest::Exact(path) => specifiers.push(PathSpecifier::Path(path.clone())),
            // Whole segments: clients compare letters.
            PathTest::Prefix(prefix) => match prefix.as_str() {
                below if below.ends_with('/') => specifiers.push(PathSpecifier::Prefix(below.to_owned())),
                path => {
                    specifiers.push(PathSpecifier::Path(path.to_owned()));
                    specifiers.push(PathSpecifier::Prefix(format!("{path}/")));
                }
            },
            PathTest::Regex(pattern) => specifiers.push(PathSpecifier::SafeRegex(RegexMatcher {
                regex: whole(pattern.as_str())?,
                ..Default::default()
            })),
        }
    }
    Ok(specifiers)
}

pub(super) fn any_path() -> PathSpecifier {
    PathSpecifier::Prefix("/".to_owned())
}

/// What the headers must be, all of these.
pub(super) fn headers(matchers: &[(HeaderName, ValueTest)]) -> Result<Vec<HeaderMatcher>, Reason> {
    let matchers = matchers.iter().map(|(name, test)| {
        let name = name.as_str();
        if !is_visible(name) {
            return Err(Reason::Header(name.to_owned()));
        }
        Ok(match test {
            ValueTest::OneOf(values) => match values.as_slice() {
                [value] if !value.is_empty() => exact(name, value),
                values => {
                    let values: Vec<String> = values.iter().map(|value| escaped(value)).collect();
                    matching_regex(name, format!("(?:{})", values.join("|")))
                }
            },
            ValueTest::Prefix(text) => string_match(name, MatchPattern::Prefix(text.clone())),
            ValueTest::Suffix(text) => string_match(name, MatchPattern::Suffix(text.clone())),
            ValueTest::Contains(text) => containing(name, text),
            ValueTest::Regex(pattern) => matching_regex(name, whole(pattern.as_str())?),
            // Go takes a header without a value for one that isn't there, but compares it.
            ValueTest::Present => matching_regex(name, ".*".to_owned()),
            ValueTest::Absent => absent(name),
        })
    });
    matchers.collect()
}

/// How requests to `host` carry the key, by the sources before which no other has one; in each case the header that has it
/// or, where the host itself has it, that key.
pub(super) fn key_cases(routing: &ValidRouting, host: &str) -> Vec<KeyCase> {
    let mut cases = Vec::new();
    let mut without: Vec<Vec<HeaderMatcher>> = vec![Vec::new()];
    for source in &routing.key_sources {
        let carrier = match source {
            KeySource::Header(name) if is_visible(name.as_str()) => Some(Carrier::Header(name.as_str().to_owned())),
            KeySource::Host(suffix) => label(host, suffix).map(|key| Carrier::Host(key.to_owned())),
            // A call has no query.
            KeySource::Query(_) => continue,
            _ => None,
        };
        let is_host = matches!(carrier, Some(Carrier::Host(_)));
        cases.extend(carrier.into_iter().flat_map(|carrier| {
            let without = without.iter().cloned();
            without.map(move |without| KeyCase {
                carrier: carrier.clone(),
                without,
            })
        }));
        match source {
            _ if is_host => break,
            KeySource::Host(_) | KeySource::Query(_) => {}
            KeySource::Header(name) => also(&mut without, &[absent(name.as_str())]),
            KeySource::Baggage(name) => also(&mut without, &no_member("baggage", name)),
            KeySource::Tracestate(name) => also(&mut without, &no_member("tracestate", name)),
            KeySource::Cookie(name) => also(&mut without, &no_member("cookie", name)),
        }
    }
    cases
}

/// Whether a gRPC client can tell which key this source has.
pub(super) fn is_comparable(source: &KeySource) -> bool {
    match source {
        KeySource::Header(name) => is_visible(name.as_str()),
        KeySource::Host(_) => true,
        KeySource::Baggage(_) | KeySource::Tracestate(_) | KeySource::Cookie(_) | KeySource::Query(_) => false,
    }
}

/// Whether the key is a part of a header's value.
pub(super) fn is_member(source: &KeySource) -> bool {
    matches!(
        source,
        KeySource::Baggage(_) | KeySource::Tracestate(_) | KeySource::Cookie(_)
    )
}

/// A way in which calls may carry a key.
pub(super) struct KeyCase {
    pub(super) carrier: Carrier,
    /// What they look like if no source before it has one.
    pub(super) without: Vec<HeaderMatcher>,
}

/// What has the key.
#[derive(Clone)]
pub(super) enum Carrier {
    /// This header.
    Header(String),
    /// The name that is dialed: its key is this.
    Host(String),
}

impl KeyCase {
    /// What a call with this key looks like, if it can.
    pub(super) fn with(&self, key: &str) -> Option<Vec<HeaderMatcher>> {
        let mut headers = self.without.clone();
        match &self.carrier {
            Carrier::Header(name) => headers.push(exact(name, key)),
            Carrier::Host(found) if found != key => return None,
            Carrier::Host(_) => {}
        }
        Some(headers)
    }
}

/// Whether gRPC clients route by this header (gRFC A28): only by metadata that the application gives, and not by binary.
/// What the libraries add themselves they don't see; only some see `content-type`.
fn is_visible(name: &str) -> bool {
    let is_added = matches!(
        name,
        "user-agent" | "te" | "authorization" | "content-type" | "host" | "accept-encoding" | "content-length"
    );
    !is_added && !name.ends_with("-bin") && !name.starts_with("grpc-")
}

/// That a header has no member of this name. Whether a header that isn't there lacks it, clients disagree on; so that is
/// a case of its own.
fn no_member(header: &str, name: &str) -> [HeaderMatcher; 2] {
    [absent(header), not(containing(header, name))]
}

/// Each of `cases` with each of `alternatives`.
fn also(cases: &mut Vec<Vec<HeaderMatcher>>, alternatives: &[HeaderMatcher]) {
    let alternatives = match cases.len() * alternatives.len() {
        ..=MAX_CASES => alternatives,
        _ => &alternatives[..1],
    };
    let with = |case: &Vec<HeaderMatcher>, more: &HeaderMatcher| case.iter().chain([more]).cloned().collect();
    *cases = cases
        .iter()
        .flat_map(|case| alternatives.iter().map(move |more| with(case, more)))
        .collect();
}

/// The label of `host` before `suffix`, which begins with a dot.
pub(super) fn label<'h>(host: &'h str, suffix: &str) -> Option<&'h str> {
    host.strip_suffix(suffix)
        .filter(|label| !label.is_empty() && !label.contains('.'))
}

/// Clients compare the whole value, but one of them takes `a|b` for a beginning and an end.
fn whole(pattern: &str) -> Result<String, Reason> {
    if is_portable(pattern) {
        Ok(format!("(?:{pattern})"))
    } else {
        Err(Reason::Regex(pattern.to_owned()))
    }
}

#[cfg(test)]
#[path = "matching_tests.rs"]
mod tests;
