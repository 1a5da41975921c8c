//! The moment at which a rule expires, for data planes that can't tell it themselves.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tracing::{error, info};

use super::{Controller, View};

/// How long is slept at most. Clocks may be set meanwhile, and sleep goes by another one: so late a rule ends at most then.
const LONGEST_SLEEP: Duration = Duration::from_secs(10);

impl Controller {
    /// Takes expired rules from those who can't tell the time. Nothing else changes.
    pub(super) async fn expire(&self, before: &View) {
        let rules = before.rules.clone();
        match self.render(Arc::clone(&before.snapshots), rules.config()).await {
            Ok(snapshots) => {
                self.publish(rules, snapshots, before.since);
                let revision = self.in_force().snapshots.revision();
                info!(revision, "expired rules are taken from gRPC clients");
            }
            Err(error) => {
                error!(%error, "rules without the expired ones can't be rendered, which is a bug of Sidetrack");
                before.snapshots.forget_expiry();
            }
        }
    }
}

/// Returns when the clock `now` has reached `expiry`, which may change meanwhile; without one never. Both are milliseconds
/// since 1970.
pub(super) async fn expired(
    mut expiry: watch::Receiver<Option<u64>>,
    now: impl Fn() -> u64,
    sleep: impl AsyncFn(Duration),
) {
    loop {
        let time = *expiry.borrow_and_update();
        let left = time.map(|time| Duration::from_millis(time.saturating_sub(now())));
        if left == Some(Duration::ZERO) {
            return;
        }
        let moment = async {
            match left {
                Some(left) => sleep(left.min(LONGEST_SLEEP)).await,
                None => pending().await,
            }
        };
        tokio::select! {
            biased;
            // Whoever tells of changes is there as long as anybody waits.
            changed = expiry.changed() => if changed.is_err() {
                return pending().await;
            },
            () = moment => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use tokio::runtime::Builder;
    use tokio::task::yield_now;

    use super::*;

    /// When a test begins, by the clock that may be set.
    const BEGIN: u64 = 1_800_000_000_000;
    const HOUR: u64 = 3_600_000;

    /// What happens at a moment.
    enum Event {
        ExpiryIs(Option<u64>),
        /// By so many milliseconds.
        ClockIsSet(i64),
    }

    /// A time that passes only in sleep, and then at once. All in milliseconds since the test began.
    struct Time {
        passed: Cell<u64>,
        set: Cell<i64>,
        /// How often the clock was looked at.
        looks: Cell<u32>,
        expiry: watch::Sender<Option<u64>>,
        /// Sorted, the last first.
        events: RefCell<Vec<(u64, Event)>>,
    }

    impl Time {
        fn new(expiry: Option<u64>, events: Vec<(u64, Event)>) -> Self {
            Self {
                passed: Cell::new(0),
                set: Cell::new(0),
                looks: Cell::new(0),
                expiry: watch::Sender::new(expiry),
                events: RefCell::new(events),
            }
        }

        fn now(&self) -> u64 {
            self.looks.set(self.looks.get() + 1);
            (BEGIN + self.passed.get()).checked_add_signed(self.set.get()).unwrap()
        }

        async fn sleep(&self, length: Duration) {
            let end = self.passed.get() + u64::try_from(length.as_millis()).unwrap();
            loop {
                let is_due = self.events.borrow().last().is_some_and(|(at, _)| *at < end);
                let Some((at, event)) = is_due.then(|| self.events.borrow_mut().pop()).flatten() else {
                    break;
                };
                self.passed.set(at);
                match event {
                    Event::ExpiryIs(time) => drop(self.expiry.send_replace(time.map(|time| BEGIN + time))),
                    Event::ClockIsSet(by) => self.set.set(by),
                }
                yield_now().await;
            }
            self.passed.set(end);
        }
    }

    /// When a rule that expires at `expiry` has, and how often the clock was looked at.
    fn ended(expiry: u64, mut events: Vec<(u64, Event)>) -> (u64, u32) {
        events.reverse();
        let time = Time::new(Some(BEGIN + expiry), events);
        let expired = expired(
            time.expiry.subscribe(),
            || time.now(),
            async |length| time.sleep(length).await,
        );
        Builder::new_current_thread().build().unwrap().block_on(expired);
        (time.passed.get(), time.looks.get())
    }

    #[test]
    fn it_is_the_moment_itself() {
        for (expiry, looks) in [(0, 1), (1, 2), (9_999, 2), (10_000, 2), (10_001, 3), (HOUR, 361)] {
            assert_eq!(ended(expiry, vec![]), (expiry, looks));
        }
    }

    #[test]
    fn another_expiry_counts_at_once() {
        let change = |to| vec![(1000, Event::ExpiryIs(Some(to)))];
        assert_eq!(ended(HOUR, change(5000)).0, 5000);
        assert_eq!(ended(2000, change(7000)).0, 7000);
        assert_eq!(ended(2000, vec![(1000, Event::ExpiryIs(Some(500)))]).0, 1000);
    }

    #[test]
    fn without_an_expiry_nothing_wakes() {
        let time = Time::new(None, Vec::new());
        let mut expired = Box::pin(expired(
            time.expiry.subscribe(),
            || time.now(),
            async |length| {
                time.sleep(length).await;
            },
        ));
        let poll = |expired: &mut _| {
            Builder::new_current_thread()
                .build()
                .unwrap()
                .block_on(poll_once(expired))
        };
        assert!(!poll(&mut expired));
        assert_eq!((time.passed.get(), time.looks.get()), (0, 0));
        time.expiry.send_replace(Some(BEGIN + 3));
        assert!(poll(&mut expired));
        assert_eq!(time.passed.get(), 3);
    }

    /// Whether it is ready.
    async fn poll_once(future: &mut (impl Future<Output = ()> + Unpin)) -> bool {
        tokio::select! {
            biased;
            () = future => true,
            () = std::future::ready(()) => false,
        }
    }

    #[test]
    fn a_clock_that_is_set_forward_is_noticed() {
        let (ended, _) = ended(HOUR, vec![(1000, Event::ClockIsSet(HOUR.cast_signed()))]);
        assert_eq!(Duration::from_millis(ended), LONGEST_SLEEP);
    }

    #[test]
    fn a_clock_that_is_set_back_makes_no_loop() {
        let (ended, looks) = ended(5000, vec![(4000, Event::ClockIsSet(-60_000))]);
        assert_eq!((ended, looks), (65_000, 8));
    }
}
