//! The arguments, and what they ask for.

use clap::{Parser, ValueEnum};

use crate::arms::Extent;

/// Measures what routing costs on a real Envoy.
#[derive(Parser)]
#[command(
    name = "scripts/bench",
    override_usage = "scripts/bench [--quick [--update-baseline] | --only PART,…] [--arms TEXT,…]",
    after_help = "Examples:
  scripts/bench --quick             the regression guard, two minutes: fails if a request of
                                    ours takes over 3 % more than tests/bench/baseline.json says
  scripts/bench --quick --update-baseline
                                    what is measured now is right: write it into that file
  scripts/bench --quick --arms lua  only arms with `lua` in their names, and no guard
  scripts/bench                     everything, 20 minutes, on a machine that does nothing else;
                                    writes docs/benchmarks.md and its plots
  scripts/bench --only instructions only this; docs/benchmarks.md keeps what it has of the others
  scripts/bench --only none         docs/benchmarks.md anew, from the figures that it has

Each run leaves its figures in target/bench/results.json."
)]
pub(crate) struct Arguments {
    /// Only instructions, of the arms that matter, held against the baseline
    #[arg(long, conflicts_with = "only")]
    pub(crate) quick: bool,
    /// Write tests/bench/baseline.json from this run, instead of holding this run against it
    #[arg(long, conflicts_with = "arms")]
    pub(crate) update_baseline: bool,
    /// Only arms whose names have one of these texts in them; the documents stay as they are
    #[arg(long, value_name = "TEXT", value_delimiter = ',')]
    pub(crate) arms: Vec<String>,
    /// Only these parts
    #[arg(long, value_enum, value_name = "PART", value_delimiter = ',')]
    pub(crate) only: Vec<Part>,
}

/// A part of what is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// Instructions for each request; noise doesn't matter
    Instructions,
    /// Processor time for each request
    Cpu,
    /// How long requests take
    Latency,
    /// Size of the filter's module, and what loading it costs
    Module,
    /// What changes of the rules cost
    Updates,
    /// The routing core alone
    Micro,
    /// Nothing
    None,
}

impl Arguments {
    /// Which arms are measured.
    pub(crate) fn extent(&self) -> Extent {
        if self.quick { Extent::Quick } else { Extent::Full }
    }

    /// Whether `part` is measured.
    pub(crate) fn wants(&self, part: Part) -> bool {
        match self.quick {
            true => part == Part::Instructions,
            false => self.only.is_empty() || self.only.contains(&part),
        }
    }
}
