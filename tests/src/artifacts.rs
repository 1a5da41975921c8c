//! The programs under test, built before they are used.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The checkout.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// The `sidetrack` binary; builds it and the filter it finds beside it.
///
/// # Panics
/// If the build fails, with what it wrote.
pub fn sidetrack() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| sidetrack_of("debug", &[]))
}

/// The same as it is released, for what is measured: its first build takes minutes.
///
/// # Panics
/// If the build fails, with what it wrote.
pub fn sidetrack_release() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| sidetrack_of("release", &["--release"]))
}

fn sidetrack_of(profile: &str, arguments: &[&str]) -> PathBuf {
    fs::create_dir_all(target_dir()).unwrap();
    let lock = File::create(target_dir().join("sidetrack-tests.lock")).unwrap();
    lock.lock().unwrap();
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "-p", "sidetrack-config-agent", "--bin", "sidetrack"]);
    build(command.args(arguments));
    build(&mut Command::new(workspace().join("scripts/build-filter")));
    target_dir().join(profile).join("sidetrack")
}

/// The Envoy to run: `ENVOY_BIN`, or the one of `scripts/install-tools`.
///
/// # Panics
/// If there is none.
pub fn envoy() -> PathBuf {
    let path = env::var_os("ENVOY_BIN").map_or_else(|| workspace().join(".tools/bin/envoy"), PathBuf::from);
    assert!(
        path.is_file(),
        "no Envoy at {}: run scripts/install-tools envoy, or set ENVOY_BIN",
        path.display()
    );
    path
}

/// The Envoy of this version, such as `1.37`, whatever `ENVOY_BIN` is.
///
/// # Panics
/// If it isn't there.
pub fn envoy_of(version: &str) -> PathBuf {
    let path = workspace().join(".tools/envoy").join(version).join("envoy");
    assert!(
        path.is_file(),
        "no Envoy at {}: run scripts/install-tools envoy@{version}",
        path.display()
    );
    path
}

/// Which release this Envoy says it is, such as `1.37.0`.
///
/// # Panics
/// If it doesn't say.
pub fn release(envoy: &Path) -> String {
    let output = Command::new(envoy).arg("--version").output();
    let text = String::from_utf8(output.expect("Envoy can be started").stdout).unwrap();
    // PROGRAM  version: COMMIT/1.37.0/Clean/RELEASE/BoringSSL
    let release = text.rsplit(' ').next().and_then(|build| build.split('/').nth(1));
    release.expect(&text).to_owned()
}

fn target_dir() -> PathBuf {
    let named = env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    workspace().join(named)
}

fn build(command: &mut Command) {
    let output = command.current_dir(workspace()).output();
    let output = output.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
}
