//! gRPC's own libraries as data planes: they get rules from the agent as routes, and route by themselves.

use std::io::Write as _;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use sidetrack_tests::{
    Agent, Call, CallOutcome, Client, ConfigFile, Library, PATIENCE, Ports, Protocol, Proxyless, Services, Signal,
    config_with, poll_until,
};

/// What `client_status` of a resource that a client has accepted is.
const ACKED: i32 = 3;

const SERVICES: [&str; 5] = ["baseline", "sandbox", "other", "host-baseline", "host-sandbox"];

/// One call, and who answers.
struct Case {
    fact: &'static str,
    target: &'static str,
    path: &'static str,
    metadata: &'static [(&'static str, &'static str)],
    served_by: &'static str,
}

const CASES: &[Case] = &[
    case("without a key the baseline answers", "/a.B/C", &[], "baseline"),
    case(
        "a key selects the sandbox",
        "/a.B/C",
        &[("x-route-key", "plain")],
        "sandbox",
    ),
    case(
        "an unknown key selects nothing",
        "/a.B/C",
        &[("x-route-key", "no")],
        "baseline",
    ),
    case(
        "keys compare byte for byte",
        "/a.B/C",
        &[("x-route-key", "PLAIN")],
        "baseline",
    ),
    case(
        "a prefix is for what lies below",
        "/shop.Cart/Get",
        &[("x-route-key", "path")],
        "sandbox",
    ),
    case(
        "a prefix matches whole segments",
        "/shop.Carts/Get",
        &[("x-route-key", "path")],
        "baseline",
    ),
    case(
        "an exact path matches",
        "/shop.Admin/Reset",
        &[("x-route-key", "path")],
        "other",
    ),
    case(
        "an exact path matches itself alone",
        "/shop.Admin/Reset2",
        &[("x-route-key", "path")],
        "baseline",
    ),
    case(
        "a regex matches",
        "/shop.V12/Get",
        &[("x-route-key", "path")],
        "host-sandbox",
    ),
    case(
        "a regex matches the whole path",
        "/shop.V12/Get2",
        &[("x-route-key", "path")],
        "baseline",
    ),
    case(
        "all headers must match",
        "/a.B/C",
        &[("x-route-key", "head"), ("x-user", "qa-1")],
        "baseline",
    ),
    case(
        "headers match",
        "/a.B/C",
        &[
            ("x-route-key", "head"),
            ("x-user", "qa-1"),
            ("x-tier", "b"),
            ("x-there", ""),
        ],
        "sandbox",
    ),
    case(
        "an absent header must not be there",
        "/a.B/C",
        &[
            ("x-route-key", "head"),
            ("x-user", "qa-1"),
            ("x-tier", "b"),
            ("x-there", "1"),
            ("x-gone", "1"),
        ],
        "baseline",
    ),
    case(
        "the first rule of a key wins",
        "/a.B/C",
        &[("x-route-key", "order"), ("x-user", "1")],
        "sandbox",
    ),
    case("then the next", "/a.B/C", &[("x-route-key", "order")], "other"),
    case(
        "the second source counts without the first",
        "/a.B/C",
        &[("x-other-key", "plain")],
        "sandbox",
    ),
    case(
        "the first source comes first",
        "/a.B/C",
        &[("x-route-key", "no"), ("x-other-key", "plain")],
        "baseline",
    ),
    case(
        "what sets headers is left out",
        "/a.B/C",
        &[("x-route-key", "effects")],
        "baseline",
    ),
    case(
        "what gRPC clients can't compare is left out",
        "/a.B/C",
        &[("x-route-key", "query")],
        "baseline",
    ),
    case(
        "a target that refuses connections falls back",
        "/a.B/C",
        &[("x-route-key", "dead")],
        "baseline",
    ),
    case("a target may have both", "/a.B/C", &[("x-route-key", "mixed")], "other"),
    case(
        "the target with the fewest calls may be chosen",
        "/a.B/C",
        &[("x-route-key", "least")],
        "sandbox",
    ),
    case(
        "or one by a header's hash",
        "/a.B/C",
        &[("x-route-key", "ring"), ("x-user", "1")],
        "sandbox",
    ),
    case(
        "a target may have a name",
        "/a.B/C",
        &[("x-route-key", "named")],
        "sandbox",
    ),
    of(
        "xds:///shop.example",
        case("a host has its baseline", "/a.B/C", &[], "host-baseline"),
    ),
    of(
        "xds:///shop.example",
        case(
            "rules may be for a host",
            "/a.B/C",
            &[("x-route-key", "host")],
            "host-sandbox",
        ),
    ),
    of(
        "xds:///baseline",
        case("and for no other", "/a.B/C", &[("x-route-key", "host")], "baseline"),
    ),
    of(
        "xds:///host-baseline:80",
        case(
            "a host's baseline takes its place",
            "/a.B/C",
            &[("x-route-key", "host")],
            "host-sandbox",
        ),
    ),
    of(
        "xds:///baseline",
        case(
            "a name may be without a port",
            "/a.B/C",
            &[("x-route-key", "plain")],
            "sandbox",
        ),
    ),
];

