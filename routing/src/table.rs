//! A compiled route table, read in place.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;
use thiserror::Error;

use crate::compile::compile;
use crate::decode::decode;
use crate::layout::{
    CHECKED_FROM, CONDITION_ROW, EFFECT_ROW, EffectKind, HEADER_BYTES, KEY_ROW, LAST, MAGIC, NONE, ROW_BYTES, RULE_ROW,
    SECTIONS, SETTINGS_ROW, SOURCE_ROW, Section, SourceKind, Subject, TARGET_ROW, Test, VERSION, What, checksum,
    length_of_first_text,
};
use crate::matchers::Pattern;
use crate::problem::Problem;
use crate::validate::validate_routing;

/// The rules of all keys, ready to decide with. Loading checks the bytes once; nothing is parsed or copied after that.
#[derive(Clone, PartialEq, Eq)]
pub struct RouteTable {
    bytes: Vec<u8>,
    /// Where each section begins, and where the last one ends.
    starts: [usize; SECTIONS + 1],
    /// How many bytes all keys begin with.
    common: usize,
    /// The regular expressions by the offset of their text, sorted.
    patterns: Vec<(u32, Pattern)>,
}

/// A rule in a table.
#[derive(Clone, Copy)]
pub struct Rule<'t> {
    table: &'t RouteTable,
    row: &'t [u8; RULE_ROW],
    label: Option<&'t str>,
}

/// A place where a key may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source<'t> {
    /// What kind of place.
    pub kind: SourceKind,
    /// The name there; of a host, what follows the key.
    pub name: &'t str,
}

/// A condition of a rule.
#[derive(Clone, Copy, Debug)]
pub struct Condition<'t> {
    /// What it looks at.
    pub subject: Subject,
    /// The header or query parameter, where that is the subject.
    pub name: &'t str,
    /// How it compares.
    pub test: Test,
    /// What it compares with.
    pub value: &'t [u8],
    /// The compiled value, where that is a regular expression.
    pub(crate) pattern: Option<&'t Pattern>,
    /// Whether it is the last of its alternatives.
    pub(crate) last: bool,
    /// Whether its value is what metrics call the requests for which it held.
    pub(crate) labels: bool,
}

/// What a rule does beside naming targets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effect<'t> {
    pub(crate) kind: EffectKind,
    pub(crate) name: &'t str,
    pub(crate) value: &'t [u8],
}

/// Why bytes are no route table.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum InvalidTable {
    /// They are neither JSON nor a table.
    #[error("the plugin configuration is neither routing JSON nor a route table: {0}")]
    Form(String),
    /// The table has this layout version.
    #[error("the route table has layout version {0}, this filter wants version {VERSION}: use an agent of its release")]
    Version(u32),
    /// The table was cut off or changed on its way.
    #[error("the route table is damaged: {0}")]
    Damaged(&'static str),
    /// The JSON has these problems, at least one.
    #[error("the routing configuration has problems: {}", Listed(.0))]
    Problems(Vec<Problem>),
}

struct Listed<'p>(&'p [Problem]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            write!(f, "{}{problem}", if index == 0 { "" } else { "; " })?;
        }
        Ok(())
    }
}

impl RouteTable {
    /// Reads the filter's plugin configuration: a compiled table, or the JSON form of `routing`.
    ///
    /// # Errors
    ///
    /// See [`InvalidTable`].
    pub fn from_configuration(bytes: Vec<u8>) -> Result<Self, InvalidTable> {
        if bytes.starts_with(&MAGIC) {
            return Self::load(bytes);
        }
        let value: Value = serde_json::from_slice(&bytes).map_err(|error| InvalidTable::Form(error.to_string()))?;
        let routing = decode(&value, validate_routing).map_err(InvalidTable::Problems)?;
        Self::load(compile(&routing))
    }

