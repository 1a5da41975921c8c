//! Ports for a test to use.

use std::collections::BTreeSet;
use std::fs::File;
use std::net::TcpListener;
use std::sync::{LazyLock, Mutex};

/// Below the ports that systems give to outgoing connections, so that no client takes a port before its server does.
const FREE_PORTS: std::ops::Range<u16> = 20_000..32_000;

static TAKEN: LazyLock<Mutex<BTreeSet<u16>>> = LazyLock::new(Mutex::default);

/// The ports of one config.yaml.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    /// `server.httpPort`
    pub http: u16,
    /// `server.grpcPort`
    pub grpc: u16,
    /// `server.metricsPort`
    pub metrics: u16,
    /// `server.adminPort`
    pub admin: u16,
    /// `agent.apiPort`
    pub api: u16,
    /// `agent.xdsPort`
    pub xds: u16,
}

impl Ports {
    /// Ports that nothing listens on and no other caller in this process gets.
    pub fn free() -> Self {
        Self {
            http: free_port(),
            grpc: free_port(),
            metrics: free_port(),
            admin: free_port(),
            api: free_port(),
            xds: free_port(),
        }
    }
}

/// A port that nothing listens on and no other caller in this process gets.
pub fn free_port() -> u16 {
    let mut taken = TAKEN.lock().unwrap();
    let offset = std::process::id() as usize * 97 % FREE_PORTS.len();
    let port = FREE_PORTS
        .cycle_from(offset)
        .find(|port| !taken.contains(port) && TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("no port is free");
    taken.insert(port);
    port
}

trait CycleFrom {
    fn cycle_from(self, offset: usize) -> impl Iterator<Item = u16>;
}

impl CycleFrom for std::ops::Range<u16> {
    fn cycle_from(self, offset: usize) -> impl Iterator<Item = u16> {
        self.clone().skip(offset).chain(self.take(offset))
    }
}

/// The ports a config has that names none, for one test at a time on this machine.
pub struct FixedPorts {
    _lock: File,
}

impl FixedPorts {
    /// The defaults of config.yaml.
    pub const PORTS: Ports = Ports {
        http: 8080,
        grpc: 8081,
        metrics: 9090,
        admin: 9901,
        api: 9902,
        xds: 18_000,
    };

    /// Waits until no other test uses them.
    pub async fn lock() -> Self {
        let path = std::env::temp_dir().join("sidetrack-fixed-ports.lock");
        let lock = tokio::task::spawn_blocking(move || {
            let file = File::options().create(true).append(true).open(path)?;
            file.lock().map(|()| file)
        });
        Self {
            _lock: lock.await.unwrap().expect("the lock of the fixed ports"),
        }
    }
}
