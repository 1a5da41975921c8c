//! What is measured: each arm is a listener and the requests that it gets.

use std::fmt;

use crate::sandboxes::{Kind, Sandboxes};

/// A way to route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Listener {
    /// One default route and nothing else.
    Plain,
    /// The same with what Sidetrack sets besides routing by key: normalised paths, retries, time limits, limits.
    PlainWithOurSettings,
    /// What `sidetrack render` prints.
    Ours {
        sandboxes: usize,
        source: Source,
        logs: Logs,
    },
    /// A route with a header match for each sandbox, which is what an Istio VirtualService becomes.
    HeaderRoutes(usize),
    /// Envoy's matcher tree: an exact match of the header, with a route for each sandbox.
    MatcherTree(usize),
    /// A Lua filter with the same rules and the same matching.
    Lua(usize),
    /// The least that a filter in WebAssembly can do.
    Floor,
    /// No listener of Envoy, but a program of one's own, in Go.
    ReverseProxy(usize),
}

/// Where Sidetrack looks for keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// In `x-route-key`.
    Header,
    /// There, and then in a member of `baggage`.
    HeaderOrBaggage,
}

/// What Sidetrack writes down about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Logs {
    /// Counters and durations.
    pub(crate) metrics: bool,
    /// A line for each request.
    pub(crate) access_log: bool,
}

/// The requests of an arm. All have the same path and the same headers, but for the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Requests {
    /// Without a key.
    Keyless,
    /// With the key of a sandbox of this kind, in the middle of all.
    Routed(Kind),
    /// With a key that no sandbox has.
    Unknown,
    /// With the key of a sandbox in `baggage`.
    RoutedByBaggage,
    /// With `baggage` that has no key in it.
    OtherBaggage,
}

/// One line of the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Arm {
    /// Which way.
    pub(crate) listener: Listener,
    /// Which requests.
    pub(crate) requests: Requests,
}

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// What the regression guard needs.
    Quick,
    /// Everything.
    Full,
}

/// What all requests ask for.
pub(crate) const PATH: &str = "/api/v1/orders";

/// What the two services answer. The answers are of one length, so that they cost the same.
pub(crate) const BASELINE: &str = "baseline";
pub(crate) const SANDBOX: &str = "sandbox!";

/// The numbers of sandboxes that results are shown for.
const SIZES: [usize; 4] = [10, 1_000, 10_000, 100_000];

/// The size that everything is measured at.
pub(crate) const MAIN_SIZE: usize = 1_000;

impl Logs {
    pub(crate) const NONE: Self = Self {
        metrics: false,
        access_log: false,
    };
    pub(crate) const METRICS: Self = Self {
        metrics: true,
        access_log: false,
    };
    const ACCESS_LOG: Self = Self {
        metrics: false,
        access_log: true,
    };
    const ALL: Self = Self {
        metrics: true,
        access_log: true,
    };
}

impl Listener {
    /// Sidetrack without logs, keys in the header.
    pub(crate) fn ours(sandboxes: usize) -> Self {
        Self::Ours {
            sandboxes,
            source: Source::Header,
            logs: Logs::NONE,
        }
    }

    /// The number of its sandboxes.
    pub(crate) fn sandboxes(self) -> usize {
        match self {
            Self::Plain | Self::PlainWithOurSettings | Self::Floor => 0,
            Self::Ours { sandboxes, .. } => sandboxes,
            Self::HeaderRoutes(sandboxes)
            | Self::MatcherTree(sandboxes)
            | Self::Lua(sandboxes)
            | Self::ReverseProxy(sandboxes) => sandboxes,
        }
    }

    /// Its name without their number, for a row or a line of a plot.
    pub(crate) fn family(self) -> String {
        match self {
            Self::Plain => "plain".to_owned(),
            Self::PlainWithOurSettings => "plain, our settings".to_owned(),
            Self::Ours { source, logs, .. } => {
                let source = match source {
                    Source::Header => "",
                    Source::HeaderOrBaggage => ", header or baggage",
                };
                let logs = match (logs.metrics, logs.access_log) {
                    (false, false) => "",
                    (true, false) => " + metrics",
                    (false, true) => " + access log",
                    (true, true) => " + metrics + access log",
                };
                format!("sidetrack{source}{logs}")
            }
            Self::HeaderRoutes(_) => "header routes".to_owned(),
            Self::MatcherTree(_) => "matcher tree".to_owned(),
            Self::Lua(_) => "lua".to_owned(),
            Self::Floor => "floor".to_owned(),
            Self::ReverseProxy(_) => "reverse proxy in Go".to_owned(),
        }
    }

    fn with(self, requests: impl IntoIterator<Item = Requests>) -> impl Iterator<Item = Arm> {
        requests.into_iter().map(move |requests| Arm {
            listener: self,
            requests,
        })
    }
}

impl Arm {
    /// What all are compared with.
    pub(crate) const PLAIN: Self = Self {
        listener: Listener::Plain,
        requests: Requests::Keyless,
    };

    /// Whether it is ours, so that a rise is a regression.
    pub(crate) fn is_ours(self) -> bool {
        matches!(self.listener, Listener::Ours { .. })
    }

    /// The same listener's request without a key: what is added to it is the price of a key.
    pub(crate) fn keyless(self) -> Self {
        Self {
            requests: Requests::Keyless,
            ..self
        }
    }

