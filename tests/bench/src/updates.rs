//! What a change of the rules costs: Envoy, the agent, and who waits for it.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use sidetrack_routing::{compile, decode, validate_routing};
use sidetrack_tests::{
    Agent, Api, Client, ConfigFile, Durations, Envoy, Pid, Ports, Process, Protocol, Services, Traffic, config_text,
    get, render, until_served_by,
};

use crate::native::{ran, tasks};
use crate::results::{ManyUpdates, UntilRoutable, Update, Updates};
use crate::sandboxes::{Kind, Sandboxes};

const SIZES: [usize; 4] = [10, 1_000, 10_000, 100_000];

/// Of each size.
const CHANGES: usize = 20;

/// Workers, and the main thread has a VM, too.
const WORKERS: usize = 2;
const VMS: usize = WORKERS + 1;

/// How many updates show that nothing is kept of them, and with how many rules.
const MANY: usize = 10_000;
const RULES_OF_MANY: usize = 1_000;
const REQUESTS_PER_SECOND: u32 = 200;

/// What the target speaks of, and how many changes are timed.
const RULES_UNTIL_ROUTABLE: usize = 10_000;
const TIMED_CHANGES: usize = 300;

/// How long the agent is watched while nothing changes.
const IDLE: Duration = Duration::from_secs(30);

/// When what the last change began has ended: tokio's threads for what blocks wait for more for 10 s.
const ENDED: Duration = Duration::from_secs(12);

const WAIT: Option<Duration> = Some(Duration::from_secs(60));

/// Measures all of it.
pub(crate) fn measure() -> anyhow::Result<Updates> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut sizes = Vec::new();
        for rules in SIZES {
            sizes.push(update(rules).await?);
            eprintln!("updates of {rules} rules are measured");
        }
        let many = many().await?;
        let (until_routable, agent_memory, agent_wake_ups) = until_routable().await?;
        Ok(Updates {
            sizes,
            many: Some(many),
            until_routable: Some(until_routable),
            agent_memory: Some(agent_memory),
            agent_wake_ups: Some(agent_wake_ups),
        })
    })
}

/// An agent and an Envoy that has its rules.
struct Running {
    agent: Agent,
    envoy: Envoy,
    api: Api,
    ports: Ports,
    /// Of Envoy, before it had a rule.
    memory_without_rules: u64,
    table_bytes: u64,
    changes: usize,
    _file: ConfigFile,
    _services: Services,
}

impl Running {
    async fn start(rules: usize) -> anyhow::Result<Self> {
        let ports = Ports::free();
        let services = Services::start(&["baseline", "sandbox"]).await;
        let routing = |rules: Value| json!({"defaultTarget": "baseline", "rules": rules});
        let text = |routing: &Value| config_text(&ports, &services, &format!("routing: {routing}"));
        let file = ConfigFile::new(&text(&routing(json!([]))));
        let agent = Agent::start_release(&file.path(), &ports).await;
        let envoy = Envoy::start(&render(&file.path(), &["--bootstrap"]));
        until_served_by(ports.http, "nobody's", "baseline").await;
        let mut api = Api::new(ports.api);
        // Once it is in force, Envoy has loaded the filter everywhere.
        change(&mut api, 0).await?;
        let memory_without_rules = settled_memory(envoy.pid()).await;
        let rules = routing(Sandboxes(rules).rules());
        file.replace(&text(&rules));
        let last = rules["rules"]
            .as_array()
            .and_then(|rules| rules.first())
            .context("there are rules")?;
        until_served_by(ports.http, last["routeKey"].as_str().unwrap_or_default(), "sandbox").await;
        let valid = decode(&rules, validate_routing).map_err(|problems| anyhow::anyhow!("{problems:?}"))?;
        Ok(Self {
            agent,
            envoy,
            api,
            ports,
            memory_without_rules,
            table_bytes: compile(&valid).len() as u64,
            changes: 0,
            _file: file,
            _services: services,
        })
    }

    /// Changes one rule, and waits until that is in force.
    async fn change(&mut self) -> anyhow::Result<()> {
        self.changes += 1;
        change(&mut self.api, self.changes).await
    }
}

async fn change(api: &mut Api, number: usize) -> anyhow::Result<()> {
    let rules = json!([{"targetService": "sandbox", "pathPrefixes": [format!("/{number}")]}]);
    let written = api.put("changing", &rules, WAIT).await?;
    ensure!(written.is_in_force(), "{written:?}");
    Ok(())
}

/// One rule changes among so many.
async fn update(rules: usize) -> anyhow::Result<Update> {
    let mut running = Running::start(rules).await?;
    running.change().await?;
    let workers = workers(running.envoy.pid())?;
    let before = settled(&workers).await?;
    let mut times = Vec::new();
    for _ in 0..CHANGES {
        let begun = Instant::now();
        running.change().await?;
        times.push(begun.elapsed());
    }
    let nanoseconds = settled(&workers).await? - before;
    let times: Durations = times.into_iter().collect();
    let grown = settled_memory(running.envoy.pid())
        .await
        .saturating_sub(running.memory_without_rules);
    Ok(Update {
        rules,
        bytes: running.table_bytes,
        block: nanoseconds as f64 / 1e3 / (CHANGES * WORKERS) as f64,
        in_force: times.median().as_secs_f64() * 1e3,
        memory_per_vm: grown as f64 / VMS as f64,
    })
}

