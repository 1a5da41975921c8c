//! What clients may send that nobody wrote on purpose: input of the tests of all parsers.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

/// Values that broke parsers elsewhere.
pub(super) fn values() -> Vec<Vec<u8>> {
    let mut values: Vec<Vec<u8>> = [
        "",
        " ",
        "\t",
        ",",
        ",,,,",
        "=",
        "==",
        ";",
        ";;",
        "=;=,=",
        "&",
        "?",
        "?&&",
        "?=",
        "#?",
        "%",
        "%%",
        "%2",
        "\"",
        "\"\"",
        "k=\"",
        "[",
        "]",
        "[]:",
        ":",
        "::",
        ".",
        "..",
        "@",
        "\0",
        "k\0=v",
        "k=\0",
        "\r\n",
        "k=v\r\nx: y",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec();
    values.push((0..=255).collect());
    for unit in [
        &b"\xff"[..],
        b"\0",
        b" ",
        b",",
        b";",
        b"=",
        b"&",
        b"?",
        b"%",
        b".",
        b"x",
        b"\"",
    ] {
        values.push(unit.repeat(100 * 1024));
    }
    for unit in ["k=,", "k=;", "a=1,", "a=1; ", "a=1&", "%41", "a@b=c,", "k =\t,"] {
        values.push(unit.repeat(10_000).into_bytes());
        values.push(format!("?{}k=v", unit.repeat(10_000)).into_bytes());
    }
    values
}

/// Values made of these `parts`, of any bytes, and of what is long or many enough to come near the limits.
pub(super) fn value(parts: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        12 => select(parts).prop_map(|part| part.as_bytes().to_vec()),
        2 => vec(any::<u8>(), 0..4),
        1 => (0..4000_usize).prop_map(|length| b"y".repeat(length)),
        1 => (0..40_usize).prop_map(|times| b"y=1,".repeat(times)),
    ];
    vec(part, 0..24).prop_map(|parts| parts.concat())
}
