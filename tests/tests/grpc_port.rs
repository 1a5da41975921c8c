//! The two ports: what each of them speaks.

use sidetrack_tests::{Client, ConfigFile, Ports, Protocol, RawConnection, Services, Sidetrack, config_text};

const ROUTING: &str = r#"
routing:
  defaultTarget: baseline
  rules:
    - {routeKey: sandbox, targetService: service-a, pathPrefixes: [/shop.Cart]}
"#;

#[tokio::test(flavor = "multi_thread")]
async fn http2_is_spoken_on_both_ports_and_nothing_else_on_the_grpc_port() {
    let ports = Ports::free();
    let services = Services::start(&["baseline", "service-a"]).await;
    let config = ConfigFile::new(&config_text(&ports, &services, ROUTING));
    let _sidetrack = Sidetrack::up(&config.path(), &ports).await;

    for (protocol, port) in [
        (Protocol::Http1, ports.http),
        (Protocol::Http2, ports.http),
        (Protocol::Http2, ports.grpc),
    ] {
        let mut client = Client::new(protocol, port);
        for (path, expected) in [("/shop.Cart/Add", "service-a"), ("/shop.Carts/Add", "baseline")] {
            let answer = client.get(path, &[("x-route-key", "sandbox")]).await.unwrap();
            assert_eq!(answer.served_by(), expected, "{protocol:?} on {port}: {path}");
        }
    }
    let arrived = services.requests("baseline");
    let answer = RawConnection::new(ports.grpc)
        .send(b"GET / HTTP/1.1\r\nhost: shop\r\n\r\n")
        .await;
    assert!(answer.is_err(), "{answer:?}");
    assert_eq!(services.requests("baseline"), arrived);
}
