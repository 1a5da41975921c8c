//! `sidetrack rules` and `sidetrack proxies`: the API from the command line.

use std::fs;
use std::io::Write as _;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use sidetrack_tests::{
    Acks, AdsClient, AdsOptions, Agent, Client, ConfigFile, PATIENCE, Ports, Process, Protocol, Services, Sidetrack,
    Signal, Terminal, Variant, config_text, poll_until, sidetrack,
};

const ROUTING: &str = "
routing:
  defaultTarget: baseline
  rules:
    - {routeKey: of-the-file, targetService: service-a, pathPrefixes: [/a]}
";

const TOKENS: &str = "read 0123456789abcdef-reads\nwrite 0123456789abcdef-writes\n";

/// What became of a command.
#[derive(Debug)]
struct Ran {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

/// Commands for the agent on this port.
struct Shell {
    port: u16,
    environment: Vec<(&'static str, String)>,
}

impl Shell {
    fn new(ports: &Ports) -> Self {
        Self {
            port: ports.api,
            environment: Vec::new(),
        }
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        self.run_with(arguments, "")
    }

    /// Runs it with this standard input.
    fn run_with(&self, arguments: &[&str], input: &str) -> Ran {
        tokio::task::block_in_place(|| {
            let mut command = sidetrack(arguments);
            command
                .env("SIDETRACK_API", format!("http://127.0.0.1:{}", self.port))
                .env_remove("SIDETRACK_TOKEN")
                .envs(self.environment.iter().cloned())
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped());
            let mut child = command.spawn().unwrap();
            child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
            let output = child.wait_with_output().unwrap();
            Ran {
                code: output.status.code(),
                stdout: String::from_utf8(output.stdout).unwrap(),
                stderr: String::from_utf8(output.stderr).unwrap(),
            }
        })
    }

    /// Its standard output.
    #[track_caller]
    fn ok(&self, arguments: &[&str]) -> String {
        let ran = self.run(arguments);
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{arguments:?}");
        ran.stdout
    }

    /// What it says when it fails.
    #[track_caller]
    fn failed(&self, arguments: &[&str]) -> String {
        let ran = self.run(arguments);
        assert_eq!(ran.code, Some(1), "{arguments:?}: {ran:?}");
        ran.stderr
    }
}

fn config(ports: &Ports, services: &Services) -> ConfigFile {
    ConfigFile::new(&config_text(ports, services, ROUTING))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_put_is_in_force_and_what_is_deleted_isnt() {
    let ports = Ports::free();
    let services = Services::start(&["baseline", "service-a", "service-b"]).await;
    let config = config(&ports, &services);
    let _sidetrack = Sidetrack::up(&config.path(), &ports).await;
    let shell = Shell::new(&ports);
    let mut client = Client::new(Protocol::Http1, ports.http);
    let mut served = async |key: &str| {
        let answer = client.get("/a", &[("x-route-key", key)]).await.unwrap();
        answer.served_by()
    };

    let put = shell.run_with(
        &["rules", "put", "pr-17", "-f", "-", "--new", "--wait", "10s"],
        "targetService: service-b\n",
    );
    assert_eq!(put.code, Some(0), "{put:?}");
    assert!(
        put.stdout.starts_with("ok: pr-17 has 1 rule (version ") && put.stdout.ends_with(", in force everywhere\n"),
        "{put:?}"
    );
    assert_eq!(served("pr-17").await, "service-b");
    assert_eq!(
        shell.ok(&["rules", "list"]),
        "KEY          SOURCE  TARGET     NAME  MATCHES\n\
         of-the-file  file    service-a        /a…\n\
         pr-17        api     service-b        everything\n"
    );
    assert_eq!(
        shell.ok(&["rules", "list", "--source", "file"]).lines().count(),
        2,
        "a head and a rule"
    );

    // Got, changed, put back; and once more by somebody who didn't see that.
    let got = shell.ok(&["rules", "get", "pr-17"]);
    let etag = got
        .lines()
        .next()
        .and_then(|line| line.strip_prefix("# ETag: "))
        .unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), got.replace("service-b", "service-a")).unwrap();
    let path = file.path().to_str().unwrap();
    let put = ["rules", "put", "pr-17", "-f", path, "--if-match", etag, "--wait", "10s"];
    shell.ok(&put);
    assert_eq!(served("pr-17").await, "service-a");
    assert_eq!(
        shell.failed(&put),
        "sidetrack: nothing has changed: somebody changed these rules meanwhile, get them again, and their ETag\n"
    );
    assert_eq!(
        shell.failed(&["rules", "put", "pr-17", "-f", path, "--new"]),
        "sidetrack: nothing has changed: the key has rules already\n"
    );
    let json: Value = serde_json::from_str(&shell.ok(&["rules", "get", "pr-17", "--json"])).unwrap();
    assert_eq!(
        (&json[0]["targetService"], &json[0]["source"]),
        (&json!("service-a"), &json!("api"))
    );

