//! `routing.hosts`: hosts with a baseline of their own.

use std::collections::{BTreeMap, BTreeSet};

use super::Check;
use crate::matchers::HostPattern;
use crate::names::Target;
use crate::problem::Path;
use crate::valid::ValidRule;

impl Check {
    pub(super) fn hosts(&mut self, hosts: &BTreeMap<String, String>, path: &Path) -> BTreeMap<String, Target> {
        let mut valid = BTreeMap::new();
        for (host, target) in hosts {
            let path = path.key(host);
            let host = match self.ok(path.clone(), HostPattern::parse(host)) {
                Some(HostPattern::Exact(host)) => Some(host),
                Some(HostPattern::OneLabelBefore(suffix)) => Some(format!("*{suffix}")),
                None => None,
            };
            let target = self.ok(path.clone(), Target::parse(target));
            let (Some(host), Some(target)) = (host, target) else {
                continue;
            };
            if valid.insert(host, target).is_some() {
                self.problem(
                    path,
                    "is given twice: upper and lower case make no difference in a host's name",
                );
            }
        }
        valid
    }

    /// The baseline that `rule` falls back to, if it isn't the default target. A rule for hosts of several baselines would
    /// have to fall back to one for some requests and to another for others.
    pub(super) fn host_baseline(
        &mut self,
        rule: &ValidRule,
        hosts: &BTreeMap<String, Target>,
        path: &Path,
    ) -> Option<Target> {
        if !rule.falls_back || hosts.is_empty() {
            return None;
        }
        let baselines = baselines(&rule.hosts, hosts);
        let mut found = baselines.iter();
        match (found.next(), found.next()) {
            (Some(only), None) => only.cloned(),
            _ => {
                let names = baselines
                    .iter()
                    .map(|baseline| baseline.map_or("the default target".to_owned(), ToString::to_string));
                let message = format!(
                    "is for hosts of several baselines, {}, and can fall back to one only: give it `hosts` of one of them, \
                     or `fallback: none`",
                    names.collect::<Vec<_>>().join(" and ")
                );
                self.problem(path.clone(), message);
                None
            }
        }
    }
}

/// The baselines of the hosts that one of `patterns` matches; `None` is the default target.
fn baselines<'h>(patterns: &[HostPattern], hosts: &'h BTreeMap<String, Target>) -> BTreeSet<Option<&'h Target>> {
    if patterns.is_empty() {
        return hosts.values().map(Some).chain([None]).collect();
    }
    let mut found = BTreeSet::new();
    for pattern in patterns {
        match pattern {
            HostPattern::Exact(host) => {
                found.insert(hosts.get(host).or_else(|| below(host, hosts)));
            }
            HostPattern::OneLabelBefore(suffix) => {
                found.insert(hosts.get(&format!("*{suffix}")).or_else(|| below(suffix, hosts)));
                let named = hosts.iter().filter(|(host, _)| {
                    let label = host.strip_suffix(suffix.as_str());
                    label.is_some_and(|label| !label.is_empty() && !label.contains(['.', '*']))
                });
                found.extend(named.map(|(_, baseline)| Some(baseline)));
            }
        }
    }
    found
}

/// The baseline of the longest wildcard that `host` is below.
fn below<'h>(host: &str, hosts: &'h BTreeMap<String, Target>) -> Option<&'h Target> {
    let dots = host
        .char_indices()
        .filter(|(index, character)| *character == '.' && *index > 0);
    let mut suffixes = dots.filter_map(|(index, _)| host.get(index..));
    suffixes.find_map(|suffix| hosts.get(&format!("*{suffix}")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::decode::decode;
    use crate::validate::validate_routing;

    /// The cluster of a rule with these hosts, or what is wrong.
    fn cluster(rule_hosts: &[&str]) -> String {
        let routing = json!({
            "defaultTarget": "d",
            "hosts": {"Shop.example": "shop", "*.example": "any", "*.deep.example": "deep", "a.pre.example": "pre"},
            "rules": [{"routeKey": "k", "targetService": "t", "hosts": rule_hosts}],
        });
        match decode(&routing, validate_routing) {
            Ok(routing) => {
                let rule = &routing.rules[0];
                rule.cluster(&rule.targets[0].target, &routing)
            }
            Err(problems) => problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
        }
    }

    #[test]
    fn a_rule_falls_back_to_the_baseline_of_its_hosts() {
        for (hosts, expected) in [
            (&["shop.example"][..], "t:80|shop:80"),
            (&["other.example"], "t:80|any:80"),
            (&["x.y.deep.example"], "t:80|deep:80"),
            (&["*.deep.example"], "t:80|deep:80"),
            (&["*.nested.deep.example"], "t:80|deep:80"),
            (&["elsewhere.test"], "t:80|baseline"),
            (&["example"], "t:80|baseline"),
            (&["a.deep.example", "b.deep.example"], "t:80|deep:80"),
        ] {
            assert_eq!(cluster(hosts), expected, "{hosts:?}");
        }
    }

    #[test]
    fn a_rule_for_hosts_of_several_baselines_is_refused() {
        for (hosts, names) in [
            (
                &[][..],
                "the default target and any:80 and deep:80 and pre:80 and shop:80",
            ),
            (&["*.example"], "any:80 and shop:80"),
            (&["*.pre.example"], "any:80 and pre:80"),
            (&["shop.example", "elsewhere.test"], "the default target and shop:80"),
        ] {
            let said = cluster(hosts);
            assert!(
                said.starts_with(&format!("rules[0]: is for hosts of several baselines, {names}, ")),
                "{hosts:?}: {said}"
            );
        }
    }
}
