//! Short ways to say what Envoy's messages say at length.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::{
    Address, AggregatedConfigSource, ApiVersion, ConfigSource, SocketAddress, address, config_source, socket_address,
};
use envoy_types::pb::google::protobuf::{self, Any};
use prost::{Message, Name};
use sidetrack_routing::Target;

/// `message` as an `Any` of its type.
pub(super) fn any<M: Message + Name>(message: &M) -> Any {
    Any {
        type_url: M::type_url(),
        value: message.encode_to_vec(),
    }
}

pub(super) fn duration(duration: Duration) -> Option<protobuf::Duration> {
    let seconds = i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    let nanos = i32::try_from(duration.subsec_nanos()).unwrap_or_default();
    Some(protobuf::Duration { seconds, nanos })
}

pub(super) fn flag(value: bool) -> Option<protobuf::BoolValue> {
    Some(protobuf::BoolValue { value })
}

pub(super) fn number(value: u32) -> Option<protobuf::UInt32Value> {
    Some(protobuf::UInt32Value { value })
}

pub(super) fn number64(value: u64) -> Option<protobuf::UInt64Value> {
    Some(protobuf::UInt64Value { value })
}

/// This machine, for itself only.
pub(super) fn loopback() -> IpAddr {
    IpAddr::V4(Ipv4Addr::LOCALHOST)
}

pub(super) fn address(ip: IpAddr, port: u16) -> Address {
    socket_address(ip.to_string(), port)
}

pub(super) fn target_address(target: &Target) -> Address {
    socket_address(target.host().to_string(), target.port())
}

fn socket_address(address: String, port: u16) -> Address {
    let port = Some(socket_address::PortSpecifier::PortValue(port.into()));
    Address {
        address: Some(address::Address::SocketAddress(SocketAddress {
            address,
            port_specifier: port,
            ..Default::default()
        })),
    }
}

/// From the agent, over the stream all types share.
pub(super) fn from_agent() -> ConfigSource {
    ConfigSource {
        resource_api_version: ApiVersion::V3.into(),
        config_source_specifier: Some(config_source::ConfigSourceSpecifier::Ads(AggregatedConfigSource {})),
        ..Default::default()
    }
}
