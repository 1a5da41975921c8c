//! Whether the files that a configuration names are there.

use std::fs::File;
use std::io::{self, Read as _};

use sidetrack_routing::wire::Config;
use sidetrack_routing::{Path, Problem};

use crate::render::SYSTEM_AUTHORITIES;

/// A problem for each file that can't be read on this machine.
pub(super) fn unreadable(config: &Config) -> Vec<Problem> {
    let mut named: Vec<(Path, &str)> = Vec::new();
    if let Some(tls) = &config.server.tls {
        let path = Path::root().key("server").key("tls");
        named.extend([(path.key("cert"), tls.cert.as_str()), (path.key("key"), &tls.key)]);
    }
    let mut problems = Vec::new();
    for (name, service) in &config.services {
        let Some(tls) = &service.tls else { continue };
        let path = Path::root().key("services").key(name).key("tls");
        for (field, file) in [
            ("ca", &tls.ca),
            ("clientCert", &tls.client_cert),
            ("clientKey", &tls.client_key),
        ] {
            named.extend(file.as_deref().map(|file| (path.key(field), file)));
        }
        if let (None, Err(error)) = (&tls.ca, read(SYSTEM_AUTHORITIES)) {
            let message = format!(
                "without `ca` the authorities are those of the system, but {SYSTEM_AUTHORITIES} can't be read: {error}"
            );
            problems.push(Problem { path, message });
        }
    }
    problems.extend(named.into_iter().filter_map(|(path, file)| {
        let error = read(file).err()?;
        let message = format!("{file} can't be read: {error}");
        Some(Problem { path, message })
    }));
    problems
}

fn read(file: &str) -> io::Result<()> {
    File::open(file)?.read(&mut [0]).map(drop)
}
