//! The names that gRPC clients may dial, and which calls to each go where.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use sidetrack_routing::{Host, HostPattern, KeySource, Target, ValidConfig};

use super::fit::{Fit, has_tls};
use super::left_out::{LeftOut, Reason};
use super::listener::listener;
use super::matching::{key_cases, label};
use super::route::{routes, shares, to_baseline};
use crate::render::resource::{Resource, ResourceSet};

/// The names, each as `HOST` and `HOST:PORT`: of the default targets, of hosts with a baseline of their own, of hosts that
/// rules are for, and of the hosts' baselines, which are dialed in place of their hosts.
pub(super) struct Names<'c> {
    config: &'c ValidConfig,
    views: BTreeMap<String, View<'c>>,
    /// What can't be dialed, and why.
    undialable: BTreeMap<String, Reason>,
}

/// What calls to a name look like to rules.
#[derive(Clone)]
struct View<'c> {
    /// The name without a port.
    host: String,
    /// The hosts whose place it takes, in lower case; a rule must be for each of them.
    stands_for: Vec<&'c str>,
    /// `None` is the default target.
    baseline: Option<&'c Target>,
}

impl<'c> Names<'c> {
    pub(super) fn new(config: &'c ValidConfig) -> Self {
        let mut names = Self {
            config,
            views: BTreeMap::new(),
            undialable: BTreeMap::new(),
        };
        let routing = &config.routing;
        let own = |host: String| View {
            baseline: routing.host_baseline(&host),
            stands_for: Vec::new(),
            host,
        };
        let mut hosts: BTreeSet<String> = routing
            .default_targets
            .iter()
            .map(|default| host_of(&default.target))
            .collect();
        hosts.extend(routing.hosts.keys().filter(|host| !host.starts_with('*')).cloned());
        let mut wildcards: Vec<String> = routing
            .hosts
            .keys()
            .filter(|host| host.starts_with('*'))
            .cloned()
            .collect();
        for pattern in routing.rules.iter().flat_map(|rule| &rule.hosts) {
            match pattern {
                HostPattern::Exact(host) => {
                    hosts.insert(host.clone());
                }
                HostPattern::OneLabelBefore(suffix) => wildcards.push(format!("*{suffix}")),
            }
        }
        wildcards.extend(routing.key_sources.iter().filter_map(|source| match source {
            KeySource::Host(suffix) => Some(format!("*{suffix}")),
            _ => None,
        }));
        names
            .undialable
            .extend(wildcards.into_iter().map(|name| (name, Reason::Wildcard)));
        for host in hosts {
            names.add(own(host), None);
        }
        let mut baselines: BTreeMap<&Target, Vec<&str>> = BTreeMap::new();
        for (host, baseline) in &routing.hosts {
            baselines.entry(baseline).or_default().push(host);
        }
        for (baseline, stands_for) in baselines {
            let view = View {
                host: host_of(baseline),
                stands_for,
                baseline: Some(baseline),
            };
            names.add(view, Some(baseline.port()));
        }
        names
    }

    /// With this port or, by default, those of its baseline.
    fn add(&mut self, view: View<'c>, port: Option<u16>) {
        let baselines = self.baselines_of(&view);
        let mut ports: BTreeSet<u16> = baselines.iter().map(|target| target.port()).collect();
        if let Some(port) = port {
            ports = [port].into();
        }
        let with_port = ports.iter().map(|port| format!("{}:{port}", view.host));
        let names: Vec<String> = std::iter::once(view.host.clone()).chain(with_port).collect();
        if let Some(target) = baselines.iter().find(|target| has_tls(self.config, target)) {
            self.undialable.insert(view.host, Reason::Tls((*target).clone()));
            return;
        }
        for name in names {
            self.views.entry(name).or_insert_with(|| view.clone());
        }
    }

    fn baselines_of(&self, view: &View<'c>) -> Vec<&'c Target> {
        match view.baseline {
            Some(baseline) => vec![baseline],
            None => shares(&self.config.routing.default_targets)
                .map(|weighted| &weighted.target)
                .collect(),
        }
    }

    /// Where calls to any name go without a rule.
    pub(super) fn baselines(&self) -> BTreeSet<&'c Target> {
        self.views.values().flat_map(|view| self.baselines_of(view)).collect()
    }

    /// Those that can't be dialed.
    pub(super) fn left_out(&self) -> impl Iterator<Item = LeftOut> {
        // What can't be dialed for one baseline may be for another.
        let undialable = self.undialable.iter();
        let undialable = undialable.filter(|(host, _)| !self.views.contains_key(*host));
        undialable.map(|(host, reason)| reason.of(format_args!("xds:///{host}")))
    }

