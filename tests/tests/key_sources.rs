//! Where keys come from, what becomes of them, and that requests without one never enter the VM.

use sidetrack_tests::{
    Client, ConfigFile, PATIENCE, Ports, Process, Protocol, Services, Sidetrack, Stats, config_text, poll_until,
    sidetrack,
};

const DISAGREEMENTS: &str = "sidetrack_key_disagreements_total";

const ROUTING: &str = r#"
routing:
  defaultTarget: baseline
  propagate: {baggage: sd-routing-key}
  keySources:
    - header: X-Route-Key
    - baggage: sd-routing-key
    - tracestate: sd-routing-key
    - cookie: route-key
    - query: route-key
    - host: "*.preview.example.com"
  rules:
    - {routeKey: known, targetService: target}
"#;

/// A request: path and headers.
type Head<'a> = (&'a str, &'a [(&'a str, &'a str)]);

/// Requests that may carry a key, one of each kind and more; `KEY` stands for it.
const KEYED: [Head<'_>; 12] = [
    ("/", &[("x-route-key", "KEY")]),
    ("/", &[("X-ROUTE-KEY", "KEY")]),
    ("/", &[("baggage", "sd-routing-key=KEY")]),
    (
        "/",
        &[("baggage", "a=b;p=q , sd-routing-key = KEY;x"), ("baggage", "c=d")],
    ),
    ("/", &[("baggage", "a=b"), ("baggage", "sd-routing-key=KEY")]),
    ("/", &[("tracestate", "sd-routing-key=KEY")]),
    ("/", &[("tracestate", "a=b"), ("tracestate", "sd-routing-key=KEY,c=d")]),
    ("/", &[("cookie", "a=b; route-key=KEY; c=d")]),
    ("/?route-key=KEY", &[]),
    ("/a?b=c&route-key=KEY#f", &[]),
    ("/", &[("host", "KEY.preview.example.com")]),
    ("/", &[("host", "KEY.Preview.Example.COM:8080")]),
];

/// Requests that carry none, though some come near.
const KEYLESS: [Head<'_>; 16] = [
    ("/", &[]),
    ("/a/b?c=d", &[]),
    ("/route-key=known", &[]),
    ("/?xroute-key=known", &[]),
    ("/?a=route-key", &[]),
    ("/", &[("x-route-ke", "known")]),
    ("/", &[("x-route-keys", "known")]),
    ("/", &[("baggage", "routing-key=known,a=b")]),
    ("/", &[("tracestate", "vendor=known"), ("traceparent", "00-1-2-01")]),
    ("/", &[("cookie", "session=1; route_key=known")]),
    ("/", &[("host", "preview.example.com")]),
    ("/", &[("host", "known.example.com")]),
    ("/", &[("host", "known.preview.example.com.evil.example")]),
    ("/", &[("x-route-explain", "1")]),
    ("/", &[("x-route-cluster", "target:80")]),
    ("/", &[("x-route-mirror", "target:80")]),
];

/// The request with the key in its place.
fn with_key(head: Head<'_>, key: &str) -> (String, Vec<(String, String)>) {
    let (path, headers) = head;
    let put = |text: &str| text.replace("KEY", key);
    let headers = headers
        .iter()
        .map(|(name, value)| ((*name).replace("ROUTE-KEY", "Route-Key"), put(value)));
    // A fragment isn't sent.
    let path = path.split('#').next().unwrap();
    (put(path), headers.collect())
}

async fn get(client: &mut Client, head: &(String, Vec<(String, String)>)) -> sidetrack_tests::Answer {
    let headers: Vec<_> = head
        .1
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    client.get(&head.0, &headers).await.unwrap()
}

/// A section of a WebAssembly module.
fn section(id: u8, content: &[&[u8]]) -> Vec<u8> {
    let content = content.concat();
    [&[id, u8::try_from(content.len()).unwrap()], content.as_slice()].concat()
}

/// An export of the function or memory with this index.
fn export(name: &str, kind: u8, index: u8) -> Vec<u8> {
    let length = u8::try_from(name.len()).unwrap();
    [&[length], name.as_bytes(), &[kind, index]].concat()
}

