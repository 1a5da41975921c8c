//! From a valid configuration to the bytes of a route table. Equal configurations have equal bytes.
//!
//! ```text
//! rules ─ take (once for each) ─► numbers of texts and blocks ─ write (all of them) ─► bytes
//! ```
//!
//! What a rule says is looked at once. After a change only the rules of the keys that changed are looked at again; then the
//! whole is written by numbers, at some nanoseconds for each rule.

mod intern;
mod write;

use std::collections::BTreeMap;

use self::intern::Interner;
use self::write::Writer;
use crate::layout::{EffectKind, NONE, Section, SourceKind, Subject, Test, What};
use crate::matchers::{HostPattern, PathTest, ValueTest};
use crate::valid::{KeySource, Sticky, ValidRouting, ValidRule};

/// Compiles `routing` into a table for [`RouteTable::load`](crate::RouteTable::load).
pub fn compile(routing: &ValidRouting) -> Vec<u8> {
    Compiler::new(routing).table(routing)
}

/// What was compiled, ready to follow changes of rules.
#[derive(Clone, Debug)]
pub struct Compiler {
    /// Sorted by key; the rules of a key in their order.
    rules: Vec<Compiled>,
    parts: Parts,
}

/// A rule, by numbers.
#[derive(Clone, Debug)]
struct Compiled {
    /// The key, and after it what else is in the rule's derived name.
    text: Box<str>,
    key_bytes: usize,
    /// The text of a name that isn't derived; otherwise [`NONE`].
    name: u32,
    targets: u32,
    conditions: u32,
    effects: u32,
}

/// What rules share.
#[derive(Clone, Debug)]
struct Parts {
    texts: Interner<u8>,
    /// Rows that belong together: the section, and then of each row its numbers, and those of its texts.
    blocks: Interner<u32>,
    /// A block, while it is made.
    block: Vec<u32>,
    /// A cluster's name, while it is made.
    cluster: String,
}

impl Compiler {
    /// Takes all rules of `routing`.
    pub fn new(routing: &ValidRouting) -> Self {
        let mut rules: Vec<&ValidRule> = routing.rules.iter().map(AsRef::as_ref).collect();
        // Stable: the rules of one key stay in their order.
        rules.sort_by(|one, other| one.route_key.as_str().cmp(other.route_key.as_str()));
        let mut parts = Parts {
            texts: Interner::new(),
            blocks: Interner::new(),
            block: Vec::new(),
            cluster: String::new(),
        };
        let rules = rules.into_iter().map(|rule| parts.take(rule, routing)).collect();
        Self { rules, parts }
    }

    /// Follows to `routing`, which differs from what was taken in the rules of these `keys` alone.
    pub fn update<'k>(&mut self, routing: &ValidRouting, keys: impl IntoIterator<Item = &'k str>) {
        let mut changed: BTreeMap<&str, Vec<&ValidRule>> = keys.into_iter().map(|key| (key, Vec::new())).collect();
        for rule in &routing.rules {
            if let Some(rules) = changed.get_mut(rule.route_key.as_str()) {
                rules.push(rule);
            }
        }
        let mut rules = Vec::with_capacity(self.rules.len() + changed.len());
        let mut old = std::mem::take(&mut self.rules).into_iter();
        for (key, new) in changed {
            let before = old.as_slice().partition_point(|rule| rule.key() < key);
            rules.extend(old.by_ref().take(before));
            let gone = old.as_slice().partition_point(|rule| rule.key() == key);
            // First what is new: what is in both stays.
            rules.extend(new.into_iter().map(|rule| self.parts.take(rule, routing)));
            for rule in old.by_ref().take(gone) {
                self.parts.release(&rule);
            }
        }
        rules.extend(old);
        self.rules = rules;
    }

    /// The bytes of the table, with the settings of `routing`.
    pub fn table(&self, routing: &ValidRouting) -> Vec<u8> {
        let mut writer = Writer::new(&self.parts, self.rules.len());
        let propagated = routing.propagate_baggage.as_deref().unwrap_or_default();
        writer.settings(routing.route_key_header.as_str(), propagated, routing.debug_header);
        for source in &routing.key_sources {
            let (kind, name) = match source {
                KeySource::Header(name) => (SourceKind::Header, name.as_str()),
                KeySource::Baggage(name) => (SourceKind::Baggage, name.as_str()),
                KeySource::Tracestate(name) => (SourceKind::Tracestate, name.as_str()),
                KeySource::Cookie(name) => (SourceKind::Cookie, name.as_str()),
                KeySource::Query(name) => (SourceKind::Query, name.as_str()),
                KeySource::Host(suffix) => (SourceKind::Host, suffix.as_str()),
            };
            writer.source(kind, name);
        }
        for rules in self.rules.chunk_by(|one, other| one.key() == other.key()) {
            writer.key(rules);
        }
        writer.finish()
    }
}

