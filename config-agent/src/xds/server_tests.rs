//! What a client that isn't fit is told, and which configuration one gets that is.

use envoy_types::pb::envoy::config::core::v3::node::UserAgentVersionType;
use envoy_types::pb::envoy::config::core::v3::{BuildVersion, Node, TypedExtensionConfig};
use envoy_types::pb::envoy::extensions::filters::http::wasm::v3::Wasm;
use envoy_types::pb::envoy::extensions::wasm::v3::plugin_config::Vm;
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use envoy_types::pb::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use envoy_types::pb::envoy::r#type::v3::SemanticVersion;
use prost::Message as _;
use serde_json::json;
use sidetrack_routing::{ValidConfig, decode, validate};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

use super::*;
use crate::render::FilterCode;

pub(in crate::xds) struct Service {
    pub(in crate::xds) client: AggregatedDiscoveryServiceClient<Channel>,
    pub(in crate::xds) address: SocketAddr,
    pub(in crate::xds) proxies: Proxies,
    snapshots: watch::Sender<Arc<Snapshots>>,
}

/// A configuration with so many rules.
fn config(rules: usize) -> ValidConfig {
    let rules: Vec<_> = (0..rules)
        .map(|i| json!({"routeKey": format!("k{i}"), "targetService": format!("t{i}")}))
        .collect();
    let config = json!({"routing": {"defaultTarget": "d", "rules": rules}});
    decode(&config, validate).unwrap()
}

impl Service {
    async fn start() -> Self {
        Self::start_with(1, PATIENCE).await
    }

    /// One with so many rules that waits so long for an answer.
    pub(in crate::xds) async fn start_with(rules: usize, patience: Duration) -> Self {
        let snapshots = Snapshots::new(config(rules), FilterCode::file("/filter.wasm".into()));
        let (snapshots, receiver) = watch::channel(Arc::new(snapshots));
        let proxies = Proxies::default();
        let ads = Ads::new(receiver, proxies.clone(), Metrics::default()).with_patience(patience);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(ads.serve(listener, std::future::pending()));
        Self {
            client: Self::client(address).await,
            address,
            proxies,
            snapshots,
        }
    }

    /// A client with a connection of its own.
    pub(in crate::xds) async fn client(address: SocketAddr) -> AggregatedDiscoveryServiceClient<Channel> {
        let client = AggregatedDiscoveryServiceClient::connect(format!("http://{address}"));
        client.await.unwrap().max_decoding_message_size(usize::MAX)
    }

    /// Brings a configuration with so many rules into force; says which revision it is.
    pub(in crate::xds) fn change(&self, rules: usize) -> u64 {
        let next = self.snapshots.borrow().next(config(rules));
        let revision = next.revision();
        self.snapshots.send_replace(Arc::new(next));
        revision
    }

    /// The stream of an Envoy `1.minor.0` that asks for all clusters and the filter.
    async fn connect(&mut self, minor_number: u32) -> (mpsc::Sender<DiscoveryRequest>, Streaming<DiscoveryResponse>) {
        let version = SemanticVersion {
            major_number: 1,
            minor_number,
            patch: 0,
        };
        let build = BuildVersion {
            version: Some(version),
            ..Default::default()
        };
        let node = Node {
            id: "envoy".to_owned(),
            user_agent_name: "envoy".to_owned(),
            user_agent_version_type: Some(UserAgentVersionType::UserAgentBuildVersion(build)),
            ..Default::default()
        };
        let (requests, receiver) = mpsc::channel(8);
        for (node, kind, names) in [
            (Some(node), ResourceType::Cluster, &[][..]),
            (None, ResourceType::FilterConfig, &["sidetrack".to_owned()]),
        ] {
            let request = DiscoveryRequest {
                node,
                type_url: kind.type_url(),
                resource_names: names.to_vec(),
                ..Default::default()
            };
            requests.send(request).await.unwrap();
        }
        let responses = self
            .client
            .stream_aggregated_resources(ReceiverStream::new(receiver))
            .await;
        (requests, responses.unwrap().into_inner())
    }
}

#[tokio::test]
async fn an_envoy_that_is_too_old_is_refused_and_listed_until_it_is_replaced() {
    let mut service = Service::start().await;
    let (_requests, mut responses) = service.connect(36).await;
    let refusal = responses.message().await.unwrap_err();
    let reason = "Envoy 1.36 isn't supported: 1.37 to 1.40 are, and later ones as 1.40";
    assert_eq!((refusal.code(), refusal.message()), (Code::FailedPrecondition, reason));
    let refused = [("envoy".to_owned(), reason.to_owned())].into();
    assert_eq!(service.proxies.refused(), refused);
    assert!(service.proxies.list(1).is_empty());

    let (_requests, mut responses) = service.connect(37).await;
    assert!(responses.message().await.unwrap().is_some());
    assert!(service.proxies.refused().is_empty());
    assert_eq!(service.proxies.list(1)[0].release.as_deref(), Some("1.37.0"));
}

#[tokio::test]
#[expect(deprecated, reason = "older Envoys have the capabilities there")]
async fn each_envoy_gets_the_fields_it_knows() {
    let mut service = Service::start().await;
    for (minor, is_in_vm) in [(37, false), (39, false), (40, true), (41, true)] {
        let (requests, mut responses) = service.connect(minor).await;
        let filter = loop {
            let response = responses.message().await.unwrap().expect("a push");
            if response.type_url == ResourceType::FilterConfig.type_url() {
                break response.resources[0].clone();
            }
            let ack = DiscoveryRequest {
                type_url: response.type_url,
                version_info: response.version_info,
                response_nonce: response.nonce,
                ..Default::default()
            };
            requests.send(ack).await.unwrap();
        };
        let filter = TypedExtensionConfig::decode(filter.value.as_slice()).unwrap();
        let wasm = Wasm::decode(filter.typed_config.unwrap().value.as_slice()).unwrap();
        let plugin = wasm.config.unwrap();
        let Some(Vm::VmConfig(vm)) = plugin.vm else {
            panic!("no VM")
        };
        assert_eq!(vm.capability_restriction_config.is_some(), is_in_vm, "1.{minor}");
        assert_eq!(plugin.capability_restriction_config.is_none(), is_in_vm, "1.{minor}");
    }
}
