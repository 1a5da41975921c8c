//! The agent's own metrics, as Prometheus reads them from `GET /metrics`.
//!
//! Who does something says so by a method of [`Metrics`]; what is simply so at a moment is asked for when somebody looks
//! ([`Observed`]), so that it can't be stale. No label holds anything of a request, a node or a rule: the number of series has
//! an end.

mod process;
mod series;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::extract::{MatchedPath, Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;
use prometheus::TextEncoder;

use self::process::Process;
use self::series::Series;
use crate::render::ResourceType;

/// The media type of [`Metrics::text`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Where a change of the rules came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The configuration file.
    File,
    /// The REST API.
    Api,
}

/// The agent's metrics. Clones share them.
#[derive(Clone, Debug)]
pub struct Metrics {
    series: Arc<Series>,
    process: Arc<Mutex<Process>>,
}

/// What is so at the moment somebody looks.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The number of the configuration in force, from 1 at every start.
    pub revision: u64,
    /// The hash of its content.
    pub version: String,
    /// When it came into force.
    pub since: SystemTime,
    /// How many rules the file has.
    pub file_rules: usize,
    /// How many rules came by the API.
    pub api_rules: usize,
    /// How many targets they have, the baseline's among them.
    pub targets: usize,
    /// Whether the newest file is rejected.
    pub rejected: bool,
    /// How many proxies are connected.
    pub proxies: usize,
    /// How many of these haven't accepted the configuration in force.
    pub behind: usize,
    /// How many were turned away.
    pub refused: usize,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            series: Arc::new(Series::new()),
            process: Arc::default(),
        }
    }
}

impl Metrics {
    /// A configuration has come into force.
    pub fn changed(&self, source: Source) {
        self.series.changes.with_label_values(&[source.label()]).inc();
    }

    /// A configuration was rejected, or a change of it.
    pub fn rejected(&self, source: Source) {
        self.series.rejections.with_label_values(&[source.label()]).inc();
    }

    /// A configuration was validated, compiled and rendered.
    pub fn rendered(&self, took: Duration) {
        self.series.renderings.observe(took.as_secs_f64());
    }

    /// A push was sent.
    pub fn pushed(&self, kind: ResourceType) {
        self.series.pushes.with_label_values(&[&kind.to_string()]).inc();
    }

    /// A push was accepted, so long after it was sent.
    pub fn acknowledged(&self, kind: ResourceType, after: Duration) {
        let kind = kind.to_string();
        self.series.acks.with_label_values(&[&kind]).inc();
        self.series
            .ack_durations
            .with_label_values(&[&kind])
            .observe(after.as_secs_f64());
    }

    /// A push was refused.
    pub fn refused(&self, kind: ResourceType) {
        self.series.nacks.with_label_values(&[&kind.to_string()]).inc();
    }

    /// A proxy was dropped because it took nothing for too long.
    pub fn dropped(&self) {
        self.series.dropped.inc();
    }

    /// The state file was written.
    pub fn state_written(&self, took: Duration) {
        self.series.state_writes.observe(took.as_secs_f64());
        self.series.state_failing.set(0);
    }

    /// The state file couldn't be written.
    pub fn state_write_failed(&self) {
        self.series.state_failures.inc();
        self.series.state_failing.set(1);
    }

    /// A request to the API was answered. `route` is the route that it took, never its path.
    pub fn api_request(&self, method: &Method, route: &str, status: u16, took: Duration) {
        let method = match *method {
            Method::GET
            | Method::HEAD
            | Method::PUT
            | Method::POST
            | Method::DELETE
            | Method::OPTIONS
            | Method::PATCH => method.as_str(),
            _ => "other",
        };
        let labels = [method, route, &status.to_string()];
        self.series.api_requests.with_label_values(&labels).inc();
        self.series
            .api_durations
            .with_label_values(&[method, route])
            .observe(took.as_secs_f64());
    }

    /// All of it in Prometheus's text format.
    pub fn text(&self, observed: &Observed) -> String {
        // Held until the text is there, so that two who look at once don't mix.
        let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        self.series.observe(observed);
        process.observe(&self.series);
        // Only a metric without a name or a full disk could fail here: there is neither.
        TextEncoder::new()
            .encode_to_string(&self.series.registry.gather())
            .unwrap_or_default()
    }
}

impl Source {
    fn label(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Api => "api",
        }
    }
}

/// Counts the requests of a router: a layer by [`axum::middleware::from_fn_with_state`].
pub async fn count_requests(State(metrics): State<Metrics>, request: Request, next: Next) -> Response {
    let method = request.method().clone();
    let matched = request.extensions().get::<MatchedPath>().cloned();
    let began = std::time::Instant::now();
    let response = next.run(request).await;
    let route = matched.as_ref().map_or("other", MatchedPath::as_str);
    metrics.api_request(&method, route, response.status().as_u16(), began.elapsed());
    response
}

