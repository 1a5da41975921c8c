//! From a valid configuration to the bytes of a route table. Equal configurations have equal bytes.

use std::hash::BuildHasher as _;

use foldhash::fast::FixedState;
use hashbrown::HashTable;

use crate::layout::{
    CHECKED_FROM, EffectKind, HEADER_BYTES, MAGIC, ROW_BYTES, SECTIONS, Section, SourceKind, Subject, Test, VERSION,
    What, checksum,
};
use crate::matchers::{HostPattern, PathTest, ValueTest};
use crate::valid::{KeySource, Sticky, ValidRouting, ValidRule};

/// Compiles `routing` into a table for [`RouteTable::load`](crate::RouteTable::load).
pub fn compile(routing: &ValidRouting) -> Vec<u8> {
    let mut rules: Vec<&ValidRule> = routing.rules.iter().map(AsRef::as_ref).collect();
    // Stable: the rules of one key stay in their order.
    rules.sort_by(|one, other| one.route_key.as_str().cmp(other.route_key.as_str()));
    let mut writer = Writer::for_rules(rules.len());
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
    for rules in rules.chunk_by(|one, other| one.route_key == other.route_key) {
        let first_rule = writer.count(Section::Rules);
        let key = rules.first().map_or("", |rule| rule.route_key.as_str());
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
struct Writer {
    sections: [Vec<u8>; SECTIONS],
    rows: [u32; SECTIONS],
    /// The texts that are written, by hash. Only ever asked, never walked through.
    texts: HashTable<(u64, Text)>,
    /// A cluster's name, while it is made.
    cluster: String,
}

/// Where a text is.
#[derive(Clone, Copy)]
struct Text {
    start: u32,
    bytes: u32,
}

#[derive(Clone, Copy)]
enum Cell<'c> {
    Number(u32),
    Text(&'c [u8]),
}

impl<'c> Cell<'c> {
    fn text(text: &'c str) -> Self {
        Self::Text(text.as_bytes())
    }
}

impl Writer {
    /// With room for so many rules as people write them, so that little is moved while it grows.
    fn for_rules(rules: usize) -> Self {
        const TEXTS: usize = 3;
        const TEXT_BYTES: usize = 32;
        let mut writer = Self {
            texts: HashTable::with_capacity(TEXTS * rules),
            ..Self::default()
        };
        for (section, row) in writer.sections.iter_mut().zip(ROW_BYTES) {
            section.reserve(if row == 1 { TEXTS * TEXT_BYTES } else { row } * rules);
        }
        writer
    }

    fn rule(&mut self, rule: &ValidRule, routing: &ValidRouting) {
        self.rule_row(&rule.name);
        for weighted in &rule.targets {
            let mut cluster = std::mem::take(&mut self.cluster);
            cluster.clear();
            rule.write_cluster(&mut cluster, &weighted.target, routing);
            self.row(Section::Targets, [Cell::text(&cluster), Cell::Number(weighted.weight)]);
            self.cluster = cluster;
        }
        self.conditions(rule);
        self.effects(rule);
    }

    /// What is cheap to look at comes first.
    fn conditions(&mut self, rule: &ValidRule) {
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

    fn group<'t>(&mut self, subject: Subject, name: &str, alternatives: impl Iterator<Item = (Test, &'t str)>) {
        self.labelled_group(false, subject, name, alternatives);
    }

    fn labelled_group<'t>(
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
            self.row(
                Section::Conditions,
                [Cell::Number(what.pack()), Cell::text(name), Cell::text(value)],
            );
        }
    }

    fn effects(&mut self, rule: &ValidRule) {
        if let Some(time) = rule.expires_at {
            self.effect(EffectKind::Expires, Cell::text(""), Cell::Text(&time.to_le_bytes()));
        }
        if let Some(mirror) = &rule.mirror {
            let cluster = mirror.target.to_string();
            let share = mirror.per_million.to_le_bytes();
            self.effect(EffectKind::Mirror, Cell::text(&cluster), Cell::Text(&share));
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

    fn effect(&mut self, kind: EffectKind, name: Cell<'_>, value: Cell<'_>) {
        self.row(Section::Effects, [Cell::Number(kind as u32), name, value]);
    }

    fn rule_row(&mut self, name: &str) {
        let [targets, conditions, effects] =
            [Section::Targets, Section::Conditions, Section::Effects].map(|section| Cell::Number(self.count(section)));
        self.row(Section::Rules, [Cell::text(name), targets, conditions, effects]);
    }

    fn row<const N: usize>(&mut self, section: Section, cells: [Cell<'_>; N]) {
        let cells = cells.map(|cell| match cell {
            Cell::Number(number) => (number, None),
            Cell::Text(text) => {
                let Text { start, bytes } = self.text(text);
                (start, Some(bytes))
            }
        });
        let row = self.bytes(section);
        for (first, second) in cells {
            row.extend_from_slice(&first.to_le_bytes());
            if let Some(second) = second {
                row.extend_from_slice(&second.to_le_bytes());
            }
        }
        if let Some(rows) = self.rows.get_mut(section as usize) {
            *rows += 1;
        }
    }

    /// Where `text` is, which is written once however often it is used.
    fn text(&mut self, text: &[u8]) -> Text {
        let [.., written] = &mut self.sections;
        let hash = FixedState::default().hash_one(text);
        let at = |place: &Text| written.get(place.start as usize..(place.start + place.bytes) as usize);
        if let Some((_, place)) = self.texts.find(hash, |(_, place)| at(place) == Some(text)) {
            return *place;
        }
        let place = Text {
            start: length(written.len()),
            bytes: length(text.len()),
        };
        self.texts.insert_unique(hash, (hash, place), |(hash, _)| *hash);
        written.extend_from_slice(text);
        place
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
        let bytes: usize = self.sections.iter().map(Vec::len).sum();
        let mut table = Vec::with_capacity(HEADER_BYTES + bytes);
        table.extend_from_slice(&MAGIC);
        table.extend_from_slice(&VERSION.to_le_bytes());
        table.extend_from_slice(&[0; 8]);
        for section in &self.sections {
            table.extend_from_slice(&length(section.len()).to_le_bytes());
        }
        for section in &self.sections {
            table.extend_from_slice(section);
        }
        let checksum = checksum(table.get(CHECKED_FROM..).unwrap_or_default());
        if let Some(place) = table.get_mut(CHECKED_FROM - 8..CHECKED_FROM) {
            place.copy_from_slice(&checksum.to_le_bytes());
        }
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
