//! A config with mistakes: every one is said with its place, and what was in force stays.

use std::time::Duration;

use sidetrack_tests::{Client, ConfigFile, PATIENCE, Ports, Process, Protocol, Services, Sidetrack, config_text};
use sidetrack_tests::{Traffic, get, poll_until, sidetrack};

const GOOD: &str = r#"
routing:
  defaultTarget: baseline
  rules:
    - {routeKey: sandbox, targetService: service-a}
"#;

/// A text with mistakes, and of each the path and a word of what is said.
///
/// Where a mistake is said to be is marked by a `‹` that isn't part of the text: that is the name of a field, the
/// beginning of an element of a list.
type Broken = (&'static str, &'static [(&'static str, &'static str)]);

const WRONG_VALUES: Broken = (
    r#"
routing:
  defaultTarget: baseline
  rules:
    - ‹routeKey: "a,b"
      targetService: service-a
      pathPrefixes: [/ok, ‹no-slash]
    - routeKey: sandbox
      ‹targetService: http://service-b/
      additionalHeaders:
        X-Environment: ok
        ‹X-Route-Cluster: service-b
"#,
    &[
        ("routing.rules[0].routeKey", "','"),
        ("routing.rules[0].pathPrefixes[1]", "slash"),
        ("routing.rules[1].targetService", "URL"),
        (
            "routing.rules[1].additionalHeaders.X-Route-Cluster",
            "belongs to Sidetrack",
        ),
    ],
);

const WRONG_FORM: Broken = (
    r#"
routing:
  defaultTarget: baseline
  rules:
    - routeKey: sandbox
      targetService: service-a
      ‹pathPrefix: [/api]
    - ‹targetService: service-b
    - routeKey: other
      ‹targetService: [service-a]
"#,
    &[
        ("routing.rules[0].pathPrefix", "`pathPrefixes`"),
        ("routing.rules[1]", "`routeKey` is missing"),
        ("routing.rules[2].targetService", "must be text"),
    ],
);

/// Without the bracket's end, what follows is a part of the list, where this sign can't be.
const NO_YAML: Broken = (
    "\nrouting:\n  rules: [a, b\nmore‹: c\n",
    &[("the configuration", "no YAML")],
);

/// Reading it must not need a stack as deep as the text is: the 65th level is refused.
fn too_deep() -> Broken {
    let text = format!(
        "\nrouting:\n  rules:\n    {}‹{}a\n",
        "- ".repeat(62),
        "- ".repeat(200_000)
    );
    (text.leak(), &[("the configuration", "64 levels")])
}

const MENDED: &str = r#"
routing:
  defaultTarget: baseline
  rules:
    - {routeKey: sandbox, targetService: service-b}
"#;

/// The text without its marks, and line and column of each, from 1.
fn unmarked(marked: &str) -> (String, Vec<(usize, usize)>) {
    let mut places = Vec::new();
    let lines = marked.lines().enumerate().map(|(index, line)| {
        let marks = line.char_indices().filter(|(_, character)| *character == '‹');
        let columns = marks
            .enumerate()
            .map(|(earlier, (at, _))| line[..at].chars().count() - earlier + 1);
        places.extend(columns.map(|column| (index + 1, column)));
        line.replace('‹', "") + "\n"
    });
    (lines.collect(), places)
}

/// What of the file's mistakes isn't on a line of standard error of its own.
fn unsaid(process: &Process, file: &ConfigFile, problems: &[(&str, &str)], places: &[(usize, usize)]) -> Vec<String> {
    assert_eq!(problems.len(), places.len());
    let said = process.stderr();
    let problems = problems.iter().zip(places).map(|((path, word), (line, column))| {
        let begin = format!("{}:{line}:{column}: {path}: ", file.path().display());
        let is_said = said.lines().any(|line| line.starts_with(&begin) && line.contains(word));
        (!is_said).then(|| format!("{begin}… {word}"))
    });
    problems.flatten().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_config_is_reported_and_the_last_good_one_stays() {
    let ports = Ports::free();
    let services = Services::start(&["baseline", "service-a", "service-b"]).await;
    let file = ConfigFile::new(&config_text(&ports, &services, GOOD));
    let sidetrack = Sidetrack::up(&file.path(), &ports).await;
    let mut api = Client::new(Protocol::Http1, ports.api);
    let traffic = Traffic::start(ports.http, 100, vec![get("/", &[("x-route-key", "sandbox")])]);

    for (broken, problems) in [WRONG_VALUES, WRONG_FORM, NO_YAML, too_deep()] {
        let (text, places) = unmarked(&config_text(&ports, &services, broken));
        file.replace(&text);
        poll_until(PATIENCE, "every problem on standard error", async || {
            let unsaid = unsaid(&sidetrack, &file, problems, &places);
            unsaid.is_empty().then_some(()).ok_or_else(|| unsaid.join("\n"))
        })
        .await;
        poll_until(PATIENCE, "what is wrong, in the body of /readyz", async || {
            let ready = api.get("/readyz", &[]).await.unwrap();
            assert_eq!(ready.status, 200, "the last good config is in force");
            let says_it = ready.text().contains(problems[0].1);
            says_it.then_some(()).ok_or_else(|| ready.text())
        })
        .await;
    }
    traffic.flow(100).await;
    let (outcomes, _) = traffic.stop().await;
    let wrong: Vec<_> = outcomes
        .iter()
        .filter(|outcome| outcome.served_by != "service-a")
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}");

    file.replace(&config_text(&ports, &services, MENDED));
    let mut client = Client::new(Protocol::Http1, ports.http);
    poll_until(PATIENCE, "the mended config in force", async || {
        let answer = client.get("/", &[("x-route-key", "sandbox")]).await.unwrap();
        let served_by = answer.served_by();
        (served_by == "service-b").then_some(()).ok_or(served_by)
    })
    .await;
    let ready = api.get("/readyz", &[]).await.unwrap();
    assert!(
        !ready.text().contains("no YAML"),
        "nothing is wrong any more: {}",
        ready.text()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_starts_with_a_broken_config() {
    let ports = Ports::free();
    let services = Services::start(&["baseline", "service-a", "service-b"]).await;
    for (broken, problems) in [WRONG_VALUES, WRONG_FORM, NO_YAML, too_deep()] {
        let (text, places) = unmarked(&config_text(&ports, &services, broken));
        let file = ConfigFile::new(&text);
        for command in ["up", "agent"] {
            let mut process = Process::spawn(command, sidetrack(&[command, "-c"]).arg(file.path()));
            let status = process.exit(Duration::from_secs(10)).await;
            assert_eq!(status.code(), Some(1), "{command}");
            let unsaid = unsaid(&process, &file, problems, &places);
            assert!(unsaid.is_empty(), "{command} doesn't say {unsaid:#?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_config_that_is_not_there_is_said() {
    for command in ["up", "agent"] {
        let mut process = Process::spawn(command, &mut sidetrack(&[command, "-c", "/no/such.yaml"]));
        let status = process.exit(Duration::from_secs(10)).await;
        assert_eq!(status.code(), Some(1), "{command}");
        assert!(process.stderr().contains("/no/such.yaml"), "{}", process.output());
    }
}