const ROUTING: &str = r#"
routing:
  defaultTarget: baseline
  hosts: {shop.example: host-baseline}
  keySources: [{header: X-Route-Key}, {header: X-Other-Key}]
  rules:
    - {routeKey: plain, targetService: sandbox, fallback: none}
    - {routeKey: path, targetService: sandbox, fallback: none, pathPrefixes: [/shop.Cart]}
    - {routeKey: path, targetService: other, fallback: none, paths: [{exact: /shop.Admin/Reset}]}
    - {routeKey: path, targetService: host-sandbox, fallback: none, paths: [{regex: "/shop.V[0-9]+/(Get|Put)"}]}
    - routeKey: head
      targetService: sandbox
      fallback: none
      headerMatchers: {X-User: {prefix: qa-}, X-Tier: {oneOf: [a, b]}, X-There: {present: true}, X-Gone: {absent: true}}
    - {routeKey: order, targetService: sandbox, fallback: none, headerMatchers: {X-User: {regex: "[0-9]|qa"}}}
    - {routeKey: order, targetService: other, fallback: none}
    - {routeKey: effects, targetService: sandbox, fallback: none, additionalHeaders: {X-Environment: sandbox}}
    - {routeKey: query, targetService: sandbox, fallback: none, queryMatchers: {debug: "1"}}
    - {routeKey: dead, targetService: dead, hosts: [baseline]}
    - {routeKey: mixed, targetService: mixed, fallback: none}
    - {routeKey: named, targetService: named, fallback: none}
    - {routeKey: least, targetService: least, fallback: none}
    - {routeKey: ring, targetService: ring, fallback: none}
    - {routeKey: none, targetService: dead, fallback: none}
    - {routeKey: host, targetService: host-sandbox, hosts: [shop.example]}
    - {routeKey: split, targets: [{service: sandbox, weight: 3}, {service: other, weight: 1}], fallback: none}
"#;

/// Who answers to each key in the state that `is_odd` and in the other.
const KEYS: [(&str, [&str; 2]); 4] = [
    ("stays", ["sandbox", "sandbox"]),
    ("moves", ["host-sandbox", "other"]),
    ("comes", ["baseline", "host-baseline"]),
    ("none", ["baseline", "baseline"]),
];

/// Calls in a second, by each client.
const RATE: u32 = 200;
const CHANGES: usize = 40;

/// Each target but `sandbox` is another rule's in each state, so its cluster comes and goes with it.
fn state(is_odd: bool) -> String {
    let rule = |(key, targets): &(&str, [&str; 2])| match targets[usize::from(is_odd)] {
        "baseline" => String::new(),
        target => format!("    - {{routeKey: {key}, targetService: {target}}}\n"),
    };
    let rules: String = KEYS.iter().map(rule).collect();
    format!("routing:\n  defaultTarget: baseline\n  rules:\n{rules}")
}

const fn case(
    fact: &'static str,
    path: &'static str,
    metadata: &'static [(&'static str, &'static str)],
    served_by: &'static str,
) -> Case {
    Case {
        fact,
        target: "xds:///baseline:80",
        path,
        metadata,
        served_by,
    }
}

const fn of(target: &'static str, case: Case) -> Case {
    Case { target, ..case }
}

