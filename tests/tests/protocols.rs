//! What a client speaks and what a target speaks are two things.

use http::Method;
use http_body_util::BodyExt;
use sidetrack_tests::{Client, ConfigFile, Ports, Protocol, Request, Services, Sidetrack, config_text, free_port, get};

/// A service by what it is said to speak and what it does.
struct Backend {
    name: &'static str,
    fields: &'static str,
    speaks: Option<Protocol>,
    /// How a request arrives that the client sends in HTTP/1.1, and in HTTP/2; `""` for not at all.
    arrives: [&'static str; 2],
}

const BACKENDS: [Backend; 9] = [
    Backend {
        name: "default",
        fields: "",
        speaks: Some(Protocol::Http1),
        arrives: ["HTTP/1.1", "HTTP/1.1"],
    },
    Backend {
        name: "http1-of-http1",
        fields: "protocol: http1",
        speaks: Some(Protocol::Http1),
        arrives: ["HTTP/1.1", "HTTP/1.1"],
    },
    Backend {
        name: "http1-of-http2",
        fields: "protocol: http1",
        speaks: Some(Protocol::Http2),
        arrives: ["", ""],
    },
    Backend {
        name: "http1-of-both",
        fields: "protocol: http1",
        speaks: None,
        arrives: ["HTTP/1.1", "HTTP/1.1"],
    },
    Backend {
        name: "http2-of-http1",
        fields: "protocol: http2",
        speaks: Some(Protocol::Http1),
        arrives: ["", ""],
    },
    Backend {
        name: "http2-of-http2",
        fields: "protocol: http2",
        speaks: Some(Protocol::Http2),
        arrives: ["HTTP/2.0", "HTTP/2.0"],
    },
    Backend {
        name: "auto-of-http1",
        fields: "protocol: auto",
        speaks: Some(Protocol::Http1),
        arrives: ["HTTP/1.1", ""],
    },
    Backend {
        name: "auto-of-http2",
        fields: "protocol: auto",
        speaks: Some(Protocol::Http2),
        arrives: ["", "HTTP/2.0"],
    },
    Backend {
        name: "auto-of-both",
        fields: "protocol: auto",
        speaks: None,
        arrives: ["HTTP/1.1", "HTTP/2.0"],
    },
];

fn routing(default: &str) -> String {
    let rules = BACKENDS.iter().flat_map(|backend| {
        ["none", "baseline"].map(|fallback| {
            let name = backend.name;
            format!("    - {{routeKey: {name}-{fallback}, targetService: {name}, fallback: {fallback}}}\n")
        })
    });
    let rules: String = rules.collect();
    format!(
        "routing:\n  defaultTarget: {default}\n  rules:\n{rules}\
         {0}- {{routeKey: unmatched, targetService: default, paths: [{{exact: /other}}]}}\n\
         {0}- {{routeKey: dead, targetService: dead-http2}}\n",
        "    "
    )
}

async fn start(ports: &Ports, default: &str) -> (Services, ConfigFile, Sidetrack) {
    let mut services = Services::start(&[]).await;
    for Backend {
        name, fields, speaks, ..
    } in BACKENDS
    {
        services.start_speaking(name, speaks).await;
        services.configure(name, &[name], fields);
    }
    let dead = ([127, 0, 0, 1], free_port()).into();
    services.configure_at("dead-http2", vec![dead], "protocol: http2");
    let config = ConfigFile::new(&config_text(ports, &services, &routing(default)));
    let sidetrack = Sidetrack::up(&config.path(), ports).await;
    (services, config, sidetrack)
}

/// The ways to send a request; whether it is sent in HTTP/2, and what that is called.
fn ways(ports: &Ports) -> [(Protocol, u16, usize, &'static str); 3] {
    [
        (Protocol::Http1, ports.http, 0, "HTTP/1.1 on httpPort"),
        (Protocol::Http2, ports.http, 1, "HTTP/2 on httpPort"),
        (Protocol::Http2, ports.grpc, 1, "HTTP/2 on grpcPort"),
    ]
}

fn post(key: &str) -> Request {
    let mut request = get("/a?b=c", &[("x-route-key", key)]);
    *request.method_mut() = Method::POST;
    *request.body_mut() = vec![b'x'; 100_000].into();
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_arrives_in_the_protocol_of_the_service() {
    let ports = Ports::free();
    let (_services, _config, _sidetrack) = start(&ports, "default").await;
    for backend in &BACKENDS {
        let name = backend.name;
        let mut seen = Vec::new();
        for (protocol, port, sent, way) in ways(&ports) {
            let expected = backend.arrives[sent];
            let mut client = Client::new(protocol, port);
            let mut outcome = expected.to_owned();
            for fallback in ["none", "baseline"] {
                for request in [get("/a?b=c", &[]), post("")] {
                    let mut request = request;
                    let key = format!("{name}-{fallback}");
                    request.headers_mut().insert("x-route-key", key.parse().unwrap());
                    let what = format!("{key} {} {way}", request.method());
                    let answer = client.send(request).await.unwrap();
                    if expected.is_empty() {
                        // What may be done twice falls back, as after any broken connection.
                        let falls_back = fallback == "baseline" && answer.served_by() == "default";
                        let is_told = ["protocol_error", "connection_broken"].contains(&answer.header("x-route-error"));
                        assert!(is_told || falls_back, "{what}: {} {}", answer.status, answer.text());
                        outcome = answer.header("x-route-error").to_owned();
                    } else {
                        assert_eq!(answer.served_by(), name, "{what}: {}", answer.text());
                        assert_eq!(answer.echo().version, expected, "{what}");
                    }
                }
            }
            seen.push(outcome);
        }
        println!("{name:15} {seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_baseline_speaks_its_own_protocol_to_requests_with_and_without_a_key() {
    // The sandbox and the baseline that it falls back to speak different ones.
    for (default, arrives) in [
        ("default", ["HTTP/1.1", "HTTP/1.1"]),
        ("auto-of-both", ["HTTP/1.1", "HTTP/2.0"]),
    ] {
        let ports = Ports::free();
        let (_services, _config, _sidetrack) = start(&ports, default).await;
        for (protocol, port, sent, way) in ways(&ports) {
            let mut client = Client::new(protocol, port);
            for key in ["", "nobody", "unmatched", "dead"] {
                for request in [get("/a?b=c", &[("x-route-key", key)]), post(key)] {
                    let what = format!("{key:?} {} {way}", request.method());
                    let answer = client.send(request).await.unwrap();
                    assert_eq!(answer.served_by(), default, "{what}: {}", answer.text());
                    assert_eq!(answer.echo().version, arrives[sent], "{what}");
                }
            }
        }
    }
}

/// A gRPC call: messages there and back, and trailers, by all that carries them.
#[tokio::test(flavor = "multi_thread")]
async fn grpc_reaches_services_of_http2() {
    const MESSAGES: &[u8] = &[0, 0, 0, 0, 1, 7, 0, 0, 0, 0, 2, 8, 9];
    let ports = Ports::free();
    let (_services, _config, _sidetrack) = start(&ports, "http2-of-http2").await;
    for port in [ports.http, ports.grpc] {
        for key in ["nobody", "http2-of-http2-none", "auto-of-both-baseline"] {
            let mut request = get(
                "/shop.Cart/Add?pipe",
                &[
                    ("x-route-key", key),
                    ("content-type", "application/grpc"),
                    ("te", "trailers"),
                ],
            );
            *request.method_mut() = Method::POST;
            *request.body_mut() = MESSAGES.into();
            let mut client = Client::new(Protocol::Http2, port);
            let response = client.begin(request.map(BodyExt::boxed_unsync)).await.unwrap();
            let answer = sidetrack_tests::Answer::read(response).await.unwrap();
            assert_eq!((answer.status, &answer.body[..]), (200, MESSAGES), "{key}");
            assert_eq!(answer.trailers.get("grpc-status").unwrap(), "0", "{key}");
        }
    }
}
