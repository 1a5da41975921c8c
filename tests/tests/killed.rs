//! The agent is killed, again and again, while its API is written to and requests flow.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use sidetrack_routing::{Destination, Request, RouteTable, decide};
use sidetrack_tests::{
    AdsClient, AdsOptions, AdsType, Agent, Api, Client, ConfigFile, Durations, Envoy, Held, PATIENCE, Ports, Protocol,
    Services, Signal, Traffic, Variant, config_text, figure, get, poll_until, render, suite, until_served_by,
};
use tokio::task::JoinSet;

const ROUTING: &str = r#"
routing:
  defaultTarget: baseline
  rules:
    - {routeKey: from-file, targetService: service-a}
"#;

/// Rules of the API that nobody changes.
const KEPT: usize = 20;

const WRITERS: usize = 4;

/// Keys that a writer changes.
const KEYS: usize = 10;

/// What one key's rules must be: the last change that was answered, or the one that wasn't.
#[derive(Clone, Debug, Default)]
struct Expected {
    target: Option<String>,
    unanswered: Option<Option<String>>,
}

type Model = BTreeMap<String, Expected>;

/// Changes keys of its own until the agent is gone. Returns how many changes were answered.
async fn write(port: u16, mut seed: u64, mut model: Model) -> (Model, u64) {
    let mut api = Api::new(port);
    let keys: Vec<_> = model.keys().cloned().collect();
    let mut answered = 0;
    loop {
        let chance = random(&mut seed) as usize;
        let key = &keys[chance % keys.len()];
        let expected = model.get_mut(key).unwrap();
        let target = match (chance / keys.len() % 3, &expected.target) {
            (0, Some(_)) => None,
            (1, _) => Some("service-a"),
            _ => Some("service-b"),
        };
        let written = match target {
            Some(target) => api.put(key, &json!([{"targetService": target}]), None).await,
            None => api.delete(key, None).await,
        };
        let target = target.map(str::to_owned);
        match written {
            Ok(written) => {
                assert!(written.is_accepted(), "{key} to {target:?}: {written:?}");
                expected.target = target;
                answered += 1;
            }
            Err(_) => {
                expected.unanswered = Some(target);
                return (model, answered);
            }
        }
    }
}

/// xorshift64: no two runs are killed at the same moments, but the choice of changes is always the same.
fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state >> 11
}