/// A filter that any request breaks that enters it.
fn trap() -> Vec<u8> {
    const I32: u8 = 0x7f;
    let types: &[&[u8]] = &[
        &[3],
        &[0x60, 0, 0],
        &[0x60, 3, I32, I32, I32, 1, I32],
        &[0x60, 1, I32, 1, I32],
    ];
    let exports = [
        vec![4],
        export("memory", 2, 0),
        export("proxy_abi_version_0_2_1", 0, 0),
        export("proxy_on_request_headers", 0, 1),
        export("malloc", 0, 2),
    ];
    let exports: Vec<&[u8]> = exports.iter().map(Vec::as_slice).collect();
    // Nothing; unreachable; the address 1024.
    let code: &[&[u8]] = &[
        &[3],
        &[2, 0, 0x0b],
        &[3, 0, 0x00, 0x0b],
        &[5, 0, 0x41, 0x80, 0x08, 0x0b],
    ];
    [
        b"\0asm\x01\0\0\0".to_vec(),
        section(1, types),
        section(3, &[&[3, 0, 1, 2]]),
        section(5, &[&[1, 0, 2]]),
        section(7, &exports),
        section(10, code),
    ]
    .concat()
}

/// With a filter that breaks every request that enters it, those without a key are served all the same.
#[tokio::test(flavor = "multi_thread")]
async fn only_a_request_that_may_carry_a_key_enters_the_vm() {
    let ports = Ports::free();
    let services = Services::start(&["baseline", "target"]).await;
    let config = ConfigFile::new(&config_text(&ports, &services, ROUTING));
    let filter = config.path().with_file_name("trap.wasm");
    std::fs::write(&filter, trap()).unwrap();
    let mut command = sidetrack(&["up", "--filter"]);
    let _sidetrack = Process::spawn("sidetrack up", command.arg(filter).arg("-c").arg(config.path()));
    let mut agent = Client::new(Protocol::Http1, ports.api);
    poll_until(PATIENCE, "the agent ready", async || {
        let ready = agent.get("/readyz", &[]).await.map_err(|error| format!("{error:#}"))?;
        (ready.status == 200).then_some(()).ok_or_else(|| ready.text())
    })
    .await;

    let mut client = Client::new(Protocol::Http1, ports.http);
    for head in KEYED {
        for key in ["known", "unknown"] {
            let served_by = get(&mut client, &with_key(head, key)).await.served_by();
            assert!(
                ["500", "503"].contains(&served_by.as_str()),
                "{head:?} doesn't enter: {served_by}"
            );
        }
        for head in KEYLESS {
            let served_by = get(&mut client, &with_key(head, "")).await.served_by();
            assert_eq!(served_by, "baseline", "{head:?} enters");
        }
    }
    println!(
        "{} kinds with a key enter, {} without don't",
        KEYED.len(),
        KEYLESS.len()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_any_source_reaches_target_and_baseline() {
    let ports = Ports::free();
    let services = Services::start(&["baseline", "target"]).await;
    let config = ConfigFile::new(&config_text(&ports, &services, ROUTING));
    let _sidetrack = Sidetrack::up(&config.path(), &ports).await;

    for protocol in [Protocol::Http1, Protocol::Http2] {
        let mut client = Client::new(protocol, ports.http);
        for head in KEYED {
            let is_host = head.1.iter().any(|(name, _)| *name == "host");
            if is_host && protocol == Protocol::Http2 {
                // The client sends an authority of its own.
                continue;
            }
            for (key, expected) in [("known", "target"), ("nobody", "baseline")] {
                let sent = with_key(head, key);
                let echo = get(&mut client, &sent).await.echo();
                let case = format!("{protocol:?} {sent:?}: {echo:?}");
                assert_eq!(echo.service, expected, "{case}");
                assert_eq!(echo.header("x-route-key"), [key], "{case}");
                let baggage = echo.header("baggage").join(",");
                let members: Vec<&str> = baggage
                    .split(',')
                    .map(|member| member.split(';').next().unwrap())
                    .collect();
                let ours = members
                    .iter()
                    .filter(|member| member.replace(' ', "") == format!("sd-routing-key={key}"));
                assert_eq!(ours.count(), 1, "{case}");
                let sent_baggage = sent.1.iter().filter(|(name, _)| name == "baggage");
                for other in ["a=b", "c=d"] {
                    let was_sent = sent_baggage.clone().any(|(_, value)| value.contains(other));
                    assert_eq!(members.contains(&other), was_sent, "{case}");
                }
                for (name, value) in sent.1.iter().filter(|(name, _)| name != "baggage" && name != "host") {
                    assert!(
                        echo.header(name).join(",").contains(value.as_str()),
                        "{case}: {name} is changed"
                    );
                }
                assert_eq!(echo.path, sent.0, "{case}");
            }
        }
        for head in KEYLESS {
            let echo = get(&mut client, &with_key(head, "")).await.echo();
            assert_eq!(echo.service, "baseline", "{head:?}");
            assert!(echo.header("x-route-key").is_empty(), "{head:?}: {echo:?}");
            let sent = head
                .1
                .iter()
                .filter(|(name, _)| *name == "baggage")
                .map(|(_, value)| *value);
            assert_eq!(echo.header("baggage"), sent.collect::<Vec<_>>(), "{head:?}");
        }
    }
}

/// Another key that the baggage had is no longer there: the next hop must see one.
#[tokio::test(flavor = "multi_thread")]
async fn sources_that_disagree_are_counted_and_the_first_is_handed_on() {
    let ports = Ports::free();
    let services = Services::start(&["baseline", "target"]).await;
    let config = ConfigFile::new(&config_text(&ports, &services, ROUTING));
    let _sidetrack = Sidetrack::up(&config.path(), &ports).await;
    let counted = async || {
        let stats = Stats::read(ports.admin, DISAGREEMENTS).await;
        stats
            .not_zero(DISAGREEMENTS)
            .iter()
            .map(|(_, count)| count)
            .sum::<u64>()
    };
    assert_eq!(counted().await, 0);

    let mut client = Client::new(Protocol::Http1, ports.http);
    let agreeing: [Head<'_>; 3] = [
        ("/", &[("x-route-key", "known")]),
        (
            "/?route-key=known",
            &[("x-route-key", "known"), ("cookie", "route-key=known")],
        ),
        ("/?route-key=nobody", &[("baggage", "sd-routing-key=nobody")]),
    ];
    for head in agreeing {
        get(&mut client, &with_key(head, "")).await.echo();
    }
    assert_eq!(counted().await, 0);
    let disagreeing: [Head<'_>; 4] = [
        ("/", &[("x-route-key", "known"), ("baggage", "sd-routing-key=other")]),
        ("/?route-key=other", &[("cookie", "route-key=known")]),
        (
            "/",
            &[
                ("tracestate", "sd-routing-key=known"),
                ("host", "other.preview.example.com"),
            ],
        ),
        (
            "/?route-key=third",
            &[("x-route-key", "known"), ("cookie", "route-key=other")],
        ),
    ];
    for (index, head) in disagreeing.into_iter().enumerate() {
        let echo = get(&mut client, &with_key(head, "")).await.echo();
        assert_eq!(echo.service, "target", "{head:?}");
        assert_eq!(echo.header("x-route-key"), ["known"], "{head:?}");
        assert_eq!(echo.header("baggage"), ["sd-routing-key=known"], "{head:?}");
        assert_eq!(counted().await, index as u64 + 1, "{head:?}");
    }
    println!("{} disagreements counted", counted().await);
}

/// Envoy picks the route again after the rule's effects, by what is left of the request.
#[tokio::test(flavor = "multi_thread")]
async fn a_rule_may_remove_what_its_key_came_in() {
    let sources = "[{header: X-Preview}, {cookie: route-key}, {baggage: sd-routing-key}]";
    for route_key_header in ["X-Route-Key", "X-Preview"] {
        // The route key header stays, so no rule may remove that.
        let preview = if route_key_header == "X-Preview" {
            ""
        } else {
            ", X-Preview"
        };
        let routing = format!(
            "routing:\n  defaultTarget: baseline\n  routeKeyHeader: {route_key_header}\n  keySources: {sources}\n  rules:\n    \
             - routeKey: known\n      targetService: target\n      removeHeaders: [Cookie{preview}]\n      \
             additionalHeaders: {{Baggage: a=b}}\n"
        );
        let ports = Ports::free();
        let services = Services::start(&["baseline", "target"]).await;
        let config = ConfigFile::new(&config_text(&ports, &services, &routing));
        let _sidetrack = Sidetrack::up(&config.path(), &ports).await;
        let mut client = Client::new(Protocol::Http1, ports.http);
        let heads: [Head<'_>; 3] = [
            ("/", &[("x-preview", "KEY")]),
            ("/", &[("cookie", "route-key=KEY")]),
            ("/", &[("baggage", "sd-routing-key=KEY")]),
        ];
        for head in heads {
            let case = format!("{route_key_header}: {head:?}");
            let echo = get(&mut client, &with_key(head, "known")).await.echo();
            assert_eq!(echo.service, "target", "{case}");
            assert_eq!(echo.header(route_key_header), ["known"], "{case}");
            assert!(echo.header("cookie").is_empty(), "{case}");
            let echo = get(&mut client, &with_key(head, "nobody")).await.echo();
            assert_eq!(echo.service, "baseline", "{case}");
        }
    }
}
