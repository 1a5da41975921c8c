//! The bytes of a compiled route table, shared by the writer ([`compile`](crate::compile)) and the reader
//! ([`RouteTable`](crate::RouteTable)).
//!
//! ```text
//! header     magic 8 │ version u32 │ checksum u64 (xxh64 of all that follows it) │ length of each section u32 …
//! sections   one after another, in the order of `Section`; rows of fixed size, every number a little-endian u32
//! ```
//!
//! A key's rules start where it says, and end where the next key's start. So `Keys` has one row more than there are keys.
//! A rule's targets, conditions and effects start where it says ([`NONE`]: there are none), and end with a row that has
//! [`LAST`] in the length of its first text. Rules with equal ones share them: sandboxes are much alike. A `text` is an
//! offset and a length in `Texts`.
//!
//! | section    | row                                                          | order                        |
//! |------------|--------------------------------------------------------------|------------------------------|
//! | Settings   | route key header: text, propagated baggage member: text, debug | one row                      |
//! | Sources    | kind, name: text                                             | precedence                   |
//! | Keys       | key: text, first rule                                        | sorted by key, byte for byte |
//! | Rules      | name: text, first target, first condition, first effect      | key by key, precedence       |
//! | Targets    | cluster: text, weight                                        | as rules come to need them   |
//! | Conditions | what, name: text, value: text                                | as rules come to need them   |
//! | Effects    | kind, name: text, value: text                                | likewise; of a rule, by kind |
//! | Texts      | bytes                                                        | each once, but for names     |
//!
//! `what` of a condition is subject + test × 256 + (1 if it is the last of its alternatives) × 65536 + (1 if its value is
//! what metrics call the requests for which it held) × 131072. Conditions up to and including a last one are
//! alternatives, one of which must hold; every such group of a rule must.

/// What a table begins with: nothing that JSON can begin with.
pub(crate) const MAGIC: [u8; 8] = *b"\0sdtrack";

/// The version of the table's layout, written by the agent and wanted by the filter.
pub const VERSION: u32 = 4;

/// Bytes before the checksum's subject: magic, version, checksum.
pub(crate) const CHECKED_FROM: usize = 8 + 4 + 8;

/// Bytes before the first section.
pub(crate) const HEADER_BYTES: usize = CHECKED_FROM + 4 * SECTIONS;

pub(crate) const SECTIONS: usize = 8;

/// In the length of a row's first text: it is the last of those that belong together.
pub(crate) const LAST: u32 = 1 << 31;

/// Where a rule's rows start that has none.
pub(crate) const NONE: u32 = u32::MAX;

/// A section, by its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Section {
    Settings,
    Sources,
    Keys,
    Rules,
    Targets,
    Conditions,
    Effects,
    Texts,
}

/// Bytes of a row of each section.
pub(crate) const SETTINGS_ROW: usize = 20;
pub(crate) const SOURCE_ROW: usize = 12;
pub(crate) const KEY_ROW: usize = 12;
pub(crate) const RULE_ROW: usize = 20;
pub(crate) const TARGET_ROW: usize = 12;
pub(crate) const CONDITION_ROW: usize = 20;
pub(crate) const EFFECT_ROW: usize = 20;

/// A row's bytes of each section, in the order of [`Section`].
pub(crate) const ROW_BYTES: [usize; SECTIONS] = [
    SETTINGS_ROW,
    SOURCE_ROW,
    KEY_ROW,
    RULE_ROW,
    TARGET_ROW,
    CONDITION_ROW,
    EFFECT_ROW,
    1,
];

/// Where in a row of this section the length of its first text is.
pub(crate) const fn length_of_first_text(section: Section) -> usize {
    match section {
        Section::Sources | Section::Conditions | Section::Effects => 8,
        _ => 4,
    }
}

/// An enumeration that is a number in a table.
macro_rules! numbered {
    ($(#[$doc:meta])* $vis:vis $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $number:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        $vis enum $name {
            $($(#[$variant_doc])* $variant = $number,)*
        }

        impl $name {
            pub(crate) fn from_number(number: u32) -> Option<Self> {
                match number {
                    $($number => Some(Self::$variant),)*
                    _ => None,
                }
            }
        }
    };
}

numbered! {
    /// The kind of a key source.
    pub SourceKind {
        /// The first element of a header's list.
        Header = 0,
        /// A member of `baggage`.
        Baggage = 1,
        /// A member of `tracestate`.
        Tracestate = 2,
        /// A cookie.
        Cookie = 3,
        /// A query parameter.
        Query = 4,
        /// The label before a suffix of the authority.
        Host = 5,
    }
}

numbered! {
    /// What a condition looks at.
    pub Subject {
        /// The path without the query.
        Path = 0,
        /// A header's values.
        Header = 1,
        /// The authority without the port.
        Host = 2,
        /// The method.
        Method = 3,
        /// A query parameter's values, percent-decoded.
        Query = 4,
    }
}

numbered! {
    /// How a condition compares what it looks at with its value.
    pub Test {
        /// Equal; hosts without regard to case.
        Exact = 0,
        /// The value, up to the end or a slash; see [`PathPrefix`](crate::PathPrefix).
        SegmentPrefix = 1,
        /// Begins with the value.
        Prefix = 2,
        /// Ends with the value.
        Suffix = 3,
        /// Has the value in it.
        Contains = 4,
        /// The value is a regular expression that matches the whole.
        Regex = 5,
        /// Is there.
        Present = 6,
        /// Isn't there.
        Absent = 7,
        /// A host of one label and the value.
        OneLabelBefore = 8,
    }
}

numbered! {
    /// What a rule does beside naming targets. Sorted: what is first is first among a rule's effects.
    pub(crate) EffectKind {
        /// From the moment `value` (u64, milliseconds since 1970) on the rule doesn't exist.
        Expires = 0,
        /// Copies go to the cluster `name`, of a million requests `value` (u32) many.
        Mirror = 1,
        /// The target is chosen by the value of the header `name`.
        StickyHeader = 2,
        /// The target is chosen by the value of the cookie `name`.
        StickyCookie = 3,
        /// The target is chosen by the route key.
        StickyKey = 4,
        /// The header `name` is removed.
        Remove = 5,
        /// The header `name` is set to `value`.
        Set = 6,
    }
}

/// The `what` of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct What {
    pub(crate) subject: Subject,
    pub(crate) test: Test,
    pub(crate) last: bool,
    pub(crate) labels: bool,
}

impl What {
    pub(crate) fn pack(self) -> u32 {
        self.subject as u32 | (self.test as u32) << 8 | u32::from(self.last) << 16 | u32::from(self.labels) << 17
    }

    pub(crate) fn unpack(word: u32) -> Option<Self> {
        let subject = Subject::from_number(word & 0xff)?;
        let test = Test::from_number((word >> 8) & 0xff)?;
        let what = Self {
            subject,
            test,
            last: (word >> 16) & 1 == 1,
            labels: (word >> 17) & 1 == 1,
        };
        (what.pack() == word).then_some(what)
    }
}

pub(crate) fn checksum(bytes: &[u8]) -> u64 {
    twox_hash::XxHash64::oneshot(0, bytes)
}
