//! Many clients at one time.

use std::time::Instant;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sidetrack_tests::suite::is_full;
use sidetrack_tests::{Client, ConfigFile, Ports, Process, Protocol, Services, Sidetrack, Stats, config_text};
use tokio::task::JoinSet;

/// How many connect or send at a time: fewer than the system lets wait for Envoy, or Envoy for a target.
const AT_A_TIME: usize = 64;

const ROUTING: &str = r#"
routing:
  defaultTarget: baseline
  rules:
    - {routeKey: sandbox, targetService: sandbox}
"#;

/// Lets this process, and those it starts, have as many files open as they may.
fn raise_file_limit() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    setrlimit(Resource::Nofile, raised).unwrap();
    limit.maximum
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_clients_are_served_and_none_is_refused() {
    let count = if is_full() { 8_000 } else { 2_000 };
    let limit = raise_file_limit();
    assert!(
        limit.is_none_or(|limit| limit > count as u64 + 1_000),
        "no more than {limit:?} files may be open: raise the hard limit (ulimit -Hn)"
    );
    let ports = Ports::free();
    let services = Services::start(&["baseline", "sandbox"]).await;
    let config = ConfigFile::new(&config_text(&ports, &services, ROUTING));
    let mut sidetrack = Sidetrack::up(&config.path(), &ports).await;
    let envoy = sidetrack.descendants()[0];
    let before = Process::peak_memory(envoy);

    let begun = Instant::now();
    let clients = (0..count).map(|_| Client::new(Protocol::Http1, ports.http));
    let connected = requests(clients.collect()).await;
    // All are there at one time, and each still gets its answers.
    let open = Stats::read(ports.admin, "^http.http.downstream_cx_active$")
        .await
        .sum("downstream_cx_active");
    assert!(open >= count as u64, "{open} of {count} are open");
    let connected = requests(connected).await;
    println!(
        "{count} clients: two requests each answered in {:?}; Envoy has {open} connections, {} MiB before and at most {} MiB",
        begun.elapsed(),
        before >> 20,
        Process::peak_memory(envoy) >> 20,
    );
    let made = Stats::read(ports.admin, "^http.http.downstream_cx_(total|overflow|destroy)$").await;
    println!("{:?}", made.not_zero("downstream_cx"));
    assert_eq!(
        made.sum("downstream_cx_total"),
        count as u64,
        "each kept its connection"
    );
    assert_eq!(sidetrack.exited(), None);
    drop(connected);
}

/// Sends a request from each client, a few at a time, and gives the clients back.
async fn requests(clients: Vec<Client>) -> Vec<Client> {
    let mut sending = JoinSet::new();
    let mut sent = Vec::with_capacity(clients.len());
    for (number, client) in clients.into_iter().enumerate() {
        if sending.len() == AT_A_TIME {
            sent.push(sending.join_next().await.unwrap().unwrap());
        }
        sending.spawn(request(client, number));
    }
    sent.extend(sending.join_all().await);
    sent
}

/// Sends a request, every second of them to the sandbox, and gives the client back.
async fn request(mut client: Client, number: usize) -> Client {
    let (key, expected) = [("sandbox", "sandbox"), ("nobody", "baseline")][number % 2];
    let answer = client.get("/", &[("x-route-key", key)]).await;
    let answer = answer.unwrap_or_else(|error| panic!("client {number}: {error:#}"));
    assert_eq!(answer.served_by(), expected, "client {number}: {}", answer.text());
    client
}
