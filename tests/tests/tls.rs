//! TLS on the ports for requests.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sidetrack_tests::{
    Agent, Authority, Client, ConfigFile, Envoy, Identity, PATIENCE, Pid, Ports, Process, Protocol, Services,
    Sidetrack, Signal, Stats, Trust, artifacts, config_text, poll_until, render,
};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;

const NAME: &str = "proxy.example";

const ROUTING: &str = r#"
routing:
  defaultTarget: baseline
  rules:
    - {routeKey: sandbox, targetService: service-a, pathPrefixes: [/api]}
"#;

/// Route key, path; who answers.
const CASES: [(Option<&str>, &str, &str); 4] = [
    (None, "/api", "baseline"),
    (Some("unknown"), "/api", "baseline"),
    (Some("sandbox"), "/", "baseline"),
    (Some("sandbox"), "/api", "service-a"),
];

/// The certificate's files, in a directory of their own.
struct Files {
    directory: TempDir,
}

impl Files {
    fn new(identity: &Identity) -> Self {
        let files = Self::missing();
        files.replace(identity);
        files
    }

    /// As Kubernetes mounts a secret: `tls.crt` → `..data/tls.crt`, where `..data` → a directory that an update replaces.
    fn mounted(identity: &Identity) -> Self {
        let files = Self::missing();
        for name in ["tls.crt", "tls.key"] {
            symlink(format!("..data/{name}"), files.path(name)).unwrap();
        }
        files.remount(identity);
        files
    }

    fn missing() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, directory: &Path, identity: &Identity) {
        fs::write(directory.join("tls.crt"), &identity.cert).unwrap();
        fs::write(directory.join("tls.key"), &identity.key).unwrap();
    }

    fn write_in_place(&self, identity: &Identity) {
        self.write(self.directory.path(), identity);
    }

    fn replace(&self, identity: &Identity) {
        let new = tempfile::tempdir_in(&self.directory).unwrap();
        self.write(new.path(), identity);
        for name in ["tls.crt", "tls.key"] {
            fs::rename(new.path().join(name), self.path(name)).unwrap();
        }
    }

    fn remount(&self, identity: &Identity) {
        let old = fs::read_link(self.path("..data")).ok();
        let new = tempfile::Builder::new().prefix("..").tempdir_in(&self.directory);
        let new = new.unwrap().keep();
        self.write(&new, identity);
        symlink(new.file_name().unwrap(), self.path("..data_tmp")).unwrap();
        fs::rename(self.path("..data_tmp"), self.path("..data")).unwrap();
        if let Some(old) = old {
            fs::remove_dir_all(self.path("").join(old)).unwrap();
        }
    }

    /// `text` with these as the server's certificate.
    fn in_config(&self, text: &str) -> String {
        let (cert, key) = (self.path("tls.crt"), self.path("tls.key"));
        let tls = format!("server: {{tls: {{cert: {}, key: {}}}, ", cert.display(), key.display());
        text.replacen("server: {", &tls, 1)
    }
}

/// What each port is asked by whom: the port, and what a client offers there; what both agree on.
fn offers(ports: &Ports) -> [(u16, &'static [&'static str], Option<&'static str>); 6] {
    [
        (ports.http, &["h2", "http/1.1"], Some("h2")),
        (ports.http, &["http/1.1", "h2"], Some("h2")),
        (ports.http, &["http/1.1"], Some("http/1.1")),
        (ports.http, &[], None),
        (ports.grpc, &["h2", "http/1.1"], Some("h2")),
        (ports.grpc, &["http/1.1"], None),
    ]
}

