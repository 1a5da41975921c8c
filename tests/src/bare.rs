//! An Envoy with nothing of ours: what any difference is measured against.

use crate::{Envoy, free_port, running};

/// An Envoy that passes everything on to one server on loopback.
pub struct BareEnvoy {
    /// Where it listens.
    pub port: u16,
    _process: Envoy,
}

impl BareEnvoy {
    /// Starts one before the server on the port `server`, and waits until it is ready.
    ///
    /// It speaks `codec` (`AUTO` or `HTTP2`, by Envoy's names) with clients, and with the server, as `protocol: auto` in
    /// our own configuration, what the client speaks.
    pub async fn start(server: u16, codec: &str) -> Self {
        let (port, admin) = (free_port(), free_port());
        let mut process = Envoy::start(&format!(
            r#"
admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {admin}}}}}}}
static_resources:
  listeners:
  - address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: bare
          codec_type: {codec}
          upgrade_configs: [{{upgrade_type: websocket}}]
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes: [{{match: {{prefix: /}}, route: {{cluster: server, timeout: 0s}}}}]
          http_filters:
          - name: router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
  clusters:
  - name: server
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        use_downstream_protocol_config: {{http_protocol_options: {{}}, http2_protocol_options: {{}}}}
    load_assignment:
      cluster_name: server
      endpoints:
      - lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {server}}}}}}}}}]
"#
        ));
        running::ready(&mut process, admin, "/ready").await;
        Self {
            port,
            _process: process,
        }
    }
}