    /// Takes over the bytes of a compiled table after checking all of them.
    ///
    /// # Errors
    ///
    /// A table of another version, or one that is damaged.
    pub fn load(bytes: Vec<u8>) -> Result<Self, InvalidTable> {
        if !bytes.starts_with(&MAGIC) {
            return Err(InvalidTable::Form("it has another beginning".to_owned()));
        }
        let version = bytes
            .get(8..12)
            .map(|word| number(word, 0))
            .ok_or(InvalidTable::Damaged("it is cut off"))?;
        if version != VERSION {
            return Err(InvalidTable::Version(version));
        }
        let (Some(sum), Some(checked)) = (bytes.get(12..CHECKED_FROM), bytes.get(CHECKED_FROM..)) else {
            return Err(InvalidTable::Damaged("it is cut off"));
        };
        if checksum(checked).to_le_bytes() != *sum {
            return Err(InvalidTable::Damaged("its checksum is wrong"));
        }
        let mut starts = [HEADER_BYTES; SECTIONS + 1];
        let mut end = HEADER_BYTES;
        for (section, start) in starts.iter_mut().enumerate().skip(1) {
            let length = checked
                .get(4 * (section - 1)..4 * section)
                .map(|word| number(word, 0) as usize);
            end = length
                .and_then(|l| end.checked_add(l))
                .ok_or(InvalidTable::Damaged("it is cut off"))?;
            *start = end;
        }
        if end != bytes.len() {
            return Err(InvalidTable::Damaged("its length is wrong"));
        }
        let mut table = Self {
            bytes,
            starts,
            common: 0,
            patterns: Vec::new(),
        };
        table.verify().map_err(InvalidTable::Damaged)?;
        table.common = table.common_beginning();
        table.patterns = table.compiled_patterns().map_err(InvalidTable::Damaged)?;
        Ok(table)
    }

    /// How many rules there are.
    pub fn rules(&self) -> usize {
        self.rows::<RULE_ROW>(Section::Rules).len()
    }

    /// How many route keys there are.
    pub fn keys(&self) -> usize {
        self.rows::<KEY_ROW>(Section::Keys).len().saturating_sub(1)
    }

    /// The header in which a target gets the key.
    pub fn route_key_header(&self) -> &str {
        self.rows::<SETTINGS_ROW>(Section::Settings)
            .first()
            .map_or("", |row| self.name(row, 0))
    }

    /// Whether that is it.
    pub(crate) fn is_route_key_header(&self, name: &str) -> bool {
        let settings = self.rows::<SETTINGS_ROW>(Section::Settings).first();
        settings.is_some_and(|row| self.text(row, 0) == name.as_bytes())
    }

    /// The baggage member in which the key is handed on, too.
    pub fn propagated_baggage(&self) -> Option<&str> {
        let row = self.rows::<SETTINGS_ROW>(Section::Settings).first()?;
        Some(self.name(row, 8)).filter(|name| !name.is_empty())
    }

    /// Whether a request may ask for its decision.
    pub fn debug_header(&self) -> bool {
        self.rows::<SETTINGS_ROW>(Section::Settings)
            .first()
            .is_some_and(|row| number(row, 16) == 1)
    }

