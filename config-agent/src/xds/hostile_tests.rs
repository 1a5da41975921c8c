//! Clients that are slow, stuck, half there, or up to something: each loses its own stream at most.

use std::future::Future;
use std::time::{Duration, Instant};

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use super::server::tests::Service;
use crate::render::ResourceType;

/// As long as a client may take in these tests.
const PATIENCE: Duration = Duration::from_millis(500);

/// What happens once the patience is over happens within this time, on a busy machine, too.
const SOON: Duration = Duration::from_secs(20);

/// A client's end of a delta stream.
struct Client {
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    responses: Streaming<DeltaDiscoveryResponse>,
}

fn request(kind: ResourceType, names: &[&str]) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: kind.type_url(),
        resource_names_subscribe: names.iter().map(ToString::to_string).collect(),
        ..Default::default()
    }
}

impl Client {
    /// On a connection of its own.
    async fn connect(service: &Service, node: &str, first: DeltaDiscoveryRequest) -> Self {
        let (requests, receiver) = mpsc::channel(8);
        let node = Node {
            id: node.to_owned(),
            ..Default::default()
        };
        let first = DeltaDiscoveryRequest {
            node: Some(node),
            ..first
        };
        requests.send(first).await.unwrap();
        let mut client = Service::client(service.address).await;
        let responses = client.delta_aggregated_resources(ReceiverStream::new(receiver)).await;
        Self {
            requests,
            responses: responses.unwrap().into_inner(),
        }
    }

    async fn message(&mut self) -> Result<Option<DeltaDiscoveryResponse>, Status> {
        soon("a message", self.responses.message()).await
    }

    async fn push(&mut self) -> DeltaDiscoveryResponse {
        self.message().await.unwrap().expect("a push")
    }

    async fn accept(&mut self, push: &DeltaDiscoveryResponse) {
        let answer = DeltaDiscoveryRequest {
            type_url: push.type_url.clone(),
            response_nonce: push.nonce.clone(),
            ..Default::default()
        };
        self.requests.send(answer).await.unwrap();
    }

    /// The status that the stream ends with.
    async fn end(&mut self) -> Status {
        loop {
            match self.message().await {
                Ok(Some(_)) => {}
                Ok(None) => return Status::ok(""),
                Err(status) => return status,
            }
        }
    }
}

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    let result = tokio::time::timeout(SOON, future).await;
    result.unwrap_or_else(|_| panic!("no {what} within {SOON:?}"))
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < SOON, "not {what} within {SOON:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_push_that_isnt_answered_ends_the_stream_and_says_which() {
    let service = Service::start_with(1, PATIENCE).await;
    let mut client = Client::connect(&service, "deaf", request(ResourceType::Cluster, &[])).await;
    client.push().await;
    let began = Instant::now();
    let end = client.end().await;
    assert_eq!(
        (end.code(), end.message()),
        (Code::DeadlineExceeded, "no answer to CDS within 500ms")
    );
    assert!(began.elapsed() > PATIENCE / 2, "{:?}", began.elapsed());
    until("forgotten", || service.proxies.list(1).is_empty()).await;
    assert_eq!(service.proxies.waiting_for(1), []);
}