impl Compiled {
    fn key(&self) -> &str {
        self.text.get(..self.key_bytes).unwrap_or_default()
    }
}

impl Parts {
    fn take(&mut self, rule: &ValidRule, routing: &ValidRouting) -> Compiled {
        let key = rule.route_key.as_str();
        // A derived name begins with the key.
        let (text, name) = match rule.is_named {
            true => (key, self.text(rule.name.as_bytes())),
            false => (rule.name.as_str(), NONE),
        };
        Compiled {
            text: text.into(),
            key_bytes: key.len(),
            name,
            targets: self.targets(rule, routing),
            conditions: self.conditions(rule),
            effects: self.effects(rule),
        }
    }

    fn release(&mut self, rule: &Compiled) {
        self.texts.leave(rule.name);
        for block in [rule.targets, rule.conditions, rule.effects] {
            self.leave(block);
        }
    }

    fn targets(&mut self, rule: &ValidRule, routing: &ValidRouting) -> u32 {
        self.begin(Section::Targets);
        for weighted in &rule.targets {
            let mut cluster = std::mem::take(&mut self.cluster);
            cluster.clear();
            rule.write_cluster(&mut cluster, &weighted.target, routing);
            let text = self.text(cluster.as_bytes());
            self.block.extend([text, weighted.weight]);
            self.cluster = cluster;
        }
        self.end()
    }

    /// What is cheap to look at comes first.
    fn conditions(&mut self, rule: &ValidRule) -> u32 {
        self.begin(Section::Conditions);
        // Without a name of its own a rule's requests are called by what their path matched.
        let labels = !rule.is_named;
        let paths = rule.paths.iter().map(|path| match path {
            PathTest::Exact(path) => (Test::Exact, path.as_str()),
            PathTest::Prefix(prefix) => (Test::SegmentPrefix, prefix.as_str()),
            PathTest::Regex(pattern) => (Test::Regex, pattern.as_str()),
        });
        self.group(labels, Subject::Path, "", paths);
        let methods = rule.methods.iter().map(|method| (Test::Exact, method.as_str()));
        self.group(false, Subject::Method, "", methods);
        let hosts = rule.hosts.iter().map(|host| match host {
            HostPattern::Exact(host) => (Test::Exact, host.as_str()),
            HostPattern::OneLabelBefore(suffix) => (Test::OneLabelBefore, suffix.as_str()),
        });
        self.group(false, Subject::Host, "", hosts);
        for (name, test) in &rule.query_matchers {
            self.group(false, Subject::Query, name, alternatives(test));
        }
        for (name, test) in &rule.header_matchers {
            self.group(false, Subject::Header, name.as_str(), alternatives(test));
        }
        self.end()
    }

    /// Conditions of which one must hold.
    fn group<'t>(
        &mut self,
        labels: bool,
        subject: Subject,
        name: &str,
        alternatives: impl Iterator<Item = (Test, &'t str)>,
    ) {
        let mut alternatives = alternatives.peekable();
        while let Some((test, value)) = alternatives.next() {
            let what = What {
                subject,
                test,
                last: alternatives.peek().is_none(),
                labels,
            };
            let (name, value) = (self.text(name.as_bytes()), self.text(value.as_bytes()));
            self.block.extend([what.pack(), name, value]);
        }
    }

