//! A server behind us, reached with a route key and without.

use crate::{ConfigFile, Ports, Sidetrack, Stats, config_with};

/// `sidetrack up` before one server, which is the baseline and the sandbox of the key `sandbox`.
pub struct Front {
    /// Where it listens.
    pub ports: Ports,
    /// Its configuration.
    pub config: ConfigFile,
    _sidetrack: Sidetrack,
}

/// Which way a request takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// With a key that has a rule.
    Routed,
    /// With a key that has none.
    Missed,
    /// Without a key.
    Keyless,
}

/// Targets are spoken to as the client speaks. However often a suite makes them answer 5xx in a row, they stay in use.
pub const AS_THE_CLIENT: &str = "upstream: {protocol: auto, outlierDetection: {consecutive5xx: 0}}";

impl Way {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Routed, Self::Missed, Self::Keyless];

    /// The request's key.
    pub fn key(self) -> Option<&'static str> {
        match self {
            Self::Routed => Some("sandbox"),
            Self::Missed => Some("nobody"),
            Self::Keyless => None,
        }
    }

    /// The path `/` with the key in its query.
    pub fn path(self) -> String {
        self.key()
            .map_or_else(|| "/".to_owned(), |key| format!("/?route-key={key}"))
    }
}

impl Front {
    /// Starts it before the server on this port, which speaks what the client speaks.
    pub async fn start(server: u16) -> Self {
        Self::with(&format!(
            "{AS_THE_CLIENT}\n{}\n{}",
            services(server),
            "routing:\n  \
               defaultTarget: baseline\n  \
               keySources: [{header: X-Route-Key}, {query: route-key}]\n  \
               rules: [{routeKey: sandbox, targetService: sandbox}]"
        ))
        .await
    }

    /// Starts it with these sections of config.yaml.
    pub async fn with(sections: &str) -> Self {
        let ports = Ports::free();
        let config = ConfigFile::new(&config_with(&ports, sections));
        let sidetrack = Sidetrack::up(&config.path(), &ports).await;
        Self {
            ports,
            config,
            _sidetrack: sidetrack,
        }
    }

    /// How many requests went to the sandbox, and how many to the baseline.
    pub async fn requests(&self) -> (u64, u64) {
        let stats = Stats::read(self.ports.admin, "upstream_rq_total").await;
        (
            stats.of_cluster("cluster.sandbox_80.upstream_rq_total"),
            stats.of_cluster("cluster.baseline_80.upstream_rq_total"),
        )
    }
}

/// The services `baseline` and `sandbox`, which are the server on this port.
pub fn services(server: u16) -> String {
    format!(
        "services:\n  \
           baseline: {{endpoints: [\"127.0.0.1:{server}\"]}}\n  \
           sandbox: {{endpoints: [\"127.0.0.1:{server}\"]}}"
    )
}
