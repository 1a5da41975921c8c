//! From a valid configuration to the bytes of a route table. Equal configurations have equal bytes.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::layout::{
    CHECKED_FROM, EffectKind, MAGIC, SECTIONS, Section, SourceKind, Subject, Test, VERSION, What, checksum,
};
use crate::matchers::{HostPattern, PathTest, ValueTest};
use crate::valid::{KeySource, Sticky, ValidRouting, ValidRule};

/// Compiles `routing` into a table for [`RouteTable::load`](crate::RouteTable::load).
pub fn compile(routing: &ValidRouting) -> Vec<u8> {
    let mut keys: BTreeMap<&str, Vec<&ValidRule>> = BTreeMap::new();
    for rule in &routing.rules {
        keys.entry(rule.route_key.as_str()).or_default().push(rule);
    }
    let mut writer = Writer::default();
    let propagated = routing.propagate_baggage.as_deref().unwrap_or_default();
    writer.row(
        Section::Settings,
        [
            Cell::text(routing.route_key_header.as_str()),
            Cell::text(propagated),
            Cell::Number(u32::from(routing.debug_header)),
        ],
    );
    for source in &routing.key_sources {
        let (kind, name) = match source {
            KeySource::Header(name) => (SourceKind::Header, name.as_str()),
            KeySource::Baggage(name) => (SourceKind::Baggage, name.as_str()),
            KeySource::Tracestate(name) => (SourceKind::Tracestate, name.as_str()),
            KeySource::Cookie(name) => (SourceKind::Cookie, name.as_str()),
            KeySource::Query(name) => (SourceKind::Query, name.as_str()),
            KeySource::Host(suffix) => (SourceKind::Host, suffix.as_str()),
        };
        writer.row(Section::Sources, [Cell::Number(kind as u32), Cell::text(name)]);
    }
    for (key, rules) in keys {
        let first_rule = writer.count(Section::Rules);
        writer.row(Section::Keys, [Cell::text(key), Cell::Number(first_rule)]);
        for rule in rules {
            writer.rule(rule, routing);
        }
    }
    let end = writer.count(Section::Rules);
    writer.row(Section::Keys, [Cell::text(""), Cell::Number(end)]);
    writer.rule_row("");
    writer.finish()
}

/// The sections so far.
#[derive(Default)]
struct Writer<'c> {
    sections: [Vec<u8>; SECTIONS],
    rows: [u32; SECTIONS],
    texts: BTreeMap<Cow<'c, [u8]>, u32>,
}

enum Cell<'c> {
    Number(u32),
    Text(Cow<'c, [u8]>),
}

impl<'c> Cell<'c> {
    fn text(text: &'c str) -> Self {
        Self::Text(Cow::Borrowed(text.as_bytes()))
    }

    fn owned(bytes: impl Into<Vec<u8>>) -> Self {
        Self::Text(Cow::Owned(bytes.into()))
    }
}

impl<'c> Writer<'c> {
    fn rule(&mut self, rule: &'c ValidRule, routing: &ValidRouting) {
        self.rule_row(&rule.name);
        for weighted in &rule.targets {
            let cluster = rule.cluster(&weighted.target, routing);
            self.row(Section::Targets, [Cell::owned(cluster), Cell::Number(weighted.weight)]);
        }
        self.conditions(rule);
        self.effects(rule);
    }

    /// What is cheap to look at comes first.
    fn conditions(&mut self, rule: &'c ValidRule) {
        // Without a name of its own a rule's requests are called by what their path matched.
        self.labelled_group(
            !rule.is_named,
            Subject::Path,
            "",
            rule.paths.iter().map(|path| match path {
                PathTest::Exact(path) => (Test::Exact, path.as_str()),
                PathTest::Prefix(prefix) => (Test::SegmentPrefix, prefix.as_str()),
                PathTest::Regex(pattern) => (Test::Regex, pattern.as_str()),
            }),
        );
        self.group(
            Subject::Method,
            "",
            rule.methods.iter().map(|method| (Test::Exact, method.as_str())),
        );
        self.group(
            Subject::Host,
            "",
            rule.hosts.iter().map(|host| match host {
                HostPattern::Exact(host) => (Test::Exact, host.as_str()),
                HostPattern::OneLabelBefore(suffix) => (Test::OneLabelBefore, suffix.as_str()),
            }),
        );
        for (name, test) in &rule.query_matchers {
            self.group(Subject::Query, name, alternatives(test));
        }
        for (name, test) in &rule.header_matchers {
            self.group(Subject::Header, name.as_str(), alternatives(test));
        }
    }

