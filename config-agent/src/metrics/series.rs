//! The names, help texts, labels and buckets of the metrics.

use prometheus::core::Collector;
use prometheus::{
    Counter, Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};

use super::{Observed, Source, seconds};
use crate::render::ResourceType;

/// From half a millisecond, for what is done in memory, to the time after which a proxy is dropped.
const SECONDS: [f64; 15] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];

/// All metrics, and the registry that knows them.
#[derive(Debug)]
pub(super) struct Series {
    pub(super) registry: Registry,
    pub(super) changes: IntCounterVec,
    pub(super) rejections: IntCounterVec,
    pub(super) renderings: Histogram,
    pub(super) pushes: IntCounterVec,
    pub(super) acks: IntCounterVec,
    pub(super) nacks: IntCounterVec,
    pub(super) ack_durations: HistogramVec,
    pub(super) dropped: IntCounter,
    pub(super) state_writes: Histogram,
    pub(super) state_failures: IntCounter,
    pub(super) state_failing: IntGauge,
    pub(super) api_requests: IntCounterVec,
    pub(super) api_durations: HistogramVec,
    pub(super) start_time: Gauge,
    pub(super) cpu: Counter,
    pub(super) resident_memory: IntGauge,
    pub(super) open_files: IntGauge,
    revision: IntGauge,
    version: IntGaugeVec,
    last_change: Gauge,
    rules: IntGaugeVec,
    targets: IntGauge,
    rejected: IntGauge,
    connected: IntGauge,
    behind: IntGauge,
    refused: IntGauge,
}

/// Makes metrics and registers each. Names and labels are constants, so what fails here fails in every test.
struct Maker(Registry);

impl Maker {
    fn register<M: Collector + Clone + 'static>(&self, metric: prometheus::Result<M>) -> M {
        let metric = metric.expect("a name that Prometheus allows");
        self.0.register(Box::new(metric.clone())).expect("a name that is new");
        metric
    }

    fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.register(IntCounter::new(name, help))
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.register(IntCounterVec::new(Opts::new(name, help), labels))
    }

    fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.register(IntGauge::new(name, help))
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.register(IntGaugeVec::new(Opts::new(name, help), labels))
    }

    fn seconds(&self, name: &str, help: &str) -> Gauge {
        self.register(Gauge::new(name, help))
    }

    fn histogram(&self, name: &str, help: &str) -> Histogram {
        self.register(Histogram::with_opts(
            HistogramOpts::new(name, help).buckets(SECONDS.into()),
        ))
    }

    fn histograms(&self, name: &str, help: &str, labels: &[&str]) -> HistogramVec {
        let options = HistogramOpts::new(name, help).buckets(SECONDS.into());
        self.register(HistogramVec::new(options, labels))
    }
}