    /// Where the key is looked for, in this order.
    pub(crate) fn sources(&self) -> impl Iterator<Item = Source<'_>> {
        let rows = self.rows::<SOURCE_ROW>(Section::Sources).iter();
        rows.filter_map(|row| {
            Some(Source {
                kind: SourceKind::from_number(number(row, 0))?,
                name: self.name(row, 4),
            })
        })
    }

    /// The rules of `key` in their order, or `None` if no rule has it.
    pub(crate) fn rules_of(&self, key: &[u8]) -> Option<impl Iterator<Item = Rule<'_>>> {
        let index = self.row_of(key)?;
        let rows = self.rows::<KEY_ROW>(Section::Keys);
        let start = |index: usize| rows.get(index).map_or(0, |row| number(row, 8) as usize);
        let rules = self
            .rows::<RULE_ROW>(Section::Rules)
            .get(start(index)..start(index + 1));
        Some(rules.unwrap_or_default().iter().map(|row| Rule {
            table: self,
            row,
            label: None,
        }))
    }

    /// A binary search. Keys begin alike: what all of them begin with is compared once, and what comes next as a number.
    fn row_of(&self, key: &[u8]) -> Option<usize> {
        let (_end, keys) = self.rows::<KEY_ROW>(Section::Keys).split_last()?;
        let texts = self.texts();
        let beginning = text_of(texts, keys.first()?, 0).get(..self.common)?;
        let rest = key.strip_prefix(beginning)?;
        let wanted = first_bytes(rest, rest.len());
        let (mut from, mut to) = (0, keys.len());
        while from < to {
            let middle = from.midpoint(to);
            let row = keys.get(middle)?;
            let found = texts.get(number(row, 0) as usize + self.common..)?;
            let length = (number(row, 4) & !LAST) as usize - self.common;
            let first = first_bytes(found, length);
            // The first byte that differs decides. (WebAssembly can't turn a number around, to compare both as numbers.)
            let differing = (first ^ wanted).trailing_zeros() & !7;
            let order = if first == wanted {
                found.get(..length).cmp(&Some(rest))
            } else {
                ((first >> differing) as u8).cmp(&((wanted >> differing) as u8))
            };
            match order {
                Ordering::Less => from = middle + 1,
                Ordering::Equal => return Some(middle),
                Ordering::Greater => to = middle,
            }
        }
        None
    }

    /// How many bytes all keys begin with.
    fn common_beginning(&self) -> usize {
        let keys = self.rows::<KEY_ROW>(Section::Keys);
        let Some((_end, [first, .., last])) = keys.split_last() else {
            return 0;
        };
        let [first, last] = [first, last].map(|row| self.text(row, 0));
        first.iter().zip(last).take_while(|(one, other)| one == other).count()
    }

    fn rows<const N: usize>(&self, section: Section) -> &[[u8; N]] {
        let section = section as usize;
        let range = self.starts.get(section).zip(self.starts.get(section + 1));
        let bytes = range
            .and_then(|(start, end)| self.bytes.get(*start..*end))
            .unwrap_or_default();
        bytes.as_chunks::<N>().0
    }

    /// The rows from `first` on that belong together.
    fn block<const N: usize>(&self, section: Section, first: u32) -> impl Iterator<Item = &[u8; N]> + Clone {
        let rows = self.rows::<N>(section).get(first as usize..).unwrap_or_default();
        let mut is_over = false;
        rows.iter().take_while(move |row| {
            let is_last = number(*row, length_of_first_text(section)) & LAST != 0;
            !std::mem::replace(&mut is_over, is_last)
        })
    }

    fn text(&self, row: &[u8], at: usize) -> &[u8] {
        text_of(self.texts(), row, at)
    }

    fn texts(&self) -> &[u8] {
        self.rows::<1>(Section::Texts).as_flattened()
    }

    fn name(&self, row: &[u8], at: usize) -> &str {
        std::str::from_utf8(self.text(row, at)).unwrap_or_default()
    }

    fn compiled_patterns(&self) -> Result<Vec<(u32, Pattern)>, &'static str> {
        let conditions = self.rows::<CONDITION_ROW>(Section::Conditions).iter();
        let regexes =
            conditions.filter(|row| What::unpack(number(*row, 0)).is_some_and(|what| what.test == Test::Regex));
        let texts: BTreeMap<u32, &[u8]> = regexes.map(|row| (number(row, 12), self.text(row, 12))).collect();
        let compiled = texts.into_iter().map(|(start, text)| {
            let text = std::str::from_utf8(text).map_err(|_| "a regular expression isn't text")?;
            Ok((
                start,
                Pattern::parse(text).map_err(|_| "a regular expression is invalid")?,
            ))
        });
        compiled.collect()
    }

    fn pattern(&self, start: u32) -> Option<&Pattern> {
        let index = self.patterns.binary_search_by_key(&start, |(start, _)| *start).ok()?;
        self.patterns.get(index).map(|(_, pattern)| pattern)
    }

    /// Everything the readers above take for granted.
    fn verify(&self) -> Result<(), &'static str> {
        for (section, row_bytes) in ROW_BYTES.iter().enumerate() {
            let length = self
                .starts
                .get(section + 1)
                .zip(self.starts.get(section))
                .map_or(0, |(end, start)| end - start);
            if !length.is_multiple_of(*row_bytes) {
                return Err("a section ends within a row");
            }
        }
        let texts = self.rows::<1>(Section::Texts).len();
        let text_fits = |row: &[u8], at| {
            (number(row, at) as usize)
                .checked_add((number(row, at + 4) & !LAST) as usize)
                .is_some_and(|end| end <= texts)
        };
        let is_name = |row: &[u8], at| text_fits(row, at) && self.text(row, at).is_ascii();

        let [settings] = self.rows::<SETTINGS_ROW>(Section::Settings) else {
            return Err("it has another number of settings than one");
        };
        if !is_name(settings, 0) || !is_name(settings, 8) {
            return Err("a setting lies outside");
        }
        let sources = self.rows::<SOURCE_ROW>(Section::Sources);
        if !sources
            .iter()
            .all(|row| SourceKind::from_number(number(row, 0)).is_some() && is_name(row, 4))
        {
            return Err("a key source is unknown");
        }
        let rules = self.rows::<RULE_ROW>(Section::Rules);
        if !rules
            .iter()
            .all(|row| text_fits(row, 0) && std::str::from_utf8(self.text(row, 0)).is_ok())
        {
            return Err("a rule's name isn't text");
        }
        let targets = self.rows::<TARGET_ROW>(Section::Targets);
        if !targets.iter().all(|row| is_name(row, 0)) {
            return Err("a target's cluster isn't text");
        }
        let conditions = self.rows::<CONDITION_ROW>(Section::Conditions);
        if !conditions
            .iter()
            .all(|row| What::unpack(number(row, 0)).is_some() && is_name(row, 4) && text_fits(row, 12))
        {
            return Err("a condition is unknown");
        }
        let effects = self.rows::<EFFECT_ROW>(Section::Effects);
        if !effects
            .iter()
            .all(|row| EffectKind::from_number(number(row, 0)).is_some() && is_name(row, 4) && text_fits(row, 12))
        {
            return Err("an effect is unknown");
        }
        let keys = self.rows::<KEY_ROW>(Section::Keys);
        if !keys.iter().all(|row| text_fits(row, 0)) {
            return Err("a key lies outside");
        }
        if !keys
            .split_last()
            .is_some_and(|(_end, keys)| keys.is_sorted_by(|a, b| self.text(a, 0) < self.text(b, 0)))
        {
            return Err("its keys aren't sorted");
        }
        let starts = |at, rows: usize| {
            let mut starts = rules.iter().map(move |row| number(row, at));
            starts.all(|start| start == NONE || (start as usize) < rows)
        };
        let whole = covers(keys.iter().map(|row| number(row, 8) as usize), rules.len())
            && starts(8, targets.len())
            && starts(12, conditions.len())
            && starts(16, effects.len());
        if !whole {
            return Err("its rows don't belong together");
        }
        Ok(())
    }
}