    fn group(&mut self, subject: Subject, name: &'c str, alternatives: impl Iterator<Item = (Test, &'c str)>) {
        self.labelled_group(false, subject, name, alternatives);
    }

    fn labelled_group(
        &mut self,
        labels: bool,
        subject: Subject,
        name: &'c str,
        alternatives: impl Iterator<Item = (Test, &'c str)>,
    ) {
        let mut alternatives = alternatives.peekable();
        while let Some((test, value)) = alternatives.next() {
            let what = What {
                subject,
                test,
                last: alternatives.peek().is_none(),
                labels,
            };
            self.row(
                Section::Conditions,
                [Cell::Number(what.pack()), Cell::text(name), Cell::text(value)],
            );
        }
    }

    fn effects(&mut self, rule: &'c ValidRule) {
        if let Some(time) = rule.expires_at {
            self.effect(EffectKind::Expires, Cell::text(""), Cell::owned(time.to_le_bytes()));
        }
        if let Some(mirror) = &rule.mirror {
            let cluster = Cell::owned(mirror.target.to_string());
            self.effect(
                EffectKind::Mirror,
                cluster,
                Cell::owned(mirror.per_million.to_le_bytes()),
            );
        }
        match &rule.sticky_by {
            Some(Sticky::Header(name)) => {
                self.effect(EffectKind::StickyHeader, Cell::text(name.as_str()), Cell::text(""));
            }
            Some(Sticky::Cookie(name)) => self.effect(EffectKind::StickyCookie, Cell::text(name), Cell::text("")),
            Some(Sticky::RouteKey) => self.effect(EffectKind::StickyKey, Cell::text(""), Cell::text("")),
            None => {}
        }
        for name in &rule.remove_headers {
            self.effect(EffectKind::Remove, Cell::text(name.as_str()), Cell::text(""));
        }
        for (name, value) in &rule.additional_headers {
            self.effect(EffectKind::Set, Cell::text(name.as_str()), Cell::text(value.as_str()));
        }
    }

    fn effect(&mut self, kind: EffectKind, name: Cell<'c>, value: Cell<'c>) {
        self.row(Section::Effects, [Cell::Number(kind as u32), name, value]);
    }

    fn rule_row(&mut self, name: &'c str) {
        let [targets, conditions, effects] =
            [Section::Targets, Section::Conditions, Section::Effects].map(|section| Cell::Number(self.count(section)));
        self.row(Section::Rules, [Cell::text(name), targets, conditions, effects]);
    }

    fn row<const N: usize>(&mut self, section: Section, cells: [Cell<'c>; N]) {
        let mut row = Vec::new();
        for cell in cells {
            match cell {
                Cell::Number(number) => row.extend_from_slice(&number.to_le_bytes()),
                Cell::Text(text) => {
                    let bytes = length(text.len());
                    row.extend_from_slice(&self.text(text).to_le_bytes());
                    row.extend_from_slice(&bytes.to_le_bytes());
                }
            }
        }
        self.bytes(section).extend_from_slice(&row);
        if let Some(rows) = self.rows.get_mut(section as usize) {
            *rows += 1;
        }
    }

    /// The offset of `text`, which is written once however often it is used.
    fn text(&mut self, text: Cow<'c, [u8]>) -> u32 {
        if let Some(start) = self.texts.get(&text) {
            return *start;
        }
        let texts = self.bytes(Section::Texts);
        let start = length(texts.len());
        texts.extend_from_slice(&text);
        self.texts.insert(text, start);
        start
    }

    fn count(&self, section: Section) -> u32 {
        self.rows.get(section as usize).copied().unwrap_or_default()
    }

    fn bytes(&mut self, section: Section) -> &mut Vec<u8> {
        let [settings, sources, keys, rules, targets, conditions, effects, texts] = &mut self.sections;
        match section {
            Section::Settings => settings,
            Section::Sources => sources,
            Section::Keys => keys,
            Section::Rules => rules,
            Section::Targets => targets,
            Section::Conditions => conditions,
            Section::Effects => effects,
            Section::Texts => texts,
        }
    }

    fn finish(self) -> Vec<u8> {
        let lengths = self
            .sections
            .iter()
            .flat_map(|section| length(section.len()).to_le_bytes());
        let checked: Vec<u8> = lengths.chain(self.sections.iter().flatten().copied()).collect();
        let mut table = Vec::with_capacity(CHECKED_FROM + checked.len());
        table.extend_from_slice(&MAGIC);
        table.extend_from_slice(&VERSION.to_le_bytes());
        table.extend_from_slice(&checksum(&checked).to_le_bytes());
        table.extend_from_slice(&checked);
        table
    }
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

/// Lengths and offsets are 32 bits wide. A configuration is limited to far less than 4 GiB before it gets here.
fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
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
    fn a_rule_of_key_and_prefix_takes_64_bytes_and_its_texts() {
        let rules: Vec<_> = (0..1000)
            .map(|i| {
                json!({"routeKey": format!("key-{i:04}"), "targetService": "x", "name": format!("{i:04}"),
                    "pathPrefixes": ["/api/v1"]})
            })
            .collect();
        let texts = "key-0000".len() + "0000".len();
        let bytes_per_rule = table(json!(rules)).len() / 1000 - texts;
        assert!(bytes_per_rule <= 64, "{bytes_per_rule}");
    }
}
