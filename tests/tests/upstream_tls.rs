//! TLS to targets.

use std::fs;
use std::path::PathBuf;

use sidetrack_tests::{
    Agent, Authority, Client, ConfigFile, Envoy, Identity, PATIENCE, Ports, Protocol, Services, Sidetrack, TlsServer,
    config_text, poll_until, render, until_served_by,
};
use tempfile::TempDir;

const NAME: &str = "secure.example";
const BOTH: &[&str] = &["h2", "http/1.1"];

/// PEM files in a directory of their own.
struct Files(TempDir);

impl Files {
    fn new(files: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        for (name, pem) in files {
            fs::write(directory.path().join(name), pem).unwrap();
        }
        Self(directory)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// `tls: {…}` with `ca` and these further fields; `FILES` in them is this directory.
    fn tls(&self, fields: &str) -> String {
        let fields = fields.replace("FILES", &self.0.path().display().to_string());
        format!("tls: {{ca: {}{fields}}}", self.path("ca.pem").display())
    }
}

/// A target with TLS, and what a request with its name as the key meets.
struct Case<'c> {
    key: &'static str,
    identity: &'c Identity,
    /// What the server can agree on.
    speaks: &'static [&'static str],
    wants: Option<&'c Authority>,
    /// Fields of the service, and of its `tls`.
    fields: &'static str,
    tls: &'static str,
    /// By HTTP/1.1 and by HTTP/2: the version that arrives, or the error.
    expected: [Result<&'static str, &'static str>; 2],
}