/// An agent, its services and a client of each library.
struct Mesh {
    ports: Ports,
    services: Services,
    file: ConfigFile,
    clients: Vec<Proxyless>,
    agent: Agent,
}

impl Mesh {
    async fn start(routing: &str) -> Self {
        let ports = Ports::free();
        let mut services = Services::start(&SERVICES).await;
        let dead = ([127, 0, 0, 1], sidetrack_tests::free_port()).into();
        services.configure_at("dead", vec![dead], "");
        services.configure("least", &["sandbox"], "loadBalancer: leastRequest");
        services.configure("ring", &["sandbox"], "loadBalancer: ringHash, hashBy: {header: X-User}");
        let file = ConfigFile::new(&config(&ports, &services, routing));
        let agent = Agent::start(&file.path(), &ports).await;
        let mut clients = Vec::new();
        for library in Library::ALL {
            clients.push(Proxyless::start(library, ports.xds).await);
        }
        Self {
            ports,
            services,
            file,
            clients,
            agent,
        }
    }

    /// Puts another configuration in the file's place.
    fn change(&self, routing: &str) {
        self.file.replace(&config(&self.ports, &self.services, routing));
    }

    /// Of what the agent says to `path`, all objects that have this field.
    async fn proxies(&self) -> Vec<Value> {
        let answer = Client::new(Protocol::Http1, self.ports.api).get("/readyz", &[]).await;
        let answer: Value = serde_json::from_slice(&answer.unwrap().body).unwrap();
        answer["proxies"].as_array().expect("proxies").clone()
    }

    /// No client has refused anything, by the agent's word and by their own.
    async fn assert_all_accepted(&self) {
        assert!(!self.agent.output().contains("refuses"), "{}", self.agent.output());
        for proxy in self.proxies().await {
            assert!(proxy["nack"].is_null(), "{proxy}");
        }
        let mut accepted = 0;
        for client in &self.clients {
            for resource in client.resources().await {
                assert_eq!(resource.status, ACKED, "{resource:?}");
                accepted += 1;
            }
        }
        print(&format!("{accepted} resources accepted, none refused"));
    }
}

/// The configuration with a target `named`, whose endpoint has a name, and `mixed`, which has both.
fn config(ports: &Ports, services: &Services, routing: &str) -> String {
    let [sandbox, other] = ["sandbox", "other"].map(|name| services.server(name).address().port());
    let named = format!("  named: {{endpoints: [\"localhost:{sandbox}\"]}}\n");
    let mixed = format!("  mixed: {{endpoints: [\"localhost:{other}\", \"127.0.0.1:{other}\"]}}\n");
    config_with(ports, &format!("{}{named}{mixed}{}", services.yaml(), routing.trim()))
}

/// A test's standard error isn't captured if it is written to like this.
fn print(line: &str) {
    let _ = writeln!(std::io::stderr(), "gRPC clients: {line}");
}

/// Waits until a call with the key is served by `expected`; returns how long that took.
async fn until_served(client: &Proxyless, key: &str, expected: &str) -> Duration {
    let begun = Instant::now();
    poll_until(
        PATIENCE,
        &format!("{}: {key} served by {expected}", client.node),
        async || {
            let served_by = client.call(Call::to("xds:///baseline").key(key)).await;
            (served_by == expected).then_some(()).ok_or(served_by)
        },
    )
    .await;
    begun.elapsed()
}

