//! What we want to reach, and whether we do.

use crate::arms::{Arm, Listener, Logs, MAIN_SIZE, Requests, Source};
use crate::report::text::{count, difference};
use crate::results::{Measured, Results, Update};
use crate::sandboxes::Kind;

/// One thing that we want.
pub(crate) struct Target {
    /// What it is about.
    pub(crate) what: &'static str,
    /// What we want.
    pub(crate) wanted: &'static str,
    /// What is so; `None` if it isn't measured.
    pub(crate) found: Option<Found>,
}

/// What is so.
pub(crate) struct Found {
    /// The figure.
    pub(crate) text: String,
    /// Whether it is as wanted.
    pub(crate) reached: bool,
}

/// All of them.
pub(crate) fn targets(results: &Results) -> Vec<Target> {
    let measured = results
        .instructions
        .as_ref()
        .map(|section| Instructions(&section.figures));
    let measured = measured.unwrap_or(Instructions(&[]));
    let updates = results.updates.as_ref().map(|section| &section.figures);
    let largest = updates.and_then(|updates| updates.sizes.iter().find(|update| update.rules == 100_000));
    let many = updates.and_then(|updates| updates.many.as_ref());
    let until_routable = updates.and_then(|updates| updates.until_routable.as_ref());
    let agent = updates.and_then(|updates| updates.agent_memory);
    let module = results.module.as_ref();
    let wake_ups = updates.and_then(|updates| updates.agent_wake_ups);
    let target = |what, wanted, found| Target { what, wanted, found };
    vec![
        target(
            "no key, without metrics: ours / the plain listener",
            "≤ 1.03",
            measured.keyless(),
        ),
        target(
            "routed by key alone: ours / the floor, added for the key",
            "≤ 1.25",
            measured.floor(),
        ),
        target(
            "routed by key and path: added for the key",
            "≤ 42,000",
            measured.key_and_path(),
        ),
        target("unknown key: added for the key", "≤ 30,000", measured.unknown_key()),
        target("routed by key: 100,000 sandboxes / 10", "≤ 1.01", measured.growth()),
        target(
            "header-match routes / ours, added: 1,000 sandboxes",
            "≥ 15",
            measured.header_routes(1_000, 15.0),
        ),
        target(
            "header-match routes / ours, added: 10,000 sandboxes",
            "≥ 150",
            measured.header_routes(10_000, 150.0),
        ),
        target(
            "Lua with the same rules and the same matching",
            "dearer",
            measured.lua(),
        ),
        target("no key: with metrics / without", "≤ 1.05", measured.metrics()),
        target(
            "update of 100,000 rules: block per VM",
            "≤ 5 ms",
            largest.map(|update| at_most(update.block / 1_000.0, 5.0, " ms")),
        ),
        target(
            "100,000 rules: memory in Envoy per VM / the table's bytes",
            "≤ 1.5",
            largest.map(memory_per_vm),
        ),
        target(
            "accepted by the API → routable, 10,000 rules",
            "p50 ≤ 10 ms, p99 ≤ 25 ms",
            until_routable.map(|times| {
                found(
                    format!("{:.1} ms, {:.1} ms", times.p50, times.p99),
                    times.p50 <= 10.0 && times.p99 <= 25.0,
                )
            }),
        ),
        target(
            "≥ 1,000 table updates under load",
            "0 failed or misrouted",
            many.map(|many| {
                let text = format!("{} of {}", many.wrong, count(many.requests as f64));
                found(text, many.updates >= 1_000 && many.wrong == 0)
            }),
        ),
        target(
            "10,000 table updates: Envoy's memory after / before",
            "≤ 1.05",
            many.and_then(|many| {
                (many.updates >= 10_000)
                    .then(|| at_most(many.memory_after as f64 / many.memory_before as f64, 1.05, ""))
            }),
        ),
        target(
            "agent: memory at 10,000 rules",
            "≤ 60 MB",
            agent.map(|bytes| at_most(bytes as f64 / 1e6, 60.0, " MB")),
        ),
        target(
            "agent: wake-ups per second while nothing changes",
            "≤ 1",
            wake_ups.map(|wake_ups| at_most(wake_ups, 1.0, "")),
        ),
        target(
            "the filter's module: size",
            "≤ 200 KB",
            module.map(|module| at_most(module.figures.bytes as f64 / 1e3, 200.0, " KB")),
        ),
    ]
}

fn found(text: String, reached: bool) -> Found {
    Found { text, reached }
}

fn at_most(value: f64, limit: f64, unit: &str) -> Found {
    let digits = if limit < 2.0 { 3 } else { 1 };
    found(format!("{value:.digits$}{unit}"), value <= limit)
}

