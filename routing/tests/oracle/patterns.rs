//! Regular expressions and instants, and what they mean without an engine or a calendar.

/// An expression, and whether it matches the whole of a value.
pub(crate) type Pattern = (&'static str, fn(&str) -> bool);

/// Alternatives of which one begins another, repetitions, classes, flags, anchors: where engines and people differ.
pub(crate) const PATTERNS: [Pattern; 10] = [
    ("a|ab", |text| text == "a" || text == "ab"),
    ("foo|foobar", |text| text == "foo" || text == "foobar"),
    ("/a(/.*)?", |text| {
        text == "/a" || (text.starts_with("/a/") && !text.contains('\n'))
    }),
    ("(?s).*", |_| true),
    (".*", |text| !text.contains('\n')),
    ("[ab]+", |text| {
        !text.is_empty() && text.chars().all(|c| c == 'a' || c == 'b')
    }),
    ("(?i)a", |text| text == "a" || text == "A"),
    ("^a$", |text| text == "a"),
    ("", str::is_empty),
    ("/[^/]+", |text| {
        text.len() > 1 && text.starts_with('/') && !text[1..].contains('/')
    }),
];

/// Instants, and their milliseconds since 1970.
pub(crate) const INSTANTS: [(&str, u64); 3] = [
    ("1970-01-01T00:00:01Z", 1000),
    ("1970-01-01T00:00:01.001Z", 1001),
    ("2026-01-01T00:00:00Z", 1_767_225_600_000),
];

/// Percentages, and of how many in a million they are.
pub(crate) const PERCENTAGES: [(f64, u32); 6] = [
    (0.0, 0),
    (0.0001, 1),
    (33.3333, 333_333),
    (66.66666, 666_667),
    (50.0, 500_000),
    (100.0, 1_000_000),
];

/// Whether all of `value` matches the expression `text` of [`PATTERNS`].
pub(crate) fn matches(text: &str, value: &[u8]) -> bool {
    let (_, test) = PATTERNS
        .iter()
        .find(|(pattern, _)| *pattern == text)
        .expect("it is none of PATTERNS");
    std::str::from_utf8(value).is_ok_and(test)
}

/// The milliseconds of `text`, one of [`INSTANTS`].
pub(crate) fn instant(text: &str) -> u64 {
    let (_, time) = INSTANTS
        .iter()
        .find(|(instant, _)| *instant == text)
        .expect("it is none of INSTANTS");
    *time
}

/// Of how many in a million `percent`, one of [`PERCENTAGES`], is.
pub(crate) fn per_million(percent: f64) -> u32 {
    let (_, count) = PERCENTAGES
        .iter()
        .find(|(known, _)| *known == percent)
        .expect("it is none of PERCENTAGES");
    *count
}
