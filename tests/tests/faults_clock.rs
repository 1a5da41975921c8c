//! The wall clock of the agent, of Envoy or of both is set while rules with an end are in force: which rules are served is
//! Envoy's clock's to say, and nothing else goes by a wall clock.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::Method;
use humantime::format_rfc3339_seconds;
use serde_json::json;
use sidetrack_tests::api_agent::body;
use sidetrack_tests::steady::Setting;
use sidetrack_tests::{
    Acks, AdsClient, AdsOptions, AdsType, Api, Clock, Stats, Steady, Variant, prometheus, until_served_by,
};

const HOUR: Duration = Duration::from_secs(3600);

/// In seconds: past the end of every rule here, or before that of the one that has ended.
const YEARS: i64 = 10 * 365 * 24 * 3600;

/// Time enough to set a clock.
const SLOW: Duration = Duration::from_secs(3);

/// After which a proxy that doesn't answer is disconnected.
const PROXY_PATIENCE: Duration = Duration::from_secs(30);

/// Whatever an update of anything counts in an Envoy.
const UPDATES: &str =
    "update_success|update_rejected|config_reload|cluster_added|cluster_modified|cluster_removed|listener_modified";

/// All that the agent has pushed, by type.
async fn pushes(steady: &Steady) -> Vec<String> {
    let text = prometheus::scrape(steady.ports.api).await;
    let pushes = text
        .lines()
        .filter(|line| line.starts_with("sidetrack_agent_xds_pushes_total"));
    pushes.map(str::to_owned).collect()
}

/// How far the agent's clock is from this one, as its metrics show it after a change.
async fn agent_is_ahead(steady: &Steady) -> i64 {
    let changed = steady
        .metric("sidetrack_agent_config_last_change_timestamp_seconds")
        .await as i64;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    changed - i64::try_from(now).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_end_by_envoys_clock_and_no_clock_moves_anything_else() {
    let [agents, envoys] = [Clock::new(), Clock::new()];
    let mut steady = Steady::start(Setting {
        agent: &|mut command| {
            agents.give(&mut command);
            command
        },
        envoy: &|command| {
            envoys.give(command);
        },
        ..Setting::default()
    })
    .await;
    let end = format_rfc3339_seconds(SystemTime::now() + HOUR).to_string();
    steady.file.replace(&steady.text_with(&format!(
        "    - {{routeKey: file-ends, targetService: service-a, expiresAt: {end}}}\n    \
         - {{routeKey: ended, targetService: service-a, expiresAt: 2020-01-01T00:00:00Z}}\n"
    )));
    until_served_by(steady.ports.http, "file-ends", "service-a").await;
    let ending = json!({"targetService": "service-b", "expiresAt": end});
    assert_eq!(steady.put("api-ends", ending).await.0, 200);
    let keys = steady.keys().await;
    assert_eq!(keys.len(), 5);

    // Which clocks are set, and by what; whether rules have ended then, and whether the one of 2020 hasn't.
    for (agent, envoy, ended, not_yet) in [
        (YEARS, 0, false, false),
        (-YEARS, 0, false, false),
        (0, YEARS, true, false),
        (0, -YEARS, false, true),
        (YEARS, YEARS, true, false),
        (-YEARS, -YEARS, false, true),
        (0, 0, false, false),
    ] {
        let case = format!("agent {agent} s, Envoy {envoy} s");
        let before = (pushes(&steady).await, Stats::read(steady.ports.admin, UPDATES).await);
        agents.set(agent);
        envoys.set(envoy);
        let [of_file, of_api] = if ended {
            ["baseline"; 2]
        } else {
            ["service-a", "service-b"]
        };
        let of_2020 = if not_yet { "service-a" } else { "baseline" };
        until_served_by(steady.ports.http, "file-ends", of_file).await;
        until_served_by(steady.ports.http, "api-ends", of_api).await;
        until_served_by(steady.ports.http, "ended", of_2020).await;
        steady.flow().await;
        assert_eq!(steady.keys().await, keys, "{case}");
        assert_eq!(steady.readiness("ready").await, true, "{case}");
        let after = (pushes(&steady).await, Stats::read(steady.ports.admin, UPDATES).await);
        assert_eq!(after, before, "{case}");
        // Only who asks the agent hears of its clock.
        let question = json!({"path": "/", "headers": {"X-Route-Key": "file-ends"}});
        let asked = steady.api.call(Method::POST, "/api/v1/explain", &[], Some(&question));
        let decision = body(&asked.await.unwrap())["decision"].clone();
        assert_eq!(decision, if agent > 0 { "baseline" } else { "target" }, "{case}");

        // Changes are made and waited for as ever.
        let rule = json!({"targetService": "service-a", "name": format!("at-{agent}-{envoy}")});
        let (status, error) = steady.put("by-api", rule).await;
        assert_eq!(status, 200, "{case}: {error}");
        assert_eq!(steady.served_by("by-api").await, "service-a", "{case}");
        let ahead = agent_is_ahead(&steady).await;
        assert!(
            (ahead - agent).abs() < HOUR.as_secs().cast_signed(),
            "{case}: the clock is {ahead} s ahead"
        );
        steady.api.delete("by-api", None).await.unwrap();
        steady.settle().await;
    }
    steady.unharmed().await;
}

/// Of two proxies one accepts late, the other never. Years pass meanwhile, forwards and back, by the agent's clock.
#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_a_proxy_waits_by_another_clock() {
    let clock = Clock::new();
    let mut steady = Steady::start(Setting {
        agent: &|mut command| {
            clock.give(&mut command);
            command
        },
        ..Setting::default()
    })
    .await;
    let late = AdsOptions {
        acks: Acks::After(SLOW),
        ..AdsOptions::new("late", Variant::Delta)
    };
    let late = AdsClient::start(steady.ports.xds, late);
    late.has_table().await;
    steady.settle().await;
    for years in [YEARS, -YEARS] {
        clock.set(0);
        let key = format!("waited-{years}");
        let port = steady.ports.api;
        let pushed = late.seen().pushes(AdsType::Filter);
        let waiting = tokio::spawn({
            let key = key.clone();
            async move {
                let rules = json!([{"targetService": "service-b"}]);
                Api::new(port).put(&key, &rules, Some(PROXY_PATIENCE)).await.unwrap()
            }
        });
        late.until("the push", |seen| (seen.pushes(AdsType::Filter) > pushed).then_some(()))
            .await;
        clock.set(years);
        let written = waiting.await.unwrap();
        assert!(written.is_in_force(), "{years}: {written:?}");
    }
    drop(late);
    clock.set(0);

    let never = AdsOptions {
        acks: Acks::Never,
        ..AdsOptions::new("never", Variant::Delta)
    };
    let never = AdsClient::start(steady.ports.xds, never);
    let pushed = never.until("a push", |seen| Some(seen.pushes.first()?.at)).await;
    for years in [YEARS, -YEARS] {
        clock.set(years);
        steady.flow().await;
        let rules = json!([{"targetService": "service-a"}]);
        let written = steady
            .api
            .put("not-waited", &rules, Some(Duration::from_secs(1)))
            .await
            .unwrap();
        assert_eq!(written.status, 202, "{written:?}");
        let seen = never.seen();
        let in_time = |(at, _): &(Instant, String)| *at > pushed + PROXY_PATIENCE / 2;
        assert!(seen.disconnected.iter().all(in_time), "{seen:?}");
    }
    steady.unharmed().await;
}
