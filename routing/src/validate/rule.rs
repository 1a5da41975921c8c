//! The rules.

use std::collections::{BTreeMap, BTreeSet};
use std::time::UNIX_EPOCH;

use super::Check;
use crate::matchers::{HostPattern, Method, PathTest, Pattern, ValueTest};
use crate::names::{HeaderName, HeaderValue, PathPrefix, RouteKey, Target};
use crate::problem::Path;
use crate::valid::{Sticky, ValidMirror, ValidRule, WeightedTarget};
use crate::wire::{self, Fallback, ValueMatcher};

/// What metrics call the requests that no rule routes.
const BASELINE: &str = "baseline";

impl Check {
    /// Those of `rules` that are right, where there are rules with these names already.
    pub(super) fn rules_after(
        &mut self,
        names: impl Iterator<Item = Named>,
        rules: &[wire::Rule],
        path: &Path,
    ) -> Vec<ValidRule> {
        let mut names: BTreeMap<Named, usize> = names.map(|name| (name, 1)).collect();
        for (index, rule) in rules.iter().enumerate() {
            let valid = |name: &String| (1..=128).contains(&name.len()) && !name.chars().any(char::is_control);
            if !rule.name.as_ref().is_none_or(valid) {
                let message = "must be 1 to 128 characters without control characters";
                self.problem(path.index(index).key("name"), message);
            } else if rule.name.as_deref() == Some(BASELINE) {
                let message = "must not be `baseline`: metrics call so what no rule routes";
                self.problem(path.index(index).key("name"), message);
            }
        }
        rules
            .iter()
            .enumerate()
            .filter_map(|(index, rule)| self.rule(rule, &path.index(index), &mut names))
            .collect()
    }

    fn rule(&mut self, rule: &wire::Rule, path: &Path, names: &mut BTreeMap<Named, usize>) -> Option<ValidRule> {
        let route_key = self.ok(path.key("routeKey"), RouteKey::parse(&rule.route_key));
        let targets = self.targets(rule, path);
        let sticky_by = rule
            .sticky_by
            .as_ref()
            .and_then(|sticky| self.sticky(sticky, &path.key("stickyBy")));
        let hosts = self.each(&rule.hosts, &path.key("hosts"), HostPattern::parse);
        let methods = self.each(&rule.methods, &path.key("methods"), Method::parse);
        let paths = self.paths(rule, path);
        let header_matchers = self.header_matchers(&rule.header_matchers, &path.key("headerMatchers"));
        let query_matchers = self.query_matchers(&rule.query_matchers, &path.key("queryMatchers"));
        let additional_headers = self.additional_headers(&rule.additional_headers, &path.key("additionalHeaders"));
        let remove_headers = self.remove_headers(&rule.remove_headers, &additional_headers, &path.key("removeHeaders"));
        let mirror = rule
            .mirror
            .as_ref()
            .and_then(|mirror| self.mirror(mirror, &path.key("mirror")));
        let expires_at = rule
            .expires_at
            .as_ref()
            .and_then(|time| self.time(time, path.key("expiresAt")));
        let (route_key, targets) = (route_key?, targets?);
        let name = match (&rule.name, targets.first()) {
            (None, Some(first)) => derived_name(&route_key, &first.target, names),
            (name, _) => {
                let name = name.clone().unwrap_or_default();
                names.entry((rule.route_key.clone(), name.clone())).or_insert(1);
                name
            }
        };
        Some(ValidRule {
            name,
            is_named: rule.name.is_some(),
            route_key,
            targets,
            sticky_by,
            hosts,
            paths,
            methods,
            header_matchers,
            query_matchers,
            additional_headers,
            remove_headers,
            falls_back: rule.fallback == Fallback::Baseline,
            host_baseline: None,
            mirror,
            expires_at,
        })
    }

    fn targets(&mut self, rule: &wire::Rule, path: &Path) -> Option<Vec<WeightedTarget>> {
        match (&rule.target_service, &rule.targets) {
            (Some(target), None) => self
                .ok(path.key("targetService"), Target::parse(target))
                .map(|target| vec![WeightedTarget { target, weight: 1 }]),
            (None, Some(targets)) => self.weighted_targets(targets, &path.key("targets")),
            (None, None) => {
                self.problem(path.clone(), "`targetService` is missing, or `targets` for several");
                None
            }
            (Some(_), Some(_)) => {
                self.problem(
                    path.key("targets"),
                    "is given beside `targetService`: leave one of them out",
                );
                None
            }
        }
    }

