//! The bootstrap of an Envoy that has all the listeners.

mod ours;
mod rivals;

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use sidetrack_tests::{Process, free_port};

use crate::arms::{Arm, Listener};
use crate::materials::Materials;
use ours::Rendered;

/// An Envoy's configuration, and where its listeners are. What isn't a listener of Envoy isn't in it.
pub(crate) struct Bootstrap {
    json: Value,
    ports: Vec<(Listener, u16)>,
}

impl Bootstrap {
    /// One with the listeners of these arms.
    pub(crate) fn of(arms: &[Arm], materials: &Materials) -> anyhow::Result<Self> {
        let mut rendered = Rendered::new(materials);
        let mut ports: Vec<(Listener, u16)> = Vec::new();
        let mut listeners = Vec::new();
        let plain = rivals::clusters(materials).map(|cluster| (cluster["name"].to_string(), cluster));
        let mut clusters = BTreeMap::from(plain);
        // An Envoy of ours has more than listeners and clusters, so the others get that, too.
        let mut whole = rendered.whole()?;
        for arm in arms {
            let listener = arm.listener;
            if ports.iter().any(|(known, _)| *known == listener) {
                continue;
            }
            let mut json = match listener {
                Listener::Plain => rivals::plain(),
                Listener::PlainWithOurSettings => rendered.without_routing()?,
                Listener::Ours {
                    sandboxes,
                    source,
                    logs,
                } => rendered.listener(sandboxes, source, logs)?,
                Listener::HeaderRoutes(sandboxes) => rivals::header_routes(sandboxes),
                Listener::MatcherTree(sandboxes) => rivals::matcher_tree(sandboxes),
                Listener::Lua(sandboxes) => rivals::lua(sandboxes),
                Listener::Floor => rivals::floor(&materials.floor),
                Listener::ReverseProxy(_) => continue,
            };
            let port = free_port();
            json["name"] = format!("bench-{port}").into();
            json["address"] = address(SocketAddr::from(([127, 0, 0, 1], port)));
            listeners.push(json);
            ports.push((listener, port));
        }
        clusters.extend(rendered.clusters());
        whole["static_resources"] = json!({
            "listeners": listeners,
            "clusters": clusters.into_values().collect::<Vec<_>>(),
        });
        Ok(Self { json: whole, ports })
    }

    /// The port that an arm's requests go to, if it is one of the arms that this was made of.
    pub(crate) fn port(&self, arm: Arm) -> Option<u16> {
        let found = self.ports.iter().find(|(listener, _)| *listener == arm.listener);
        found.map(|(_, port)| *port)
    }

    /// Starts the Envoy that `command` is with this and one worker; `directory` is for its file.
    pub(crate) fn spawn(&self, mut command: Command, directory: &Path) -> anyhow::Result<Process> {
        let path = directory.join("bootstrap.json");
        fs::write(&path, serde_json::to_vec(&self.json)?)?;
        command.args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]);
        command.arg("-c").arg(path).stdout(Stdio::null());
        Ok(Process::spawn("envoy", &mut command))
    }
}

fn address(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
}

fn wasm_code(path: &Path) -> Value {
    json!({"local": {"filename": path}})
}
