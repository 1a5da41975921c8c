//! What a client of the discovery service has.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType};
use envoy_types::pb::envoy::config::core::v3::TypedExtensionConfig;
use envoy_types::pb::envoy::extensions::filters::http::wasm::v3::Wasm;
use prost::Message;
use sidetrack_routing::RouteTable;

use super::AdsType;

/// The resources of a client: by type, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    pub(super) types: BTreeMap<AdsType, HeldType>,
}

/// Those of a type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct HeldType {
    /// The version of the last accepted push; state of the world knows no other.
    pub(super) version: String,
    pub(super) resources: BTreeMap<String, HeldResource>,
}

/// One resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HeldResource {
    /// Empty in the state of the world.
    pub(super) version: String,
    pub(super) body: Bytes,
}

/// All resources of ours have their name in the first field.
#[derive(Clone, PartialEq, Message)]
struct Named {
    #[prost(string, tag = "1")]
    name: String,
}

impl Held {
    /// The names of the resources of this type.
    pub fn names(&self, kind: AdsType) -> BTreeSet<&str> {
        self.of(kind).map(|(name, _)| name.as_str()).collect()
    }

    /// Whether there is a resource of this type and name.
    pub fn has(&self, kind: AdsType, name: &str) -> bool {
        let held = self.types.get(&kind);
        held.is_some_and(|held| held.resources.contains_key(name))
    }

    /// The version of each resource of this type; empty in the state of the world.
    pub fn versions(&self, kind: AdsType) -> BTreeMap<&str, &str> {
        let pairs = self.of(kind);
        pairs
            .map(|(name, held)| (name.as_str(), held.version.as_str()))
            .collect()
    }

    /// The bytes of each resource of this type.
    pub fn bodies(&self, kind: AdsType) -> BTreeMap<&str, &Bytes> {
        self.of(kind).map(|(name, held)| (name.as_str(), &held.body)).collect()
    }

    /// The version of the last accepted push of this type.
    pub fn version(&self, kind: AdsType) -> &str {
        self.types.get(&kind).map_or("", |held| &held.version)
    }

    /// The route table.
    ///
    /// # Errors
    /// There is none, or it isn't whole.
    pub fn table(&self) -> anyhow::Result<RouteTable> {
        let filter = self.of(AdsType::Filter).next();
        table_in(&filter.context("there is no filter")?.1.body)
    }

    fn of(&self, kind: AdsType) -> impl Iterator<Item = (&String, &HeldResource)> {
        self.types.get(&kind).into_iter().flat_map(|held| &held.resources)
    }
}

/// The route table in an encoded `TypedExtensionConfig`.
///
/// # Errors
/// There is none, or it isn't whole.
pub fn table_in(filter: &[u8]) -> anyhow::Result<RouteTable> {
    let filter = TypedExtensionConfig::decode(filter)?;
    let filter = filter.typed_config.context("the filter has no configuration")?;
    let plugin = Wasm::decode(&*filter.value)?.config.context("there is no plugin")?;
    let configuration = plugin.configuration.context("the plugin has no configuration")?;
    if configuration.type_url != "type.googleapis.com/google.protobuf.BytesValue" {
        bail!("{} is no table", configuration.type_url);
    }
    // `BytesValue` is the type that prost has for a message of bytes.
    Ok(RouteTable::load(Vec::<u8>::decode(&*configuration.value)?)?)
}

/// The name in an encoded resource.
pub(super) fn name_in(resource: &[u8]) -> anyhow::Result<String> {
    Ok(Named::decode(resource)?.name)
}

/// The name of the endpoints that an encoded cluster asks for, if it does.
pub(super) fn endpoints_of(cluster: &[u8]) -> anyhow::Result<Option<String>> {
    let cluster = Cluster::decode(cluster)?;
    let eds = ClusterDiscoveryType::Type(DiscoveryType::Eds.into());
    Ok((cluster.cluster_discovery_type == Some(eds)).then(|| {
        let config = cluster.eds_cluster_config.unwrap_or_default();
        match config.service_name.is_empty() {
            true => cluster.name,
            false => config.service_name,
        }
    }))
}
