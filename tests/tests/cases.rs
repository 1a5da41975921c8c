//! The table of cases through a real Envoy: what `routing/tests/cases.rs` says of the core holds for requests on the wire.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sidetrack_routing::{EXPLAIN_HEADER, decode, validate_routing, wire};
use sidetrack_tests::{
    Answer, Client, ConfigFile, Echo, PATIENCE, Ports, Protocol, RawConnection, Services, Sidetrack, Stats,
    config_text, poll_until,
};

#[allow(dead_code, reason = "the core is checked in its own tests")]
#[path = "../../routing/tests/support/cases.rs"]
mod cases;

use cases::{Case, Section, service};

/// How long a worker of Envoy may take to see what Envoy has ACKed.
const IN_FORCE: Duration = Duration::from_secs(1);

const PAUSE: Duration = Duration::from_millis(20);

/// The default target of every section.
const BASELINE: &str = "main";

/// The header of an answer that tells the decision.
const DECISION: &str = "x-route-decision";

const DISAGREEMENTS: &str = "sidetrack_key_disagreements_total";

/// What Envoy adds of its own accord, and what carries no meaning between hops.
const ENVOYS_OWN: [&str; 5] = [
    "content-length",
    "host",
    "x-forwarded-proto",
    "x-request-id",
    EXPLAIN_HEADER,
];

/// What one section's requests are sent through, and what else shows how they went.
struct Envoy<'s> {
    connection: RawConnection,
    admin: u16,
    services: &'s Services,
}

