//! TLS on the ports for requests.

use sidetrack_tests::{
    Agent, Authority, Client, ConfigFile, Envoy, Identity, PATIENCE, Pid, Ports, Process, Protocol, Services,
    Sidetrack, Signal, TlsFiles, Trust, config_text, poll_until, render, until_shown,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

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
    let files = TlsFiles::new(&authority.issue(&[NAME]));
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

/// `check` says nothing of files, which may be on another machine.
#[tokio::test(flavor = "multi_thread")]
async fn missing_files_keep_it_from_starting_and_a_change_from_coming_into_force() {
    let ports = Ports::free();
    let services = Services::start(&["baseline", "service-a"]).await;
    let plain = config_text(&ports, &services, ROUTING);
    let authority = Authority::new("authority");
    let files = TlsFiles::missing();
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

/// Also where the files are there but don't fit, which only Envoy finds out.
#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_not_a_certificate_and_its_key_keep_it_from_starting() {
    let authority = Authority::new("authority");
    let [one, other] = [0; 2].map(|_| authority.issue(&[NAME]));
    for (cert, key, expected) in [
        ("garbage", one.key.as_str(), "tls.crt holds no certificate in PEM"),
        (&one.cert, "", "tls.key holds no private key in PEM"),
        (&one.cert, &other.key, "refuses SDS: Failed to load private key from "),
    ] {
        let ports = Ports::free();
        let services = Services::start(&["baseline"]).await;
        let identity = Identity {
            cert: cert.to_owned(),
            key: key.to_owned(),
        };
        let files = TlsFiles::new(&identity);
        let text = files.in_config(&config_text(&ports, &services, "routing: {defaultTarget: baseline}\n"));
        let config = ConfigFile::new(&text);
        let mut sidetrack = Sidetrack::spawn(&config.path());
        let status = sidetrack.exit(PATIENCE).await;
        let said = sidetrack.stderr();
        assert!(
            status.code() == Some(1) && said.contains(expected),
            "{expected}: {said}"
        );
    }
}

/// An agent alone can't know which files are on Envoy's machine.
#[tokio::test(flavor = "multi_thread")]
async fn an_envoy_that_cannot_read_the_files_answers_nobody_and_the_agent_says_so() {
    let ports = Ports::free();
    let services = Services::start(&["baseline", "service-a"]).await;
    let plain = config_text(&ports, &services, ROUTING);
    let files = TlsFiles::missing();
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
    poll_until(PATIENCE, "no answer without TLS", async || {
        let answer = Client::new(Protocol::Http1, ports.http).get("/", &[]).await;
        answer.map_or(Ok(()), |answer| Err(answer.text()))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_envoy_without_an_agent_has_the_same_listeners() {
    let services = Services::start(&["baseline", "service-a"]).await;
    let authority = Authority::new("authority");
    let files = TlsFiles::new(&authority.issue(&[NAME]));
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