fn cases<'c>(good: &'c Identity, by_ip: &'c Identity, strange: &'c Identity, clients: &'c Authority) -> Vec<Case<'c>> {
    let ok = |http1, http2| [Ok(http1), Ok(http2)];
    let fails = [Err("connection_failed"); 2];
    let case = |key, speaks, fields, expected| Case {
        key,
        identity: good,
        speaks,
        wants: None,
        fields,
        tls: ", sni: secure.example",
        expected,
    };
    vec![
        case("http1", BOTH, "protocol: http1, ", ok("HTTP/1.1", "HTTP/1.1")),
        case("http2", BOTH, "protocol: http2, ", ok("HTTP/2.0", "HTTP/2.0")),
        case("auto", BOTH, "protocol: auto, ", ok("HTTP/2.0", "HTTP/2.0")),
        case(
            "auto-http1",
            &["http/1.1"],
            "protocol: auto, ",
            ok("HTTP/1.1", "HTTP/1.1"),
        ),
        case("auto-http2", &["h2"], "protocol: auto, ", ok("HTTP/2.0", "HTTP/2.0")),
        case("without-alpn", &[], "protocol: auto, ", ok("HTTP/1.1", "HTTP/1.1")),
        Case {
            tls: "",
            ..case("wrong-name", BOTH, "", fails)
        },
        Case {
            identity: strange,
            ..case("unknown-authority", BOTH, "", fails)
        },
        Case {
            identity: by_ip,
            tls: ", sni: 127.0.0.1",
            ..case("by-ip", BOTH, "", ok("HTTP/1.1", "HTTP/1.1"))
        },
        Case {
            wants: Some(clients),
            tls: ", sni: secure.example, clientCert: FILES/client.pem, clientKey: FILES/client.key",
            ..case("with-certificate", BOTH, "protocol: auto, ", ok("HTTP/2.0", "HTTP/2.0"))
        },
        Case {
            wants: Some(clients),
            // With TLS 1.3 the server says so after the client has sent its request.
            ..case("without-certificate", &["http/1.1"], "", [Err("connection_broken"); 2])
        },
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn targets_are_spoken_to_over_tls_and_those_that_cannot_be_believed_are_not() {
    let [authority, others, clients] = ["authority", "others", "clients"].map(Authority::new);
    let good = authority.issue(&[NAME]);
    let by_ip = authority.issue(&["127.0.0.1"]);
    let strange = others.issue(&[NAME]);
    let client = clients.issue(&["client.example"]);
    let files = Files::new(&[
        ("ca.pem", &authority.cert()),
        ("client.pem", &client.cert),
        ("client.key", &client.key),
    ]);
    let ports = Ports::free();
    let mut services = Services::start(&["baseline", "secure"]).await;
    let mut routing = "routing:\n  defaultTarget: baseline\n  rules:\n".to_owned();
    let mut servers = Vec::new();
    let cases = cases(&good, &by_ip, &strange, &clients);
    for case in &cases {
        let target = services.server("secure").address();
        let server = TlsServer::start(target, case.identity, case.speaks, case.wants).await;
        let fields = format!("{}{}", case.fields, files.tls(case.tls));
        services.configure_at(case.key, vec![server.address()], &fields);
        servers.push(server);
        for (suffix, fallback) in [("", "none"), ("-or-baseline", "baseline")] {
            let key = case.key;
            routing += &format!("    - {{routeKey: {key}{suffix}, targetService: {key}, fallback: {fallback}}}\n");
        }
    }
    // The address itself as the target: its name is the address.
    let target = services.server("secure").address();
    let at_address = TlsServer::start(target, &by_ip, BOTH, None).await;
    let address = at_address.address();
    services.configure_at(&format!("\"{address}\""), vec![address], &files.tls(""));
    routing += &format!("    - {{routeKey: address, targetService: \"{address}\", fallback: none}}\n");
    services.configure("secure", &["secure"], "");

    let config = ConfigFile::new(&config_text(&ports, &services, &routing));
    let sidetrack = Sidetrack::up(&config.path(), &ports).await;
    for (case, server) in cases.iter().zip(&servers) {
        for (protocol, port, expected) in [
            (Protocol::Http1, ports.http, case.expected[0]),
            (Protocol::Http2, ports.grpc, case.expected[1]),
        ] {
            let what = format!("{} by {protocol:?}", case.key);
            let mut client = Client::new(protocol, port);
            let answer = client.get("/", &[("x-route-key", case.key)]).await.unwrap();
            let or_baseline = format!("{}-or-baseline", case.key);
            let with_baseline = client.get("/", &[("x-route-key", &or_baseline)]).await.unwrap();
            match expected {
                Ok(version) => {
                    assert_eq!(
                        (answer.echo().service.as_str(), answer.echo().version.as_str()),
                        ("secure", version),
                        "{what}"
                    );
                    assert_eq!(with_baseline.served_by(), "secure", "{what}");
                }
                Err(error) => {
                    let is_grpc = protocol == Protocol::Http2;
                    let status = if is_grpc { 200 } else { 503 };
                    println!("{what}: {} {:?} {}", answer.status, answer.headers, answer.text());
                    assert!([503, status].contains(&answer.status), "{what}: {}", answer.status);
                    assert_eq!(answer.header("x-route-error"), error, "{what}");
                    assert_eq!(with_baseline.served_by(), "baseline", "{what}");
                }
            }
        }
        let seen = server.handshakes();
        let names: Vec<_> = seen.iter().map(|handshake| handshake.name.as_deref()).collect();
        match case.key {
            "by-ip" => assert!(names.iter().all(Option::is_none), "an address is no name: {names:?}"),
            "with-certificate" => assert!(
                seen.iter().all(|seen| seen.certificate == Some(client.der())),
                "{seen:?}"
            ),
            _ if case.expected[0].is_ok() => assert!(names.iter().all(|name| *name == Some(NAME)), "{names:?}"),
            _ => {}
        }
        assert_eq!(seen.is_empty(), case.expected[0].is_err(), "{}: {seen:?}", case.key);
        assert!(seen.iter().all(|seen| seen.version == "1.3"), "{}: {seen:?}", case.key);
    }
    let answer = Client::new(Protocol::Http1, ports.http)
        .get("/", &[("x-route-key", "address")])
        .await;
    assert_eq!(answer.unwrap().served_by(), "secure");
    println!("{}", sidetrack.stderr());
}

/// Where the baseline has TLS and the sandbox has none, and the other way round.
#[tokio::test(flavor = "multi_thread")]
async fn a_baseline_with_tls_takes_what_a_sandbox_without_it_cannot() {
    let authority = Authority::new("authority");
    let files = Files::new(&[("ca.pem", &authority.cert())]);
    let ports = Ports::free();
    let mut services = Services::start(&["main", "plain"]).await;
    let target = services.server("main").address();
    let server = TlsServer::start(target, &authority.issue(&["baseline"]), BOTH, None).await;
    // No `sni`: the name is the target's.
    services.configure_at("baseline", vec![server.address()], &files.tls(""));
    let routing = format!(
        "routing:\n  defaultTarget: baseline\n  rules:\n    - {{routeKey: plain, targetService: plain}}\n    - {{routeKey: \
         gone, targetService: \"127.0.0.1:{}\"}}\n",
        sidetrack_tests::free_port()
    );
    let config = ConfigFile::new(&config_text(&ports, &services, &routing));
    let _sidetrack = Sidetrack::up(&config.path(), &ports).await;
    for (key, expected) in [("plain", "plain"), ("gone", "main"), ("unknown", "main")] {
        let answer = Client::new(Protocol::Http1, ports.http)
            .get("/", &[("x-route-key", key)])
            .await;
        assert_eq!(answer.unwrap().served_by(), expected, "{key}");
    }
    assert!(
        server
            .handshakes()
            .iter()
            .all(|seen| seen.name.as_deref() == Some("baseline"))
    );
}

/// Rules that don't name the service go on, and change when it is mended.
#[tokio::test(flavor = "multi_thread")]
async fn a_missing_ca_is_named_and_what_is_in_force_stays() {
    let ports = Ports::free();
    let mut services = Services::start(&["baseline", "a", "b"]).await;
    let before = config_text(&ports, &services, &rules("a"));
    let authority = Authority::new("authority");
    let files = Files::new(&[]);
    let target = services.server("b").address();
    let server = TlsServer::start(target, &authority.issue(&["secure"]), BOTH, None).await;
    services.configure_at("secure", vec![server.address()], &files.tls(""));
    let after = config_text(
        &ports,
        &services,
        &format!("{}    - {{routeKey: s, targetService: secure}}\n", rules("b")),
    );
    let config = ConfigFile::new(&before);
    let ca = files.path("ca.pem").display().to_string();

    // With an Envoy of its own the agent looks for the file.
    let sidetrack = Sidetrack::up(&config.path(), &ports).await;
    until_served_by(ports.http, "k", "a").await;
    config.replace(&after);
    let expected = format!("services.secure.tls.ca: {ca} can't be read: No such file or directory");
    until_ready_says(&ports, &[&expected]).await;
    until_served_by(ports.http, "k", "a").await;
    assert!(sidetrack.stderr().contains(&expected), "{}", sidetrack.stderr());
    fs::write(files.path("ca.pem"), authority.cert()).unwrap();
    until_served_by(ports.http, "k", "b").await;
    until_served_by(ports.http, "s", "b").await;
    drop(sidetrack);

    // Without, Envoy refuses it.
    fs::remove_file(files.path("ca.pem")).unwrap();
    let ports = Ports::free();
    let with_ports = |routing: &str| config_text(&ports, &services, routing);
    config.replace(&with_ports(&rules("a")));
    let _agent = Agent::start(&config.path(), &ports).await;
    let _envoy = Envoy::start(&render(&config.path(), &["--bootstrap"]));
    until_served_by(ports.http, "k", "a").await;
    config.replace(&with_ports(&format!(
        "{}    - {{routeKey: s, targetService: secure}}\n",
        rules("b")
    )));
    let text = until_ready_says(&ports, &["refuses CDS", &ca, "secure:80"]).await;
    println!("{text}");
    until_served_by(ports.http, "k", "a").await;
    until_served_by(ports.http, "s", "baseline").await;
    // The agent doesn't repeat what was refused: the configuration must change.
    fs::write(files.path("ca.pem"), authority.cert()).unwrap();
    let mended = with_ports(&format!("{}    - {{routeKey: s, targetService: secure}}\n", rules("b")));
    config.replace(&mended.replace("tls: {ca", "connectTimeout: 4s, tls: {ca"));
    until_served_by(ports.http, "k", "b").await;
    until_served_by(ports.http, "s", "b").await;
}

fn rules(target: &str) -> String {
    format!("routing:\n  defaultTarget: baseline\n  rules:\n    - {{routeKey: k, targetService: {target}}}\n")
}

async fn until_ready_says(ports: &Ports, expected: &[&str]) -> String {
    let mut api = Client::new(Protocol::Http1, ports.api);
    poll_until(PATIENCE, &format!("{expected:?}"), async || {
        let text = api
            .get("/readyz", &[])
            .await
            .map_err(|error| format!("{error:#}"))?
            .text();
        let is_said = expected.iter().all(|part| text.contains(part));
        if is_said { Ok(text) } else { Err(text) }
    })
    .await
}
