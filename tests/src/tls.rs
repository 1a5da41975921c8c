//! Certificates, servers and clients with TLS.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{ClientConfig, ProtocolVersion, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// Signs certificates.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key.
pub struct Identity {
    /// The certificate in PEM.
    pub cert: String,
    /// Its key in PEM.
    pub key: String,
}

impl Authority {
    /// A new one of this name.
    ///
    /// # Panics
    /// If there is no randomness.
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, name);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Its own certificate in PEM.
    pub fn cert(&self) -> String {
        self.0.pem()
    }

    /// A new certificate for these host names and IP addresses.
    ///
    /// # Panics
    /// If one of them is neither.
    pub fn issue(&self, names: &[&str]) -> Identity {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let key = KeyPair::generate().unwrap();
        let cert = CertificateParams::new(names).unwrap().signed_by(&key, &self.0).unwrap();
        Identity {
            cert: cert.pem(),
            key: key.serialize_pem(),
        }
    }

    fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        roots.into()
    }
}

impl Identity {
    /// What a peer is shown.
    ///
    /// # Panics
    /// If it isn't one.
    pub fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.cert.as_bytes()).unwrap()
    }

    fn key_der(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap()
    }
}

fn provider() -> Arc<CryptoProvider> {
    ring::default_provider().into()
}

fn alpn(protocols: &[&str]) -> Vec<Vec<u8>> {
    protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect()
}

/// What a client believes: an authority, and the name of the server.
#[derive(Clone)]
pub struct Trust {
    roots: Arc<RootCertStore>,
    name: ServerName<'static>,
}

impl Trust {
    /// Servers of this name, with a certificate of `authority`.
    ///
    /// # Panics
    /// If it is no name.
    pub fn new(authority: &Authority, name: &str) -> Self {
        Self {
            roots: authority.roots(),
            name: name.to_owned().try_into().unwrap(),
        }
    }

    /// Makes TLS of a connection, offering these protocols (ALPN).
    ///
    /// # Errors
    /// The server can't be believed, or refuses.
    pub async fn connect(&self, stream: TcpStream, protocols: &[&str]) -> io::Result<TlsStream<TcpStream>> {
        let config = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
        let mut config = config
            .unwrap()
            .with_root_certificates(Arc::clone(&self.roots))
            .with_no_client_auth();
        config.alpn_protocols = alpn(protocols);
        TlsConnector::from(Arc::new(config))
            .connect(self.name.clone(), stream)
            .await
    }

    /// Connects to this port on loopback.
    ///
    /// # Errors
    /// There is no connection, or the server can't be believed, or refuses.
    pub async fn open(&self, port: u16, protocols: &[&str]) -> io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        self.connect(stream, protocols).await
    }
}

/// TLS before a server that has none; dropping it closes its port and its connections.
pub struct TlsServer {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Handshake>>>,
    accepting: JoinHandle<()>,
}

/// What a client of a [`TlsServer`] has said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handshake {
    /// The name it asked for (SNI).
    pub name: Option<String>,
    /// What both agreed on (ALPN).
    pub protocol: Option<String>,
    /// The version of TLS: 1.2 or 1.3.
    pub version: &'static str,
    /// The certificate it showed.
    pub certificate: Option<CertificateDer<'static>>,
}

impl TlsServer {
    /// Listens on a port of loopback, shows the certificate of `identity`, and passes on what it gets to `target`.
    /// It can agree on one of `protocols` (ALPN), and with `clients` wants a certificate that this authority has signed.
    ///
    /// # Panics
    /// If it can't.
    pub async fn start(
        target: SocketAddr,
        identity: &Identity,
        protocols: &[&str],
        clients: Option<&Authority>,
    ) -> Self {
        let config = ServerConfig::builder_with_provider(provider());
        let config = config.with_safe_default_protocol_versions().unwrap();
        let config = match clients {
            None => config.with_no_client_auth(),
            Some(authority) => {
                let verifier = WebPkiClientVerifier::builder_with_provider(authority.roots(), provider());
                config.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let mut config = config
            .with_single_cert(vec![identity.der()], identity.key_der())
            .unwrap();
        config.alpn_protocols = alpn(protocols);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::default();
        let accepting = tokio::spawn(accept(listener, Arc::new(config).into(), target, Arc::clone(&seen)));
        Self {
            address,
            seen,
            accepting,
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Every handshake that came to its end.
    pub fn handshakes(&self) -> Vec<Handshake> {
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Connections end with this task.
async fn accept(listener: TcpListener, acceptor: TlsAcceptor, target: SocketAddr, seen: Arc<Mutex<Vec<Handshake>>>) {
    let mut connections = JoinSet::new();
    loop {
        if let Ok((connection, _)) = listener.accept().await {
            connections.spawn(pass_on(connection, acceptor.clone(), target, Arc::clone(&seen)));
        }
        while connections.try_join_next().is_some() {}
    }
}

/// How a connection ends is the client's affair.
async fn pass_on(
    connection: TcpStream,
    acceptor: TlsAcceptor,
    target: SocketAddr,
    seen: Arc<Mutex<Vec<Handshake>>>,
) -> io::Result<()> {
    let mut connection = acceptor.accept(connection).await?;
    let tls = connection.get_ref().1;
    let certificates = tls.peer_certificates().and_then(|certificates| certificates.first());
    let handshake = Handshake {
        name: tls.server_name().map(ToOwned::to_owned),
        protocol: tls
            .alpn_protocol()
            .map(|name| String::from_utf8_lossy(name).into_owned()),
        version: match tls.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => "1.3",
            _ => "1.2",
        },
        certificate: certificates.map(|certificate| certificate.clone().into_owned()),
    };
    seen.lock().unwrap().push(handshake);
    let mut target = TcpStream::connect(target).await?;
    tokio::io::copy_bidirectional(&mut connection, &mut target)
        .await
        .map(drop)
}