/// Every table has the rules that nobody changes, and every cluster that it names is there.
fn check(table: &RouteTable, held: &Held) -> Result<(), String> {
    let kept = (0..KEPT).map(|index| format!("kept-{index}"));
    for key in kept.chain(["from-file".to_owned()]) {
        match decide(table, &Request::new(&[("x-route-key", key.as_str()), (":path", "/")])).destination {
            Destination::Target { cluster, .. } if held.has(AdsType::Clusters, cluster) => {}
            Destination::Target { cluster, .. } => return Err(format!("{key}: no cluster {cluster}")),
            Destination::Baseline(reason) => return Err(format!("a table without {key}: {reason}")),
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_accepted_is_lost_and_nobody_is_shown_less() {
    let kills = if suite::is_full() { 100 } else { 15 };
    let ports = Ports::free();
    let services = Services::start(&["baseline", "service-a", "service-b"]).await;
    let file = ConfigFile::new(&config_text(&ports, &services, ROUTING));
    let mut agent = Agent::start(&file.path(), &ports).await;
    let _envoy = Envoy::start(&render(&file.path(), &["--bootstrap"]));
    let mut api = Api::new(ports.api);
    for index in 0..KEPT {
        let rules = json!([{"targetService": "service-b"}]);
        let written = api.put(&format!("kept-{index}"), &rules, None).await.unwrap();
        assert_eq!(written.status, 200, "{written:?}");
    }
    until_served_by(ports.http, &format!("kept-{}", KEPT - 1), "service-b").await;
    let observers = [Variant::Sotw, Variant::Delta].map(|variant| {
        let options = AdsOptions {
            reconnects: true,
            check: Some(Arc::new(check)),
            ..AdsOptions::new(&format!("{variant:?}"), variant)
        };
        AdsClient::start(ports.xds, options)
    });
    let expected = [
        ("from-file", "service-a"),
        ("kept-7", "service-b"),
        ("nobody", "baseline"),
    ];
    let requests = expected.map(|(key, _)| get("/", &[("x-route-key", key)]));
    let traffic = Traffic::start(ports.http, 200, requests.to_vec());

    let mut models: Vec<Model> = (0..WRITERS)
        .map(|writer| {
            let keys = (0..KEYS).map(|key| (format!("writer-{writer}-{key}"), Expected::default()));
            keys.collect()
        })
        .collect();
    let mut seed = u64::from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos()) | 1;
    let (mut answered, mut unanswered_kept, mut unanswered_lost, mut recoveries) = (0, 0, 0, Vec::new());
    for kill in 0..kills {
        // Most are killed when Envoy is back, some before that, and some while they start.
        if kill % 3 != 0 {
            connected(&mut api, 3).await;
        }
        let mut writers = JoinSet::new();
        for (index, model) in models.iter().cloned().enumerate() {
            let seed = random(&mut seed) | 1;
            writers.spawn(async move { (index, write(ports.api, seed, model).await) });
        }
        tokio::time::sleep(Duration::from_millis(random(&mut seed) % 400)).await;
        agent.signal(Signal::KILL);
        agent.exit(PATIENCE).await;
        while let Some(ended) = writers.join_next().await {
            let (index, (model, count)) = ended.unwrap();
            models[index] = model;
            answered += count;
        }
        if kill % 5 == 4 {
            let mut starting = Agent::spawn(&file.path());
            tokio::time::sleep(Duration::from_millis(random(&mut seed) % 50)).await;
            starting.signal(Signal::KILL);
            starting.exit(PATIENCE).await;
        }
        let killed = Instant::now();
        agent = Agent::start(&file.path(), &ports).await;
        recoveries.push(killed.elapsed());
        api = Api::new(ports.api);
        let targets = targets(&mut api).await;
        for (key, expected) in models.iter_mut().flatten() {
            let found = targets.get(key).cloned();
            match expected.unanswered.take() {
                Some(unanswered) if unanswered == found => unanswered_kept += 1,
                Some(_) if expected.target == found => unanswered_lost += 1,
                _ => assert_eq!(found, expected.target, "{key} after kill {kill}"),
            }
            expected.target = found;
        }
        for index in 0..KEPT {
            assert_eq!(targets[&format!("kept-{index}")], "service-b", "after kill {kill}");
        }
    }
    connected(&mut api, 3).await;
    traffic.flow(200).await;
    let (outcomes, rate) = traffic.stop().await;
    let wrong: Vec<_> = outcomes
        .iter()
        .filter(|outcome| outcome.served_by != expected[outcome.request].1)
        .collect();
    let tables: usize = observers
        .iter()
        .map(|observer| observer.seen().pushes(AdsType::Filter))
        .sum();
    let recovery: Durations = recoveries.into_iter().collect();
    figure(format!(
        "{kills} kills: {answered} answered writes, none lost; of those without an answer {unanswered_kept} kept, \
         {unanswered_lost} not; {} requests, {rate:.0} a second, {} wrong; observers saw {tables} tables, all whole; alive \
         again after {recovery}",
        outcomes.len(),
        wrong.len(),
    ));
    assert!(wrong.is_empty(), "{:#?}", &wrong[..wrong.len().min(10)]);
    for observer in &observers {
        let seen = observer.seen();
        assert!(seen.problems.is_empty(), "{seen:?}");
        assert!(seen.connections > kills / 2, "{seen:?}");
    }
    let mut client = Client::new(Protocol::Http1, ports.http);
    for (key, expected) in models.iter().flatten() {
        let answer = client.get("/", &[("x-route-key", key)]).await.unwrap();
        assert_eq!(
            answer.served_by(),
            expected.target.as_deref().unwrap_or("baseline"),
            "{key}"
        );
    }
}

/// The target of each key.
async fn targets(api: &mut Api) -> BTreeMap<String, String> {
    let rules = api.rules().await.unwrap().rules;
    let text = |rule: &Value, field: &str| rule[field].as_str().unwrap_or_default().to_owned();
    rules
        .iter()
        .map(|rule| (text(rule, "routeKey"), text(rule, "targetService")))
        .collect()
}

/// Waits until so many proxies have everything.
async fn connected(api: &mut Api, count: usize) {
    poll_until(PATIENCE, "all proxies up to date", async || {
        let proxies = api.get("/api/v1/proxies").await.map_err(|error| format!("{error:#}"))?;
        let listed = proxies["proxies"].as_array().into_iter().flatten();
        let in_force = listed.filter(|proxy| proxy["inForce"] == true).count();
        (in_force == count).then_some(()).ok_or_else(|| proxies.to_string())
    })
    .await;
}
