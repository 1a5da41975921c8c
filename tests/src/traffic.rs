//! Requests at a steady rate while something else happens.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use crate::{Client, PATIENCE, Protocol, Request, poll_until};

const CONNECTIONS: u32 = 8;

/// Sends requests over keep-alive connections until it is stopped or dropped.
pub struct Traffic {
    outcomes: Arc<Mutex<Vec<Outcome>>>,
    stopping: Arc<AtomicBool>,
    senders: JoinSet<()>,
    begun: Instant,
}

/// What became of one request.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Which of the requests it was.
    pub request: usize,
    /// When it was sent.
    pub sent: Instant,
    /// When its response was complete.
    pub answered: Instant,
    /// The name of the service that answered; otherwise the status, or the error.
    pub served_by: String,
}

impl Traffic {
    /// Sends these requests in turn, `rate` in a second all together.
    pub fn start(port: u16, rate: u32, requests: Vec<Request>) -> Self {
        let outcomes = Arc::new(Mutex::new(Vec::new()));
        let stopping = Arc::new(AtomicBool::new(false));
        let requests = Arc::new(requests);
        let pause = Duration::from_secs(1) * CONNECTIONS / rate;
        let mut senders = JoinSet::new();
        for sender in 0..CONNECTIONS as usize {
            let (outcomes, stopping, requests) = (Arc::clone(&outcomes), Arc::clone(&stopping), Arc::clone(&requests));
            senders.spawn(async move {
                let mut client = Client::new(Protocol::Http1, port);
                let mut ticks = interval(pause);
                // After a delay it catches up, so that the rate stays.
                ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
                let mut request = sender % requests.len();
                while !stopping.load(Ordering::Relaxed) {
                    ticks.tick().await;
                    let sent = Instant::now();
                    let answer = client.send(requests[request].clone()).await;
                    let outcome = Outcome {
                        request,
                        sent,
                        answered: Instant::now(),
                        served_by: answer.map_or_else(|error| format!("{error:#}"), |answer| answer.served_by()),
                    };
                    outcomes.lock().unwrap().push(outcome);
                    request = (request + 1) % requests.len();
                }
            });
        }
        Self {
            outcomes,
            stopping,
            senders,
            begun: Instant::now(),
        }
    }

    /// Waits until `count` more requests have been answered.
    pub async fn flow(&self, count: usize) {
        let target = self.outcomes.lock().unwrap().len() + count;
        poll_until(PATIENCE, "more traffic", async || {
            match self.outcomes.lock().unwrap().len() {
                answered if answered >= target => Ok(()),
                answered => Err(format!("{answered} of {target}")),
            }
        })
        .await;
    }

    /// Lets requests in flight finish; returns the outcomes, and how many there were in a second.
    pub async fn stop(mut self) -> (Vec<Outcome>, f64) {
        self.stopping.store(true, Ordering::Relaxed);
        while let Some(ended) = self.senders.join_next().await {
            ended.expect("a sender doesn't panic");
        }
        let outcomes = std::mem::take(&mut *self.outcomes.lock().unwrap());
        let rate = outcomes.len() as f64 / self.begun.elapsed().as_secs_f64();
        (outcomes, rate)
    }
}

/// Waits until a request with the key is served by `expected`, on a connection of its own each time.
///
/// # Panics
/// If that takes longer than [`PATIENCE`].
pub async fn until_served_by(port: u16, key: &str, expected: &str) {
    poll_until(PATIENCE, &format!("{key} served by {expected}"), async || {
        let answer = Client::new(Protocol::Http1, port)
            .get("/", &[("x-route-key", key)])
            .await;
        let served_by = answer.map_err(|error| format!("{error:#}"))?.served_by();
        (served_by == expected).then_some(()).ok_or(served_by)
    })
    .await;
}
