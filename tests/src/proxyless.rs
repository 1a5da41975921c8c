//! gRPC clients that route by themselves: gRPC's own libraries, in programs of `tests/grpc-clients/`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
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
    /// gRPC for Go.
    Go,
}

/// How a client gets to know its agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bootstrap {
    /// `GRPC_XDS_BOOTSTRAP` names a file.
    File,
    /// `GRPC_XDS_BOOTSTRAP_CONFIG` is the file's text.
    Environment,
}

/// A running client. Each target that it dials it keeps a channel to.
pub struct Proxyless {
    /// What it is.
    pub library: Library,
    /// Its node id.
    pub node: String,
    port: u16,
    process: Process,
    _directory: TempDir,
}

/// A unary call.
#[derive(Clone, Debug, Serialize)]
pub struct Call {
    target: String,
    path: String,
    metadata: Vec<(String, String)>,
    count: u32,
    /// In seconds.
    timeout: u32,
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
            metadata: Vec::new(),
            count: 1,
            timeout: 20,
        }
    }

    /// Of this path.
    #[must_use]
    pub fn path(mut self, path: &str) -> Self {
        path.clone_into(&mut self.path);
        self
    }

    /// With this header, beside others of its name.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.metadata.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With this route key.
    #[must_use]
    pub fn key(self, key: &str) -> Self {
        self.with("x-route-key", key)
    }

    /// That ends after so many seconds.
    #[must_use]
    pub fn timeout(mut self, seconds: u32) -> Self {
        self.timeout = seconds;
        self
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
    pub const ALL: [Self; 3] = [Self::Python, Self::Node, Self::Go];

    /// What runs a program of its language in `text`, which is in a file of `directory` then.
    ///
    /// # Panics
    /// If it has to be compiled first, or the library isn't installed.
    pub fn program(self, directory: &Path, text: &str) -> Command {
        let name = match self {
            Self::Python => "program.py",
            Self::Node => "program.js",
            Self::Go => panic!("Go has to be compiled"),
        };
        fs::write(directory.join(name), text).unwrap();
        let mut command = self.command();
        command.arg(directory.join(name));
        command
    }

    /// What runs programs of its language with the library, or for Go the client.
    fn command(self) -> Command {
        let mut command = match self {
            Self::Python => Command::new("python3"),
            Self::Node => Command::new("node"),
            Self::Go => Command::new(installed("client")),
        };
        command.env("PYTHONPATH", installed("python"));
        command.env("NODE_PATH", installed("node_modules"));
        command.env("GRPC_VERBOSITY", "ERROR");
        command
    }
}

impl Bootstrap {
    /// What `docs/grpc-clients.md` tells to write, with this port, and this id and cluster of the node.
    ///
    /// # Panics
    /// If the document has no such thing.
    pub fn text(xds_port: u16, node: &str, cluster: &str) -> String {
        let document = fs::read_to_string(artifacts::workspace().join("docs/grpc-clients.md")).unwrap();
        let block = document
            .split("```json\n")
            .nth(1)
            .and_then(|rest| rest.split("```").next());
        let mut bootstrap: Value = serde_json::from_str(block.expect("a block of JSON")).unwrap();
        let server = &mut bootstrap["xds_servers"][0]["server_uri"];
        assert_eq!(server, "127.0.0.1:18000");
        *server = json!(format!("127.0.0.1:{xds_port}"));
        bootstrap["node"]["id"] = json!(node);
        bootstrap["node"]["cluster"] = json!(cluster);
        bootstrap.to_string()
    }

    /// Gives this text to `command`; it may be in a file of `directory` then.
    ///
    /// # Panics
    /// If the file can't be written.
    pub fn give(self, text: &str, directory: &Path, command: &mut Command) {
        match self {
            Self::File => {
                let file = directory.join("bootstrap.json");
                fs::write(&file, text).unwrap();
                command.env("GRPC_XDS_BOOTSTRAP", file);
            }
            Self::Environment => {
                command.env("GRPC_XDS_BOOTSTRAP_CONFIG", text);
            }
        }
    }
}

impl Proxyless {
    /// Starts it and waits until it takes orders; its agent's discovery service has this port, its node the cluster
    /// `checkout`.
    ///
    /// # Panics
    /// If the library isn't installed.
    pub async fn start(library: Library, xds_port: u16) -> Self {
        Self::start_by(library, xds_port, Bootstrap::File).await
    }

    /// The same in another way.
    ///
    /// # Panics
    /// If the library isn't installed.
    pub async fn start_by(library: Library, xds_port: u16, bootstrap: Bootstrap) -> Self {
        let node = format!("{library:?}-{}", free_port()).to_lowercase();
        let directory = tempfile::tempdir().unwrap();
        let port = free_port();
        let mut command = library.command();
        let files = artifacts::workspace().join("tests/grpc-clients");
        match library {
            Library::Python => drop(command.arg(files.join("client.py"))),
            Library::Node => drop(command.arg(files.join("client.js"))),
            Library::Go => {}
        }
        bootstrap.give(
            &Bootstrap::text(xds_port, &node, "checkout"),
            directory.path(),
            &mut command,
        );
        let mut process = Process::spawn(&node, command.arg(port.to_string()));
        ready(&mut process, port, "/").await;
        Self {
            library,
            node,
            port,
            process,
            _directory: directory,
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
            Library::Python | Library::Go => {
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

/// A file that `scripts/install-tools grpc-clients` has put there, from these sources.
fn installed(file: &str) -> PathBuf {
    let sources = artifacts::workspace().join("tests/grpc-clients");
    for name in ["requirements.txt", "package-lock.json", "go.sum", "client.go"] {
        assert!(
            fs::read(suite::installed("grpc-clients", name)).unwrap() == fs::read(sources.join(name)).unwrap(),
            ".tools/grpc-clients is an old one: run scripts/install-tools grpc-clients"
        );
    }
    suite::installed("grpc-clients", file)
}
