//! The rules of the xDS specification, as `protocol_cases.txt` has them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::google::protobuf::Any;
use prost::Message;

use super::request::Ask;
use super::response::Push;
use super::state::Variant;
use super::stream::{Offer, Stream};
use crate::render::{Resource, ResourceSet, ResourceType};

const CASES: &str = include_str!("protocol_cases.txt");

/// A resource of this content. What the message is doesn't matter to the protocol.
pub(super) fn resource(name: &str, content: &str) -> Resource {
    let message = Cluster {
        name: name.to_owned(),
        alt_stat_name: content.trim_end_matches('e').to_owned(),
        ..Default::default()
    };
    let mut resource = Resource::new(name, &message);
    resource.has_endpoints = content.ends_with('e');
    resource
}

/// The content of a resource that was sent.
pub(super) fn content(resource: &Resource) -> String {
    let any = Any::decode(&*resource.any().concat()).unwrap();
    Cluster::decode(&*any.value).unwrap().alt_stat_name
}

fn kind(name: &str) -> ResourceType {
    let mut kinds = ResourceType::ALL.into_iter();
    kinds.find(|kind| kind.to_string() == name).expect("a type")
}

/// The words of a request that answers the last response, unless they say otherwise.
fn answer(words: &str) -> String {
    let (kind, rest) = words.split_once(' ').unwrap_or((words, ""));
    format!("{kind} answer {rest}")
}

/// The two sides of a conversation.
struct Conversation {
    variant: Variant,
    stream: Stream,
    offers: u64,
    resources: [ResourceSet; ResourceType::ALL.len()],
    /// What the agent has sent and the conversation hasn't looked at.
    sent: VecDeque<Push>,
    nonces: BTreeMap<ResourceType, String>,
    versions: BTreeMap<ResourceType, String>,
    names: BTreeMap<ResourceType, Vec<String>>,
}

impl Conversation {
    fn new(variant: Variant) -> Self {
        Self {
            variant,
            stream: Stream::new(variant),
            offers: 0,
            resources: Default::default(),
            sent: VecDeque::new(),
            nonces: BTreeMap::new(),
            versions: BTreeMap::new(),
            names: BTreeMap::new(),
        }
    }

    fn line(&mut self, line: &str) -> Result<(), String> {
        let (what, rest) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
        if what == "push" {
            let push = self.sent.pop_front().ok_or("nothing was sent")?;
            let sent = self.read(push);
            return match sent == rest {
                true => Ok(()),
                false => Err(format!("sent was: {sent}")),
            };
        }
        if let Some(push) = self.sent.pop_front() {
            return Err(format!("before that was sent: {}", self.read(push)));
        }
        match what {
            "offer" => {
                self.resources = Default::default();
                for part in rest.split(';') {
                    let mut words = part.split_whitespace();
                    let kind = kind(words.next().expect("a type"));
                    for word in words {
                        let (name, content) = word.split_once('=').expect("NAME=CONTENT");
                        self.resources[kind as usize].insert(Arc::new(resource(name, content)));
                    }
                }
                self.offer();
            }
            "reconnect" => {
                self.stream = Stream::new(self.variant);
                self.nonces.clear();
                self.offer();
            }
            "ask" => self.ask(rest, false),
            "ack" => self.ask(&answer(rest), false),
            "nack" => self.ask(&answer(rest), true),
            _ => panic!("no such line: {line}"),
        }
        self.sent.extend(std::iter::from_fn(|| self.stream.next()));
        Ok(())
    }

    fn offer(&mut self) {
        self.offers += 1;
        self.stream.offer(Offer {
            revision: self.offers,
            version: "v".into(),
            resources: self.resources.clone(),
        });
    }

    fn ask(&mut self, rest: &str, is_refusal: bool) {
        let mut words = rest.split_whitespace();
        let kind = kind(words.next().expect("a type"));
        let last = self.nonces.get(&kind).cloned().unwrap_or_default();
        let mut nonce = match self.variant {
            Variant::StateOfTheWorld => last.clone(),
            Variant::Delta => String::new(),
        };
        let mut version = self
            .versions
            .get(&kind)
            .filter(|_| !last.is_empty())
            .cloned()
            .unwrap_or_default();
        let (mut subscribe, mut unsubscribe, mut versions) = (Vec::new(), Vec::new(), Vec::new());
        let mut is_answer = false;
        for word in words {
            if let Some(other) = word.strip_prefix("nonce=") {
                other.clone_into(&mut nonce);
            } else if word == "version=last" {
                version = self.versions.get(&kind).cloned().unwrap_or_default();
            } else if word == "answer" {
                nonce.clone_from(&last);
                is_answer = true;
            } else if let Some(name) = word.strip_prefix('-') {
                unsubscribe.push(name.to_owned());
            } else if let Some((name, content)) = word.split_once('@') {
                versions.push((name.to_owned(), resource(name, content).version()));
            } else {
                subscribe.push(word.trim_start_matches('+').to_owned());
            }
        }
        let ask = match self.variant {
            Variant::StateOfTheWorld => {
                if !is_answer {
                    self.names.insert(kind, subscribe);
                }
                let names = self.names.get(&kind).cloned().unwrap_or_default();
                Ask::World { version, names }
            }
            Variant::Delta => Ask::Delta {
                subscribe,
                unsubscribe,
                versions,
            },
        };
        self.stream.request(kind, &nonce, is_refusal, ask).unwrap();
    }

