//! The configuration of gRPC clients that route by themselves (`xds:///NAME`), without any proxy.
//!
//! They get rules as routes: the route key is a header matcher, what a rule compares are matchers beside it, its targets
//! are clusters. A gRPC client runs no filter, so a rule with more in it than that is left out, and says why: a client
//! that can't tell its requests from others, or can't do to them what the rule says, sends them to the baseline. No rule
//! is ever made to match more than it says. `docs/grpc-clients.md` has the whole list.

mod cluster;
mod fit;
mod listener;
mod matching;
mod names;
mod regex;
mod route;

use schemars::JsonSchema;
use serde::Serialize;
use sidetrack_routing::ValidConfig;

use super::resource::{ResourceSet, ResourceType};
use cluster::Clusters;
use fit::{Fit, Reason, fit};
use names::{ByHost, Names};

/// Resources, one set of each type.
type Resources = [ResourceSet; ResourceType::ALL.len()];

/// What all gRPC clients are to have.
pub(super) struct Rendered {
    pub(super) resources: Resources,
    /// What isn't in there, in the order of the rules.
    pub(super) left_out: Vec<LeftOut>,
}

/// Something that gRPC clients don't get.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LeftOut {
    /// Of this rule; or of this name, such as `xds:///shop`, that no client can dial.
    pub name: String,
    /// What and why.
    pub reason: String,
}

/// Renders `config` as of this time, in milliseconds since 1970: clients can't tell when a rule expires, so those that
/// have are left out. [`next_expiry`] says when that changes. Of `known`, rendered from a configuration that differs in
/// nothing but rules, what is the same is taken.
pub(super) fn render(config: &ValidConfig, now: u64, known: Option<&Resources>) -> Rendered {
    let mut left_out = Vec::new();
    let has_key = config.routing.key_sources.iter().any(matching::is_comparable);
    let mut fits: Vec<Fit<'_>> = Vec::new();
    for rule in &config.routing.rules {
        if rule.expires_at.is_some_and(|time| time <= now) {
            continue;
        }
        let mut note = |reason: &Reason| {
            left_out.push(LeftOut {
                name: rule.name.clone(),
                reason: reason.to_string(),
            });
        };
        if rule.mirror.is_some() {
            note(&Reason::Mirror);
        }
        match fit(rule, config).and_then(|fit| has_key.then_some(fit).ok_or(Reason::KeySources)) {
            Ok(fit) => fits.push(fit),
            Err(reason) => note(&reason),
        }
    }
    let names = Names::new(config);
    left_out.extend(names.left_out());
    let by_host = ByHost::new(&fits);
    let mut resources = Resources::default();
    let mut clusters = Clusters::new(config, known);
    for fit in &fits {
        clusters.add_of_rule(fit.rule);
    }
    for target in names.baselines() {
        clusters.add(target);
    }
    (
        resources[ResourceType::Cluster as usize],
        resources[ResourceType::Endpoints as usize],
    ) = clusters.rendered();
    resources[ResourceType::Listener as usize] = names.listeners(&by_host);
    resources[ResourceType::Route as usize] = names.routes(&by_host);
    Rendered { resources, left_out }
}

/// When, in milliseconds since 1970, the first of the rules expires that haven't yet: until then `render` gives the same.
pub fn next_expiry(config: &ValidConfig, now: u64) -> Option<u64> {
    let times = config.routing.rules.iter().filter_map(|rule| rule.expires_at);
    times.filter(|time| *time > now).min()
}
