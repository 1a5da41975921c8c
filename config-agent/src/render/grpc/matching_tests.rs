use envoy_types::pb::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use serde_json::{Value, json};

use super::super::tests::{config, with_rule};
use super::*;

/// A matcher in a word: `name=exact`, `name^prefix`, `name$suffix`, `name*part`, `name~regex`, `name`; with `!`, the opposite.
fn words(matchers: &[HeaderMatcher]) -> Vec<String> {
    let words = matchers.iter().map(|matcher| {
        let test = match matcher.header_match_specifier.as_ref().unwrap() {
            HeaderMatchSpecifier::PresentMatch(true) => String::new(),
            HeaderMatchSpecifier::StringMatch(test) => match test.match_pattern.as_ref().unwrap() {
                MatchPattern::Exact(text) => format!("={text}"),
                MatchPattern::Prefix(text) => format!("^{text}"),
                MatchPattern::Suffix(text) => format!("${text}"),
                MatchPattern::Contains(text) => format!("*{text}"),
                MatchPattern::SafeRegex(regex) => format!("~{}", regex.regex),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        };
        let not = if matcher.invert_match { "!" } else { "" };
        format!("{not}{}{test}", matcher.name)
    });
    words.collect()
}

#[test]
fn headers_are_compared_as_the_rule_says() {
    for (test, expected) in [
        (json!("a"), "x-a=a"),
        (json!(""), "x-a~(?:)"),
        (json!({"exact": "a.b"}), "x-a=a.b"),
        (json!({"oneOf": ["a.b", "c|d"]}), r"x-a~(?:a\.b|c\|d)"),
        (json!({"prefix": "a"}), "x-a^a"),
        (json!({"suffix": "a"}), "x-a$a"),
        (json!({"contains": "a"}), "x-a*a"),
        (json!({"regex": "a|b"}), "x-a~(?:a|b)"),
        (json!({"present": true}), "x-a~.*"),
        (json!({"absent": true}), "!x-a"),
    ] {
        let config = with_rule(json!({"headerMatchers": {"X-A": test.clone()}}));
        let matchers = headers(&config.routing.rules[0].header_matchers).unwrap();
        assert_eq!(words(&matchers), [expected], "{test}");
    }
}

#[test]
fn paths_are_compared_by_whole_segments() {
    for (fields, expected) in [
        (json!({}), &["^/"][..]),
        (json!({"pathPrefixes": ["/"]}), &["^/"]),
        (json!({"pathPrefixes": ["/a.B"]}), &["=/a.B", "^/a.B/"]),
        (json!({"pathPrefixes": ["/a.B/"]}), &["^/a.B/"]),
        (
            json!({"paths": [{"exact": "/a"}, {"regex": "/a|/b"}]}),
            &["=/a", "~(?:/a|/b)"],
        ),
    ] {
        let config = with_rule(fields.clone());
        let found = paths(&config.routing.rules[0].paths).unwrap();
        let found = found.iter().map(|path| match path {
            PathSpecifier::Path(path) => format!("={path}"),
            PathSpecifier::Prefix(prefix) => format!("^{prefix}"),
            PathSpecifier::SafeRegex(regex) => format!("~{}", regex.regex),
            other => panic!("{other:?}"),
        });
        assert_eq!(found.collect::<Vec<_>>(), expected, "{fields}");
    }
}

/// What calls with the key `k` to `host` look like by these sources, each way on its own.
#[track_caller]
fn check(sources: &Value, host: &str, expected: &[&[&str]]) {
    let config = config(json!({"routing": {"keySources": sources}}));
    let cases = key_cases(&config.routing, host);
    let found: Vec<Vec<String>> = cases
        .iter()
        .filter_map(|case| case.with("k"))
        .map(|matchers| words(&matchers))
        .collect();
    assert_eq!(found, expected, "{sources} {host}");
}

#[test]
fn a_source_counts_where_none_before_it_has_anything() {
    check(&json!([{"header": "X-A"}]), "d", &[&["x-a=k"]]);
    check(
        &json!([{"header": "X-A"}, {"header": "X-B"}]),
        "d",
        &[&["x-a=k"], &["!x-a", "x-b=k"]],
    );
    check(&json!([{"query": "q"}, {"header": "X-A"}]), "d", &[&["x-a=k"]]);
    // One that can't be compared may have a key all the same.
    check(
        &json!([{"header": "Authorization"}, {"header": "X-A"}]),
        "d",
        &[&["!authorization", "x-a=k"]],
    );
    check(
        &json!([{"baggage": "m"}, {"header": "X-A"}]),
        "d",
        &[&["!baggage", "x-a=k"], &["!baggage*m", "x-a=k"]],
    );
    check(&json!([{"cookie": "c"}, {"tracestate": "m"}]), "d", &[]);
}

#[test]
fn a_host_has_a_key_or_none() {
    let sources = json!([{"header": "X-A"}, {"host": "*.pre.example"}, {"header": "X-B"}]);
    check(&sources, "k.pre.example", &[&["x-a=k"], &["!x-a"]]);
    check(&sources, "other.pre.example", &[&["x-a=k"]]);
    check(&sources, "a.k.pre.example", &[&["x-a=k"], &["!x-a", "x-b=k"]]);
    check(&sources, ".pre.example", &[&["x-a=k"], &["!x-a", "x-b=k"]]);
    check(&sources, "d", &[&["x-a=k"], &["!x-a", "x-b=k"]]);
}

#[test]
fn many_sources_make_no_more_than_so_many_cases() {
    let cases = |members: usize| {
        let mut sources: Vec<Value> = (0..members)
            .map(|member| json!({"baggage": format!("m{member}")}))
            .collect();
        sources.push(json!({"header": "X-A"}));
        let config = config(json!({"routing": {"keySources": sources}}));
        key_cases(&config.routing, "d").len()
    };
    assert_eq!([0, 1, 2, 3, 4, 20].map(cases), [1, 2, 4, 8, 8, 8]);
}