impl fmt::Debug for RouteTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RouteTable")
            .field("keys", &self.keys())
            .field("rules", &self.rules())
            .finish_non_exhaustive()
    }
}

impl<'t> Rule<'t> {
    /// The rule's name.
    pub fn name(&self) -> &'t str {
        self.table.name(self.row, 0)
    }

    /// What metrics call a request that this rule was chosen for, where that isn't the rule's name: the pattern that its
    /// path matched.
    pub fn label(&self) -> Option<&'t str> {
        self.label
    }

    /// The rule as it was chosen for a request with this label.
    pub(crate) fn chosen(self, label: Option<&'t [u8]>) -> Self {
        let label = label.and_then(|label| std::str::from_utf8(label).ok());
        Self { label, ..self }
    }

    /// Its targets: cluster and weight.
    pub fn targets(&self) -> impl Iterator<Item = (&'t str, u32)> + Clone + use<'t> {
        let table = self.table;
        let rows = table.block::<TARGET_ROW>(Section::Targets, number(self.row, 8));
        rows.map(move |row| (table.name(row, 0), number(row, 8)))
    }

    /// The headers to set on the request, as (lower-case name, value).
    pub fn additional_headers(&self) -> impl Iterator<Item = (&'t str, &'t [u8])> + use<'t> {
        self.effects()
            .filter(|effect| effect.kind == EffectKind::Set)
            .map(|effect| (effect.name, effect.value))
    }

    /// The headers to remove from the request, in lower case.
    pub fn removed_headers(&self) -> impl Iterator<Item = &'t str> + use<'t> {
        self.effects()
            .filter(|effect| effect.kind == EffectKind::Remove)
            .map(|effect| effect.name)
    }

    pub(crate) fn effects(&self) -> impl Iterator<Item = Effect<'t>> + use<'t> {
        let table = self.table;
        let rows = table.block::<EFFECT_ROW>(Section::Effects, number(self.row, 16));
        rows.filter_map(move |row| {
            let kind = EffectKind::from_number(number(row, 0))?;
            Some(Effect {
                kind,
                name: table.name(row, 4),
                value: table.text(row, 12),
            })
        })
    }

    pub(crate) fn conditions(&self) -> impl Iterator<Item = Condition<'t>> + use<'t> {
        let table = self.table;
        let rows = table.block::<CONDITION_ROW>(Section::Conditions, number(self.row, 12));
        rows.filter_map(move |row| {
            let What {
                subject,
                test,
                last,
                labels,
            } = What::unpack(number(row, 0))?;
            let pattern = if test == Test::Regex {
                table.pattern(number(row, 12))
            } else {
                None
            };
            Some(Condition {
                subject,
                name: table.name(row, 4),
                test,
                value: table.text(row, 12),
                pattern,
                last,
                labels,
            })
        })
    }
}

