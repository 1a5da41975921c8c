//! docs/api.md: what is typed there says what is written there.

use std::process::Command;

use sidetrack_tests::{ConfigFile, Ports, Services, Sidetrack, artifacts, config_text};

/// A command and all that it says.
#[derive(Debug)]
struct Example {
    command: String,
    output: String,
}

fn document() -> String {
    std::fs::read_to_string(artifacts::workspace().join("docs/api.md")).unwrap()
}

/// The blocks of this language.
fn blocks<'t>(text: &'t str, language: &str) -> Vec<&'t str> {
    let begin = format!("```{language}\n");
    let blocks = text.split(&begin).skip(1);
    blocks.filter_map(|rest| rest.split("```").next()).collect()
}

fn examples(text: &str) -> Vec<Example> {
    let mut examples: Vec<Example> = Vec::new();
    for line in blocks(text, "console").into_iter().flat_map(str::lines) {
        match (line.strip_prefix("$ "), examples.last_mut()) {
            (Some(command), _) => examples.push(Example {
                command: command.to_owned(),
                output: String::new(),
            }),
            (None, Some(example)) => example.output += &format!("{line}\n"),
            (None, None) => panic!("{line} is no command's"),
        }
    }
    examples
}

/// Whether `text` is `pattern`, in which `…` stands for anything.
fn is_like(text: &str, pattern: &str) -> bool {
    let mut parts = pattern.split('…');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let parts: Vec<&str> = parts.collect();
    let Some((last, between)) = parts.split_last() else {
        return rest.is_empty();
    };
    for part in between {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[test]
fn a_pattern_has_gaps() {
    for (text, pattern, expected) in [
        ("ab", "ab", true),
        ("abc", "ab", false),
        ("a1b2c", "a…b…c", true),
        ("a1b2", "a…b…c", false),
        ("ac", "a…c", true),
        ("abab", "…ab", true),
    ] {
        assert_eq!(is_like(text, pattern), expected, "{text} {pattern}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_example_says_what_is_written() {
    let document = document();
    let ports = Ports::free();
    let services = Services::start(&["shop", "shop.pr-1", "shop.pr-17", "cart.pr-1"]).await;
    let routing = blocks(&document, "yaml")[0];
    let config = ConfigFile::new(&config_text(&ports, &services, routing));
    let _sidetrack = Sidetrack::up(&config.path(), &ports).await;
    let api = format!("http://127.0.0.1:{}", ports.api);
    let program = artifacts::sidetrack();
    let path = format!(
        "{}:{}",
        program.parent().unwrap().display(),
        std::env::var("PATH").unwrap()
    );

    let examples = examples(&document);
    assert!(examples.len() >= 10, "{examples:?}");
    for Example { command, output } in &examples {
        let mut shell = Command::new("sh");
        let command = command.replace("http://127.0.0.1:9902", &api);
        let shell = shell
            .args(["-c", &command])
            .env("PATH", &path)
            .env("SIDETRACK_API", &api);
        let said = tokio::task::block_in_place(|| shell.output().unwrap());
        let said = String::from_utf8(said.stdout).unwrap() + &String::from_utf8(said.stderr).unwrap();
        assert!(
            is_like(said.trim_end(), output.trim_end()),
            "{command}\nsays\n{said}\nnot\n{output}"
        );
    }
    println!("{} commands of docs/api.md say what is written there", examples.len());
}