impl Envoy<'_> {
    /// How many requests had different keys in their sources. Read for every other one: it costs more than a request.
    async fn disagreements(&self, asks: bool) -> u64 {
        if asks {
            return 0;
        }
        let stats = Stats::read(self.admin, DISAGREEMENTS).await;
        stats.not_zero(DISAGREEMENTS).iter().map(|(_, value)| value).sum()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_case_holds() {
    let sections = cases::sections().unwrap();
    let sections: Vec<Section> = sections
        .into_iter()
        .filter(|section| !section.cases.is_empty())
        .collect();
    let names: BTreeSet<String> = sections.iter().flat_map(targets).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();

    let ports = Ports::free();
    let services = Services::start(&names).await;
    let config = |section: &Section| config_text(&ports, &services, &routing(section, &names));
    let file = ConfigFile::new(&config(&sections[0]));
    let _sidetrack = Sidetrack::up(&file.path(), &ports).await;

    let mut failures = Vec::new();
    let mut sent = 0;
    for (index, section) in sections.iter().enumerate() {
        if index > 0 {
            replace(&file, &config(section), &ports).await;
        }
        let mut envoy = Envoy {
            connection: RawConnection::new(ports.http),
            admin: ports.admin,
            services: &services,
        };
        for case in section.cases.iter().filter(|case| !case.unsent) {
            sent += 1;
            failures.extend(failure(case, &mut envoy).await);
        }
    }
    assert!(sent >= 300, "{sent} requests");
    assert!(
        failures.is_empty(),
        "{} of {sent} fail:\n{}",
        failures.len(),
        failures.join("\n")
    );
}

/// The services that a section names, as its cases call them.
fn targets(section: &Section) -> BTreeSet<String> {
    let value: Value = serde_json::from_str(&section.config).unwrap();
    let routing = decode(&value, |routing: &wire::Routing| validate_routing(routing)).unwrap();
    let rules = routing.rules.iter();
    let mirrors = rules
        .clone()
        .filter_map(|rule| rule.mirror.as_ref())
        .map(|mirror| &mirror.target);
    let targets = rules
        .flat_map(|rule| &rule.targets)
        .chain(&routing.default_targets)
        .map(|target| &target.target);
    targets
        .chain(mirrors)
        .map(|target| service(&target.to_string()).to_owned())
        .collect()
}

/// The section's configuration as a line of YAML, and rules with keys of their own for each target: so there are always
/// the same clusters, and a change doesn't wait for any.
fn routing(section: &Section, names: &[&str]) -> String {
    let mut routing: Value = serde_json::from_str(&section.config).unwrap();
    routing["debugHeader"] = json!(true);
    if routing.get("rules").is_none() {
        routing["rules"] = json!([]);
    }
    let rules = routing["rules"].as_array_mut().unwrap();
    for name in names {
        for fallback in ["baseline", "none"] {
            let key = format!("~{fallback}~{name}~");
            let mirror = json!({"service": name, "percent": 0});
            rules.push(json!({"routeKey": key, "targetService": name, "fallback": fallback, "mirror": mirror}));
        }
    }
    format!("routing: {routing}")
}

/// Replaces the config and waits until it is in force.
async fn replace(file: &ConfigFile, config: &str, ports: &Ports) {
    let reloads = async || {
        Stats::read(ports.admin, "extension_config_discovery")
            .await
            .sum(".config_reload")
    };
    let before = reloads().await;
    file.replace(config);
    let mut agent = Client::new(Protocol::Http1, ports.api);
    poll_until(PATIENCE, "the next section in force", async || {
        if reloads().await == before {
            return Err("Envoy has the table before".to_owned());
        }
        match agent.get("/readyz", &[]).await {
            Ok(answer) if answer.status == 200 => Ok(()),
            Ok(answer) => Err(answer.text()),
            Err(error) => Err(format!("{error:#}")),
        }
    })
    .await;
}

/// What Envoy does otherwise than the case says: with the request as it is, and with one that asks for its decision.
async fn failure(case: &Case, envoy: &mut Envoy<'_>) -> Option<String> {
    let deadline = Instant::now() + IN_FORCE;
    loop {
        let failed = match attempt(case, false, envoy).await {
            None => attempt(case, true, envoy).await,
            failed => failed,
        };
        if failed.is_none() || Instant::now() > deadline {
            return failed;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn attempt(case: &Case, asks: bool, envoy: &mut Envoy<'_>) -> Option<String> {
    let mirror = case.expected.iter().find_map(|fact| fact.strip_prefix("mirror "));
    let services = envoy.services;
    let copies = || mirror.map(|mirror| services.requests(mirror));
    let before = (copies(), envoy.disagreements(asks).await);
    let answer = match envoy.connection.send(&request(case, asks)).await {
        Ok(answer) => answer,
        Err(error) => return Some(format!("{}\n    no answer: {error}", case.place)),
    };
    let Ok(echo) = serde_json::from_slice::<Echo>(&answer.body) else {
        return Some(format!(
            "{}\n    is answered {} {}",
            case.place,
            answer.status,
            answer.text()
        ));
    };
    if let Some(mirror) = mirror
        && !arrives(|| copies() > before.0).await
    {
        return Some(format!("{}\n    {mirror} got no copy", case.place));
    }
    let received = echo.headers.iter().filter(|(name, _)| !is_envoys_own(name)).cloned();
    let mut facts = case.changes(&received.collect::<Vec<_>>());
    if asks {
        facts.extend(decision(&answer, &echo.service));
    } else {
        facts.push(destination(case, &echo.service));
    }
    facts.extend((envoy.disagreements(asks).await > before.1).then(|| "disagreement".to_owned()));
    // A copy was seen above; the others aren't seen from outside, or not with this request.
    let unseen: &[&str] = match asks {
        true => &["mirror ", "key ", "cluster ", "disagreement"],
        false => &["mirror ", "key ", "cluster ", "rule "],
    };
    let is_unseen = |fact: &&String| unseen.iter().any(|kind| fact.starts_with(kind));
    facts.extend(case.expected.iter().filter(is_unseen).cloned());
    let how = if asks { " when it asks for the decision" } else { "" };
    case.differs(&facts).map(|differs| format!("{differs}{how}"))
}

/// Whether a copy, which nobody waits for, arrives after all.
async fn arrives(is_there: impl Fn() -> bool) -> bool {
    let deadline = Instant::now() + IN_FORCE;
    while !is_there() && Instant::now() < deadline {
        tokio::time::sleep(PAUSE).await;
    }
    is_there()
}

/// The request as bytes; a connection is kept.
fn request(case: &Case, asks: bool) -> Vec<u8> {
    let mut bytes = format!("{} ", case.method).into_bytes();
    bytes.extend(&case.path);
    bytes.extend(b" HTTP/1.1\r\nhost: ");
    bytes.extend(&case.authority);
    for (name, value) in &case.headers {
        bytes.extend(format!("\r\n{name}: ").as_bytes());
        bytes.extend(value);
    }
    if asks {
        bytes.extend(format!("\r\n{EXPLAIN_HEADER}: 1").as_bytes());
    }
    bytes.extend(b"\r\n\r\n");
    bytes
}

fn is_envoys_own(name: &str) -> bool {
    ENVOYS_OWN.contains(&name) || name.starts_with("x-envoy-")
}

/// The destination, as far as the service that answered tells it: not why it is the baseline.
fn destination(case: &Case, service: &str) -> String {
    let expected = case
        .expected
        .first()
        .filter(|fact| service == BASELINE && fact.starts_with("baseline "));
    expected.map_or(service, String::as_str).to_owned()
}

/// The destination and the rule as the answer tells them, if they agree with the service that answered.
fn decision(answer: &Answer, served_by: &str) -> Vec<String> {
    let told = answer
        .headers
        .get(DECISION)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let parts: Vec<&str> = told.split("; ").collect();
    let part = |name: &str| {
        parts
            .iter()
            .find_map(|part| part.strip_prefix(name))
            .unwrap_or_default()
    };
    match (part("reason="), service(part("target="))) {
        ("matched", target) if target == served_by => vec![target.to_owned(), format!("rule {}", part("rule="))],
        (reason, "baseline") if served_by == BASELINE => vec![format!("baseline {reason}")],
        _ => vec![format!("{served_by}, though {DECISION} is {told:?}")],
    }
}