    /// The headers of its requests.
    pub(crate) fn headers(self) -> Vec<(String, String)> {
        let sandboxes = Sandboxes(self.listener.sandboxes());
        let header = |name: &str, value: String| (name.to_owned(), value);
        let mut headers = vec![
            header("user-agent", "bench".to_owned()),
            header("accept", "*/*".to_owned()),
        ];
        headers.extend(Kind::HEADERS.map(|(name, value)| header(name, value.to_owned())));
        headers.extend(match self.requests {
            Requests::Keyless => None,
            Requests::Routed(kind) => Some(header("x-route-key", sandboxes.key_of(kind))),
            Requests::Unknown => Some(header("x-route-key", "sandbox-of-others".to_owned())),
            Requests::RoutedByBaggage => {
                let key = sandboxes.key_of(Kind::Key);
                Some(header("baggage", format!("tenant=shop,sd-routing-key={key}")))
            }
            Requests::OtherBaggage => Some(header("baggage", "tenant=shop,region=north".to_owned())),
        });
        headers
    }

    /// Who must answer them.
    pub(crate) fn answer(self) -> &'static str {
        match self.requests {
            Requests::Keyless | Requests::Unknown | Requests::OtherBaggage => BASELINE,
            Requests::Routed(_) | Requests::RoutedByBaggage => SANDBOX,
        }
    }
}

impl fmt::Display for Arm {
    /// Its name: family, sandboxes, requests.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.listener.family())?;
        match self.listener.sandboxes() {
            0 => {}
            sandboxes => write!(f, ", {sandboxes} sandboxes")?,
        }
        write!(f, ": {}", self.requests)
    }
}

impl fmt::Display for Requests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Keyless => "no key",
            Self::Routed(Kind::Key) => "key",
            Self::Routed(Kind::KeyWithoutFallback) => "key, no fallback",
            Self::Routed(Kind::KeyAndPath) => "key + path",
            Self::Routed(Kind::KeyPathAndHeaders) => "key + path + 2 headers",
            Self::Unknown => "unknown key",
            Self::RoutedByBaggage => "key in baggage",
            Self::OtherBaggage => "baggage without key",
        })
    }
}

/// Everything that is measured, the plain listener first.
pub(crate) fn arms(extent: Extent) -> Vec<Arm> {
    use Requests::{Keyless, OtherBaggage, Routed, RoutedByBaggage, Unknown};
    let kinds = Kind::ALL.map(Routed);
    let ours = |sandboxes, source, logs| Listener::Ours {
        sandboxes,
        source,
        logs,
    };
    let mut arms = vec![Arm::PLAIN];
    arms.extend(Listener::PlainWithOurSettings.with([Keyless]));
    arms.extend(Listener::ours(MAIN_SIZE).with([Keyless, Unknown].into_iter().chain(kinds)));
    for logs in [Logs::METRICS, Logs::ACCESS_LOG, Logs::ALL] {
        let listener = ours(MAIN_SIZE, Source::Header, logs);
        arms.extend(listener.with([Keyless, Unknown, Routed(Kind::Key)]));
    }
    let listener = ours(MAIN_SIZE, Source::HeaderOrBaggage, Logs::NONE);
    arms.extend(listener.with([Keyless, OtherBaggage, RoutedByBaggage]));
    arms.extend(Listener::Floor.with([Keyless, Routed(Kind::KeyWithoutFallback)]));
    arms.extend(Listener::MatcherTree(MAIN_SIZE).with([Keyless, Unknown, Routed(Kind::Key)]));
    arms.extend(Listener::Lua(MAIN_SIZE).with([Keyless, Unknown].into_iter().chain(kinds)));
    arms.extend(Listener::HeaderRoutes(MAIN_SIZE).with([Keyless, Unknown, Routed(Kind::Key)]));
    for size in SIZES.into_iter().filter(|size| *size != MAIN_SIZE) {
        if extent == Extent::Full {
            arms.extend(Listener::ours(size).with([Keyless, Unknown, Routed(Kind::Key), Routed(Kind::KeyAndPath)]));
            arms.extend(Listener::MatcherTree(size).with([Unknown, Routed(Kind::Key)]));
            arms.extend(Listener::Lua(size).with([Unknown, Routed(Kind::Key)]));
            arms.extend(Listener::HeaderRoutes(size).with([Keyless, Unknown, Routed(Kind::Key)]));
        } else if size <= 10_000 {
            arms.extend(Listener::ours(size).with([Routed(Kind::Key)]));
        }
    }
    arms
}

/// What time is measured of, the plain listener first: time is noisy, so these are few.
pub(crate) fn timed_arms() -> Vec<Arm> {
    use Requests::{Keyless, Routed, Unknown};
    let all_logs = Listener::Ours {
        sandboxes: MAIN_SIZE,
        source: Source::Header,
        logs: Logs::ALL,
    };
    let all = [Keyless, Unknown, Routed(Kind::Key), Routed(Kind::KeyPathAndHeaders)];
    let mut arms = vec![Arm::PLAIN];
    arms.extend(Listener::ours(MAIN_SIZE).with(all));
    arms.extend(all_logs.with(all));
    arms.extend(Listener::ReverseProxy(MAIN_SIZE).with(all));
    arms.extend(Listener::Lua(MAIN_SIZE).with([Routed(Kind::Key)]));
    arms.extend(Listener::MatcherTree(MAIN_SIZE).with([Routed(Kind::Key)]));
    arms.extend(Listener::HeaderRoutes(MAIN_SIZE).with([Keyless, Unknown]));
    arms
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_has_a_name_of_its_own_and_plain_is_the_first() {
        for extent in [Extent::Quick, Extent::Full] {
            let arms = arms(extent);
            let names: BTreeSet<String> = arms.iter().map(ToString::to_string).collect();
            assert_eq!(names.len(), arms.len());
            assert_eq!(arms[0], Arm::PLAIN);
        }
    }

    #[test]
    fn what_is_quick_is_a_part_of_everything() {
        let full = arms(Extent::Full);
        assert!(arms(Extent::Quick).iter().all(|arm| full.contains(arm)));
    }
}
