//! The plots of docs/benchmarks.md.

use super::plot::{Line, Plot};
use crate::arms::{Arm, Listener, Logs, Requests, Source};
use crate::results::{Measured, Results, Update};
use crate::sandboxes::Kind;

/// The file of each plot that there are figures for, and what is in it.
pub(super) fn plots(results: &Results) -> Vec<(&'static str, String)> {
    let mut plots = Vec::new();
    if let Some(section) = &results.instructions {
        plots.extend(of_requests(&section.figures));
    }
    if let Some(section) = &results.updates {
        plots.extend(of_updates(&section.figures.sizes));
    }
    plots
}

fn of_requests(measured: &[Measured]) -> Vec<(&'static str, String)> {
    let Some(plain) = measured.iter().find(|arm| arm.arm == Arm::PLAIN.to_string()) else {
        return Vec::new();
    };
    let ours = Listener::Ours {
        sandboxes: 0,
        source: Source::Header,
        logs: Logs::NONE,
    };
    let shown = [
        (ours, Requests::Keyless),
        (ours, Requests::Unknown),
        (ours, Requests::Routed(Kind::Key)),
        (Listener::HeaderRoutes(0), Requests::Unknown),
        (Listener::HeaderRoutes(0), Requests::Keyless),
        (Listener::MatcherTree(0), Requests::Routed(Kind::Key)),
        (Listener::Lua(0), Requests::Routed(Kind::Key)),
    ];
    let lines = |value: &dyn Fn(&Measured) -> f64| {
        let line = |(listener, requests): (Listener, Requests)| {
            let (family, requests) = (listener.family(), requests.to_string());
            let arms = measured
                .iter()
                .filter(|arm| arm.family == family && arm.requests == requests);
            let mut points: Vec<_> = arms.map(|arm| (arm.sandboxes as f64, value(arm))).collect();
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            let name = format!("{family}: {requests}");
            Line { name, points }
        };
        shown.map(line).into_iter()
    };
    let most = measured.iter().map(|arm| arm.sandboxes as f64).fold(10.0, f64::max);
    let plain_line = Line {
        name: "plain listener".to_owned(),
        points: vec![(10.0, plain.median), (most, plain.median)],
    };
    let whole = Plot {
        title: "What a request costs",
        x: "sandboxes",
        y: "instructions per request",
        lines: lines(&|arm| arm.median).chain([plain_line]).collect(),
    };
    let added = Plot {
        title: "What a request costs beyond one through a plain listener",
        x: "sandboxes",
        y: "added instructions per request",
        lines: lines(&|arm| arm.median - plain.median).collect(),
    };
    let plots = [("requests.svg", whole), ("added.svg", added)];
    plots
        .into_iter()
        .filter_map(|(file, plot)| Some((file, plot.svg()?)))
        .collect()
}

fn of_updates(sizes: &[Update]) -> Option<(&'static str, String)> {
    let line = |name: &str, value: fn(&Update) -> f64| Line {
        name: name.to_owned(),
        points: sizes
            .iter()
            .map(|update| (update.rules as f64, value(update)))
            .collect(),
    };
    let plot = Plot {
        title: "What an update of the table takes",
        x: "rules",
        y: "milliseconds",
        lines: vec![
            line("until it is in force everywhere", |update| update.in_force),
            line("of each worker", |update| update.block / 1_000.0),
        ],
    };
    Some(("updates.svg", plot.svg()?))
}
