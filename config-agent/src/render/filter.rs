//! The filter in the HTTP filter chain, and the plugin configuration it gets.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use envoy_types::pb::envoy::config::core::v3::{
    AsyncDataSource, BackoffStrategy, DataSource, ExtensionConfigSource, TypedExtensionConfig, async_data_source,
    data_source,
};
use envoy_types::pb::envoy::extensions::filters::http::wasm::v3::Wasm;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{HttpFilter, http_filter};
use envoy_types::pb::envoy::extensions::wasm::v3::{
    CapabilityRestrictionConfig, FailurePolicy, PluginConfig, ReloadConfig, SanitizationConfig, VmConfig, plugin_config,
};
use envoy_types::pb::google::protobuf::{Any, BytesValue};
use prost::{Message, Name};
use sidetrack_routing::{ValidRouting, compile};

use super::encoded::Encoded;
use super::envoy::EnvoyVersion;
use super::proto::{duration, from_agent};

/// The filter's name in the chain, its resource's name, and the key of its per-route configuration.
pub(super) const FILTER: &str = "sidetrack";

/// What the module may call and be called for. Envoy skips a callback that isn't here, which saves a third of the
/// filter's cost; and whatever the module does, it can't reach the network or other plugins.
const CAPABILITIES: [&str; 14] = [
    "proxy_define_metric",
    "proxy_get_buffer_bytes",
    "proxy_get_current_time_nanoseconds",
    "proxy_get_header_map_pairs",
    "proxy_get_header_map_value",
    "proxy_increment_metric",
    "proxy_log",
    "proxy_on_configure",
    "proxy_on_context_create",
    "proxy_on_delete",
    "proxy_on_request_headers",
    "proxy_remove_header_map_value",
    "proxy_replace_header_map_value",
    "proxy_set_property",
];

/// After a trap: the first new request gets a new VM, but not within this time of the last one.
const RELOAD_INTERVAL: Duration = Duration::from_millis(500);

/// Where Envoy finds the filter's code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterCode {
    path: PathBuf,
}

