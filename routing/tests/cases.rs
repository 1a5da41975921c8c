//! The table of cases, natively. `wasm.rs` and the end-to-end tests run the same.

use std::fs;
use std::path::Path;

#[path = "support/cases.rs"]
mod cases;

#[test]
fn every_case_holds() {
    let sections = cases::sections().unwrap();
    let failures: Vec<String> = sections.iter().flat_map(cases::Section::failures).collect();
    assert!(failures.is_empty(), "{} fail:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn there_are_enough_cases() {
    let sections = cases::sections().unwrap();
    let requests: usize = sections.iter().map(|section| section.cases.len()).sum();
    let refusals: usize = sections.iter().map(|section| section.problems.len()).sum();
    assert!(requests >= 300, "{requests} requests");
    assert!(refusals >= 60, "{refusals} refusals");
}

#[test]
fn every_case_file_is_listed() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut files: Vec<String> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    let listed: Vec<String> = cases::FILES.iter().map(|(name, _)| format!("{name}.cases")).collect();
    assert_eq!(files, listed);
}
