//! The bytes of a table, by numbers.

use super::{Compiled, Parts, rows_of};
use crate::layout::{
    CHECKED_FROM, HEADER_BYTES, KEY_ROW, LAST, MAGIC, NONE, ROW_BYTES, RULE_ROW, SECTIONS, Section, SourceKind,
    VERSION, checksum,
};

/// The sections so far. Texts and blocks are written when a rule first needs them, so that the order of numbers makes no
/// difference.
pub(super) struct Writer<'p> {
    parts: &'p Parts,
    sections: [Vec<u8>; SECTIONS],
    /// Where each text is; those that aren't written have [`NONE`].
    texts: Vec<u32>,
    /// The first row of each block; those that aren't written have [`NONE`].
    blocks: Vec<u32>,
}

/// Where a text is.
#[derive(Clone, Copy, Default)]
struct Text {
    start: u32,
    bytes: u32,
}

impl<'p> Writer<'p> {
    pub(super) fn new(parts: &'p Parts, rules: usize) -> Self {
        const NAME_BYTES: usize = 40;
        let mut writer = Self {
            parts,
            sections: Default::default(),
            texts: vec![NONE; parts.texts.end()],
            blocks: vec![NONE; parts.blocks.end()],
        };
        writer.bytes(Section::Keys).reserve(KEY_ROW * (rules + 1));
        writer.bytes(Section::Rules).reserve(RULE_ROW * rules);
        writer.bytes(Section::Texts).reserve(NAME_BYTES * rules);
        writer
    }

    pub(super) fn settings(&mut self, route_key_header: &str, propagated: &str, debug: bool) {
        let (header, propagated) = (self.new_text(route_key_header), self.new_text(propagated));
        let debug = u32::from(debug);
        self.row(
            Section::Settings,
            [header.start, header.bytes, propagated.start, propagated.bytes, debug],
        );
    }

    pub(super) fn source(&mut self, kind: SourceKind, name: &str) {
        let name = self.new_text(name);
        self.row(Section::Sources, [kind as u32, name.start, name.bytes]);
    }

    /// The rules of a key, in their order.
    pub(super) fn key(&mut self, rules: &[Compiled]) {
        let first_rule = length(self.bytes(Section::Rules).len() / RULE_ROW);
        let mut key = Text::default();
        for rule in rules {
            // The key is a part of a derived name.
            if rule.name == NONE || key.bytes == 0 {
                let text = self.new_text(&rule.text);
                if key.bytes == 0 {
                    key = Text {
                        bytes: length(rule.key_bytes),
                        ..text
                    };
                }
                if rule.name == NONE {
                    self.rule(text, rule);
                    continue;
                }
            }
            let name = self.text(rule.name);
            self.rule(name, rule);
        }
        self.row(Section::Keys, [key.start, key.bytes, first_rule]);
    }

    fn rule(&mut self, name: Text, rule: &Compiled) {
        let [targets, conditions, effects] =
            [rule.targets, rule.conditions, rule.effects].map(|block| self.block(block));
        self.row(Section::Rules, [name.start, name.bytes, targets, conditions, effects]);
    }

    /// The first row of a block.
    fn block(&mut self, number: u32) -> u32 {
        match self.blocks.get(number as usize) {
            // `NONE` is beyond all numbers.
            None => return NONE,
            Some(first) if *first != NONE => return *first,
            Some(_) => {}
        }
        let parts = self.parts;
        let (Some(section), rows) = rows_of(parts.blocks.get(number)) else {
            return NONE;
        };
        let row_bytes = ROW_BYTES.get(section as usize).copied().unwrap_or(1);
        let first = length(self.bytes(section).len() / row_bytes);
        let last = rows.clone().count() - 1;
        for (index, row) in rows.enumerate() {
            let ends = if index == last { LAST } else { 0 };
            match *row {
                [cluster, weight] => {
                    let cluster = self.text(cluster);
                    self.row(section, [cluster.start, cluster.bytes | ends, weight]);
                }
                [what, name, value] => {
                    let (name, value) = (self.text(name), self.text(value));
                    self.row(section, [what, name.start, name.bytes | ends, value.start, value.bytes]);
                }
                _ => {}
            }
        }
        if let Some(place) = self.blocks.get_mut(number as usize) {
            *place = first;
        }
        first
    }

    /// A text that is written once however often it is used.
    fn text(&mut self, number: u32) -> Text {
        let parts = self.parts;
        let text = parts.texts.get(number);
        let bytes = length(text.len());
        match self.texts.get(number as usize) {
            // `NONE` is beyond all numbers.
            None => Text::default(),
            Some(&start) if start != NONE => Text { start, bytes },
            Some(_) => {
                let start = self.append(text);
                if let Some(place) = self.texts.get_mut(number as usize) {
                    *place = start;
                }
                Text { start, bytes }
            }
        }
    }

    fn new_text(&mut self, text: &str) -> Text {
        Text {
            start: self.append(text.as_bytes()),
            bytes: length(text.len()),
        }
    }

    fn append(&mut self, text: &[u8]) -> u32 {
        let texts = self.bytes(Section::Texts);
        let start = length(texts.len());
        texts.extend_from_slice(text);
        start
    }

    fn row<const N: usize>(&mut self, section: Section, words: [u32; N]) {
        let words = words.map(u32::to_le_bytes);
        self.bytes(section).extend_from_slice(words.as_flattened());
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

    pub(super) fn finish(mut self) -> Vec<u8> {
        let end = length(self.bytes(Section::Rules).len() / RULE_ROW);
        self.row(Section::Keys, [0, 0, end]);
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

/// Lengths and offsets are 32 bits wide. A configuration is limited to far less than 4 GiB before it gets here.
fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}