    /// Accepts all that is sent; says how many pushes that was.
    fn take_all(&mut self) -> usize {
        let mut pushes = 0;
        while let Some(push) = self.sent.pop_front() {
            self.nonces.insert(push.kind, push.nonce);
            self.ask(&answer(&push.kind.to_string()), false);
            self.sent.extend(std::iter::from_fn(|| self.stream.next()));
            pushes += 1;
        }
        pushes
    }

    /// A push as a line has it.
    fn read(&mut self, push: Push) -> String {
        let mut text = push.kind.to_string();
        for resource in &push.resources {
            text += &format!(" {}={}", resource.name, content(resource));
        }
        for name in &push.removed {
            text += &format!(" -{name}");
        }
        let other = self.nonces.insert(push.kind, push.nonce.clone());
        assert_ne!(other, Some(push.nonce), "a nonce twice");
        self.versions.insert(push.kind, push.version);
        text
    }
}

/// Has the conversation of this rule.
fn check(rule: &str, variant: Variant, lines: &[&str]) {
    let mut conversation = Conversation::new(variant);
    for (number, line) in lines.iter().enumerate() {
        if let Err(problem) = conversation.line(line) {
            panic!("{rule}, {variant:?}: {line}: {problem}, after {:#?}", &lines[..number]);
        }
    }
    let rest: Vec<_> = conversation.sent.drain(..).collect();
    assert!(rest.is_empty(), "{rule}, {variant:?}: in the end was sent {rest:?}");
}

#[test]
fn the_rules_of_the_specification_are_kept() {
    let mut conversations = 0;
    let (mut rule, mut variants, mut lines) = ("", Vec::new(), Vec::new());
    let cases = CASES
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with(['#', '=']));
    for line in cases.chain(["-- the end ()"]) {
        let Some(next) = line.strip_prefix("-- ") else {
            lines.push(line);
            continue;
        };
        for variant in variants {
            check(rule, variant, &lines);
            conversations += 1;
        }
        lines.clear();
        let form;
        (rule, form) = next.trim_end_matches(')').rsplit_once(" (").expect("RULE (FORM)");
        variants = match form {
            "sotw" => vec![Variant::StateOfTheWorld],
            "delta" => vec![Variant::Delta],
            "both" => vec![Variant::StateOfTheWorld, Variant::Delta],
            _ => Vec::new(),
        };
    }
    assert!(conversations > 50, "{conversations}");
}

/// The least time that an update of one cluster and the table takes a stream of so many clusters, with its answers.
fn update_time(clusters: usize) -> Duration {
    let mut sets: [ResourceSet; ResourceType::ALL.len()] = Default::default();
    for i in 0..clusters {
        let name = format!("cluster-{i:06}");
        sets[ResourceType::Cluster as usize].insert(Arc::new(resource(&name, "1e")));
        sets[ResourceType::Endpoints as usize].insert(Arc::new(resource(&name, "1")));
    }
    let mut conversation = Conversation::new(Variant::Delta);
    conversation.resources = sets;
    let names: String = (0..clusters).map(|i| format!(" cluster-{i:06}")).collect();
    conversation.offer();
    for line in ["ask CDS", &format!("ask EDS{names}"), "ask ECDS f"] {
        conversation.line(line).unwrap();
        conversation.take_all();
    }
    let update = |round: usize| {
        let content = format!("{}e", round + 2);
        let changed = resource(&format!("cluster-{:06}", round * 7 % clusters), &content);
        conversation.resources[ResourceType::Cluster as usize].insert(Arc::new(changed));
        conversation.resources[ResourceType::FilterConfig as usize].insert(Arc::new(resource("f", &content)));
        let began = Instant::now();
        conversation.offer();
        conversation
            .sent
            .extend(std::iter::from_fn(|| conversation.stream.next()));
        let pushes = conversation.take_all();
        assert_eq!(pushes, 3, "the cluster, its endpoints, the table");
        began.elapsed()
    };
    (0..100).map(update).min().unwrap_or_default()
}

#[test]
fn an_update_costs_what_changes_and_not_what_there_is() {
    let (few, many) = (update_time(1_000), update_time(100_000));
    println!("an update of one cluster and the table: {few:?} with 1,000 clusters, {many:?} with 100,000");
    assert!(many < 10 * few, "{few:?}, {many:?}");
}