    let deleted = shell.ok(&["rules", "delete", "pr-17", "--wait", "10s", "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&deleted).unwrap()["inForce"], json!(true));
    assert_eq!(served("pr-17").await, "baseline");
    assert!(shell.failed(&["rules", "get", "pr-17"]).contains("pr-17"));
    assert!(shell.failed(&["rules", "delete", "pr-17"]).contains("pr-17"));
    assert!(shell.failed(&["rules", "delete", "of-the-file"]).contains("file"));
    assert_eq!(served("of-the-file").await, "service-a");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_rules_of_the_api_are_replaced_at_once() {
    let ports = Ports::free();
    let services = Services::start(&["baseline", "service-a"]).await;
    let config = config(&ports, &services);
    let _agent = Agent::start(&config.path(), &ports).await;
    let shell = Shell::new(&ports);
    let keys = |listed: String| -> Vec<String> {
        let rules: Vec<Value> = serde_json::from_str(&listed).unwrap();
        let key = |rule: &Value| rule["routeKey"].as_str().unwrap().to_owned();
        rules.iter().map(key).collect()
    };
    for (rules, expected) in [
        (
            "[{routeKey: x, targetService: a}, {routeKey: y, targetService: b}]",
            &["x", "y"][..],
        ),
        ("- routeKey: z\n  targetService: a\n", &["z"]),
        ("[]", &[]),
    ] {
        let put = shell.run_with(&["rules", "put", "--all", "-f", "-"], rules);
        assert_eq!(put.code, Some(0), "{put:?}");
        assert_eq!(
            keys(shell.ok(&["rules", "list", "--source", "api", "--json"])),
            expected
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn problems_have_their_places_in_the_file_and_nothing_changes() {
    let ports = Ports::free();
    let services = Services::start(&["baseline", "service-a"]).await;
    let config = config(&ports, &services);
    let _agent = Agent::start(&config.path(), &ports).await;
    let shell = Shell::new(&ports);
    let before = shell.ok(&["proxies", "--json"]);

    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    fs::write(
        file.path(),
        "# two rules\n- targetService: \"a b\"\n  pathPrefixes:\n    - /ok\n    - no\n- targetServise: a\n",
    )
    .unwrap();
    let place = |rest: &str| format!("{path}:{rest}\n");
    assert_eq!(
        shell.failed(&["rules", "put", "pr-17", "-f", path]),
        [
            place(
                "2:3: [0].targetService: \"a b\" is no host name and no IP address, must be HOST or HOST:PORT, an IPv6 address \
                 in brackets"
            ),
            place("5:7: [0].pathPrefixes[1]: \"no\" must begin with a slash: \"/no\""),
            place("6:3: [1].targetServise: unknown field, did you mean `targetService`?"),
        ]
        .concat()
    );
    fs::write(file.path(), "targetService: a\nfallback: maybe\n").unwrap();
    assert!(
        shell
            .failed(&["rules", "put", "pr-17", "-f", path])
            .starts_with(&place("2:1: fallback: ")[..path.len() + 15])
    );
    fs::write(file.path(), "targetService: [\n").unwrap();
    assert!(
        shell
            .failed(&["rules", "put", "pr-17", "-f", path])
            .contains("is no YAML")
    );
    assert!(
        shell
            .failed(&["rules", "put", "pr-17", "-f", "no/such"])
            .starts_with("sidetrack: no/such can't be read: ")
    );

    assert_eq!(shell.ok(&["proxies", "--json"]), before, "revision and version, too");
    assert_eq!(shell.ok(&["rules", "list"]).lines().count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_comes_from_a_file_or_the_environment() {
    let ports = Ports::free();
    let services = Services::start(&["baseline", "service-a"]).await;
    let config = config(&ports, &services);
    let tokens = tempfile::NamedTempFile::new().unwrap();
    fs::write(tokens.path(), TOKENS).unwrap();
    let text = fs::read_to_string(config.path()).unwrap();
    let with_tokens = format!("agent: {{tokensFile: {:?}, ", tokens.path());
    config.write_in_place(&text.replace("agent: {", &with_tokens));
    let _agent = Agent::start(&config.path(), &ports).await;
    let mut shell = Shell::new(&ports);
    let put = ["rules", "put", "pr-17", "-f", "-"];
    let rule = "targetService: service-a";

    assert_eq!(
        shell.failed(&["rules", "list"]),
        "sidetrack: the agent wants a token: name a file that holds one by --token-file, or set SIDETRACK_TOKEN\n"
    );
    shell.environment = vec![("SIDETRACK_TOKEN", "0123456789abcdef-nobody".to_owned())];
    assert_eq!(
        shell.failed(&["rules", "list"]),
        "sidetrack: the agent doesn't know this token: compare it with agent.tokensFile\n"
    );
    shell.environment = vec![("SIDETRACK_TOKEN", "0123456789abcdef-reads".to_owned())];
    shell.ok(&["rules", "list"]);
    shell.ok(&["proxies"]);
    let refused = shell.run_with(&put, rule);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("may only read"), "{refused:?}");

    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), "0123456789abcdef-writes\n").unwrap();
    let file = file.path().to_str().unwrap();
    let written = shell.run_with(&[&put[..], &["--token-file", file]].concat(), rule);
    assert_eq!(written.code, Some(0), "{written:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_refuses_a_change_is_named() {
    let ports = Ports::free();
    let services = Services::start(&["baseline", "service-a"]).await;
    let config = config(&ports, &services);
    let _agent = Agent::start(&config.path(), &ports).await;
    let contrary = AdsOptions {
        acks: Acks::Refuse,
        ..AdsOptions::new("contrary", Variant::Delta)
    };
    let _contrary = AdsClient::start(ports.xds, contrary);
    let shell = Shell::new(&ports);
    poll_until(PATIENCE, "its refusal", async || {
        let text = shell.ok(&["proxies"]);
        text.contains("contrary refuses ").then_some(()).ok_or(text)
    })
    .await;

    let put = shell.run_with(
        &["rules", "put", "pr-17", "-f", "-", "--wait", "5s"],
        "targetService: service-a",
    );
    assert_eq!((put.code, put.stdout.as_str()), (Some(1), ""), "{put:?}");
    let mut said = put.stderr.lines();
    let first = said.next().unwrap();
    assert!(
        first.starts_with("sidetrack: kept (version ") && first.ends_with("), but not in force everywhere yet:"),
        "{first}"
    );
    assert!(said.next().unwrap().starts_with("  contrary: "), "{put:?}");
    assert!(shell.ok(&["rules", "list"]).contains("pr-17"), "it is kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_agent_the_mend_is_said() {
    let ports = Ports::free();
    let said = Shell::new(&ports).failed(&["proxies"]);
    assert!(
        said.starts_with(&format!(
            "sidetrack: no agent answers at http://127.0.0.1:{}: ",
            ports.api
        )) && said.contains("--api"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_table_of_proxies_is_shown_anew_in_its_place() {
    let ports = Ports::free();
    let services = Services::start(&["baseline", "service-a"]).await;
    let config = config(&ports, &services);
    let agent = Agent::start(&config.path(), &ports).await;
    let _one = AdsClient::start(ports.xds, AdsOptions::new("one", Variant::Delta));
    let other = AdsClient::start(ports.xds, AdsOptions::new("another-with-a-longer-name", Variant::Sotw));
    let api = format!("http://127.0.0.1:{}", ports.api);
    let watch = ["proxies", "--watch", "1", "--api", &api];

    let mut terminal = Terminal::start(&mut sidetrack(&watch), 12, 110);
    let until = async |what: &str, is_so: &dyn Fn(&[String]) -> bool| {
        poll_until(PATIENCE, what, async || {
            let lines = terminal.lines();
            if is_so(&lines) {
                Ok(lines)
            } else {
                Err(format!("{lines:#?}"))
            }
        })
        .await
    };
    let both = until("both", &|lines| {
        lines.len() == 4 && lines[0].ends_with(": in force at 2 of 2 proxies")
    })
    .await;
    assert!(both[1].starts_with("NODE  "), "{both:#?}");
    drop(other);
    // The longer line before it leaves nothing behind.
    let left = until("one", &|lines| {
        lines.len() == 3 && lines[0].ends_with(": in force at 1 of 1 proxies")
    })
    .await;
    assert!(left[2].starts_with("one   "), "{left:#?}");
    drop(agent);
    until("that it is away", &|lines| {
        lines.len() == 1 && lines[0].starts_with("sidetrack: no agent answers at ")
    })
    .await;
    assert_eq!(terminal.scrolled(), 0);
    terminal.interrupt();
    assert_eq!(terminal.exit(PATIENCE).await.code(), Some(0));

    // Where no terminal is, one after the other.
    let _agent = Agent::start(&config.path(), &ports).await;
    let mut process = Process::spawn("sidetrack proxies", &mut sidetrack(&watch));
    poll_until(PATIENCE, "three tables", async || {
        let text = process.stdout();
        let tables = text.lines().filter(|line| line.starts_with("version ")).count();
        if tables >= 3 { Ok(()) } else { Err(text) }
    })
    .await;
    assert!(!process.stdout().contains('\u{1b}'));
    process.signal(Signal::INT);
    assert_eq!(process.exit(Duration::from_secs(5)).await.code(), Some(0));
}