    pub(super) fn listeners(&self, fits: &ByHost<'_, '_>) -> ResourceSet {
        let views = self.views.iter();
        views
            .map(|(name, view)| Resource::new(name, &listener(name, &self.routes_name(view, fits))))
            .collect()
    }

    /// Those that listeners name: one for all names of the same baseline that no rule tells from others.
    pub(super) fn routes(&self, fits: &ByHost<'_, '_>) -> ResourceSet {
        let mut rendered = BTreeMap::new();
        for view in self.views.values() {
            let name = self.routes_name(view, fits);
            rendered.entry(name).or_insert_with_key(|name| {
                let cases = key_cases(&self.config.routing, &view.host);
                let routes = routes(name, &fits.of(view), &cases, to_baseline(self.config, view.baseline));
                Resource::new(name, &routes)
            });
        }
        rendered.into_values().collect()
    }

    fn routes_name(&self, view: &View<'_>, fits: &ByHost<'_, '_>) -> String {
        let sources = &self.config.routing.key_sources;
        let has_key = |source: &KeySource| match source {
            KeySource::Host(suffix) => label(&view.host, suffix).is_some(),
            _ => false,
        };
        match view.baseline {
            _ if !fits.tells(view) && !sources.iter().any(has_key) => self.shared_name(view),
            Some(baseline) if !view.stands_for.is_empty() => format!("host/{baseline}"),
            _ => format!("host/{}", view.host),
        }
    }

    fn shared_name(&self, view: &View<'_>) -> String {
        match view.baseline {
            Some(baseline) => format!("baseline/{baseline}"),
            None => "baseline".to_owned(),
        }
    }
}

fn host_of(target: &Target) -> String {
    match target.host() {
        Host::Name(name) => name.clone(),
        Host::Ip(std::net::IpAddr::V6(ip)) => format!("[{ip}]"),
        Host::Ip(ip) => ip.to_string(),
    }
}

/// The rules, found by the hosts they are for.
pub(super) struct ByHost<'f, 'c> {
    fits: &'f [Fit<'c>],
    /// Places in `fits`, in order.
    for_any: Vec<usize>,
    exact: HashMap<&'f str, Vec<usize>>,
    below: HashMap<&'f str, Vec<usize>>,
}

impl<'f, 'c> ByHost<'f, 'c> {
    pub(super) fn new(fits: &'f [Fit<'c>]) -> Self {
        let mut by_host = Self {
            fits,
            for_any: Vec::new(),
            exact: HashMap::new(),
            below: HashMap::new(),
        };
        for (place, fit) in fits.iter().enumerate() {
            if fit.rule.hosts.is_empty() {
                by_host.for_any.push(place);
            }
            for pattern in &fit.rule.hosts {
                let places = match pattern {
                    HostPattern::Exact(host) => by_host.exact.entry(host).or_default(),
                    HostPattern::OneLabelBefore(suffix) => by_host.below.entry(suffix).or_default(),
                };
                places.push(place);
            }
        }
        by_host
    }

    /// Whether any rule is for calls to this name and not for all calls.
    fn tells(&self, view: &View<'_>) -> bool {
        !self.told(view).is_empty()
    }

    fn told(&self, view: &View<'_>) -> BTreeSet<usize> {
        if view.stands_for.is_empty() {
            return self.of_host(&view.host);
        }
        let hosts = view.stands_for.iter().map(|host| self.of_host(host));
        hosts.reduce(|all, these| &all & &these).unwrap_or_default()
    }

    fn of_host(&self, host: &str) -> BTreeSet<usize> {
        let exact = self.exact.get(host);
        let suffix = host.find('.').filter(|dot| *dot > 0).and_then(|dot| host.get(dot..));
        // A host that is a wildcard itself is more than the one label of a rule's.
        let suffix = suffix.filter(|_| !host.starts_with('*'));
        let below = suffix.and_then(|suffix| self.below.get(suffix));
        exact.into_iter().chain(below).flatten().copied().collect()
    }

    /// The rules for calls to this name, in order.
    fn of(&self, view: &View<'_>) -> Vec<&'f Fit<'c>> {
        let mut places = self.told(view);
        places.extend(&self.for_any);
        places.into_iter().filter_map(|place| self.fits.get(place)).collect()
    }
}

#[cfg(test)]
#[path = "names_tests.rs"]
mod tests;
