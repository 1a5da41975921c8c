//! A compiled route table, read in place.

use std::fmt;

use serde_json::Value;
use thiserror::Error;

use crate::compile::compile;
use crate::decode::decode;
use crate::layout::{
    CHECKED_FROM, CONDITION_ROW, HEADER_BYTES, HEADER_ROW, KEY_ROW, MAGIC, ROW_BYTES, RULE_ROW, SECTIONS,
    SOURCE_HEADER, SOURCE_ROW, Section, VERSION, What, checksum,
};
use crate::problem::Problem;
use crate::validate::validate_routing;

/// The rules of all keys, ready to decide with. Loading checks the bytes once; nothing is parsed or copied after that.
#[derive(Clone, PartialEq, Eq)]
pub struct RouteTable {
    bytes: Vec<u8>,
    /// Where each section begins, and where the last one ends.
    starts: [usize; SECTIONS + 1],
}

/// A rule in a table.
#[derive(Clone, Copy)]
pub struct Rule<'t> {
    table: &'t RouteTable,
    index: usize,
}

/// A condition of a rule.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Condition<'t> {
    pub(crate) what: What,
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
    /// Reads the filter's plugin configuration: a compiled table, or the JSON form of `routing`. No bytes at all are a
    /// table without rules.
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
        let table = Self { bytes, starts };
        table.verify().map_err(InvalidTable::Damaged)?;
        Ok(table)
    }

    /// How many rules there are.
    pub fn rules(&self) -> usize {
        self.rows::<RULE_ROW>(Section::Rules).len().saturating_sub(1)
    }

    /// How many route keys there are.
    pub fn keys(&self) -> usize {
        self.rows::<KEY_ROW>(Section::Keys).len().saturating_sub(1)
    }

    /// The header that carries the route key.
    pub(crate) fn key_header(&self) -> &str {
        self.rows::<SOURCE_ROW>(Section::Sources)
            .first()
            .map_or("", |row| self.name(row, 4))
    }

    /// The rules of `key` in their order, or `None` if no rule has it.
    pub(crate) fn rules_of(&self, key: &[u8]) -> Option<impl Iterator<Item = Rule<'_>>> {
        let (_end, keys) = self.rows::<KEY_ROW>(Section::Keys).split_last()?;
        let index = keys.binary_search_by(|row| self.text(row, 0).cmp(key)).ok()?;
        let rules = self.owned::<KEY_ROW>(Section::Keys, index, 8);
        Some(rules.map(|index| Rule { table: self, index }))
    }

    fn rows<const N: usize>(&self, section: Section) -> &[[u8; N]] {
        let section = section as usize;
        let range = self.starts.get(section).zip(self.starts.get(section + 1));
        let bytes = range
            .and_then(|(start, end)| self.bytes.get(*start..*end))
            .unwrap_or_default();
        bytes.as_chunks::<N>().0
    }

    /// The rows that row `index` owns: from the number at `at` to that of the next row.
    fn owned<const N: usize>(&self, section: Section, index: usize, at: usize) -> std::ops::Range<usize> {
        let rows = self.rows::<N>(section);
        let start = |index: usize| rows.get(index).map_or(0, |row| number(row, at) as usize);
        start(index)..start(index + 1)
    }

    fn text(&self, row: &[u8], at: usize) -> &[u8] {
        let start = number(row, at) as usize;
        let end = start.saturating_add(number(row, at + 4) as usize);
        self.rows::<1>(Section::Texts)
            .as_flattened()
            .get(start..end)
            .unwrap_or_default()
    }

    fn name(&self, row: &[u8], at: usize) -> &str {
        std::str::from_utf8(self.text(row, at)).unwrap_or_default()
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
                .checked_add(number(row, at + 4) as usize)
                .is_some_and(|end| end <= texts)
        };
        let is_name = |row: &[u8], at| text_fits(row, at) && self.text(row, at).is_ascii();

        let [source] = self.rows::<SOURCE_ROW>(Section::Sources) else {
            return Err("it has another number of key sources than one");
        };
        if number(source, 0) != SOURCE_HEADER || !is_name(source, 4) {
            return Err("its key source is unknown");
        }
        let rules = self.rows::<RULE_ROW>(Section::Rules);
        if !rules.iter().all(|row| text_fits(row, 0) && text_fits(row, 8)) {
            return Err("a rule's text lies outside");
        }
        if !rules
            .iter()
            .all(|row| std::str::from_utf8(self.text(row, 0)).is_ok() && self.text(row, 8).is_ascii())
        {
            return Err("a rule's name or cluster isn't text");
        }
        let conditions = self.rows::<CONDITION_ROW>(Section::Conditions);
        if !conditions
            .iter()
            .all(|row| What::unpack(number(row, 0)).is_some() && is_name(row, 4) && text_fits(row, 12))
        {
            return Err("a condition is unknown");
        }
        let headers = self.rows::<HEADER_ROW>(Section::Headers);
        if !headers.iter().all(|row| is_name(row, 0) && text_fits(row, 8)) {
            return Err("a header's text lies outside");
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
        let whole = covers(
            keys.iter().map(|row| number(row, 8) as usize),
            rules.len().saturating_sub(1),
        ) && covers(rules.iter().map(|row| number(row, 16) as usize), conditions.len())
            && covers(rules.iter().map(|row| number(row, 20) as usize), headers.len());
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
    /// The rule's name, unique in its table.
    pub fn name(&self) -> &'t str {
        self.table.name(self.row(), 0)
    }

    /// The cluster its requests go to.
    pub fn cluster(&self) -> &'t str {
        self.table.name(self.row(), 8)
    }

    /// The headers to set on the request, as (lower-case name, value).
    pub fn additional_headers(&self) -> impl Iterator<Item = (&'t str, &'t [u8])> + use<'t> {
        let table = self.table;
        let owned = table.owned::<RULE_ROW>(Section::Rules, self.index, 20);
        let rows = table
            .rows::<HEADER_ROW>(Section::Headers)
            .get(owned)
            .unwrap_or_default();
        rows.iter().map(move |row| (table.name(row, 0), table.text(row, 8)))
    }

    pub(crate) fn conditions(&self) -> impl Iterator<Item = Condition<'t>> + use<'t> {
        let table = self.table;
        let owned = table.owned::<RULE_ROW>(Section::Rules, self.index, 16);
        let rows = table
            .rows::<CONDITION_ROW>(Section::Conditions)
            .get(owned)
            .unwrap_or_default();
        rows.iter().filter_map(move |row| {
            let what = What::unpack(number(row, 0))?;
            Some(Condition {
                what,
                name: table.name(row, 4),
                value: table.text(row, 12),
            })
        })
    }

    fn row(&self) -> &'t [u8] {
        self.table
            .rows::<RULE_ROW>(Section::Rules)
            .get(self.index)
            .map_or(&[], |row| row.as_slice())
    }
}