impl fmt::Debug for Rule<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rule")
            .field("name", &self.name())
            .finish_non_exhaustive()
    }
}

/// Whether rows that start at `starts` share `count` rows out among them, in order and without a rest.
fn covers(starts: impl Iterator<Item = usize> + Clone, count: usize) -> bool {
    starts.clone().next() == Some(0) && starts.clone().is_sorted() && starts.last() == Some(count)
}

/// The text that two numbers at `at` say the place and the length of.
fn text_of<'t>(texts: &'t [u8], row: &[u8], at: usize) -> &'t [u8] {
    let start = number(row, at) as usize;
    let end = start.saturating_add((number(row, at + 4) & !LAST) as usize);
    texts.get(start..end).unwrap_or_default()
}

/// The first eight of `length` bytes that `text` begins with, the first as the lowest of the number. Of less than eight, zeros
/// stand for the others; so those that differ by zeros at the end are equal.
#[inline(always)]
fn first_bytes(text: &[u8], length: usize) -> u64 {
    let bytes = text.first_chunk().copied().unwrap_or_else(|| {
        let mut bytes = [0; 8];
        bytes.iter_mut().zip(text).for_each(|(to, from)| *to = *from);
        bytes
    });
    let wanted = if length < 8 { (1 << (8 * length)) - 1 } else { u64::MAX };
    u64::from_le_bytes(bytes) & wanted
}

/// The number at byte `at` of `row`.
#[inline(always)]
fn number(row: &[u8], at: usize) -> u32 {
    row.get(at..)
        .and_then(<[u8]>::first_chunk)
        .map_or(0, |word| u32::from_le_bytes(*word))
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