    fn sticky(&mut self, sticky: &wire::StickyBy, path: &Path) -> Option<Sticky> {
        match (&sticky.header, &sticky.cookie, sticky.route_key) {
            (Some(name), None, None) => self.ok(path.key("header"), HeaderName::parse(name)).map(Sticky::Header),
            (None, Some(name), None) => self.member_name(name, path.key("cookie")).map(Sticky::Cookie),
            (None, None, Some(true)) => Some(Sticky::RouteKey),
            _ => {
                self.problem(
                    path.clone(),
                    "must have exactly one of header: NAME, cookie: NAME, routeKey: true",
                );
                None
            }
        }
    }

    fn paths(&mut self, rule: &wire::Rule, path: &Path) -> Vec<PathTest> {
        let prefixes = self.each(&rule.path_prefixes, &path.key("pathPrefixes"), |prefix| {
            PathPrefix::parse(prefix).map(PathTest::Prefix)
        });
        let mut paths = prefixes;
        for (index, matcher) in rule.paths.iter().enumerate() {
            let path = path.key("paths").index(index);
            let test = match (&matcher.exact, &matcher.prefix, &matcher.regex) {
                (Some(exact), None, None) => {
                    // The same characters can't be in a path, whether it is a prefix or the whole.
                    self.ok(path.key("exact"), PathPrefix::parse(exact))
                        .map(|exact| PathTest::Exact(exact.as_str().to_owned()))
                }
                (None, Some(prefix), None) => self
                    .ok(path.key("prefix"), PathPrefix::parse(prefix))
                    .map(PathTest::Prefix),
                (None, None, Some(regex)) => self.ok(path.key("regex"), Pattern::parse(regex)).map(PathTest::Regex),
                _ => {
                    self.problem(path, "must have exactly one of exact, prefix, regex");
                    None
                }
            };
            paths.extend(test);
        }
        paths
    }

    fn header_matchers(
        &mut self,
        matchers: &BTreeMap<String, ValueMatcher>,
        path: &Path,
    ) -> Vec<(HeaderName, ValueTest)> {
        let mut valid = BTreeMap::new();
        for (name, matcher) in matchers {
            let path = path.key(name);
            let parsed = self.ok(path.clone(), HeaderName::parse(name));
            let test = self.value_test(matcher, &path, &|text| {
                HeaderValue::parse(text).map(|_| ()).map_err(|e| e.to_string())
            });
            let (Some(parsed), Some(test)) = (parsed, test) else {
                continue;
            };
            if valid.insert(parsed, test).is_some() {
                self.problem(
                    path,
                    "is given twice: upper and lower case make no difference in a header's name",
                );
            }
        }
        valid.into_iter().collect()
    }

    fn query_matchers(&mut self, matchers: &BTreeMap<String, ValueMatcher>, path: &Path) -> Vec<(String, ValueTest)> {
        let mut valid = Vec::new();
        for (name, matcher) in matchers {
            let path = path.key(name);
            let parsed = self.member_name(name, path.clone());
            let test = self.value_test(matcher, &path, &|text| match text.len() {
                ..=256 => Ok(()),
                length => Err(format!(
                    "the value has {length} bytes, a parameter is compared up to 256"
                )),
            });
            valid.extend(parsed.zip(test));
        }
        valid
    }

    fn value_test(
        &mut self,
        matcher: &ValueMatcher,
        path: &Path,
        check: &dyn Fn(&str) -> Result<(), String>,
    ) -> Option<ValueTest> {
        const FORMS: &str =
            "must have exactly one of exact, prefix, suffix, contains, regex, present: true, absent: true, oneOf";
        let form = match matcher {
            ValueMatcher::Exact(value) => {
                self.ok(path.clone(), check(value))?;
                return Some(ValueTest::OneOf(vec![value.clone()]));
            }
            ValueMatcher::Form(form) => form,
        };
        let wire::ValueForm {
            exact,
            prefix,
            suffix,
            contains,
            regex,
            present,
            absent,
            one_of,
        } = form;
        let parts = [("prefix", prefix), ("suffix", suffix), ("contains", contains)];
        let given = parts.iter().filter(|(_, part)| part.is_some()).count()
            + usize::from(exact.is_some())
            + usize::from(regex.is_some())
            + usize::from(present.is_some())
            + usize::from(absent.is_some())
            + usize::from(one_of.is_some());
        if given != 1 || *present == Some(false) || *absent == Some(false) {
            self.problem(path.clone(), FORMS);
            return None;
        }
        if let Some(regex) = regex {
            return self.ok(path.key("regex"), Pattern::parse(regex)).map(ValueTest::Regex);
        }
        if let Some(values) = one_of {
            let path = path.key("oneOf");
            if values.is_empty() {
                self.problem(path, "is empty: list at least one value");
                return None;
            }
            let checked = values
                .iter()
                .enumerate()
                .map(|(index, value)| self.ok(path.index(index), check(value)));
            let all_right = checked.collect::<Vec<_>>().iter().all(Option::is_some);
            return all_right.then(|| ValueTest::OneOf(values.clone()));
        }
        if let Some(value) = exact {
            self.ok(path.key("exact"), check(value))?;
            return Some(ValueTest::OneOf(vec![value.clone()]));
        }
        for (field, part) in parts {
            let Some(part) = part else { continue };
            let path = path.key(field);
            if part.is_empty() {
                self.problem(path, "is empty, which every value matches: write present: true");
                return None;
            }
            return match field {
                "prefix" => Some(ValueTest::Prefix(part.clone())),
                "suffix" => Some(ValueTest::Suffix(part.clone())),
                _ => Some(ValueTest::Contains(part.clone())),
            };
        }
        Some(if present.is_some() {
            ValueTest::Present
        } else {
            ValueTest::Absent
        })
    }