    fn effects(&mut self, rule: &ValidRule) -> u32 {
        self.begin(Section::Effects);
        let mut effect = |kind: EffectKind, name: &str, value: &[u8]| {
            let (name, value) = (self.text(name.as_bytes()), self.text(value));
            self.block.extend([kind as u32, name, value]);
        };
        if let Some(time) = rule.expires_at {
            effect(EffectKind::Expires, "", &time.to_le_bytes());
        }
        if let Some(mirror) = &rule.mirror {
            let cluster = mirror.target.to_string();
            effect(EffectKind::Mirror, &cluster, &mirror.per_million.to_le_bytes());
        }
        match &rule.sticky_by {
            Some(Sticky::Header(name)) => effect(EffectKind::StickyHeader, name.as_str(), b""),
            Some(Sticky::Cookie(name)) => effect(EffectKind::StickyCookie, name, b""),
            Some(Sticky::RouteKey) => effect(EffectKind::StickyKey, "", b""),
            None => {}
        }
        for name in &rule.remove_headers {
            effect(EffectKind::Remove, name.as_str(), b"");
        }
        for (name, value) in &rule.additional_headers {
            effect(EffectKind::Set, name.as_str(), value.as_str().as_bytes());
        }
        self.end()
    }

    fn begin(&mut self, section: Section) {
        self.block.clear();
        self.block.push(section as u32);
    }

    /// The number of the block that was made; [`NONE`] if it has no rows.
    fn end(&mut self) -> u32 {
        if self.block.len() == 1 {
            return NONE;
        }
        let (number, is_first) = self.blocks.enter(&self.block);
        if !is_first {
            // The one before has these texts already.
            for text in texts_of(&self.block) {
                self.texts.leave(text);
            }
        }
        number
    }

    fn leave(&mut self, block: u32) {
        if let Some(block) = self.blocks.leave(block) {
            for text in texts_of(&block) {
                self.texts.leave(text);
            }
        }
    }

    /// The number of `text`; [`NONE`] if it is empty.
    fn text(&mut self, text: &[u8]) -> u32 {
        match text {
            [] => NONE,
            text => self.texts.enter(text).0,
        }
    }
}

/// The numbers of a block's rows.
fn rows_of(block: &[u32]) -> (Option<Section>, impl Iterator<Item = &[u32]> + Clone) {
    let (section, numbers) = block.split_first().unwrap_or((&NONE, &[]));
    let targets = *section == Section::Targets as u32;
    let section = [Section::Targets, Section::Conditions, Section::Effects]
        .into_iter()
        .find(|known| *known as u32 == *section);
    (section, numbers.chunks_exact(if targets { 2 } else { 3 }))
}

/// The numbers of its texts.
fn texts_of(block: &[u32]) -> impl Iterator<Item = u32> {
    let (section, rows) = rows_of(block);
    rows.flat_map(move |row| match (section, row) {
        (Some(Section::Targets), [cluster, _weight]) => [*cluster, NONE],
        (_, [_, name, value]) => [*name, *value],
        _ => [NONE; 2],
    })
}

fn alternatives(test: &ValueTest) -> Box<dyn Iterator<Item = (Test, &str)> + '_> {
    let one = |test, value| Box::new(std::iter::once((test, value)));
    match test {
        ValueTest::OneOf(values) => Box::new(values.iter().map(|value| (Test::Exact, value.as_str()))),
        ValueTest::Prefix(value) => one(Test::Prefix, value.as_str()),
        ValueTest::Suffix(value) => one(Test::Suffix, value.as_str()),
        ValueTest::Contains(value) => one(Test::Contains, value.as_str()),
        ValueTest::Regex(pattern) => one(Test::Regex, pattern.as_str()),
        ValueTest::Present => one(Test::Present, ""),
        ValueTest::Absent => one(Test::Absent, ""),
    }
}

#[cfg(test)]
mod tests {
    impl Parts {
        /// How many texts and blocks are kept.
        fn kept(&self) -> (usize, usize) {
            (self.texts.len(), self.blocks.len())
        }
    }

    use serde_json::json;

    use super::*;
    use crate::layout::{CONDITION_ROW, EFFECT_ROW, KEY_ROW, RULE_ROW, TARGET_ROW};
    use crate::{decode, validate_routing};

