//! docs/benchmarks.md.

use std::fmt::Write as _;

use super::rows::{self, Table};
use super::text::{count, difference};
use crate::arms::Arm;
use crate::results::{Conditions, Latency, Measured, Micro, Results, Section, Updates};
use crate::targets::targets;

const INTRODUCTION: &str = "# Benchmarks

`scripts/bench` writes this page, its plots and [its figures](benchmarks/results.json): nothing here is written by hand.
`scripts/bench --help` says how to measure one part of it.

What counts is **instructions per request**: those that Envoy's worker thread executes in user space, counted in an emulator
(qemu-user). They don't depend on what else the machine does, so a difference of 1 % is one. Time in the kernel isn't among them; the
processor's time for each request has it, on a machine that does nothing else.

All ways to route are listeners of one Envoy with one worker, before the same two services, and get the same requests (HTTP/1.1, one
connection) in turns. *Plain* has one default route and nothing else. *Header routes* are a route with a header match for each sandbox,
which is what an Istio VirtualService becomes; the *matcher tree* is Envoy's exact-match map with a route for each sandbox; *Lua* is a
script with the same rules and the same matching; the *floor* is a WebAssembly filter without SDK and table that reads one header
and writes one, the least that any can do. *Plain, our settings* is what Sidetrack renders without what routes by key. Keys are those
of sandboxes in the middle of all; their rules fall back to the baseline, but for those *without fallback*.
";

const NOT_MEASURED: &str = "Not measured yet. `scripts/bench` measures it on a machine that does nothing else.\n";

/// The whole page, with these plots.
pub(super) fn document(results: &Results, plots: &[&str]) -> String {
    let mut page = format!("{INTRODUCTION}\n## Targets\n\n");
    page.push_str(&targets_table(results));
    let has = |plot: &str| plots.contains(&plot);
    section(
        &mut page,
        "Instructions per request",
        results.instructions.as_ref(),
        |measured| {
            let mut text = String::new();
            for (file, what) in [
                ("requests.svg", "What a request costs"),
                ("added.svg", "What is added to a plain one"),
            ] {
                if has(file) {
                    let _ = write!(text, "![{what}](benchmarks/{file})\n\n");
                }
            }
            text + "*Added* is beyond the plain listener's request, *for the key* beyond the same listener's request without one.\n\n"
                + &costs(measured, "instructions")
        },
    );
    section(
        &mut page,
        "Processor time per request",
        results.cpu.as_ref(),
        |measured| {
            "Nanoseconds of Envoy's worker, kernel included; the reverse proxy is a program in Go after the sketch this project began \
         with, and all its threads count.\n\n"
            .to_owned()
            + &costs(measured, "ns")
        },
    );
    section(&mut page, "Latency", results.latency.as_ref(), |latencies| {
        latency(latencies)
    });
    section(
        &mut page,
        "Updates of the table",
        results.updates.as_ref(),
        |updates_| {
            let plot = if has("updates.svg") {
                "![What an update takes](benchmarks/updates.svg)\n\n"
            } else {
                ""
            };
            plot.to_owned() + &updates(updates_)
        },
    );
    section(&mut page, "The filter's module", results.module.as_ref(), |module| {
        format!(
            "{} bytes; {} where it takes JSON, too. An Envoy with one worker that starts with the first needs {:.0} ms more of \
             a processor.\n",
            count(module.bytes as f64),
            count(module.bytes_with_json as f64),
            module.load
        )
    });
    section(&mut page, "The routing core alone", results.micro.as_ref(), |benches| {
        micro(benches)
    });
    page
}

fn section<F>(page: &mut String, title: &str, section: Option<&Section<F>>, body: impl FnOnce(&F) -> String) {
    let _ = write!(page, "\n## {title}\n\n");
    match section {
        Some(section) => {
            page.push_str(&body(&section.figures));
            let _ = write!(page, "\n{}\n", conditions(&section.conditions));
        }
        None => page.push_str(NOT_MEASURED),
    }
}

fn conditions(conditions: &Conditions) -> String {
    let Conditions {
        date,
        commit,
        machine,
        envoy,
        with,
        load,
    } = conditions;
    let with = with.join(", ");
    format!("Measured on {date} at {commit}, Envoy {envoy}, {with}; {machine}; load when it began {load}.")
}

