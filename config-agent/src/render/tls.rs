//! The certificate that clients see.

use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::{
    ConfigSource, DataSource, TransportSocket, WatchedDirectory, data_source, transport_socket,
};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{
    CommonTlsContext, DownstreamTlsContext, SdsSecretConfig, Secret, TlsCertificate, secret,
};
use sidetrack_routing::ServerTls;

use super::envoy::EnvoyVersion;
use super::proto::{any, duration, from_agent};

/// The name of the certificate's resource.
const SERVER_CERTIFICATE: &str = "server-certificate";

/// Where a listener gets its certificate from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Certificate {
    /// The agent says in which files it is, and Envoy reads them again when they change.
    FromAgent,
    /// The files, read once.
    FromFiles,
}

/// TLS for clients, which can agree on one of `alpn`.
pub(super) fn downstream_tls(tls: &ServerTls, alpn: &[&str], certificate: Certificate) -> TransportSocket {
    let mut context = CommonTlsContext {
        alpn_protocols: alpn.iter().map(ToString::to_string).collect(),
        ..Default::default()
    };
    match certificate {
        Certificate::FromFiles => context.tls_certificates = vec![in_files(&tls.cert, &tls.key)],
        Certificate::FromAgent => {
            context.tls_certificate_sds_secret_configs = vec![SdsSecretConfig {
                name: SERVER_CERTIFICATE.to_owned(),
                // An agent may go away before it has sent it. Until it is back, the listener before stays.
                sds_config: Some(ConfigSource {
                    initial_fetch_timeout: duration(Duration::ZERO),
                    ..from_agent()
                }),
            }];
        }
    }
    let context = DownstreamTlsContext {
        common_tls_context: Some(context),
        ..Default::default()
    };
    TransportSocket {
        name: "envoy.transport_sockets.tls".to_owned(),
        config_type: Some(transport_socket::ConfigType::TypedConfig(any(&context))),
    }
}

/// The certificate's resource. Only the files' names are in it: the key never leaves Envoy's machine.
pub(super) fn server_certificate(tls: &ServerTls, envoy: EnvoyVersion) -> Secret {
    let [directory, of_key] = [&tls.cert, &tls.key].map(|file| file.rsplit_once('/').map(|(directory, _)| directory));
    // As Kubernetes mounts them, the files stay where they are and a directory between changes. Files in two directories
    // are watched without this, but only for others that are moved to their place.
    let watched = directory.filter(|_| directory == of_key);
    let certificate = TlsCertificate {
        watched_directory: watched.map(|path| WatchedDirectory {
            path: if path.is_empty() { "/" } else { path }.to_owned(),
            // Files that are written in place; before this version, only those that are replaced are noticed.
            watch_modify: envoy >= EnvoyVersion::V1_40,
        }),
        ..in_files(&tls.cert, &tls.key)
    };
    Secret {
        name: SERVER_CERTIFICATE.to_owned(),
        r#type: Some(secret::Type::TlsCertificate(certificate)),
    }
}

/// A certificate and its key, in files.
pub(super) fn in_files(cert: &str, key: &str) -> TlsCertificate {
    TlsCertificate {
        certificate_chain: Some(file(cert)),
        private_key: Some(file(key)),
        ..Default::default()
    }
}

pub(super) fn file(path: &str) -> DataSource {
    DataSource {
        specifier: Some(data_source::Specifier::Filename(path.to_owned())),
        ..Default::default()
    }
}