async fn check_requests(ports: &Ports, trust: &Trust) {
    for (protocol, port) in [
        (Protocol::Http1, ports.http),
        (Protocol::Http2, ports.http),
        (Protocol::Http2, ports.grpc),
    ] {
        let mut client = Client::over_tls(protocol, port, trust);
        for (key, path, expected) in CASES {
            let headers: Vec<_> = key.map(|key| ("x-route-key", key)).into_iter().collect();
            let echo = client.get(path, &headers).await.unwrap().echo();
            assert_eq!(echo.service, expected, "{protocol:?} on {port}: {headers:?} {path}");
            assert_eq!(echo.header("x-forwarded-proto"), ["https"], "{protocol:?} on {port}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_routed_and_websockets_opened_over_tls_and_not_without() {
    let ports = Ports::free();
    let services = Services::start(&["baseline", "service-a"]).await;
    let authority = Authority::new("authority");
    let files = Files::new(&authority.issue(&[NAME]));
    let config = ConfigFile::new(&files.in_config(&config_text(&ports, &services, ROUTING)));
    let sidetrack = Sidetrack::up(&config.path(), &ports).await;
    let trust = Trust::new(&authority, NAME);

    poll_until(PATIENCE, "where it listens", async || {
        let said = sidetrack.stdout();
        said.contains(&format!("HTTP on https://127.0.0.1:{}\n", ports.http))
            .then_some(())
            .ok_or(said)
    })
    .await;
    check_requests(&ports, &trust).await;
    for (port, offered, expected) in offers(&ports) {
        let stream = trust.open(port, offered).await.unwrap();
        let agreed = stream.get_ref().1.alpn_protocol().map(String::from_utf8_lossy);
        assert_eq!(agreed.as_deref(), expected, "{offered:?} on {port}");
    }
    for port in [ports.http, ports.grpc] {
        for protocol in [Protocol::Http1, Protocol::Http2] {
            let plain = Client::new(protocol, port).get("/", &[]).await;
            assert!(plain.is_err(), "{protocol:?} without TLS on {port}: {plain:?}");
        }
    }

    let mut socket = trust.open(ports.http, &["http/1.1"]).await.unwrap();
    let upgrade = "GET /api HTTP/1.1\r\nhost: a\r\nx-route-key: sandbox\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                   sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
    socket.write_all(upgrade.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
    socket.write_all(b"frames").await.unwrap();
    let mut back = [0; 6];
    socket.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"frames");
    assert_eq!(services.last_request("service-a").path, "/api");
}

/// Requests on new connections and on ones that stay, one after the other, until it is told to stop.
struct TlsTraffic {
    stopping: Arc<AtomicBool>,
    senders: JoinSet<(usize, Vec<String>)>,
}

impl TlsTraffic {
    fn start(ports: &Ports, trust: &Trust) -> Self {
        let stopping = Arc::new(AtomicBool::new(false));
        let mut senders = JoinSet::new();
        for (protocol, stays) in [
            (Protocol::Http1, true),
            (Protocol::Http2, true),
            (Protocol::Http1, false),
            (Protocol::Http2, false),
        ] {
            let (port, trust, stopping) = (ports.http, trust.clone(), Arc::clone(&stopping));
            senders.spawn(async move {
                let mut client = Client::over_tls(protocol, port, &trust);
                let (mut sent, mut failed) = (0, Vec::new());
                let mut first = None;
                while !stopping.load(Ordering::Relaxed) {
                    if !stays {
                        client = Client::over_tls(protocol, port, &trust);
                    }
                    sent += 1;
                    match client.get("/", &[]).await {
                        Ok(answer) if answer.served_by() == "baseline" => {}
                        Ok(answer) => failed.push(answer.text()),
                        Err(error) => failed.push(format!("{error:#}")),
                    }
                    let certificate = client.certificate().map(<[u8]>::to_vec);
                    if stays && *first.get_or_insert(certificate.clone()) != certificate {
                        failed.push("its connection is another".to_owned());
                    }
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                (sent, failed)
            });
        }
        Self { stopping, senders }
    }

    /// How many requests there were, and what went wrong.
    async fn stop(mut self) -> (usize, Vec<String>) {
        self.stopping.store(true, Ordering::Relaxed);
        let mut all = (0, Vec::new());
        while let Some(ended) = self.senders.join_next().await {
            let (sent, failed) = ended.unwrap();
            all.0 += sent;
            all.1.extend(failed);
        }
        all
    }
}

/// Waits until new connections are shown the certificate of `identity`.
async fn until_shown(port: u16, trust: &Trust, identity: &Identity, what: &str) {
    poll_until(PATIENCE, what, async || {
        let mut client = Client::over_tls(Protocol::Http1, port, trust);
        client.connect().await.map_err(|error| format!("{error:#}"))?;
        let is_shown = client.certificate() == Some(&identity.der()[..]);
        is_shown.then_some(()).ok_or_else(|| "another is shown".to_owned())
    })
    .await;
}

async fn failed_rotations(ports: &Ports) -> u64 {
    Stats::read(ports.admin, "key_rotation_failed")
        .await
        .sum("key_rotation_failed")
}

async fn until_rotation_failed(ports: &Ports, before: u64, what: &str) {
    poll_until(PATIENCE, what, async || {
        let now = failed_rotations(ports).await;
        (now > before)
            .then_some(())
            .ok_or_else(|| format!("{now} rotations have failed"))
    })
    .await;
}

/// Each step changes the same two files in another way.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_certificate_is_shown_without_a_failed_request_and_a_broken_one_never() {
    let ports = Ports::free();
    let services = Services::start(&["baseline", "service-a"]).await;
    let authority = Authority::new("authority");
    let certificates: Vec<Identity> = (0..6).map(|_| authority.issue(&[NAME])).collect();
    let [mounted, remounted, replaced, in_place, other, mended] = &certificates[..] else {
        unreachable!()
    };
    let files = Files::mounted(mounted);
    let config = ConfigFile::new(&files.in_config(&config_text(&ports, &services, ROUTING)));
    let sidetrack = Sidetrack::up(&config.path(), &ports).await;
    let trust = Trust::new(&authority, NAME);
    until_shown(ports.http, &trust, mounted, "the first certificate").await;
    let traffic = TlsTraffic::start(&ports, &trust);

    files.remount(remounted);
    until_shown(ports.http, &trust, remounted, "the one that was mounted").await;
    files.replace(replaced);
    until_shown(ports.http, &trust, replaced, "the one that was put in place").await;
    let mut in_force = replaced;
    let release = artifacts::release(&artifacts::envoy());
    if !["1.37.", "1.38.", "1.39."].iter().any(|old| release.starts_with(old)) {
        files.write_in_place(in_place);
        until_shown(ports.http, &trust, in_place, "the one that was written in place").await;
        in_force = in_place;
    }

    for (what, cert, key) in [
        ("garbage", "garbage", mended.key.as_str()),
        ("another's key", &other.cert, &mended.key),
        ("no key", &other.cert, ""),
    ] {
        let before = failed_rotations(&ports).await;
        files.replace(&Identity {
            cert: cert.to_owned(),
            key: key.to_owned(),
        });
        until_rotation_failed(&ports, before, what).await;
        until_shown(ports.http, &trust, in_force, what).await;
    }
    let said = sidetrack.stderr();
    files.replace(mended);
    until_shown(ports.http, &trust, mended, "the one that is right").await;

    let (requests, failed) = traffic.stop().await;
    println!(
        "{requests} requests over TLS while the certificate changed, {} failed",
        failed.len()
    );
    assert!(requests > 100, "{requests}");
    assert!(failed.is_empty(), "{} of {requests}: {failed:?}", failed.len());
    println!("said of broken certificates:\n{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn certificate_and_key_may_be_in_different_directories() {
    let ports = Ports::free();
    let services = Services::start(&["baseline", "service-a"]).await;
    let authority = Authority::new("authority");
    let [old, new] = [0; 2].map(|_| authority.issue(&[NAME]));
    let (certs, keys) = (Files::new(&old), Files::new(&old));
    let text = certs.in_config(&config_text(&ports, &services, ROUTING));
    let config = ConfigFile::new(&text.replace(
        &certs.path("tls.key").display().to_string(),
        &keys.path("tls.key").display().to_string(),
    ));
    let _sidetrack = Sidetrack::up(&config.path(), &ports).await;
    let trust = Trust::new(&authority, NAME);
    until_shown(ports.http, &trust, &old, "the first").await;
    // The certificate first: between the two the files don't fit.
    certs.replace(&new);
    until_rotation_failed(&ports, 0, "half of the change").await;
    keys.replace(&new);
    until_shown(ports.http, &trust, &new, "the new one").await;
}

/// `check` says nothing of files, which may be on another machine.
#[tokio::test(flavor = "multi_thread")]
async fn missing_files_keep_it_from_starting_and_a_change_from_coming_into_force() {
    let ports = Ports::free();
    let services = Services::start(&["baseline", "service-a"]).await;
    let plain = config_text(&ports, &services, ROUTING);
    let authority = Authority::new("authority");
    let files = Files::missing();
    let config = ConfigFile::new(&files.in_config(&plain));
    let expected = ["cert", "key"].map(|setting| {
        let file = files.path(if setting == "cert" { "tls.crt" } else { "tls.key" });
        format!(
            "server.tls.{setting}: {} can't be read: No such file or directory",
            file.display()
        )
    });

    let mut sidetrack = Sidetrack::spawn(&config.path());
    let status = sidetrack.exit(PATIENCE).await;
    assert_eq!(status.code(), Some(1));
    let said = sidetrack.stderr();
    for message in &expected {
        let place = format!("{}:1:", config.path().display());
        assert!(
            said.lines()
                .any(|line| line.starts_with(&place) && line.contains(message)),
            "{message} isn't in {said}"
        );
    }

    config.replace(&plain);
    let _sidetrack = Sidetrack::up(&config.path(), &ports).await;
    config.replace(&files.in_config(&plain));
    let mut api = Client::new(Protocol::Http1, ports.api);
    poll_until(PATIENCE, "the rejection", async || {
        let text = api.get("/readyz", &[]).await.unwrap().text();
        expected
            .iter()
            .all(|message| text.contains(message))
            .then_some(())
            .ok_or(text)
    })
    .await;
    let plain = Client::new(Protocol::Http1, ports.http).get("/", &[]).await;
    assert_eq!(plain.unwrap().served_by(), "baseline");
    // Without another change of the configuration.
    let identity = authority.issue(&[NAME]);
    files.replace(&identity);
    until_shown(ports.http, &Trust::new(&authority, NAME), &identity, "the certificate").await;
}

/// Ends an Envoy whose `sidetrack up` is gone.
struct Orphans(Vec<Pid>);

impl Drop for Orphans {
    fn drop(&mut self) {
        for pid in &self.0 {
            Process::kill(*pid);
        }
    }
}

/// An agent alone can't know which files are on Envoy's machine.
#[tokio::test(flavor = "multi_thread")]
async fn an_envoy_that_cannot_read_the_files_goes_on_without_tls_and_the_agent_says_so() {
    let ports = Ports::free();
    let services = Services::start(&["baseline", "service-a"]).await;
    let plain = config_text(&ports, &services, ROUTING);
    let files = Files::missing();
    let config = ConfigFile::new(&plain);
    let mut sidetrack = Sidetrack::up(&config.path(), &ports).await;
    let _envoy = Orphans(sidetrack.descendants());
    sidetrack.signal(Signal::KILL);
    poll_until(PATIENCE, "its end", async || sidetrack.exited().ok_or_else(String::new)).await;

    config.replace(&files.in_config(&plain));
    let _agent = Agent::start(&config.path(), &ports).await;
    let mut api = Client::new(Protocol::Http1, ports.api);
    let text = poll_until(PATIENCE, "the refusal", async || {
        let answer = api.get("/readyz", &[]).await.unwrap();
        let text = answer.text();
        (answer.status == 503 && text.contains("tls.crt"))
            .then_some(text.clone())
            .ok_or(text)
    })
    .await;
    println!("{text}");
    let answer = Client::new(Protocol::Http1, ports.http).get("/", &[]).await;
    assert_eq!(answer.unwrap().served_by(), "baseline");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_envoy_without_an_agent_has_the_same_listeners() {
    let services = Services::start(&["baseline", "service-a"]).await;
    let authority = Authority::new("authority");
    let files = Files::new(&authority.issue(&[NAME]));
    let trust = Trust::new(&authority, NAME);
    for arguments in [&[][..], &["--bootstrap"]] {
        let ports = Ports::free();
        let config = ConfigFile::new(&files.in_config(&config_text(&ports, &services, ROUTING)));
        let _agent = match arguments {
            [] => None,
            _ => Some(Agent::start(&config.path(), &ports).await),
        };
        let _envoy = Envoy::start(&render(&config.path(), arguments));
        poll_until(PATIENCE, "the rule in force", async || {
            let mut client = Client::over_tls(Protocol::Http2, ports.http, &trust);
            let answer = client.get("/api", &[("x-route-key", "sandbox")]).await;
            let served_by = answer.map_err(|error| format!("{error:#}"))?.served_by();
            (served_by == "service-a").then_some(()).ok_or(served_by)
        })
        .await;
        check_requests(&ports, &trust).await;
    }
}