impl FilterCode {
    /// A file on Envoy's machine.
    pub fn file(path: PathBuf) -> Self {
        Self { path }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn source(&self) -> AsyncDataSource {
        let filename = self.path.display().to_string();
        let specifier = Some(data_source::Specifier::Filename(filename));
        let local = DataSource {
            specifier,
            ..Default::default()
        };
        AsyncDataSource {
            specifier: Some(async_data_source::Specifier::Local(local)),
        }
    }
}

/// The filter as the agent sends it, a `TypedExtensionConfig`: with the compiled `table`, which it shares.
pub(super) fn filter_config(table: &Bytes, code: &FilterCode, envoy: EnvoyVersion) -> Encoded {
    const TYPED_CONFIG: u32 = 2;
    let wasm = wasm(Some(bytes_value(table.clone())), code, envoy);
    let named = TypedExtensionConfig {
        name: FILTER.to_owned(),
        typed_config: None,
    };
    wasm.into_field(TYPED_CONFIG).and(&named)
}

/// The filter's place in the chain: switched off but for the routes that switch it on, and with nothing to route by until
/// the agent's table arrives. An empty configuration fits a filter of any release.
pub(super) fn discovered_filter(code: &FilterCode, envoy: EnvoyVersion) -> HttpFilter {
    in_chain(http_filter::ConfigType::ConfigDiscovery(ExtensionConfigSource {
        config_source: Some(from_agent()),
        default_config: Some(message(&wasm(None, code, envoy))),
        apply_default_config_without_warming: true,
        type_urls: vec![Wasm::type_url()],
    }))
}

/// The same with its table in it, for an Envoy without an agent.
pub(super) fn static_filter(routing: &ValidRouting, code: &FilterCode, envoy: EnvoyVersion) -> HttpFilter {
    let table = bytes_value(compile(routing).into());
    in_chain(http_filter::ConfigType::TypedConfig(message(&wasm(
        Some(table),
        code,
        envoy,
    ))))
}

fn in_chain(config: http_filter::ConfigType) -> HttpFilter {
    HttpFilter {
        name: FILTER.to_owned(),
        disabled: true,
        config_type: Some(config),
        ..Default::default()
    }
}

/// An `Any` of a `BytesValue`.
fn bytes_value(value: Bytes) -> Encoded {
    const VALUE: u32 = 1;
    let value = Encoded::sharing(value).into_field(VALUE);
    value.into_any(BytesValue::type_url())
}

/// The message that an encoded `Any` is.
fn message(any: &Encoded) -> Any {
    Any::decode(any.parts().concat().as_slice()).unwrap_or_default()
}

/// An `Any` of a `Wasm`, with a plugin configuration that is an `Any`, too, if there is one.
fn wasm(configuration: Option<Encoded>, code: &FilterCode, envoy: EnvoyVersion) -> Encoded {
    const CONFIG: u32 = 1;
    const CONFIGURATION: u32 = 4;
    let vm = VmConfig {
        vm_id: FILTER.to_owned(),
        runtime: "envoy.wasm.runtime.v8".to_owned(),
        code: Some(code.source()),
        ..Default::default()
    };
    let plugin = PluginConfig {
        name: FILTER.to_owned(),
        root_id: FILTER.to_owned(),
        failure_policy: FailurePolicy::FailReload.into(),
        reload_config: Some(ReloadConfig {
            backoff: Some(BackoffStrategy {
                base_interval: duration(RELOAD_INTERVAL),
                max_interval: None,
            }),
        }),
        vm: Some(plugin_config::Vm::VmConfig(vm)),
        ..Default::default()
    };
    let wasm = match configuration {
        Some(configuration) => configuration.into_field(CONFIGURATION).and(&plugin),
        None => Encoded::message(&plugin),
    };
    let wasm = wasm.into_field(CONFIG);
    let allowed = CAPABILITIES.into_iter().map(|capability| allowed(capability, envoy));
    let wasm = allowed.fold(wasm, |wasm, allowed| wasm.and(&allowed));
    wasm.into_any(Wasm::type_url())
}

/// A message with one allowed capability, to be appended to the others.
///
/// The capabilities are a map, whose entries a hash map would encode in another order each time. Protobuf takes messages
/// written one after another as one, merged; so each entry is written by itself, in our order.
fn allowed(capability: &str, envoy: EnvoyVersion) -> Wasm {
    let allowed_capabilities = [(capability.to_owned(), SanitizationConfig {})].into();
    let restriction = Some(CapabilityRestrictionConfig { allowed_capabilities });
    let plugin = if envoy < EnvoyVersion::V1_40 {
        #[expect(deprecated, reason = "there is no other field yet")]
        PluginConfig {
            capability_restriction_config: restriction,
            ..Default::default()
        }
    } else {
        let vm = VmConfig {
            capability_restriction_config: restriction,
            ..Default::default()
        };
        PluginConfig {
            vm: Some(plugin_config::Vm::VmConfig(vm)),
            ..Default::default()
        }
    };
    Wasm { config: Some(plugin) }
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::google::protobuf::StringValue;

    use super::super::proto::any;
    use super::*;

    #[test]
    #[expect(deprecated, reason = "older Envoys have the capabilities there")]
    fn the_capabilities_are_merged_into_one_message_with_equal_bytes() {
        let config = |envoy| {
            let code = FilterCode::file("/filter.wasm".into());
            let configuration = any(&StringValue { value: "{}".to_owned() });
            message(&wasm(Some(Encoded::message(&configuration)), &code, envoy))
        };
        for envoy in EnvoyVersion::ALL {
            let merged = Wasm::decode(config(envoy).value.as_slice()).unwrap().config.unwrap();
            let Some(plugin_config::Vm::VmConfig(vm)) = merged.vm else {
                panic!("no VM")
            };
            assert_eq!((&*vm.vm_id, &*merged.root_id), (FILTER, FILTER));
            let configuration = merged.configuration.unwrap();
            assert_eq!(StringValue::decode(&*configuration.value).unwrap().value, "{}");
            let places = [merged.capability_restriction_config, vm.capability_restriction_config];
            let counts = places.map(|restriction| restriction.map(|found| found.allowed_capabilities.len()));
            let all = Some(CAPABILITIES.len());
            let is_new = envoy >= EnvoyVersion::V1_40;
            assert_eq!(counts, if is_new { [None, all] } else { [all, None] }, "{envoy}");
            assert_eq!(config(envoy), config(envoy));
        }
    }
}
