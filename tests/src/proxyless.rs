//! gRPC clients that route by themselves: gRPC's own libraries, in programs of `tests/grpc-clients/`.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::running::ready;
use crate::{Client, Process, Protocol, artifacts, free_port, suite};

/// The library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Library {
    /// gRPC for Python, which is that for C++ inside.
    Python,
    /// gRPC for Node.
    Node,
}

/// A running client. Each target that it dials it keeps a channel to.
pub struct Proxyless {
    /// What it is.
    pub library: Library,
    /// Its node id.
    pub node: String,
    port: u16,
    process: Process,
    _bootstrap: TempDir,
}

/// A unary call.
#[derive(Clone, Debug, Serialize)]
pub struct Call {
    target: String,
    path: String,
    metadata: BTreeMap<String, String>,
    count: u32,
}

/// What became of one call of steady traffic.
#[derive(Clone, Debug, Deserialize)]
pub struct CallOutcome {
    /// Which of the calls it was.
    pub call: usize,
    /// When it was made, in seconds since 1970.
    pub sent: f64,
    /// When it was answered.
    pub answered: f64,
    /// The name of the service that answered; otherwise the status.
    pub served_by: String,
}

/// A resource that a client has asked for.
#[derive(Clone, Debug, Deserialize)]
pub struct ClientResource {
    /// Its type URL.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// `envoy.admin.v3.ClientResourceStatus`: 3 is ACKED.
    pub status: i32,
    /// Why it was refused.
    pub error: String,
}

impl Call {
    /// A call of `/shop.Cart/Get` to this target, such as `xds:///shop`.
    pub fn to(target: &str) -> Self {
        Self {
            target: target.to_owned(),
            path: "/shop.Cart/Get".to_owned(),
            metadata: BTreeMap::new(),
            count: 1,
        }
    }

    /// Of this path.
    #[must_use]
    pub fn path(mut self, path: &str) -> Self {
        path.clone_into(&mut self.path);
        self
    }

    /// With this header.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.metadata.insert(name.to_owned(), value.to_owned());
        self
    }

    /// With this route key.
    #[must_use]
    pub fn key(self, key: &str) -> Self {
        self.with("x-route-key", key)
    }

    /// So often, one after the other.
    #[must_use]
    pub fn times(mut self, count: u32) -> Self {
        self.count = count;
        self
    }
}

impl Library {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Python, Self::Node];

    /// How it says its name to the agent.
    pub fn user_agent(self) -> &'static str {
        match self {
            Self::Python => "gRPC C-core",
            Self::Node => "gRPC Node Pure JS",
        }
    }
}

impl Proxyless {
    /// Starts it and waits until it takes orders; its agent's discovery service has this port.
    ///
    /// # Panics
    /// If the library isn't installed.
    pub async fn start(library: Library, xds_port: u16) -> Self {
        let node = format!("{library:?}-{}", free_port()).to_lowercase();
        let bootstrap = json!({
            "xds_servers": [{
                "server_uri": format!("127.0.0.1:{xds_port}"),
                "channel_creds": [{"type": "insecure"}],
                "server_features": ["xds_v3"],
            }],
            "node": {"id": node, "locality": {}},
        });
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("bootstrap.json");
        fs::write(&file, bootstrap.to_string()).unwrap();
        let port = free_port();
        let mut command = match library {
            Library::Python => program("python3", "client.py"),
            Library::Node => program("node", "client.js"),
        };
        command.arg(port.to_string()).env("GRPC_XDS_BOOTSTRAP", file);
        let mut process = Process::spawn(&node, &mut command);
        ready(&mut process, port, "/").await;
        Self {
            library,
            node,
            port,
            process,
            _bootstrap: directory,
        }
    }

    /// Makes these calls, each so often; returns who answered how often.
    pub async fn call_all(&self, calls: &[Call]) -> Vec<BTreeMap<String, u32>> {
        self.order("/calls", &json!(calls)).await
    }

    /// Makes one call; returns who answered.
    ///
    /// # Panics
    /// If nobody and nothing did.
    pub async fn call(&self, call: Call) -> String {
        let answers = self.call_all(&[call.times(1)]).await;
        let answer = answers.into_iter().flatten().next();
        answer.expect("an answer or an error").0
    }

    /// Begins to make these calls in turn, `rate` in a second all together, until [`Self::stop`].
    pub async fn begin(&self, rate: u32, calls: &[Call]) {
        let _: Value = self.order("/traffic", &json!({"rate": rate, "calls": calls})).await;
    }

    /// Lets calls in flight finish; returns what became of all.
    pub async fn stop(&self) -> Vec<CallOutcome> {
        self.order("/stop", &Value::Null).await
    }

    /// What it has asked the agent for; Node's library isn't asked.
    ///
    /// # Panics
    /// If it doesn't answer.
    pub async fn resources(&self) -> Vec<ClientResource> {
        match self.library {
            Library::Python => {
                let answer = Client::new(Protocol::Http1, self.port).get("/csds", &[]).await;
                serde_json::from_slice(&answer.unwrap().body).unwrap()
            }
            Library::Node => Vec::new(),
        }
    }

    /// What it has written.
    pub fn output(&self) -> String {
        self.process.output()
    }

    async fn order<T: DeserializeOwned>(&self, path: &str, order: &Value) -> T {
        let body = order.to_string();
        let length = body.len().to_string();
        let request = http::Request::post(path).header("content-length", length);
        let request = request.body(body.into_bytes().into()).unwrap();
        let answer = Client::new(Protocol::Http1, self.port).send(request).await;
        let answer = answer.unwrap_or_else(|error| panic!("{path}: {error:#}\n{}", self.output()));
        serde_json::from_slice(&answer.body).unwrap_or_else(|error| panic!("{path}: {error}: {}", answer.text()))
    }
}

fn program(interpreter: &str, file: &str) -> Command {
    let files: PathBuf = artifacts::workspace().join("tests/grpc-clients");
    let installed = |file| suite::installed("grpc-clients", file);
    for lock in ["requirements.txt", "package-lock.json"] {
        assert!(
            fs::read(installed(lock)).unwrap() == fs::read(files.join(lock)).unwrap(),
            ".tools/grpc-clients is an old one: run scripts/install-tools grpc-clients"
        );
    }
    let mut command = Command::new(interpreter);
    command.env("PYTHONPATH", installed("python"));
    command.env("NODE_PATH", installed("node_modules"));
    command.env("GRPC_VERBOSITY", "ERROR").arg(files.join(file));
    command
}
