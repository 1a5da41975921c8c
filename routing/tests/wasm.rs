//! The table of cases on wasm32, in Node: the word size and the engine that the filter has in Envoy.
#![cfg(target_arch = "wasm32")]

use wasm_bindgen_test::wasm_bindgen_test;

#[path = "support/cases.rs"]
mod cases;

#[wasm_bindgen_test]
fn every_case_holds() {
    let sections = cases::sections().unwrap();
    let failures: Vec<String> = sections.iter().flat_map(cases::Section::failures).collect();
    assert!(failures.is_empty(), "{} fail:\n{}", failures.len(), failures.join("\n"));
}
