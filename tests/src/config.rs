//! The configuration of a test: targets on loopback, and the file that is edited while it runs.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use tempfile::TempDir;

use crate::{Echo, EchoServer, Ports, Protocol};

/// Echo servers, as the targets of a test.
pub struct Services {
    servers: Vec<EchoServer>,
    /// What is in the `services` section: name, endpoints, further fields.
    entries: Vec<(String, Vec<SocketAddr>, String)>,
}

impl Services {
    /// Starts a server for each name; it is the target of that name.
    pub async fn start(names: &[&str]) -> Self {
        let mut services = Self {
            servers: Vec::new(),
            entries: Vec::new(),
        };
        for name in names {
            services.start_speaking(name, None).await;
        }
        services
    }

    /// Starts one more that speaks only this.
    ///
    /// # Panics
    /// If it can't be started.
    pub async fn start_speaking(&mut self, name: &str, speaks: Option<Protocol>) {
        let server = EchoServer::bind_speaking(name, ([127, 0, 0, 1], 0).into(), speaks).await;
        let server = server.expect("loopback has a free port");
        self.entries
            .push((name.to_owned(), vec![server.address()], String::new()));
        self.servers.push(server);
    }

    /// Makes `name` a target with these servers as its endpoints and these further fields, such as
    /// `protocol: http2, connectTimeout: 1s`; in place of what it was.
    pub fn configure(&mut self, name: &str, servers: &[&str], fields: &str) {
        let endpoints = servers.iter().map(|server| self.server(server).address()).collect();
        self.configure_at(name, endpoints, fields);
    }

    /// The same with these endpoints.
    pub fn configure_at(&mut self, name: &str, endpoints: Vec<SocketAddr>, fields: &str) {
        self.entries.retain(|(found, ..)| found != name);
        self.entries.push((name.to_owned(), endpoints, fields.to_owned()));
    }

    /// How many requests have arrived at `name`.
    ///
    /// # Panics
    /// If there is no such server.
    pub fn requests(&self, name: &str) -> u64 {
        self.server(name).requests()
    }

    /// The request that arrived last at `name`.
    ///
    /// # Panics
    /// If there is no such server, or none has arrived.
    pub fn last_request(&self, name: &str) -> Echo {
        self.server(name).last_request().expect("a request")
    }

    /// The `services` section that says where they are.
    pub fn yaml(&self) -> String {
        let lines = self.entries.iter().map(|(name, endpoints, fields)| {
            let endpoints: Vec<_> = endpoints.iter().map(|endpoint| format!("\"{endpoint}\"")).collect();
            let comma = if fields.is_empty() { "" } else { ", " };
            format!("  {name}: {{endpoints: [{}]{comma}{fields}}}\n", endpoints.join(", "))
        });
        format!("services:\n{}", lines.collect::<String>())
    }

    /// The server of this name.
    ///
    /// # Panics
    /// If there is none.
    pub fn server(&self, name: &str) -> &EchoServer {
        let server = self.servers.iter().find(|server| server.name() == name);
        server.expect("a server of this name")
    }
}

/// A whole config.yaml: these ports on loopback, these services, and the lines of `routing`.
pub fn config_text(ports: &Ports, services: &Services, routing: &str) -> String {
    config_with(ports, &format!("{}{}", services.yaml(), routing.trim_end()))
}

/// A whole config.yaml: these ports on loopback, and these other sections.
pub fn config_with(ports: &Ports, sections: &str) -> String {
    let Ports {
        http,
        grpc,
        metrics,
        admin,
        api,
        xds,
    } = ports;
    format!(
        "server: {{httpPort: {http}, grpcPort: {grpc}, metricsPort: {metrics}, adminPort: {admin}, \
         bindAddress: 127.0.0.1}}\n\
         agent: {{apiPort: {api}, xdsPort: {xds}}}\n\
         {sections}\n"
    )
}

/// A config.yaml in a directory of its own.
pub struct ConfigFile {
    directory: TempDir,
}

impl ConfigFile {
    /// A file with this text.
    pub fn new(text: &str) -> Self {
        let file = Self::nowhere();
        fs::write(file.path(), text).unwrap();
        file
    }

    /// A file with this text as Kubernetes mounts it: `config.yaml` → `..data/config.yaml`, where `..data` → a
    /// directory that an update replaces.
    pub fn mounted(text: &str) -> Self {
        let file = Self::nowhere();
        symlink("..data/config.yaml", file.path()).unwrap();
        file.remount(text);
        file
    }

    /// Its path.
    pub fn path(&self) -> PathBuf {
        self.directory.path().join("config.yaml")
    }

    /// Truncates the file and writes it anew, as an editor may do.
    pub fn write_in_place(&self, text: &str) {
        fs::write(self.path(), text).unwrap();
    }

    /// Puts a new file in its place, as most editors do.
    pub fn replace(&self, text: &str) {
        let new = self.directory.path().join(".config.yaml.new");
        fs::write(&new, text).unwrap();
        fs::rename(new, self.path()).unwrap();
    }

    /// Does to a mounted file what the kubelet does: writes a new directory, swaps the link, removes the old directory.
    pub fn remount(&self, text: &str) {
        let data = self.directory.path().join("..data");
        let old = fs::read_link(&data).ok();
        let new = tempfile::Builder::new().prefix("..").tempdir_in(&self.directory);
        let new = new.unwrap().keep();
        fs::write(new.join("config.yaml"), text).unwrap();
        let link = self.directory.path().join("..data_tmp");
        symlink(new.file_name().unwrap(), &link).unwrap();
        fs::rename(link, data).unwrap();
        if let Some(old) = old {
            fs::remove_dir_all(self.directory.path().join(old)).unwrap();
        }
    }

    fn nowhere() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
        }
    }
}
