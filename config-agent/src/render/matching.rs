//! Which requests a route is for.

use envoy_types::pb::envoy::config::route::v3::{
    HeaderMatcher, QueryParameterMatcher, RouteMatch, header_matcher, query_parameter_matcher, route_match,
};
use envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use envoy_types::pb::envoy::r#type::matcher::v3::{RegexMatcher, StringMatcher};
use sidetrack_routing::{EXPLAIN_HEADER, KeySource, STEERING_HEADER, ValidRouting};

/// Requests that all of `headers` match.
pub(super) fn matching(headers: Vec<HeaderMatcher>) -> RouteMatch {
    RouteMatch {
        path_specifier: Some(route_match::PathSpecifier::Prefix("/".to_owned())),
        headers,
        ..Default::default()
    }
}

/// What a request looks like that may carry a key and wasn't decided yet: of each source, because any may be the one.
pub(super) fn may_carry_a_key(routing: &ValidRouting) -> Vec<RouteMatch> {
    let mut matches: Vec<RouteMatch> = routing.key_sources.iter().map(from_source).collect();
    if routing.debug_header {
        matches.push(matching(vec![present(EXPLAIN_HEADER)]));
    }
    for found in &mut matches {
        found.headers.push(absent(STEERING_HEADER));
    }
    matches
}

fn from_source(source: &KeySource) -> RouteMatch {
    match source {
        KeySource::Query(name) => {
            let present = query_parameter_matcher::QueryParameterMatchSpecifier::PresentMatch(true);
            let parameter = QueryParameterMatcher {
                name: name.clone(),
                query_parameter_match_specifier: Some(present),
            };
            RouteMatch {
                query_parameters: vec![parameter],
                ..matching(Vec::new())
            }
        }
        KeySource::Header(name) => matching(vec![present(name.as_str())]),
        KeySource::Baggage(name) => matching(vec![containing("baggage", name)]),
        KeySource::Tracestate(name) => matching(vec![containing("tracestate", name)]),
        KeySource::Cookie(name) => matching(vec![containing("cookie", name)]),
        KeySource::Host(suffix) => {
            let host = format!(r"(?i)[^.:]+{}\.?(:[0-9]+)?", suffix.replace('.', r"\."));
            matching(vec![matching_regex(":authority", host)])
        }
    }
}

/// What a request without a key looks like, as one match; `None` where that takes more, because Envoy can't match a query
/// parameter that isn't there.
///
/// A rule may remove the header that its key came in, and such a request has a key all the same. In the route key header no
/// rule does, and the filter puts every key there: where that is a source, nothing else need be looked at.
pub(super) fn carries_no_key(routing: &ValidRouting) -> Option<RouteMatch> {
    let mut headers = Vec::new();
    for source in &routing.key_sources {
        let found = from_source(source);
        if !found.query_parameters.is_empty() {
            return None;
        }
        headers.extend(found.headers.into_iter().map(not));
    }
    if !routing
        .key_sources
        .contains(&KeySource::Header(routing.route_key_header.clone()))
    {
        headers.push(absent(STEERING_HEADER));
    }
    if routing.debug_header {
        headers.push(absent(EXPLAIN_HEADER));
    }
    Some(matching(headers))
}

/// What a request looks like that isn't for a stream: neither gRPC, nor an upgrade, nor one for an event stream.
pub(super) fn no_stream() -> Vec<HeaderMatcher> {
    vec![
        absent("upgrade"),
        not(string_match(
            "content-type",
            MatchPattern::Prefix("application/grpc".to_owned()),
        )),
        not(containing("accept", "text/event-stream")),
    ]
}

pub(super) fn present(name: &str) -> HeaderMatcher {
    let specifier = header_matcher::HeaderMatchSpecifier::PresentMatch(true);
    HeaderMatcher {
        name: name.to_owned(),
        header_match_specifier: Some(specifier),
        ..Default::default()
    }
}

pub(super) fn absent(name: &str) -> HeaderMatcher {
    not(present(name))
}

pub(super) fn exact(name: &str, value: &str) -> HeaderMatcher {
    string_match(name, MatchPattern::Exact(value.to_owned()))
}

pub(super) fn containing(name: &str, part: &str) -> HeaderMatcher {
    string_match(name, MatchPattern::Contains(part.to_owned()))
}

pub(super) fn ending(name: &str, end: &str) -> HeaderMatcher {
    string_match(name, MatchPattern::Suffix(end.to_owned()))
}

pub(super) fn matching_regex(name: &str, regex: String) -> HeaderMatcher {
    string_match(
        name,
        MatchPattern::SafeRegex(RegexMatcher {
            regex,
            ..Default::default()
        }),
    )
}

pub(super) fn not(matcher: HeaderMatcher) -> HeaderMatcher {
    let compares = matches!(
        matcher.header_match_specifier,
        Some(header_matcher::HeaderMatchSpecifier::StringMatch(_))
    );
    HeaderMatcher {
        invert_match: true,
        // A comparison with a header that isn't there fails either way, unless that counts as empty.
        treat_missing_header_as_empty: compares,
        ..matcher
    }
}

pub(super) fn string_match(name: &str, pattern: MatchPattern) -> HeaderMatcher {
    let matcher = StringMatcher {
        match_pattern: Some(pattern),
        ..Default::default()
    };
    let specifier = header_matcher::HeaderMatchSpecifier::StringMatch(matcher);
    HeaderMatcher {
        name: name.to_owned(),
        header_match_specifier: Some(specifier),
        ..Default::default()
    }
}