    fn additional_headers(
        &mut self,
        headers: &BTreeMap<String, String>,
        path: &Path,
    ) -> Vec<(HeaderName, HeaderValue)> {
        let mut valid = BTreeMap::new();
        for (name, value) in headers {
            let path = path.key(name);
            let parsed = self.ok(path.clone(), HeaderName::parse(name));
            let value = self.ok(path.clone(), HeaderValue::parse(value));
            let (Some(parsed), Some(value)) = (parsed, value) else {
                continue;
            };
            if valid.insert(parsed, value).is_some() {
                self.problem(
                    path,
                    "is given twice: upper and lower case make no difference in a header's name",
                );
            }
        }
        valid.into_iter().collect()
    }

    fn remove_headers(
        &mut self,
        names: &[String],
        additional: &[(HeaderName, HeaderValue)],
        path: &Path,
    ) -> Vec<HeaderName> {
        let mut valid = BTreeSet::new();
        for (index, name) in names.iter().enumerate() {
            let path = path.index(index);
            let Some(name) = self.ok(path.clone(), HeaderName::parse(name)) else {
                continue;
            };
            if additional.iter().any(|(set, _)| *set == name) {
                self.problem(path, "is set by additionalHeaders, too: leave it out of one of them");
            } else if !valid.insert(name) {
                self.problem(path, "is listed twice: leave one out");
            }
        }
        valid.into_iter().collect()
    }

    fn mirror(&mut self, mirror: &wire::Mirror, path: &Path) -> Option<ValidMirror> {
        let target = self.ok(path.key("service"), Target::parse(&mirror.service));
        let per_million = self.per_million(mirror.percent, path.key("percent"))?;
        Some(ValidMirror {
            target: target?,
            per_million,
        })
    }

    pub(super) fn per_million(&mut self, percent: f64, path: Path) -> Option<u32> {
        if !(0.0..=100.0).contains(&percent) {
            self.problem(path, format!("is {percent}, must be a number from 0 to 100"));
            return None;
        }
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is between 0 and 1,000,000"
        )]
        Some((percent * 10_000.0).round() as u32)
    }

    fn time(&mut self, text: &str, path: Path) -> Option<u64> {
        let time = humantime::parse_rfc3339(text)
            .ok()
            .and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let time = time.and_then(|since| u64::try_from(since.as_millis()).ok());
        if time.is_none() {
            self.problem(
                path,
                format!("{text:?} is no time, must be in UTC as 2026-12-01T00:00:00Z"),
            );
        }
        time
    }

    /// Each element, checked.
    pub(super) fn each<T, E: std::fmt::Display>(
        &mut self,
        texts: &[String],
        path: &Path,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Vec<T> {
        texts
            .iter()
            .enumerate()
            .filter_map(|(index, text)| self.ok(path.index(index), parse(text)))
            .collect()
    }
}

/// A key and the name of one of its rules.
pub(super) type Named = (String, String);

/// `KEY@TARGET`, and `#2`, `#3`, … where a rule before it of the same key has that name: the same on every start and every
/// agent, whatever other keys there are and whatever rules follow.
fn derived_name(key: &RouteKey, target: &Target, names: &mut BTreeMap<Named, usize>) -> String {
    let of_key = |name: &str| (key.as_str().to_owned(), name.to_owned());
    let base = format!("{}@{target}", key.as_str());
    let mut count = names.get(&of_key(&base)).copied().unwrap_or(0) + 1;
    let mut name = if count == 1 {
        base.clone()
    } else {
        format!("{base}#{count}")
    };
    while count > 1 && names.contains_key(&of_key(&name)) {
        count += 1;
        name = format!("{base}#{count}");
    }
    names.insert(of_key(&base), count);
    names.entry(of_key(&name)).or_insert(1);
    name
}