fn seconds_since_1970() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_route_calls_without_a_proxy() {
    let mesh = Mesh::start(ROUTING).await;
    for client in &mesh.clients {
        for case in CASES {
            let call = Call::to(case.target).path(case.path);
            let call = case
                .metadata
                .iter()
                .fold(call, |call, (name, value)| call.with(name, value));
            let served_by = client.call(call).await;
            assert_eq!(served_by, case.served_by, "{}: {}", client.node, case.fact);
        }
        let unavailable = client.call(Call::to("xds:///baseline").key("none")).await;
        assert!(unavailable.starts_with("UNAVAILABLE"), "{}: {unavailable}", client.node);

        let split = Call::to("xds:///baseline").key("split").times(2000);
        let split = &client.call_all(&[split]).await[0];
        let at_sandbox = split["sandbox"];
        assert_eq!(split.len(), 2, "{}: {split:?}", client.node);
        // By chance: of 2,000 calls one standard deviation is 19.
        assert!((1400..=1600).contains(&at_sandbox), "{}: {split:?}", client.node);
        let cases = CASES.len();
        print(&format!(
            "{:?}: {cases} cases hold; of 2000 calls with 75:25, {at_sandbox} at 75",
            client.library
        ));
    }
    mesh.assert_all_accepted().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_change_under_calls() {
    let mesh = Mesh::start(&state(false)).await;
    let calls = KEYS.map(|(key, _)| Call::to("xds:///baseline").key(key));
    for client in &mesh.clients {
        until_served(client, "moves", "host-sandbox").await;
        client.begin(RATE, &calls).await;
    }
    let mut seen = vec![Vec::new(); mesh.clients.len()];
    for change in 1..=CHANGES {
        let is_odd = change % 2 == 1;
        let changed = seconds_since_1970();
        mesh.change(&state(is_odd));
        for (client, seen) in mesh.clients.iter().zip(&mut seen) {
            for (key, targets) in KEYS {
                until_served(client, key, targets[usize::from(is_odd)]).await;
            }
            seen.push((changed, seconds_since_1970()));
        }
        // So that calls flow in each state.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for (client, seen) in mesh.clients.iter().zip(&seen) {
        let outcomes = client.stop().await;
        let wrong: Vec<_> = outcomes.iter().filter(|outcome| !is_right(outcome, seen)).collect();
        let mut delays: Vec<f64> = seen.iter().map(|(changed, seen)| seen - changed).collect();
        delays.sort_unstable_by(f64::total_cmp);
        print(&format!(
            "{:?}: {} calls while rules changed {CHANGES} times, {} failed or misrouted; a change was seen by all after {:.0} ms, {:.0} ms at most",
            client.library,
            outcomes.len(),
            wrong.len(),
            delays[CHANGES / 2] * 1e3,
            delays[CHANGES - 1] * 1e3,
        ));
        assert!(
            wrong.is_empty(),
            "{}: {:#?}",
            client.node,
            &wrong[..wrong.len().min(10)]
        );
        assert!(outcomes.len() > CHANGES * 20, "{} calls", outcomes.len());
    }
    mesh.assert_all_accepted().await;
}

/// The state that was there before the call holds, or one that came while it was under way, or that wasn't seen yet.
fn is_right(outcome: &CallOutcome, changes: &[(f64, f64)]) -> bool {
    let targets = KEYS[outcome.call].1;
    let before = changes.iter().take_while(|(_, seen)| *seen < outcome.sent).count();
    let until = changes
        .iter()
        .take_while(|(changed, _)| *changed < outcome.answered)
        .count();
    (before..=until).any(|state| targets[state % 2] == outcome.served_by)
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_go_on_without_the_agent_and_follow_the_next_one() {
    let mut mesh = Mesh::start(&state(false)).await;
    let calls = KEYS.map(|(key, _)| Call::to("xds:///baseline").key(key));
    for client in &mesh.clients {
        until_served(client, "moves", "host-sandbox").await;
        client.begin(RATE, &calls).await;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    mesh.agent.signal(Signal::KILL);
    mesh.agent.exit(PATIENCE).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let changed = seconds_since_1970();
    mesh.change(&state(true));
    mesh.agent = Agent::start(&mesh.file.path(), &mesh.ports).await;
    let mut seen = Vec::new();
    for client in &mesh.clients {
        for (key, targets) in KEYS {
            until_served(client, key, targets[1]).await;
        }
        seen.push([(changed, seconds_since_1970())]);
    }
    for (client, seen) in mesh.clients.iter().zip(&seen) {
        let outcomes = client.stop().await;
        let wrong: Vec<_> = outcomes.iter().filter(|outcome| !is_right(outcome, seen)).collect();
        print(&format!(
            "{:?}: {} calls while the agent was killed and started with other rules, {} failed or misrouted; they were seen {:.0} ms after its start",
            client.library,
            outcomes.len(),
            wrong.len(),
            (seen[0].1 - changed) * 1e3,
        ));
        assert!(
            wrong.is_empty(),
            "{}: {:#?}",
            client.node,
            &wrong[..wrong.len().min(10)]
        );
    }
    mesh.assert_all_accepted().await;
}