    fn table(rules: serde_json::Value) -> Vec<u8> {
        compile(&decode(&json!({"defaultTarget": "d", "rules": rules}), validate_routing).unwrap())
    }

    #[test]
    fn the_order_of_keys_makes_no_difference() {
        let a = json!({"routeKey": "a", "targetService": "x", "pathPrefixes": ["/1", "/2"]});
        let b = json!({"routeKey": "b", "targetService": "y", "additionalHeaders": {"A": "1"}});
        assert_eq!(table(json!([a, b])), table(json!([b, a])));
    }

    #[test]
    fn what_follows_changes_is_what_is_compiled_anew() {
        let named = |key: &str, name: &str, path: &str| json!({"routeKey": key, "targetService": "n", "name": name, "pathPrefixes": [path]});
        let plain = |key: &str, target: &str| json!({"routeKey": key, "targetService": target});
        let more = json!({"routeKey": "c", "targetService": "x", "expiresAt": "2026-12-01T00:00:00Z", "stickyBy": {"header": "U"},
            "additionalHeaders": {"A": "1"}, "headerMatchers": {"H": {"prefix": "1"}}, "methods": ["GET", "PUT"], "mirror": {"service": "m"}});
        let states = [
            vec![plain("b", "x"), plain("a", "x"), plain("c", "y")],
            vec![plain("b", "x"), plain("c", "y")],
            vec![plain("b", "x"), more.clone(), plain("d", "x")],
            vec![more.clone(), named("c", "both", "/1"), named("d", "both", "/2")],
            vec![named("d", "both", "/1"), plain("d", "x"), more],
            vec![],
            vec![plain("a", "x"), plain("ab", "x"), plain("a", "y")],
            vec![plain("ab", "z"), plain("a", "y"), plain("a", "x")],
        ];
        let routing = |rules: &Vec<_>| {
            decode(
                &json!({"defaultTarget": "d", "debugHeader": true, "rules": rules}),
                validate_routing,
            )
            .unwrap()
        };
        for old in &states {
            for new in &states {
                let (old, new) = (routing(old), routing(new));
                let mut compiler = Compiler::new(&old);
                let keys = old.rules.iter().chain(&new.rules).map(|rule| rule.route_key.as_str());
                compiler.update(&new, keys);
                assert_eq!(compiler.table(&new), compile(&new));
                // Nothing is left behind.
                assert_eq!(compiler.parts.kept(), Compiler::new(&new).parts.kept());
            }
        }
    }

    #[test]
    fn what_a_rule_adds_to_a_large_table() {
        // Each value differs from rule to rule, or doesn't.
        let rule = |i: usize, own: bool| {
            let own = if own { format!("{i:04}") } else { "all".to_owned() };
            json!({"routeKey": format!("key-{i:04}"), "targetService": format!("to-{own}"),
                "pathPrefixes": [format!("/api/{own}")], "additionalHeaders": {"X-Own": own}})
        };
        let bytes_per_rule = |own| {
            let rules: Vec<_> = (0..1000).map(|i| rule(i, own)).collect();
            table(json!(rules)).len() / 1000
        };
        // The key is a part of the derived name.
        let name = "key-0000@to-all:80".len();
        assert_eq!(bytes_per_rule(false), KEY_ROW + RULE_ROW + name);
        let name = "key-0000@to-0000:80".len();
        let texts = name + "to-0000:80|baseline".len() + "/api/0000".len() + "0000".len();
        let rows = KEY_ROW + RULE_ROW + TARGET_ROW + CONDITION_ROW + EFFECT_ROW;
        assert_eq!(bytes_per_rule(true), rows + texts);
    }

    #[test]
    fn a_rule_of_key_and_prefix_takes_64_bytes_and_its_texts() {
        let rules: Vec<_> = (0..1000)
            .map(|i| {
                json!({"routeKey": format!("key-{i:04}"), "targetService": "x", "name": format!("{i:04}"),
                    "pathPrefixes": [format!("/api/{i:04}")]})
            })
            .collect();
        let texts = "key-0000".len() + "0000".len() + "/api/0000".len();
        let bytes_per_rule = table(json!(rules)).len() / 1000 - texts;
        assert!(bytes_per_rule <= 64, "{bytes_per_rule}");
    }
}