fn memory_per_vm(update: &Update) -> Found {
    at_most(update.memory_per_vm / update.bytes as f64, 1.5, "")
}

/// Instructions for each request, by arm.
struct Instructions<'m>(&'m [Measured]);

impl Instructions<'_> {
    fn keyless(&self) -> Option<Found> {
        let ours = self.of(Listener::ours(MAIN_SIZE), Requests::Keyless)?;
        Some(at_most(ours / self.plain()?, 1.03, ""))
    }

    fn floor(&self) -> Option<Found> {
        let floor = self.for_the_key(Listener::Floor, Requests::Routed(Kind::KeyWithoutFallback))?;
        let [with, without] = [Kind::Key, Kind::KeyWithoutFallback]
            .map(|kind| Some(self.for_the_key(Listener::ours(MAIN_SIZE), Requests::Routed(kind))? / floor));
        let (with, without) = (with?, without?);
        Some(found(format!("{with:.2}; {without:.2} without fallback"), with <= 1.25))
    }

    fn key_and_path(&self) -> Option<Found> {
        let added = self.for_the_key(Listener::ours(MAIN_SIZE), Requests::Routed(Kind::KeyAndPath))?;
        Some(found(difference(added), added <= 42_000.0))
    }

    fn unknown_key(&self) -> Option<Found> {
        let added = self.for_the_key(Listener::ours(MAIN_SIZE), Requests::Unknown)?;
        Some(found(difference(added), added <= 30_000.0))
    }

    fn growth(&self) -> Option<Found> {
        let [few, many] = [10, 100_000].map(|size| self.of(Listener::ours(size), Requests::Routed(Kind::Key)));
        Some(at_most(many? / few?, 1.01, ""))
    }

    /// Both ways have to look at all that there is for a key that nobody has; a route that is hit is, on average, found
    /// half way.
    fn header_routes(&self, size: usize, wanted: f64) -> Option<Found> {
        let [unknown, hit] = [Requests::Unknown, Requests::Routed(Kind::Key)].map(|requests| {
            Some(self.added(Listener::HeaderRoutes(size), requests)? / self.added(Listener::ours(size), requests)?)
        });
        let (unknown, hit) = (unknown?, hit?);
        Some(found(
            format!("{unknown:.1} for unknown keys, {hit:.1} for routed ones"),
            unknown >= wanted,
        ))
    }

    fn lua(&self) -> Option<Found> {
        let requests = Kind::ALL.map(Requests::Routed).into_iter().chain([Requests::Unknown]);
        let ratios: Option<Vec<f64>> = requests
            .map(|requests| {
                let lua = self.for_the_key(Listener::Lua(MAIN_SIZE), requests)?;
                Some(lua / self.for_the_key(Listener::ours(MAIN_SIZE), requests)?)
            })
            .collect();
        let ratios = ratios?;
        let (least, most) = ratios.iter().fold((f64::MAX, f64::MIN), |(least, most), ratio| {
            (least.min(*ratio), most.max(*ratio))
        });
        Some(found(
            format!("Lua / ours, added for the key: {least:.2} to {most:.2}"),
            least > 1.0,
        ))
    }

    fn metrics(&self) -> Option<Found> {
        let with = Listener::Ours {
            sandboxes: MAIN_SIZE,
            source: Source::Header,
            logs: Logs::METRICS,
        };
        let [with, without] = [with, Listener::ours(MAIN_SIZE)].map(|listener| self.of(listener, Requests::Keyless));
        Some(at_most(with? / without?, 1.05, ""))
    }

    fn plain(&self) -> Option<f64> {
        self.of(Listener::Plain, Requests::Keyless)
    }

    fn of(&self, listener: Listener, requests: Requests) -> Option<f64> {
        let arm = Arm { listener, requests }.to_string();
        Some(self.0.iter().find(|measured| measured.arm == arm)?.median)
    }

    /// Beyond the plain listener's.
    fn added(&self, listener: Listener, requests: Requests) -> Option<f64> {
        Some(self.of(listener, requests)? - self.plain()?)
    }

    /// Beyond those of the same listener's request without a key.
    fn for_the_key(&self, listener: Listener, requests: Requests) -> Option<f64> {
        Some(self.of(listener, requests)? - self.of(listener, Requests::Keyless)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arms::{Extent, arms};
    use crate::results::{Conditions, Section};

    #[test]
    fn the_full_form_measures_what_they_need_of_instructions() {
        let measured = arms(Extent::Full).into_iter().map(|arm| Measured::new(arm, vec![1.0]));
        let results = Results {
            instructions: Some(Section::new(Conditions::now([]), measured.collect())),
            ..Results::default()
        };
        let missing = targets(&results).iter().filter(|target| target.found.is_none()).count();
        assert_eq!(missing, 8, "those that aren't about instructions");
    }
}
