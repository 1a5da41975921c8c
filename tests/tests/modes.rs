//! A sidecar, a gateway, and what neither of them lets a client decide.

use std::process::{Command, Output};

use sidetrack_tests::{
    Agent, Client, ConfigFile, EchoServer, Envoy, PATIENCE, Ports, Protocol, Services, Sidetrack, artifacts,
    config_text, config_with, free_port, poll_until, render, sidetrack,
};

fn with_mode(text: &str, mode: &str) -> String {
    text.replacen("server: {", &format!("server: {{mode: {mode}, "), 1)
}

fn run(command: &mut Command) -> (bool, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let said = [stdout, stderr].concat();
    (status.success(), String::from_utf8(said).unwrap())
}

fn check(config: &ConfigFile) -> Command {
    let mut command = sidetrack(&["check", "-c"]);
    command.arg(config.path()).env_remove("PROXY_MODE");
    command
}

const PROTOCOLS: [Protocol; 2] = [Protocol::Http1, Protocol::Http2];

#[tokio::test(flavor = "multi_thread")]
async fn the_environment_goes_before_the_file_and_the_option_before_both() {
    let ports = Ports::free();
    let text = config_with(&ports, "routing: {defaultTarget: 10.1.2.3}");
    let refused = "10.1.2.3:80 isn't on loopback: a sidecar's baseline is the one service beside it";
    for (file, environment, option, is_sidecar) in [
        (None, None, None, false),
        (Some("sidecar"), None, None, true),
        (Some("gateway"), Some("sidecar"), None, true),
        (Some("sidecar"), Some("gateway"), None, false),
        (Some("sidecar"), Some("sidecar"), Some("gateway"), false),
        (None, None, Some("sidecar"), true),
    ] {
        let config = ConfigFile::new(&file.map_or(text.clone(), |mode| with_mode(&text, mode)));
        let mut command = check(&config);
        command.envs(environment.map(|mode| ("PROXY_MODE", mode)));
        command.args(option.iter().flat_map(|mode| ["--mode", mode]));
        let (is_ok, said) = run(&mut command);
        let case = format!("{file:?}, {environment:?}, {option:?}: {said}");
        assert_eq!(is_ok, !is_sidecar, "{case}");
        assert_eq!(said.contains(refused), is_sidecar, "{case}");
    }
    let (is_ok, said) = run(check(&ConfigFile::new(&text)).env("PROXY_MODE", "mesh"));
    assert!(!is_ok && said.contains("must be sidecar or gateway"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecars_baseline_is_the_port_beside_it() {
    let ports = Ports::free();
    let beside = EchoServer::bind("beside", ([127, 0, 0, 1], 0).into()).await.unwrap();
    let services = Services::start(&["service-a"]).await;
    let routing = format!(
        "routing:\n  defaultTarget: shop.prod.svc.cluster.local:{}\n  rules:\n    - {{routeKey: k, targetService: service-a}}\n    \
         - {{routeKey: gone, targetService: \"127.0.0.1:{}\"}}\n",
        beside.address().port(),
        free_port()
    );
    let config = ConfigFile::new(&with_mode(&config_text(&ports, &services, &routing), "sidecar"));
    let _sidetrack = Sidetrack::up(&config.path(), &ports).await;
    for (key, expected) in [
        ("", "beside"),
        ("unknown", "beside"),
        ("gone", "beside"),
        ("k", "service-a"),
    ] {
        let answer = Client::new(Protocol::Http1, ports.http)
            .get("/", &[("x-route-key", key)])
            .await;
        assert_eq!(answer.unwrap().served_by(), expected, "{key:?}");
    }
    let with_hosts = routing.replace("  rules:", "  hosts: {a.example: b}\n  rules:");
    let config = ConfigFile::new(&with_mode(&config_text(&ports, &services, &with_hosts), "sidecar"));
    let (is_ok, said) = run(&mut check(&config));
    let refused = "routing.hosts: a sidecar's baseline is the one service beside it: leave the hosts out";
    assert!(!is_ok && said.contains(refused), "{said}");
}

/// Names with capitals and wildcards; the default for those that no name fits.
fn hosts() -> String {
    format!(
        r#"
routing:
  defaultTarget: main
  hosts: {{Shop.example: shop, "*.example": any, "*.deep.example": deep}}
  rules:
    - {{routeKey: k, name: shop-gone, hosts: [shop.example], targetService: "127.0.0.1:{0}"}}
    - {{routeKey: k, name: any-gone, hosts: [a.example], targetService: "127.0.0.1:{0}"}}
    - {{routeKey: k, name: deep-lives, hosts: ["*.deep.example"], targetService: sandbox}}
    - {{routeKey: k, name: test-gone, hosts: [gone.test], targetService: "127.0.0.1:{0}"}}
"#,
        free_port()
    )
}

/// Host; who answers without a key, and with one.
const HOSTS: [(&str, &str, &str); 14] = [
    ("shop.example", "shop", "shop"),
    ("SHOP.Example", "shop", "shop"),
    ("shop.example:8443", "shop", "shop"),
    ("a.example", "any", "any"),
    ("A.EXAMPLE:80", "any", "any"),
    ("a.b.c.example", "any", "any"),
    ("a.shop.example", "any", "any"),
    ("x.deep.example", "deep", "sandbox"),
    ("x.y.deep.example:1", "deep", "deep"),
    ("deep.example", "any", "any"),
    ("example", "main", "main"),
    ("shop.example.test", "main", "main"),
    ("gone.test", "main", "main"),
    ("127.0.0.1:8080", "main", "main"),
];

const SERVICES: [&str; 5] = ["main", "shop", "any", "deep", "sandbox"];

async fn check_hosts(ports: &Ports) {
    for (protocol, port) in [
        (Protocol::Http1, ports.http),
        (Protocol::Http2, ports.http),
        (Protocol::Http2, ports.grpc),
    ] {
        let mut client = Client::new(protocol, port);
        for (host, keyless, keyed) in HOSTS {
            for (key, expected) in [("", keyless), ("unknown", keyless), ("k", keyed)] {
                let answer = client.get("/", &[("host", host), ("x-route-key", key)]).await.unwrap();
                let case = format!("{protocol:?} on {port}: {host} {key:?}");
                assert_eq!(answer.served_by(), expected, "{case}");
                let seen = answer.echo();
                let authority = seen.header("host").concat();
                assert!(authority.is_empty() || authority == host, "{case}: {authority}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_has_a_baseline_for_each_host_and_rules_fall_back_to_it() {
    let ports = Ports::free();
    let services = Services::start(&SERVICES).await;
    let config = ConfigFile::new(&with_mode(&config_text(&ports, &services, &hosts()), "gateway"));
    let sidetrack = Sidetrack::up(&config.path(), &ports).await;
    check_hosts(&ports).await;

    for (host, keyless, keyed) in HOSTS {
        for (key, expected) in [("unknown", keyless), ("k", keyed)] {
            let mut explain = self::sidetrack(&["explain", "--path", "/", "--host", host, "-c"]);
            explain.arg(config.path()).args(["-H", &format!("X-Route-Key: {key}")]);
            let (is_ok, said) = run(&mut explain);
            let first = said.lines().next().unwrap_or_default();
            let names = [format!(" the baseline ({expected}:80)"), format!(" {expected}:80")];
            assert!(
                is_ok && names.iter().any(|name| first.contains(name)),
                "{host} {key}: {said}"
            );
        }
    }

    let mut metrics = Client::new(Protocol::Http1, ports.metrics);
    let text = metrics.get("/metrics", &[]).await.unwrap().text();
    for (rule, role) in [("shop-gone", "baseline"), ("deep-lives", ""), ("test-gone", "baseline")] {
        let found = text.lines().find(|line| {
            let is_it = line.starts_with("sidetrack_requests_total{") && line.contains(&format!("rule=\"{rule}\""));
            is_it && (line.contains("role=\"baseline\"") == (role == "baseline"))
        });
        assert!(found.is_some(), "{rule} {role:?} isn't in {text}");
    }
    poll_until(PATIENCE, "the access log", async || {
        let log = sidetrack.stdout();
        let fell_back = log.lines().any(|line| {
            ["\"rule\":\"shop-gone\"", "\"role\":\"baseline\"", "\"status\":200"]
                .iter()
                .all(|part| line.contains(part))
        });
        fell_back.then_some(()).ok_or(log)
    })
    .await;

    let several = hosts().replace("hosts: [a.example]", "hosts: [a.example, shop.example]");
    let config = ConfigFile::new(&with_mode(&config_text(&ports, &services, &several), "gateway"));
    let (is_ok, said) = run(&mut check(&config));
    let refused =
        "routing.rules[1]: is for hosts of several baselines, any:80 and shop:80, and can fall back to one only";
    assert!(!is_ok && said.contains(refused), "{said}");
}

/// With TLS to a target and a collector besides.
#[tokio::test(flavor = "multi_thread")]
async fn the_printed_configurations_of_a_gateway_are_accepted_and_do_the_same() {
    let services = Services::start(&SERVICES).await;
    for arguments in [&[][..], &["--bootstrap"]] {
        let ports = Ports::free();
        let text = with_mode(&config_text(&ports, &services, &hosts()), "gateway");
        let text = format!("{text}tracing: {{otlp: \"127.0.0.1:{}\"}}\n", free_port());
        let config = ConfigFile::new(&text);
        let bootstrap = render(&config.path(), arguments);
        let path = config.path().with_file_name("envoy.yaml");
        std::fs::write(&path, &bootstrap).unwrap();
        let mut validate = Command::new(artifacts::envoy());
        let (is_ok, said) = run(validate
            .args(["--mode", "validate", "--log-level", "warning", "-c"])
            .arg(&path));
        assert!(is_ok, "{arguments:?}: {said}");

        let _agent = match arguments {
            [] => None,
            _ => Some(Agent::start(&config.path(), &ports).await),
        };
        let envoy = Envoy::start(&bootstrap);
        poll_until(PATIENCE, "the rules in force", async || {
            let sent = [("host", "x.deep.example"), ("x-route-key", "k")];
            let answer = Client::new(Protocol::Http1, ports.http).get("/", &sent).await;
            let served_by = answer.map_err(|error| format!("{error:#}"))?.served_by();
            (served_by == "sandbox").then_some(()).ok_or(served_by)
        })
        .await;
        check_hosts(&ports).await;
        println!("{arguments:?}: {}", envoy.stderr());
    }
}

/// Headers by which Envoys tell each other what to do with a request.
const CONTROLS: [(&str, &str); 8] = [
    ("x-envoy-upstream-rq-timeout-ms", "100"),
    ("x-envoy-upstream-rq-per-try-timeout-ms", "50"),
    ("x-envoy-max-retries", "5"),
    ("x-envoy-retry-on", "5xx,retriable-status-codes"),
    ("x-envoy-retry-grpc-on", "unavailable"),
    ("x-envoy-retriable-status-codes", "500,503"),
    ("x-envoy-hedge-on-per-try-timeout", "true"),
    ("x-envoy-upstream-alt-stat-name", "forged"),
];

/// What makes Envoys believe that such headers come from one of them.
const FORGED: [&[(&str, &str)]; 4] = [
    &[],
    &[("x-envoy-internal", "true")],
    &[("x-forwarded-for", "127.0.0.1"), ("x-envoy-internal", "true")],
    &[("x-forwarded-for", "10.0.0.1")],
];

#[tokio::test(flavor = "multi_thread")]
async fn a_client_cannot_change_timeouts_and_retries() {
    for mode in [None, Some("sidecar"), Some("gateway")] {
        let ports = Ports::free();
        let services = Services::start(&["baseline", "service-a"]).await;
        let routing = "routing: {defaultTarget: baseline, rules: [{routeKey: k, targetService: service-a}]}\n";
        let text = config_text(&ports, &services, routing);
        let config = ConfigFile::new(&mode.map_or(text.clone(), |mode| with_mode(&text, mode)));
        let _sidetrack = Sidetrack::up(&config.path(), &ports).await;
        for protocol in PROTOCOLS {
            let mut client = Client::new(protocol, ports.http);
            for (key, target) in [("", "baseline"), ("k", "service-a")] {
                for forged in FORGED {
                    let mut headers = vec![("x-route-key", key)];
                    headers.extend(CONTROLS);
                    headers.extend(forged);
                    let case = format!("{mode:?} {protocol:?} key {key:?} {forged:?}");
                    let late = client.get("/?delay_ms=150", &headers).await.unwrap();
                    assert_eq!(late.served_by(), target, "{case}");
                    for (name, _) in CONTROLS {
                        assert!(late.echo().header(name).is_empty(), "{case}: the target sees {name}");
                    }
                    let before = services.requests(target);
                    let failed = client.get("/?status=500", &headers).await.unwrap();
                    assert_eq!(failed.status, 500, "{case}");
                    assert_eq!(services.requests(target), before + 1, "{case}: tried again");
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_says_where_requests_come_from_and_others_pass_on_what_they_are_told() {
    for (mode, addresses, scheme) in [(None, 1, "https"), (Some("gateway"), 2, "http")] {
        let ports = Ports::free();
        let services = Services::start(&["baseline"]).await;
        let text = config_text(&ports, &services, "routing: {defaultTarget: baseline}\n");
        let config = ConfigFile::new(&mode.map_or(text.clone(), |mode| with_mode(&text, mode)));
        let _sidetrack = Sidetrack::up(&config.path(), &ports).await;
        let sent = [
            ("x-forwarded-for", "203.0.113.7"),
            ("x-forwarded-proto", "https"),
            ("x-envoy-external-address", "203.0.113.9"),
            ("x-envoy-internal", "true"),
            ("x-envoy-decorator-operation", "forged"),
        ];
        for protocol in PROTOCOLS {
            let mut client = Client::new(protocol, ports.http);
            let echo = client.get("/", &sent).await.unwrap().echo();
            println!("{mode:?} {protocol:?}: {:?}", echo.headers);
            // Of a client on loopback Envoy gives the machine's own address.
            let from = echo.header("x-forwarded-for").concat();
            let from: Vec<_> = from.split(',').collect();
            assert_eq!(
                (from.len(), from[0]),
                (addresses, "203.0.113.7"),
                "{mode:?} {protocol:?}: {from:?}"
            );
            assert_eq!(echo.header("x-forwarded-proto"), [scheme], "{mode:?} {protocol:?}");
        }
    }
}
