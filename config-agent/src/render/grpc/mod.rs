//! The configuration of gRPC clients that route by themselves (`xds:///NAME`), without any proxy.
//!
//! They get rules as routes: the route key is a header matcher, what a rule compares are matchers beside it, its targets
//! are clusters. A gRPC client runs no filter, so a rule with more in it than that is left out, and says why: a client
//! that can't tell its requests from others, or can't do to them what the rule says, sends them to the baseline. No rule
//! is ever made to match more than it says. `docs/grpc-clients.md` has the whole list.

mod cluster;
mod fit;
mod left_out;
mod listener;
mod matching;
mod names;
mod regex;
mod route;

use sidetrack_routing::ValidConfig;

use super::resource::{ResourceSet, ResourceType};
use cluster::Clusters;
use fit::{Fit, fit};
pub use left_out::LeftOut;
use left_out::Reason;
use names::{ByHost, Names};

/// Resources, one set of each type.
type Resources = [ResourceSet; ResourceType::ALL.len()];

/// What all gRPC clients are to have.
pub(super) struct Rendered {
    pub(super) resources: Resources,
    /// What isn't in there: of the routing as a whole, of rules in their order, of names, of targets.
    pub(super) left_out: Vec<LeftOut>,
    /// When, in milliseconds since 1970, the first of the rules expires that are in there: until then `render` gives the same.
    pub(super) expiry: Option<u64>,
}

/// Renders `config` as of this time, in milliseconds since 1970: clients can't tell when a rule expires, so those that
/// have are left out. Of `known`, rendered from a configuration that differs in nothing but rules, what is the same is
/// taken.
pub(super) fn render(config: &ValidConfig, now: u64, known: Option<&Resources>) -> Rendered {
    let mut left_out = left_out::of_routing(config);
    let has_key = config.routing.key_sources.iter().any(matching::is_comparable);
    let mut fits: Vec<Fit<'_>> = Vec::new();
    for rule in &config.routing.rules {
        if rule.expires_at.is_some_and(|time| time <= now) {
            continue;
        }
        match fit(rule, config).and_then(|fit| has_key.then_some(fit).ok_or(Reason::KeySources)) {
            Ok(fit) => {
                left_out.extend(fit.without.iter().map(|reason| reason.of(&rule.name)));
                fits.push(fit);
            }
            Err(reason) => left_out.push(reason.of(&rule.name)),
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
    left_out.extend(left_out::of_targets(config, clusters.targets()));
    (
        resources[ResourceType::Cluster as usize],
        resources[ResourceType::Endpoints as usize],
    ) = clusters.rendered();
    resources[ResourceType::Listener as usize] = names.listeners(&by_host);
    resources[ResourceType::Route as usize] = names.routes(&by_host);
    let expiry = fits.iter().filter_map(|fit| fit.rule.expires_at).min();
    Rendered {
        resources,
        left_out,
        expiry,
    }
}

#[cfg(test)]
mod tests;
