//! The rules between crates, and that ARCHITECTURE.md speaks of files that exist.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

const WORKSPACE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// The crates that `package` is built from, itself aside.
fn dependencies(package: &str) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--offline",
            "--edges",
            "normal",
            "--prefix",
            "none",
            "--format",
            "{lib}",
            "--package",
            package,
        ])
        .current_dir(WORKSPACE)
        .output()
        .expect("cargo tree runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines()
        .skip(1)
        .map(|line| line.trim_end_matches(" (*)").to_owned())
        .filter(|name| !name.is_empty())
        .collect()
}

#[test]
fn the_routing_core_is_sealed() {
    let allowed = [
        "foldhash",
        "hashbrown",
        "humantime",
        "itoa",
        "memchr",
        "regex_lite",
        "serde",
        "serde_core",
        "serde_derive",
        "serde_json",
        "thiserror",
        "thiserror_impl",
        "twox_hash",
        // What the two derive macros are made of; they run in the compiler.
        "proc_macro2",
        "quote",
        "syn",
        "unicode_ident",
        // serde_json's floating-point printer, under the names it has had.
        "ryu",
        "zmij",
    ];
    let found = dependencies("sidetrack-routing");
    assert!(found.contains("serde_json"), "the list is read wrongly: {found:?}");
    let unexpected: Vec<_> = found.iter().filter(|name| !allowed.contains(&name.as_str())).collect();
    assert!(
        unexpected.is_empty(),
        "routing must know no host, runtime, clock or I/O: {unexpected:?}"
    );
}

#[test]
fn filter_and_agent_never_see_each_other() {
    let filter = dependencies("sidetrack-filter");
    assert!(
        filter.contains("proxy_wasm") && filter.contains("sidetrack_routing"),
        "{filter:?}"
    );
    assert!(!filter.contains("sidetrack_config_agent"), "{filter:?}");
    let agent = dependencies("sidetrack-config-agent");
    assert!(
        agent.contains("tonic") && agent.contains("sidetrack_routing"),
        "{agent:?}"
    );
    assert!(
        !agent.contains("sidetrack_filter") && !agent.contains("proxy_wasm"),
        "{agent:?}"
    );
}

#[test]
fn the_documents_speak_of_files_that_exist() {
    for (document, roots) in [
        (
            "ARCHITECTURE.md",
            &["", "routing/src", "filter/src", "config-agent/src"][..],
        ),
        (
            "docs/operations.md",
            &["", "docs", "tests/tests", "config-agent/src", "config-agent/src/xds"],
        ),
        ("docs/metrics.md", &["", "docs"]),
        ("docs/api.md", &["", "docs"]),
        ("docs/grpc-clients.md", &["", "docs", "tests/tests"]),
        ("README.md", &[""]),
    ] {
        let text = std::fs::read_to_string(Path::new(WORKSPACE).join(document)).unwrap();
        let quoted = text
            .split('`')
            .skip(1)
            .step_by(2)
            .chain(text.split("](").skip(1).filter_map(|l| l.split(')').next()));
        let files: Vec<_> = quoted
            .filter(|text| {
                text.ends_with(".rs") || text.ends_with('/') || text.ends_with(".md") || text.starts_with("scripts/")
            })
            .filter(|text| !text.contains([' ', ':']))
            .collect();
        assert!(!files.is_empty(), "{document}");
        for file in files {
            let exists = roots
                .iter()
                .any(|root| Path::new(WORKSPACE).join(root).join(file).exists());
            assert!(exists, "{document} speaks of {file}");
        }
    }
}
