//! What the agent's own `GET /metrics` shows, as Prometheus reads it.

use serde_json::json;
use sidetrack_tests::prometheus::{Prometheus, scrape};
use sidetrack_tests::{
    Acks, AdsClient, AdsOptions, Agent, Api, ConfigFile, PATIENCE, Ports, Services, Variant, config_text, poll_until,
};

const ROUTING: &str = "
routing:
  defaultTarget: baseline
  rules:
    - {routeKey: a, targetService: service-a}
    - {routeKey: b, targetService: service-a}
";

const FAMILIES: [(&str, &str); 27] = [
    ("process_cpu_seconds_total", "counter"),
    ("process_open_fds", "gauge"),
    ("process_resident_memory_bytes", "gauge"),
    ("process_start_time_seconds", "gauge"),
    ("sidetrack_agent_api_request_duration_seconds", "histogram"),
    ("sidetrack_agent_api_requests_total", "counter"),
    ("sidetrack_agent_build_info", "gauge"),
    ("sidetrack_agent_config_changes_total", "counter"),
    ("sidetrack_agent_config_info", "gauge"),
    ("sidetrack_agent_config_last_change_timestamp_seconds", "gauge"),
    ("sidetrack_agent_config_rejected", "gauge"),
    ("sidetrack_agent_config_rejections_total", "counter"),
    ("sidetrack_agent_config_revision", "gauge"),
    ("sidetrack_agent_config_rules", "gauge"),
    ("sidetrack_agent_config_targets", "gauge"),
    ("sidetrack_agent_proxies_behind", "gauge"),
    ("sidetrack_agent_proxies_connected", "gauge"),
    ("sidetrack_agent_proxies_dropped_total", "counter"),
    ("sidetrack_agent_proxies_refused", "gauge"),
    ("sidetrack_agent_render_duration_seconds", "histogram"),
    ("sidetrack_agent_state_write_duration_seconds", "histogram"),
    ("sidetrack_agent_state_write_failing", "gauge"),
    ("sidetrack_agent_state_write_failures_total", "counter"),
    ("sidetrack_agent_xds_ack_duration_seconds", "histogram"),
    ("sidetrack_agent_xds_acks_total", "counter"),
    ("sidetrack_agent_xds_nacks_total", "counter"),
    ("sidetrack_agent_xds_pushes_total", "counter"),
];

fn read(text: &str) -> Prometheus {
    Prometheus::read(&[(0, text)], &[], "")
}