impl Series {
    pub(super) fn new() -> Self {
        let new = Maker(Registry::new());
        let build = new.gauges("sidetrack_agent_build_info", "The release of this agent.", &["version"]);
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let series = Self {
            changes: new.counters(
                "sidetrack_agent_config_changes_total",
                "Configurations that came into force, by what changed.",
                &["source"],
            ),
            rejections: new.counters(
                "sidetrack_agent_config_rejections_total",
                "Configurations and changes that were rejected, by where they came from.",
                &["source"],
            ),
            revision: new.gauge(
                "sidetrack_agent_config_revision",
                "The number of the configuration in force, from 1 at every start.",
            ),
            version: new.gauges(
                "sidetrack_agent_config_info",
                "The version of the configuration in force: the hash of its content.",
                &["version"],
            ),
            last_change: new.seconds(
                "sidetrack_agent_config_last_change_timestamp_seconds",
                "When the configuration in force came into force, in seconds since 1970.",
            ),
            rules: new.gauges(
                "sidetrack_agent_config_rules",
                "Rules in force, by who owns them.",
                &["source"],
            ),
            targets: new.gauge(
                "sidetrack_agent_config_targets",
                "Targets in force, those of the baseline among them.",
            ),
            rejected: new.gauge(
                "sidetrack_agent_config_rejected",
                "1 while the configuration file is rejected and an older one in force.",
            ),
            renderings: new.histogram(
                "sidetrack_agent_render_duration_seconds",
                "How long it took from a change to what Envoys are to have.",
            ),
            pushes: new.counters("sidetrack_agent_xds_pushes_total", "Pushes to proxies.", &["type"]),
            acks: new.counters(
                "sidetrack_agent_xds_acks_total",
                "Pushes that proxies accepted.",
                &["type"],
            ),
            nacks: new.counters(
                "sidetrack_agent_xds_nacks_total",
                "Pushes that proxies refused.",
                &["type"],
            ),
            ack_durations: new.histograms(
                "sidetrack_agent_xds_ack_duration_seconds",
                "From a push to its acceptance.",
                &["type"],
            ),
            connected: new.gauge("sidetrack_agent_proxies_connected", "Connected proxies."),
            behind: new.gauge(
                "sidetrack_agent_proxies_behind",
                "Connected proxies that haven't accepted the configuration in force.",
            ),
            refused: new.gauge(
                "sidetrack_agent_proxies_refused",
                "Proxies that were turned away, because they are too old or of another kind.",
            ),
            dropped: new.counter(
                "sidetrack_agent_proxies_dropped_total",
                "Proxies that were dropped because they took nothing any more.",
            ),
            state_writes: new.histogram(
                "sidetrack_agent_state_write_duration_seconds",
                "How long it took to write the state file, down to the disk.",
            ),
            state_failures: new.counter(
                "sidetrack_agent_state_write_failures_total",
                "Writes of the state file that failed; what they were to keep was refused.",
            ),
            state_failing: new.gauge(
                "sidetrack_agent_state_write_failing",
                "1 while the last write of the state file has failed.",
            ),
            api_requests: new.counters(
                "sidetrack_agent_api_requests_total",
                "Requests to the agent's API.",
                &["method", "route", "status"],
            ),
            api_durations: new.histograms(
                "sidetrack_agent_api_request_duration_seconds",
                "How long they took, with the time that ?wait= asked for.",
                &["method", "route"],
            ),
            start_time: new.seconds(
                "process_start_time_seconds",
                "When the process began, in seconds since 1970.",
            ),
            cpu: new.register(Counter::new("process_cpu_seconds_total", "CPU time of the process.")),
            resident_memory: new.gauge("process_resident_memory_bytes", "Memory of the process in RAM."),
            open_files: new.gauge("process_open_fds", "Open files and connections of the process."),
            registry: new.0,
        };
        series.begin();
        series
    }

    /// A counter that isn't there before its first event hides that event from `rate()`.
    fn begin(&self) {
        for source in [Source::File, Source::Api] {
            self.changes.with_label_values(&[source.label()]);
            self.rejections.with_label_values(&[source.label()]);
        }
        for kind in ResourceType::ALL {
            for counters in [&self.pushes, &self.acks, &self.nacks] {
                counters.with_label_values(&[&kind.to_string()]);
            }
        }
    }

    pub(super) fn observe(&self, observed: &Observed) {
        self.revision.set(i64::try_from(observed.revision).unwrap_or(i64::MAX));
        self.version.reset();
        self.version.with_label_values(&[&observed.version]).set(1);
        self.last_change.set(seconds(observed.since));
        let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        for (source, rules) in [(Source::File, observed.file_rules), (Source::Api, observed.api_rules)] {
            self.rules.with_label_values(&[source.label()]).set(count(rules));
        }
        self.targets.set(count(observed.targets));
        self.rejected.set(i64::from(observed.rejected));
        self.connected.set(count(observed.proxies));
        self.behind.set(count(observed.behind));
        self.refused.set(count(observed.refused));
    }
}
