//! Whether the files that a configuration names are there, and what they must be.

use std::fs;

use sidetrack_routing::wire::Config;
use sidetrack_routing::{Path, Problem};

use crate::render::SYSTEM_AUTHORITIES;

/// What a PEM file must hold: how it is called, and how each begins.
type Content = (&'static str, &'static str);

const CERTIFICATE: Content = ("certificate", "CERTIFICATE-----");
const KEY: Content = ("private key", "PRIVATE KEY-----");

/// A problem for each file that can't be read on this machine, or isn't what it must be. Envoy would refuse it, but only
/// after it has opened a port that turns everybody away.
pub(super) fn unreadable(config: &Config) -> Vec<Problem> {
    let mut named: Vec<(Path, &str, Content)> = Vec::new();
    if let Some(tls) = &config.server.tls {
        let path = Path::root().key("server").key("tls");
        named.push((path.key("cert"), &tls.cert, CERTIFICATE));
        named.push((path.key("key"), &tls.key, KEY));
    }
    let mut problems = Vec::new();
    for (name, service) in &config.services {
        let Some(tls) = &service.tls else { continue };
        let path = Path::root().key("services").key(name).key("tls");
        for (field, file, content) in [
            ("ca", &tls.ca, CERTIFICATE),
            ("clientCert", &tls.client_cert, CERTIFICATE),
            ("clientKey", &tls.client_key, KEY),
        ] {
            named.extend(file.as_deref().map(|file| (path.key(field), file, content)));
        }
        if let (None, Err(why)) = (&tls.ca, check(SYSTEM_AUTHORITIES, CERTIFICATE)) {
            let message = format!("without `ca` the authorities are those of the system, but {why}");
            problems.push(Problem { path, message });
        }
    }
    problems.extend(named.into_iter().filter_map(|(path, file, content)| {
        let message = check(file, content).err()?;
        Some(Problem { path, message })
    }));
    problems
}

fn check(file: &str, (what, begins): Content) -> Result<(), String> {
    let text = fs::read(file).map_err(|error| format!("{file} can't be read: {error}"))?;
    let mut lines = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let is_it = lines.any(|line| line.starts_with(b"-----BEGIN ") && line.ends_with(begins.as_bytes()));
    is_it
        .then_some(())
        .ok_or_else(|| format!("{file} holds no {what} in PEM"))
}