/// Very many changes, while requests are sent.
async fn many() -> anyhow::Result<ManyUpdates> {
    let mut running = Running::start(RULES_OF_MANY).await?;
    let key = Sandboxes(RULES_OF_MANY).key_of(Kind::Key);
    let requests = vec![get("/", &[("x-route-key", &key)]), get("/", &[])];
    let expected = ["sandbox", "baseline"];
    let traffic = Traffic::start(running.ports.http, REQUESTS_PER_SECOND, requests);
    let mut memory_before = 0;
    for number in 0..MANY {
        running.change().await?;
        if number == MANY / 100 {
            memory_before = Process::memory(running.envoy.pid());
        }
    }
    let (outcomes, _) = traffic.stop().await;
    let wrong = outcomes
        .iter()
        .filter(|outcome| outcome.served_by != expected[outcome.request]);
    Ok(ManyUpdates {
        updates: MANY,
        rules: RULES_OF_MANY,
        memory_before,
        memory_after: Process::memory(running.envoy.pid()),
        requests: outcomes.len() as u64,
        wrong: wrong.count() as u64,
    })
}

/// How long it takes until a request is routed by what the API has accepted; and of the agent its memory, and how often in a
/// second it wakes up while nothing changes.
async fn until_routable() -> anyhow::Result<(UntilRoutable, u64, f64)> {
    let mut running = Running::start(RULES_UNTIL_ROUTABLE).await?;
    let mut client = Client::new(Protocol::Http1, running.ports.http);
    let mut times = Vec::new();
    for number in 0..TIMED_CHANGES {
        let key = format!("new-{number}");
        let written = running
            .api
            .put(&key, &json!([{"targetService": "sandbox"}]), None)
            .await?;
        let accepted = Instant::now();
        ensure!(written.is_accepted(), "{written:?}");
        while client.get("/", &[("x-route-key", &key)]).await?.served_by() != "sandbox" {
            ensure!(accepted.elapsed() < Duration::from_secs(10), "{key} isn't routed");
        }
        times.push(accepted.elapsed());
    }
    let times: Durations = times.into_iter().collect();
    let milliseconds = |share| times.quantile(share).as_secs_f64() * 1e3;
    let agent = running.agent.pid();
    tokio::time::sleep(ENDED).await;
    let before = switches(agent)?;
    tokio::time::sleep(IDLE).await;
    let after = switches(agent)?.into_iter();
    let during = after.map(|(task, count)| count - before.get(&task).copied().unwrap_or_default().min(count));
    let wake_ups = during.sum::<u64>() as f64 / IDLE.as_secs_f64();
    let until_routable = UntilRoutable {
        rules: RULES_UNTIL_ROUTABLE,
        p50: milliseconds(0.5),
        p99: milliseconds(0.99),
    };
    Ok((until_routable, Process::memory(agent), wake_ups))
}

/// The workers' directories in /proc.
fn workers(envoy: Pid) -> anyhow::Result<Vec<PathBuf>> {
    let is_worker = |task: &PathBuf| fs::read_to_string(task.join("comm")).is_ok_and(|name| name.starts_with("wrk:"));
    let workers: Vec<_> = tasks(envoy)?.into_iter().filter(is_worker).collect();
    ensure!(workers.len() == WORKERS, "{} workers", workers.len());
    Ok(workers)
}

/// How many nanoseconds these threads have run, once they have nothing to do any more.
async fn settled(tasks: &[PathBuf]) -> anyhow::Result<u64> {
    let ran = || {
        tasks
            .iter()
            .map(|task| ran(&task.join("schedstat")))
            .sum::<anyhow::Result<u64>>()
    };
    let mut before = ran()?;
    loop {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = ran()?;
        // Timers take some microseconds.
        if now - before < 200_000 {
            return Ok(now);
        }
        before = now;
    }
}

/// How many bytes a process has, once it has given back what it needed for a moment: Envoy does so every second.
async fn settled_memory(process: Pid) -> u64 {
    let mut before = Process::memory(process);
    loop {
        tokio::time::sleep(Duration::from_secs(3)).await;
        let now = Process::memory(process);
        // What is left of that is within what memory varies by anyway.
        if now + 1_000_000 > before {
            return now;
        }
        before = now;
    }
}

/// How often each thread of a process has been given a processor.
fn switches(process: Pid) -> anyhow::Result<BTreeMap<PathBuf, u64>> {
    let mut switches = BTreeMap::new();
    for task in tasks(process)? {
        // A thread may have ended since.
        let status = fs::read_to_string(task.join("status")).unwrap_or_default();
        let counts = status
            .lines()
            .filter_map(|line| line.split_once("voluntary_ctxt_switches:"));
        let sum = counts.filter_map(|(_, count)| count.trim().parse::<u64>().ok()).sum();
        switches.insert(task, sum);
    }
    Ok(switches)
}