#[tokio::test]
async fn a_client_that_answers_is_left_alone_however_long_nothing_changes() {
    let service = Service::start_with(1, PATIENCE).await;
    let mut client = Client::connect(&service, "quiet", request(ResourceType::Cluster, &[])).await;
    let push = client.push().await;
    client.accept(&push).await;
    tokio::time::sleep(4 * PATIENCE).await;
    service.change(2);
    let push = client.push().await;
    let names: Vec<_> = push.resources.iter().map(|resource| &resource.name).collect();
    assert_eq!(names, ["t1:80", "t1:80|baseline"]);
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_cut_off_and_others_dont_wait_for_it() {
    // Time enough for the one that does answer, on a busy machine, too.
    let service = Service::start_with(5000, 4 * PATIENCE).await;
    // More than its window takes; it never looks.
    let stuck = Client::connect(&service, "stuck", request(ResourceType::Cluster, &[])).await;
    until("there", || !service.proxies.list(1).is_empty()).await;

    let mut client = Client::connect(&service, "well", request(ResourceType::Cluster, &[])).await;
    let push = client.push().await;
    assert_eq!(push.resources.len(), 2 * 5000 + 1);
    client.accept(&push).await;
    for rules in 5001..5010 {
        service.change(rules);
        let push = client.push().await;
        assert_eq!(push.resources.len(), 2);
        client.accept(&push).await;
    }
    until("cut off", || service.proxies.list(1).len() == 1).await;
    assert_eq!(service.proxies.list(1)[0].node, "well");
    // Its connection is gone, too.
    let requests = stuck.requests;
    soon("end of its connection", requests.closed()).await;
}

#[tokio::test]
async fn a_connection_that_says_nothing_or_nonsense_is_closed() {
    let service = Service::start_with(1, PATIENCE).await;
    for greeting in [
        &b""[..],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        &[0xff; 100],
    ] {
        let mut connection = TcpStream::connect(service.address).await.unwrap();
        connection.write_all(greeting).await.unwrap();
        let mut answer = Vec::new();
        // Whether it is closed or reset.
        let _ = soon("end", connection.read_to_end(&mut answer)).await;
    }
}

#[tokio::test]
async fn a_stream_without_a_request_ends() {
    let service = Service::start_with(1, PATIENCE).await;
    let mut client = Service::client(service.address).await;
    let (_requests, receiver) = mpsc::channel::<DiscoveryRequest>(1);
    let mut responses = client
        .stream_aggregated_resources(ReceiverStream::new(receiver))
        .await
        .unwrap()
        .into_inner();
    let end = soon("end", responses.message()).await.unwrap_err();
    assert_eq!(
        (end.code(), end.message()),
        (Code::DeadlineExceeded, "no request within 500ms")
    );
}

#[tokio::test]
async fn what_is_asked_for_has_limits() {
    let service = Service::start_with(1, PATIENCE).await;
    let names = |count: usize| (0..count).map(|i| format!("name-{i}")).collect::<Vec<_>>();
    let many = DeltaDiscoveryRequest {
        resource_names_subscribe: names(600_000),
        ..request(ResourceType::Endpoints, &[])
    };
    let long = request(ResourceType::Endpoints, &[&"n".repeat(5000)]);
    let huge = DeltaDiscoveryRequest {
        response_nonce: "n".repeat(40 << 20),
        ..request(ResourceType::Endpoints, &[])
    };
    for (first, code, message) in [
        (
            many,
            Code::ResourceExhausted,
            "600000 names in a request: at most 500000",
        ),
        (
            long,
            Code::InvalidArgument,
            "a resource's name is longer than 2048 bytes",
        ),
        (huge, Code::OutOfRange, "at most 33554432"),
    ] {
        let mut client = Client::connect(&service, "greedy", first).await;
        let end = client.end().await;
        assert_eq!(end.code(), code, "{end}");
        assert!(end.message().contains(message), "{end}");
    }
    // Also in small portions.
    let mut client = Client::connect(&service, "patient", request(ResourceType::Cluster, &[])).await;
    let names = names(600_000);
    for portion in names.chunks(100_000) {
        let more = DeltaDiscoveryRequest {
            resource_names_subscribe: portion.to_vec(),
            ..request(ResourceType::Endpoints, &[])
        };
        let _ = client.requests.send(more).await;
    }
    let end = client.end().await;
    assert!(
        matches!(end.code(), Code::ResourceExhausted | Code::DeadlineExceeded),
        "{end}"
    );
    until("forgotten", || service.proxies.list(1).is_empty()).await;
}

#[tokio::test]
async fn what_nobody_understands_is_passed_over() {
    let service = Service::start_with(1, PATIENCE).await;
    let unknown = DeltaDiscoveryRequest {
        type_url: "type.googleapis.com/\u{0}\u{7f}".to_owned(),
        resource_names_subscribe: vec!["\n\u{202e}".to_owned(), String::new()],
        response_nonce: "never was".to_owned(),
        ..Default::default()
    };
    let mut client = Client::connect(&service, "\u{1b}[2J", unknown).await;
    let never = DeltaDiscoveryRequest {
        response_nonce: "never was".to_owned(),
        resource_names_unsubscribe: vec!["never was".to_owned()],
        ..request(ResourceType::Endpoints, &["\u{0}", ""])
    };
    client.requests.send(never).await.unwrap();
    let push = client.push().await;
    assert_eq!(push.removed_resources, ["", "\u{0}"]);
    client.accept(&push).await;
    client.requests.send(request(ResourceType::Cluster, &[])).await.unwrap();
    let push = client.push().await;
    assert_eq!(push.type_url, ResourceType::Cluster.type_url());
}

#[tokio::test]
async fn a_client_without_a_node_is_served() {
    let mut service = Service::start_with(1, PATIENCE).await;
    let (requests, receiver) = mpsc::channel(1);
    requests.send(request(ResourceType::Cluster, &[])).await.unwrap();
    let responses = service
        .client
        .delta_aggregated_resources(ReceiverStream::new(receiver))
        .await;
    let push = soon("push", responses.unwrap().into_inner().message())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(push.resources.len(), 3);
}

#[tokio::test]
async fn one_that_accepts_what_it_hasnt_read_ends_its_own_stream() {
    let service = Service::start_with(5000, PATIENCE).await;
    let mut client = Client::connect(&service, "liar", request(ResourceType::Cluster, &[])).await;
    // Nonces are easy to guess. Each answer brings another push, if a name is asked for.
    for nonce in 1..1000 {
        let answer = DeltaDiscoveryRequest {
            response_nonce: nonce.to_string(),
            ..request(ResourceType::Cluster, &["*", "t1:80"])
        };
        if client.requests.send(answer).await.is_err() {
            break;
        }
    }
    // There is no room for a status either.
    assert_ne!(client.end().await.code(), Code::Ok);
    until("forgotten", || service.proxies.list(1).is_empty()).await;
}

#[tokio::test]
async fn other_services_arent_here() {
    let service = Service::start_with(1, PATIENCE).await;
    let mut client =
        envoy_types::pb::envoy::service::cluster::v3::cluster_discovery_service_client::ClusterDiscoveryServiceClient::connect(
            format!("http://{}", service.address),
        )
        .await
        .unwrap();
    let status = client.fetch_clusters(DiscoveryRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented, "{status}");
}