impl fmt::Debug for Rule<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rule")
            .field("name", &self.name())
            .field("cluster", &self.cluster())
            .finish_non_exhaustive()
    }
}

/// Whether rows that start at `starts` share `count` rows out among them, in order and without a rest.
fn covers(starts: impl Iterator<Item = usize> + Clone, count: usize) -> bool {
    starts.clone().next() == Some(0) && starts.clone().is_sorted() && starts.last() == Some(count)
}

/// The number at byte `at` of `row`.
fn number(row: &[u8], at: usize) -> u32 {
    row.get(at..)
        .and_then(<[u8]>::first_chunk)
        .map_or(0, |word| u32::from_le_bytes(*word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        let json = br#"{"defaultTarget": "d", "rules": [
            {"routeKey": "b", "targetService": "x", "pathPrefixes": ["/1", "/2"], "headerMatchers": {"A": "1"}},
            {"routeKey": "a", "targetService": "y", "additionalHeaders": {"B": "2"}}]}"#;
        RouteTable::from_configuration(json.to_vec()).unwrap().bytes
    }

    /// The sample with `change` made to it and the checksum put right again.
    fn forged(change: impl FnOnce(&mut Vec<u8>)) -> Result<RouteTable, InvalidTable> {
        let mut bytes = sample();
        change(&mut bytes);
        let sum = checksum(&bytes[CHECKED_FROM..]);
        bytes[12..CHECKED_FROM].copy_from_slice(&sum.to_le_bytes());
        RouteTable::load(bytes)
    }

    #[test]
    fn a_table_loads_as_it_was_compiled() {
        let table = RouteTable::load(sample()).unwrap();
        assert_eq!((table.keys(), table.rules(), table.key_header()), (2, 2, "x-route-key"));
        let clusters = |key: &[u8]| {
            table
                .rules_of(key)
                .map(|rules| rules.map(|r| r.cluster()).collect::<Vec<_>>())
        };
        assert_eq!(clusters(b"a"), Some(vec!["y:80"]));
        assert_eq!(clusters(b"b"), Some(vec!["x:80"]));
        assert_eq!(clusters(b"c"), None);
        let b = table.rules_of(b"b").unwrap().next().unwrap();
        assert_eq!(b.conditions().count(), 3);
        assert_eq!(b.additional_headers().count(), 0);
    }

    #[test]
    fn no_rules_are_a_table_too() {
        let table = RouteTable::from_configuration(br#"{"defaultTarget": "d"}"#.to_vec()).unwrap();
        assert_eq!((table.keys(), table.rules()), (0, 0));
        assert!(table.rules_of(b"").is_none());
    }

    #[test]
    fn another_version_is_refused_by_name() {
        let mut bytes = sample();
        bytes[8] = 9;
        let error = RouteTable::load(bytes).unwrap_err();
        assert_eq!(error, InvalidTable::Version(9));
        assert!(error.to_string().contains("wants version 1"));
    }

    #[test]
    fn what_is_neither_json_nor_a_table_is_refused() {
        for bytes in [&b""[..], b"\0", b"{", b"\xff\xfe", b"[]", b"{\"defaultTarget\": \"\"}"] {
            assert!(RouteTable::from_configuration(bytes.to_vec()).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn no_cut_and_no_flipped_bit_gets_through() {
        let bytes = sample();
        for length in 0..bytes.len() {
            assert!(RouteTable::load(bytes[..length].to_vec()).is_err(), "cut to {length}");
        }
        for index in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[index] ^= 0x40;
            assert!(RouteTable::load(changed).is_err(), "changed at {index}");
        }
    }

    #[test]
    fn a_forged_table_is_refused_or_harmless() {
        let length = sample().len();
        for index in CHECKED_FROM..length {
            for value in [0, 1, 0x7f, 0xff] {
                let Ok(table) = forged(|bytes| bytes[index] = value) else {
                    continue;
                };
                for key in [&b"a"[..], b"b", b""] {
                    for rule in table.rules_of(key).into_iter().flatten() {
                        let _ = (rule.name(), rule.cluster(), rule.conditions().count());
                        let _ = rule.additional_headers().count();
                    }
                }
            }
        }
    }
}
