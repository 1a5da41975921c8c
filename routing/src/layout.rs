//! The bytes of a compiled route table, shared by the writer ([`compile`](crate::compile)) and the reader
//! ([`RouteTable`](crate::RouteTable)).
//!
//! ```text
//! header     magic 8 │ version u32 │ checksum u64 (xxh64 of all that follows it) │ length of each section u32 …
//! sections   one after another, in the order of `Section`; rows of fixed size, every number a little-endian u32
//! ```
//!
//! A row that owns rows of another section says where they start; they end where the next row's start. So `Keys` and
//! `Rules` have one row more than there are keys and rules. A `text` is an offset and a length in `Texts`.
//!
//! | section    | row                                                      | order                       |
//! |------------|----------------------------------------------------------|-----------------------------|
//! | Sources    | kind, header: text                                       | precedence                  |
//! | Keys       | key: text, first rule                                    | sorted by key, byte for byte |
//! | Rules      | name: text, cluster: text, first condition, first header | key by key, precedence      |
//! | Conditions | what, name: text, value: text                            | rule by rule                |
//! | Headers    | name: text, value: text                                  | rule by rule                |
//! | Texts      | bytes                                                    | each text once              |
//!
//! `what` of a condition is subject + test × 256 + (1 if it is the last of its alternatives) × 65536. Conditions up to
//! and including a last one are alternatives, one of which must hold; every such group of a rule must.

/// What a table begins with: nothing that JSON can begin with.
pub(crate) const MAGIC: [u8; 8] = *b"\0sdtrack";

/// The version of the table's layout, written by the agent and wanted by the filter.
pub const VERSION: u32 = 1;

/// Bytes before the checksum's subject: magic, version, checksum.
pub(crate) const CHECKED_FROM: usize = 8 + 4 + 8;

/// Bytes before the first section.
pub(crate) const HEADER_BYTES: usize = CHECKED_FROM + 4 * SECTIONS;

pub(crate) const SECTIONS: usize = 6;

/// A section, by its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Section {
    Sources,
    Keys,
    Rules,
    Conditions,
    Headers,
    Texts,
}

/// Bytes of a row of each section.
pub(crate) const SOURCE_ROW: usize = 12;
pub(crate) const KEY_ROW: usize = 12;
pub(crate) const RULE_ROW: usize = 24;
pub(crate) const CONDITION_ROW: usize = 20;
pub(crate) const HEADER_ROW: usize = 16;

/// A row's bytes of each section, in the order of [`Section`].
pub(crate) const ROW_BYTES: [usize; SECTIONS] = [SOURCE_ROW, KEY_ROW, RULE_ROW, CONDITION_ROW, HEADER_ROW, 1];

/// The kind of a key source.
pub(crate) const SOURCE_HEADER: u32 = 0;

/// What a condition looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    Path = 0,
    Header = 1,
}

/// How a condition compares what it looks at with its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Test {
    Exact = 0,
    /// The value, up to the end or a slash; see [`PathPrefix`](crate::PathPrefix).
    SegmentPrefix = 1,
}

/// The `what` of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct What {
    pub(crate) subject: Subject,
    pub(crate) test: Test,
    pub(crate) last: bool,
}

impl What {
    pub(crate) fn pack(self) -> u32 {
        self.subject as u32 | (self.test as u32) << 8 | u32::from(self.last) << 16
    }

    pub(crate) fn unpack(word: u32) -> Option<Self> {
        let subject = match word & 0xff {
            0 => Subject::Path,
            1 => Subject::Header,
            _ => return None,
        };
        let test = match (word >> 8) & 0xff {
            0 => Test::Exact,
            1 => Test::SegmentPrefix,
            _ => return None,
        };
        let what = Self {
            subject,
            test,
            last: (word >> 16) & 1 == 1,
        };
        (what.pack() == word).then_some(what)
    }
}

pub(crate) fn checksum(bytes: &[u8]) -> u64 {
    twox_hash::XxHash64::oneshot(0, bytes)
}
