//! From a valid configuration to the bytes of a route table. Equal configurations have equal bytes.

use std::collections::BTreeMap;

use crate::layout::{
    CHECKED_FROM, HEADER_BYTES, MAGIC, SECTIONS, SOURCE_HEADER, Section, Subject, Test, VERSION, What, checksum,
};
use crate::validate::{ValidRouting, ValidRule};

/// Compiles `routing` into a table for [`RouteTable::load`](crate::RouteTable::load).
pub fn compile(routing: &ValidRouting) -> Vec<u8> {
    let mut keys: BTreeMap<&str, Vec<&ValidRule>> = BTreeMap::new();
    for rule in &routing.rules {
        keys.entry(rule.route_key.as_str()).or_default().push(rule);
    }
    let mut writer = Writer::default();
    writer.row(
        Section::Sources,
        &[
            Cell::Number(SOURCE_HEADER),
            Cell::Text(routing.route_key_header.as_str()),
        ],
    );
    let mut rules_before = 0;
    for (key, rules) in keys {
        writer.row(Section::Keys, &[Cell::Text(key), Cell::Number(rules_before)]);
        for rule in rules {
            writer.rule(rule);
            rules_before += 1;
        }
    }
    writer.row(Section::Keys, &[Cell::Text(""), Cell::Number(rules_before)]);
    writer.rule_row("", "");
    writer.finish()
}

/// The sections so far.
#[derive(Default)]
struct Writer<'c> {
    sections: [Vec<u8>; SECTIONS],
    rows: [u32; SECTIONS],
    texts: BTreeMap<&'c str, u32>,
    clusters: BTreeMap<String, u32>,
}

enum Cell<'c> {
    Number(u32),
    Text(&'c str),
}

impl<'c> Writer<'c> {
    fn rule(&mut self, rule: &'c ValidRule) {
        self.rule_row(&rule.name, &rule.target.to_string());
        for (index, prefix) in rule.path_prefixes.iter().enumerate() {
            let last = index + 1 == rule.path_prefixes.len();
            let what = What {
                subject: Subject::Path,
                test: Test::SegmentPrefix,
                last,
            };
            self.condition(what, "", prefix.as_str());
        }
        for (name, value) in &rule.header_matchers {
            let what = What {
                subject: Subject::Header,
                test: Test::Exact,
                last: true,
            };
            self.condition(what, name.as_str(), value.as_str());
        }
        for (name, value) in &rule.additional_headers {
            self.row(
                Section::Headers,
                &[Cell::Text(name.as_str()), Cell::Text(value.as_str())],
            );
        }
    }

    fn rule_row(&mut self, name: &'c str, cluster: &str) {
        let cluster_start = match self.clusters.get(cluster) {
            Some(start) => *start,
            None => {
                let start = self.append_text(cluster);
                self.clusters.insert(cluster.to_owned(), start);
                start
            }
        };
        let conditions = self.count(Section::Conditions);
        let headers = self.count(Section::Headers);
        self.row(
            Section::Rules,
            &[
                Cell::Text(name),
                Cell::Number(cluster_start),
                Cell::Number(length(cluster.len())),
                Cell::Number(conditions),
                Cell::Number(headers),
            ],
        );
    }

    fn condition(&mut self, what: What, name: &'c str, value: &'c str) {
        self.row(
            Section::Conditions,
            &[Cell::Number(what.pack()), Cell::Text(name), Cell::Text(value)],
        );
    }

    fn row(&mut self, section: Section, cells: &[Cell<'c>]) {
        let mut row = Vec::new();
        for cell in cells {
            match cell {
                Cell::Number(number) => row.extend_from_slice(&number.to_le_bytes()),
                Cell::Text(text) => {
                    row.extend_from_slice(&self.text(text).to_le_bytes());
                    row.extend_from_slice(&length(text.len()).to_le_bytes());
                }
            }
        }
        self.bytes(section).extend_from_slice(&row);
        if let Some(rows) = self.rows.get_mut(section as usize) {
            *rows += 1;
        }
    }

    /// The offset of `text`, which is written once however often it is used.
    fn text(&mut self, text: &'c str) -> u32 {
        match self.texts.get(text) {
            Some(start) => *start,
            None => {
                let start = self.append_text(text);
                self.texts.insert(text, start);
                start
            }
        }
    }

    fn append_text(&mut self, text: &str) -> u32 {
        let texts = self.bytes(Section::Texts);
        let start = length(texts.len());
        texts.extend_from_slice(text.as_bytes());
        start
    }

    fn count(&self, section: Section) -> u32 {
        self.rows.get(section as usize).copied().unwrap_or_default()
    }

    fn bytes(&mut self, section: Section) -> &mut Vec<u8> {
        let [sources, keys, rules, conditions, headers, texts] = &mut self.sections;
        match section {
            Section::Sources => sources,
            Section::Keys => keys,
            Section::Rules => rules,
            Section::Conditions => conditions,
            Section::Headers => headers,
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
        debug_assert!(table.len() >= HEADER_BYTES);
        table
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
    fn a_rule_with_key_prefix_and_header_takes_few_bytes() {
        let rules: Vec<_> = (0..1000)
            .map(|i| {
                json!({"routeKey": format!("key-{i:04}"), "targetService": "x", "name": format!("{i:04}"),
                    "pathPrefixes": ["/api/v1"], "additionalHeaders": {"X-Environment": "sandbox"}})
            })
            .collect();
        let strings = 8 + 4;
        let bytes_per_rule = table(json!(rules)).len() / 1000 - strings;
        assert!(bytes_per_rule <= 72, "{bytes_per_rule}");
    }
}