fn targets_table(results: &Results) -> String {
    let rows = targets(results).into_iter().map(|target| {
        let (text, verdict) = match target.found {
            Some(found) if found.reached => (found.text, "reached"),
            Some(found) => (found.text, "**not reached**"),
            None => ("–".to_owned(), "not measured"),
        };
        vec![
            target.what.to_owned(),
            target.wanted.to_owned(),
            text,
            verdict.to_owned(),
        ]
    });
    markdown_table(&["what", "wanted", "measured", ""], &rows.collect::<Vec<_>>())
}

fn costs(measured: &[Measured], unit: &str) -> String {
    let plain = measured.iter().find(|arm| arm.arm == Arm::PLAIN.to_string());
    let rows = measured.iter().map(|arm| {
        let against =
            |other: Option<&Measured>| other.map_or_else(String::new, |other| difference(arm.median - other.median));
        let keyless = measured
            .iter()
            .find(|other| other.arm == arm.keyless && other.arm != arm.arm);
        vec![
            arm.family.clone(),
            if arm.sandboxes == 0 {
                String::new()
            } else {
                count(arm.sandboxes as f64)
            },
            arm.requests.clone(),
            count(arm.median),
            against(plain),
            plain.map_or_else(String::new, |plain| format!("{:.3}", arm.median / plain.median)),
            against(keyless),
            format!("{:.2} %", arm.spread() * 100.0),
        ]
    });
    let head = [
        "way",
        "sandboxes",
        "requests",
        unit,
        "added",
        "ratio",
        "for the key",
        "spread",
    ];
    markdown_table(&head, &rows.collect::<Vec<_>>())
}

fn latency(latencies: &[Latency]) -> String {
    "Requests come at times of their own, whether or not those before are answered, at 40 % of the most that the listener can answer. \
     A time is from when the request should have been sent.\n\n"
        .to_owned()
        + &shared(rows::latency(latencies))
}

fn updates(updates: &Updates) -> String {
    let mut text = shared(rows::updates(updates));
    if let Some(many) = &updates.many {
        let _ = write!(
            text,
            "\n{} updates of a table of {} rules under load: {} of {} requests failed or were misrouted; Envoy's memory was {:.1} MB \
             after a hundredth of them and {:.1} MB at the end.\n",
            count(many.updates as f64),
            count(many.rules as f64),
            many.wrong,
            count(many.requests as f64),
            many.memory_before as f64 / 1e6,
            many.memory_after as f64 / 1e6,
        );
    }
    text
}

fn micro(benches: &[Micro]) -> String {
    "Native code, not WebAssembly: `cargo bench -p sidetrack-routing`.\n\n".to_owned() + &shared(rows::micro(benches))
}

fn shared(table: Table) -> String {
    markdown_table(&table.head, &table.rows)
}

/// Columns of numbers to the right, the others to the left.
fn markdown_table(head: &[&str], rows: &[Vec<String>]) -> String {
    let is_number =
        |cell: &str| cell.is_empty() || cell.starts_with(|first: char| first.is_ascii_digit() || "+-–".contains(first));
    let rules: Vec<&str> = (0..head.len())
        .map(|column| match rows.iter().all(|row| is_number(&row[column])) {
            true => "---:",
            false => "---",
        })
        .collect();
    let mut text = format!("| {} |\n| {} |\n", head.join(" | "), rules.join(" | "));
    for row in rows {
        let _ = writeln!(text, "| {} |", row.join(" | "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_without_figures_says_so_in_each_part() {
        let page = document(&Results::default(), &[]);
        assert_eq!(page.matches(NOT_MEASURED).count(), page.matches("\n## ").count() - 1);
        assert_eq!(
            page.matches("| not measured |").count(),
            targets(&Results::default()).len()
        );
    }

    #[test]
    fn columns_of_numbers_are_to_the_right() {
        let text = markdown_table(&["a", "b"], &[vec!["x".to_owned(), "+1".to_owned()]]);
        assert_eq!(text, "| a | b |\n| --- | ---: |\n| x | +1 |\n");
    }
}
