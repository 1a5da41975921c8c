//! The certificate's files change while requests flow.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use sidetrack_tests::{
    Authority, Client, ConfigFile, Identity, PATIENCE, Ports, Protocol, Services, Sidetrack, Stats, TlsFiles, Trust,
    artifacts, config_text, poll_until, until_shown,
};
use tokio::task::JoinSet;

const NAME: &str = "proxy.example";

/// Requests between two changes.
const STEP: usize = 100;

const ROUTING: &str = "routing: {defaultTarget: baseline}\n";

/// Requests on new connections and on ones that stay, one after the other, until it is told to stop.
struct TlsTraffic {
    stopping: Arc<AtomicBool>,
    sent: Arc<AtomicUsize>,
    senders: JoinSet<Vec<String>>,
}

impl TlsTraffic {
    fn start(ports: &Ports, trust: &Trust) -> Self {
        let stopping = Arc::new(AtomicBool::new(false));
        let sent = Arc::new(AtomicUsize::new(0));
        let mut senders = JoinSet::new();
        for (protocol, stays) in [
            (Protocol::Http1, true),
            (Protocol::Http2, true),
            (Protocol::Http1, false),
            (Protocol::Http2, false),
        ] {
            let (port, trust) = (ports.http, trust.clone());
            let (stopping, sent) = (Arc::clone(&stopping), Arc::clone(&sent));
            senders.spawn(async move {
                let mut client = Client::over_tls(protocol, port, &trust);
                let mut failed = Vec::new();
                let mut first = None;
                while !stopping.load(Ordering::Relaxed) {
                    if !stays {
                        client = Client::over_tls(protocol, port, &trust);
                    }
                    sent.fetch_add(1, Ordering::Relaxed);
                    match client.get("/", &[]).await {
                        Ok(answer) if answer.served_by() == "baseline" => {}
                        Ok(answer) => failed.push(answer.text()),
                        Err(error) => failed.push(format!("{error:#}")),
                    }
                    let certificate = client.certificate().map(<[u8]>::to_vec);
                    if stays && *first.get_or_insert(certificate.clone()) != certificate {
                        failed.push("its connection is another".to_owned());
                    }
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                failed
            });
        }
        Self {
            stopping,
            sent,
            senders,
        }
    }

    /// Waits for so many more requests.
    async fn flow(&self, count: usize) {
        let target = self.sent.load(Ordering::Relaxed) + count;
        poll_until(PATIENCE, "more traffic", async || {
            let sent = self.sent.load(Ordering::Relaxed);
            (sent >= target)
                .then_some(())
                .ok_or_else(|| format!("{sent} of {target}"))
        })
        .await;
    }

    /// How many requests there were, and what went wrong.
    async fn stop(mut self) -> (usize, Vec<String>) {
        self.stopping.store(true, Ordering::Relaxed);
        let mut failed = Vec::new();
        while let Some(ended) = self.senders.join_next().await {
            failed.extend(ended.unwrap());
        }
        (self.sent.load(Ordering::Relaxed), failed)
    }
}

async fn failed_rotations(ports: &Ports) -> u64 {
    Stats::read(ports.admin, "key_rotation_failed")
        .await
        .sum("sds.server-certificate.key_rotation_failed")
}

async fn until_rotation_failed(ports: &Ports, before: u64, what: &str) {
    poll_until(PATIENCE, what, async || {
        let now = failed_rotations(ports).await;
        (now > before)
            .then_some(())
            .ok_or_else(|| format!("{now} rotations have failed"))
    })
    .await;
}

/// Each step changes the same two files in another way.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_certificate_is_shown_without_a_failed_request_and_a_broken_one_never() {
    let ports = Ports::free();
    let services = Services::start(&["baseline"]).await;
    let authority = Authority::new("authority");
    let certificates: Vec<Identity> = (0..6).map(|_| authority.issue(&[NAME])).collect();
    let [mounted, remounted, replaced, in_place, other, mended] = &certificates[..] else {
        unreachable!()
    };
    let files = TlsFiles::mounted(mounted);
    let config = ConfigFile::new(&files.in_config(&config_text(&ports, &services, ROUTING)));
    let sidetrack = Sidetrack::up(&config.path(), &ports).await;
    let trust = Trust::new(&authority, NAME);
    until_shown(ports.http, &trust, mounted, "the first certificate").await;
    let traffic = TlsTraffic::start(&ports, &trust);

    traffic.flow(STEP).await;
    files.remount(remounted);
    until_shown(ports.http, &trust, remounted, "the one that was mounted").await;
    traffic.flow(STEP).await;
    files.replace(replaced);
    until_shown(ports.http, &trust, replaced, "the one that was put in place").await;
    let mut in_force = replaced;
    let release = artifacts::release(&artifacts::envoy());
    if !["1.37.", "1.38.", "1.39."].iter().any(|old| release.starts_with(old)) {
        traffic.flow(STEP).await;
        files.write_in_place(in_place);
        until_shown(ports.http, &trust, in_place, "the one that was written in place").await;
        in_force = in_place;
    }

    for (what, cert, key) in [
        ("garbage", "garbage", mended.key.as_str()),
        ("another's key", &other.cert, &mended.key),
        ("no key", &other.cert, ""),
    ] {
        traffic.flow(STEP).await;
        let before = failed_rotations(&ports).await;
        files.replace(&Identity {
            cert: cert.to_owned(),
            key: key.to_owned(),
        });
        until_rotation_failed(&ports, before, what).await;
        until_shown(ports.http, &trust, in_force, what).await;
    }
    traffic.flow(STEP).await;
    files.replace(mended);
    until_shown(ports.http, &trust, mended, "the one that is right").await;

    traffic.flow(STEP).await;
    let (requests, failed) = traffic.stop().await;
    println!(
        "{requests} requests over TLS while the certificate changed, {} failed",
        failed.len()
    );
    assert!(failed.is_empty(), "{} of {requests}: {failed:?}", failed.len());
    let said = sidetrack.stderr();
    for why in [
        "Failed to load certificate chain",
        "KEY_VALUES_MISMATCH",
        "Failed to load incomplete private key",
    ] {
        assert!(said.contains(why), "{why} isn't in {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn certificate_and_key_may_be_in_different_directories() {
    let ports = Ports::free();
    let services = Services::start(&["baseline"]).await;
    let authority = Authority::new("authority");
    let [old, new] = [0; 2].map(|_| authority.issue(&[NAME]));
    let (certs, keys) = (TlsFiles::new(&old), TlsFiles::new(&old));
    let text = certs.in_config(&config_text(&ports, &services, ROUTING));
    let config = ConfigFile::new(&text.replace(
        &certs.path("tls.key").display().to_string(),
        &keys.path("tls.key").display().to_string(),
    ));
    let _sidetrack = Sidetrack::up(&config.path(), &ports).await;
    let trust = Trust::new(&authority, NAME);
    until_shown(ports.http, &trust, &old, "the first").await;
    // The certificate first: between the two the files don't fit.
    certs.replace(&new);
    until_rotation_failed(&ports, 0, "half of the change").await;
    keys.replace(&new);
    until_shown(ports.http, &trust, &new, "the new one").await;
}
