//! Configurations by chance at a real agent and Envoy: what the API takes, the filter takes; what it refuses changes nothing.
//!
//! `routing/tests/accepted.rs` has a hundred thousand, without Envoy. Here it is the filter's own build that loads them.

#[allow(
    unreachable_pub,
    dead_code,
    reason = "other packages' tests have it as a module, too"
)]
#[path = "../../routing/tests/support/configs.rs"]
mod configs;

use serde_json::{Value, json};
use sidetrack_tests::{Api, Client, ConfigFile, PATIENCE, Ports, Protocol, Services, Sidetrack, config_text};

/// The rules of so many configurations are put at once.
const TOGETHER: u64 = 250;

/// How often that is done; with `SIDETRACK_FULL` until all hundred thousand were there.
const PUSHES: u64 = 20;
const ALL_PUSHES: u64 = 400;

/// Lists for a key that has rules already.
const CHANGES: u64 = 300;

const ROUTING: &str = "routing: {defaultTarget: baseline}";

/// All that a change could have changed.
async fn state(api: &mut Api) -> Value {
    let rules = api.rules().await.unwrap();
    let config = api.get("/api/v1/config").await.unwrap();
    let proxies = api.get("/api/v1/proxies").await.unwrap();
    json!([
        rules.rules,
        rules.etag,
        config,
        proxies["proxies"][0]["accepted"],
        proxies["proxies"][0]["pushes"]
    ])
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_api_takes_the_filter_takes_and_what_it_refuses_changes_nothing() {
    let ports = Ports::free();
    let services = Services::start(&["baseline"]).await;
    let config = ConfigFile::new(&config_text(&ports, &services, ROUTING));
    let _sidetrack = Sidetrack::up(&config.path(), &ports).await;
    let mut api = Api::new(ports.api);

    let mut accepted = 0;
    let mut refused = 0;
    for number in 0..CHANGES {
        let rules = configs::rules_of_a_key(number);
        let key = rules[0]["routeKey"].as_str().unwrap_or("pr-17").to_owned();
        let before = state(&mut api).await;
        let written = api.put(&key, &rules, Some(PATIENCE)).await.unwrap();
        match written.status {
            200 => accepted += 1,
            400 => {
                refused += 1;
                assert!(!written.body["problems"].as_array().unwrap().is_empty(), "{written:?}");
                assert_eq!(state(&mut api).await, before, "{number}: {rules} was refused");
            }
            _ => panic!("{number}: {rules}: {written:?}"),
        }
    }
    println!("of {CHANGES} changes {accepted} are in force, {refused} were refused and changed nothing");
    assert!(accepted > CHANGES / 5 && refused > CHANGES / 10);

    let mut rules = 0;
    let pushes = std::env::var_os("SIDETRACK_FULL").map_or(PUSHES, |_| ALL_PUSHES);
    for push in 0..pushes {
        let all = (push * TOGETHER..(push + 1) * TOGETHER).map(configs::config);
        let of_config = |config: Value| config["routing"]["rules"].as_array().cloned().unwrap_or_default();
        let mut together: Vec<Value> = all.flat_map(of_config).collect();
        let problems = api.put_all(&json!(together), None).await.unwrap();
        if problems.status == 400 {
            // What is left when the wrong ones are out, of which at most a hundred are told at a time.
            together = right(&mut api, together).await;
        }
        let written = api.put_all(&json!(together), Some(PATIENCE)).await.unwrap();
        assert!(written.is_in_force(), "{written:?}");
        rules += together.len();
    }
    println!("{rules} rules in {pushes} tables, each loaded by the filter in Envoy");
    let mut client = Client::new(Protocol::Http1, ports.http);
    assert_eq!(client.get("/", &[]).await.unwrap().served_by(), "baseline");
}

/// Those of `rules` of which the API says nothing.
async fn right(api: &mut Api, mut rules: Vec<Value>) -> Vec<Value> {
    loop {
        let written = api.put_all(&json!(rules), None).await.unwrap();
        if written.status == 200 {
            return rules;
        }
        assert_eq!(written.status, 400, "{written:?}");
        let problems = written.body["problems"].as_array().unwrap();
        let index = |problem: &Value| -> Option<usize> {
            let path = problem["path"].as_str()?;
            path.strip_prefix('[')?.split(']').next()?.parse().ok()
        };
        let mut wrong: Vec<usize> = problems.iter().filter_map(index).collect();
        assert!(!wrong.is_empty(), "{written:?}");
        wrong.sort_unstable();
        wrong.dedup();
        for index in wrong.into_iter().rev() {
            rules.remove(index);
        }
    }
}