/// Seconds since 1970.
fn seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observed() -> Observed {
        Observed {
            revision: 7,
            version: "00ff".to_owned(),
            since: UNIX_EPOCH + Duration::from_secs(1_800_000_000),
            file_rules: 3,
            api_rules: 2,
            targets: 4,
            rejected: true,
            proxies: 2,
            behind: 1,
            refused: 0,
        }
    }

    #[track_caller]
    fn check(text: &str, expected: &[&str]) {
        for line in expected {
            assert!(text.lines().any(|found| found == *line), "{line} isn't in\n{text}");
        }
    }

    #[test]
    fn what_happens_is_counted() {
        let metrics = Metrics::default();
        metrics.changed(Source::File);
        metrics.changed(Source::Api);
        metrics.rejected(Source::Api);
        metrics.rendered(Duration::from_millis(3));
        metrics.pushed(ResourceType::FilterConfig);
        metrics.pushed(ResourceType::Cluster);
        metrics.acknowledged(ResourceType::Cluster, Duration::from_millis(2));
        metrics.refused(ResourceType::FilterConfig);
        metrics.dropped();
        metrics.state_written(Duration::from_millis(1));
        metrics.state_write_failed();
        metrics.api_request(&Method::PUT, "/api/v1/rules/{routeKey}", 200, Duration::from_millis(20));
        metrics.api_request(&Method::from_bytes(b"BREW").unwrap(), "other", 405, Duration::ZERO);
        check(
            &metrics.text(&observed()),
            &[
                r#"sidetrack_agent_config_changes_total{source="api"} 1"#,
                r#"sidetrack_agent_config_rejections_total{source="api"} 1"#,
                "sidetrack_agent_render_duration_seconds_count 1",
                r#"sidetrack_agent_xds_pushes_total{type="ECDS"} 1"#,
                r#"sidetrack_agent_xds_acks_total{type="CDS"} 1"#,
                r#"sidetrack_agent_xds_nacks_total{type="ECDS"} 1"#,
                r#"sidetrack_agent_xds_ack_duration_seconds_bucket{type="CDS",le="0.0025"} 1"#,
                "sidetrack_agent_proxies_dropped_total 1",
                "sidetrack_agent_state_write_duration_seconds_count 1",
                "sidetrack_agent_state_write_failures_total 1",
                "sidetrack_agent_state_write_failing 1",
                r#"sidetrack_agent_api_requests_total{method="PUT",route="/api/v1/rules/{routeKey}",status="200"} 1"#,
                r#"sidetrack_agent_api_requests_total{method="other",route="other",status="405"} 1"#,
            ],
        );
        metrics.state_written(Duration::ZERO);
        check(&metrics.text(&observed()), &["sidetrack_agent_state_write_failing 0"]);
    }

    #[test]
    fn what_is_so_is_shown_and_what_was_so_isnt() {
        let metrics = Metrics::default();
        metrics.text(&Observed {
            version: "before".to_owned(),
            ..observed()
        });
        let text = metrics.text(&observed());
        check(
            &text,
            &[
                "sidetrack_agent_config_revision 7",
                r#"sidetrack_agent_config_info{version="00ff"} 1"#,
                "sidetrack_agent_config_last_change_timestamp_seconds 1800000000",
                r#"sidetrack_agent_config_rules{source="file"} 3"#,
                r#"sidetrack_agent_config_rules{source="api"} 2"#,
                "sidetrack_agent_config_targets 4",
                "sidetrack_agent_config_rejected 1",
                "sidetrack_agent_proxies_connected 2",
                "sidetrack_agent_proxies_behind 1",
                "sidetrack_agent_proxies_refused 0",
            ],
        );
        assert!(!text.contains("before"), "{text}");
    }

    #[test]
    fn counters_that_alerts_watch_are_there_from_the_start() {
        let text = Metrics::default().text(&observed());
        check(
            &text,
            &[
                r#"sidetrack_agent_config_rejections_total{source="file"} 0"#,
                r#"sidetrack_agent_xds_nacks_total{type="CDS"} 0"#,
                "sidetrack_agent_state_write_failures_total 0",
            ],
        );
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_process_is_measured() {
        let text = Metrics::default().text(&observed());
        let value = |name: &str| -> f64 {
            let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
            line.unwrap_or_else(|| panic!("{name} isn't in\n{text}"))
                .parse()
                .unwrap()
        };
        assert!(value("process_resident_memory_bytes") > 1e6);
        assert!(value("process_cpu_seconds_total") > 0.0);
        assert!(value("process_open_fds") >= 3.0);
        let now = seconds(SystemTime::now());
        assert!((now - value("process_start_time_seconds")).abs() < 600.0);
    }
}
