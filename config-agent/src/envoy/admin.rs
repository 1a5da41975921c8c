//! What we ask Envoy's admin interface.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::{Context as _, ensure};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// The admin interface on loopback.
#[derive(Clone, Copy, Debug)]
pub struct Admin {
    address: SocketAddr,
}

/// What is under way at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Active {
    /// Requests without a whole response, streams among them.
    pub requests: u64,
    /// Requests that became connections of another protocol: WebSockets.
    pub upgraded: u64,
}

impl Admin {
    /// The one on `port`.
    pub fn on(port: u16) -> Self {
        Self {
            address: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port),
        }
    }

    /// Whether Envoy has started: its listeners are there.
    pub async fn is_live(&self) -> bool {
        self.call(Method::GET, "/ready").await.is_ok()
    }

    /// Closes the listeners. Connections stay, and are closed after the response under way.
    ///
    /// # Errors
    ///
    /// Envoy doesn't answer.
    pub async fn drain(&self) -> anyhow::Result<()> {
        self.call(Method::POST, "/healthcheck/fail").await?;
        self.call(Method::POST, "/drain_listeners").await?;
        Ok(())
    }

    /// What is under way, requests to the admin interface aside.
    ///
    /// # Errors
    ///
    /// Envoy doesn't answer.
    pub async fn active(&self) -> anyhow::Result<Active> {
        let path = "/stats?filter=^http\\.(http|grpc)\\.downstream_(rq|cx_upgrades)_active$";
        let stats = self.call(Method::GET, path).await?;
        let sum = |name: &str| -> u64 {
            let lines = stats.lines().filter_map(|line| line.split_once(": "));
            let named = lines.filter(|(stat, _)| stat.ends_with(name));
            named.filter_map(|(_, value)| value.parse::<u64>().ok()).sum()
        };
        let upgraded = sum(".downstream_cx_upgrades_active");
        Ok(Active {
            requests: sum(".downstream_rq_active").saturating_sub(upgraded),
            upgraded,
        })
    }

    async fn call(&self, method: Method, path: &str) -> anyhow::Result<String> {
        let stream = TcpStream::connect(self.address)
            .await
            .context("Envoy's admin interface doesn't answer")?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let request = Request::builder().method(method).uri(path).header("host", "localhost");
        let response = sender.send_request(request.body(Empty::<Bytes>::new())?).await?;
        let status = response.status();
        ensure!(
            status.is_success(),
            "Envoy's admin interface answers {status} to {path}"
        );
        let body = response.into_body().collect().await?.to_bytes();
        Ok(String::from_utf8_lossy(&body).into_owned())
    }
}