/// Labels as [`Prometheus::values`] has them.
fn labels<const N: usize>(texts: [&str; N]) -> [String; N] {
    texts.map(str::to_owned)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agent_says_what_it_has_done_and_who_has_what() {
    let ports = Ports::free();
    let services = Services::start(&["baseline", "service-a"]).await;
    let text = config_text(&ports, &services, ROUTING);
    let config = ConfigFile::new(&text);
    let _agent = Agent::start(&config.path(), &ports).await;
    let good = AdsClient::start(ports.xds, AdsOptions::new("good", Variant::Delta));
    good.has_table().await;
    let mut api = Api::new(ports.api);
    let rules = json!([{"targetService": "service-a"}, {"targetService": "service-b"}]);
    let written = api.put("c", &rules, Some(PATIENCE)).await.unwrap();
    assert!(written.is_in_force(), "{written:?}");
    assert_eq!(api.put("c", &json!([{}]), None).await.unwrap().status, 400);
    assert_eq!(api.put("nobody's/..", &json!(7), None).await.unwrap().status, 400);
    for number in 0..20 {
        assert!(api.get(&format!("/no/such/{number}")).await.is_err());
    }

    let shown = scrape(ports.api).await;
    let seen = read(&shown);
    assert_eq!(seen.problems, [""; 0], "{shown}");
    let families: Vec<(&str, &str)> = seen
        .families
        .iter()
        .map(|(name, kind)| (name.as_str(), kind.as_str()))
        .collect();
    assert_eq!(families, FAMILIES);
    println!("{} series, no objections", seen.series.len());
    let version = written.body["version"].as_str().unwrap();
    for (name, expected) in [
        ("sidetrack_agent_config_revision", 2.0),
        ("sidetrack_agent_config_targets", 3.0),
        ("sidetrack_agent_config_rejected", 0.0),
        ("sidetrack_agent_proxies_connected", 1.0),
        ("sidetrack_agent_proxies_behind", 0.0),
        ("sidetrack_agent_proxies_refused", 0.0),
        ("sidetrack_agent_proxies_dropped_total", 0.0),
        ("sidetrack_agent_state_write_duration_seconds_count", 1.0),
        ("sidetrack_agent_state_write_failing", 0.0),
    ] {
        assert_eq!(seen.value(name, &[]), Some(expected), "{name}");
    }
    assert_eq!(
        seen.values("sidetrack_agent_config_info", ["version"]),
        [(labels([version]), 1.0)].into()
    );
    let by_source = |file, api| [(labels(["file"]), file), (labels(["api"]), api)].into();
    for (name, expected) in [
        ("sidetrack_agent_config_rules", by_source(2.0, 2.0)),
        ("sidetrack_agent_config_rejections_total", by_source(0.0, 2.0)),
    ] {
        assert_eq!(seen.values(name, ["source"]), expected, "{name}");
    }
    let requests = seen.values("sidetrack_agent_api_requests_total", ["method", "route", "status"]);
    for (route, method, status, expected) in [
        ("/api/v1/rules/{routeKey}", "PUT", "200", 1.0),
        ("/api/v1/rules/{routeKey}", "PUT", "400", 2.0),
        ("other", "GET", "404", 20.0),
    ] {
        assert_eq!(requests[&labels([method, route, status])], expected, "{requests:?}");
    }
    let acks = seen.values("sidetrack_agent_xds_acks_total", ["type"]);
    assert_eq!(acks, seen.values("sidetrack_agent_xds_pushes_total", ["type"]));
    assert_eq!(acks[&labels(["ECDS"])], 2.0, "the first table and the one with c");
    let timed = seen.values("sidetrack_agent_xds_ack_duration_seconds_count", ["type"]);
    assert!(
        timed.iter().all(|(kind, count)| acks[kind] == *count),
        "{timed:?} {acks:?}"
    );

    // A file that is wrong, and a proxy that refuses everything.
    config.replace("routing: {}");
    let contrary = AdsOptions {
        acks: Acks::Refuse,
        ..AdsOptions::new("contrary", Variant::Delta)
    };
    let _contrary = AdsClient::start(ports.xds, contrary);
    let seen = poll_until(PATIENCE, "both", async || {
        let text = scrape(ports.api).await;
        let seen = read(&text);
        let refused = seen
            .values("sidetrack_agent_xds_nacks_total", ["type"])
            .into_values()
            .sum::<f64>()
            > 0.0;
        let rejected = seen.value("sidetrack_agent_config_rejected", &[]) == Some(1.0);
        if refused && rejected { Ok(seen) } else { Err(text) }
    })
    .await;
    assert_eq!(seen.value("sidetrack_agent_proxies_connected", &[]), Some(2.0));
    assert_eq!(seen.value("sidetrack_agent_proxies_behind", &[]), Some(1.0));
    assert_eq!(
        seen.values("sidetrack_agent_config_rejections_total", ["source"])[&labels(["file"])],
        1.0
    );
    config.replace(&text);
    poll_until(PATIENCE, "the file is mended", async || {
        let seen = read(&scrape(ports.api).await);
        let rejected = seen.value("sidetrack_agent_config_rejected", &[]);
        if rejected == Some(0.0) {
            Ok(())
        } else {
            Err(format!("{rejected:?}"))
        }
    })
    .await;
}
