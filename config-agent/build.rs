//! Finds the descriptors of Envoy's messages, which `render` needs to print them as JSON.
//!
//! The crate envoy-types ships them as a file but doesn't export it, so this asks cargo where the crate is.

use std::path::Path;
use std::process::Command;

fn main() {
    let cargo = std::env::var_os("CARGO").expect("cargo sets CARGO");
    let target = std::env::var_os("TARGET").expect("cargo sets TARGET");
    let metadata = |offline: &[&str]| {
        let mut command = Command::new(&cargo);
        // What other platforms need isn't downloaded.
        command.args(["metadata", "--format-version=1", "--filter-platform"]);
        command
            .arg(&target)
            .args(offline)
            .output()
            .expect("cargo metadata runs")
    };
    let mut found = metadata(&["--offline"]);
    if !found.status.success() {
        // What only other crates of this workspace need may not have been downloaded yet, but cargo wants to see it.
        found = metadata(&[]);
    }
    let metadata = found;
    assert!(
        metadata.status.success(),
        "cargo metadata: {}",
        String::from_utf8_lossy(&metadata.stderr)
    );
    let metadata: serde_json::Value = serde_json::from_slice(&metadata.stdout).expect("cargo metadata prints JSON");
    let manifest = metadata["packages"]
        .as_array()
        .and_then(|packages| packages.iter().find(|package| package["name"] == "envoy-types"))
        .and_then(|package| package["manifest_path"].as_str())
        .expect("envoy-types is a dependency");
    let descriptors = Path::new(manifest)
        .with_file_name("src")
        .join("generated")
        .join("types.bin");
    assert!(descriptors.is_file(), "envoy-types has no {}", descriptors.display());
    println!("cargo::rustc-env=ENVOY_DESCRIPTORS={}", descriptors.display());
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=../Cargo.lock");
}
