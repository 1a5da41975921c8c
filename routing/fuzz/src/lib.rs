//! What the fuzz targets share: the oracle of the tests, tables with one key source, and a walk over all a table holds.

#[path = "../../tests/oracle/sources.rs"]
pub mod sources;

use sidetrack_routing::{
    Condition, Destination, Reason, Recorder, Request, RequestHead, RouteTable, Rule, Source, decide, decide_with,
    explain,
};
use sources::Found;

/// A table that looks for the key in this place only.
pub fn table_with(source: &str) -> RouteTable {
    let json = format!(r#"{{"defaultTarget": "d", "keySources": [{source}]}}"#);
    RouteTable::from_configuration(json.into_bytes()).unwrap()
}

/// The lines of a header: what line feeds separate, which no header has in it.
pub fn lines(data: &[u8]) -> Vec<Vec<u8>> {
    data.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect()
}

/// The key that `table` finds in a request with these lines of the header `name`.
pub fn found(table: &RouteTable, name: &str, lines: &[Vec<u8>]) -> Found {
    let head: Vec<(&str, &[u8])> = lines.iter().map(|line| (name, line.as_slice())).collect();
    let decision = decide(table, &Request::new(&head));
    match (decision.destination, decision.key) {
        (Destination::Baseline(Reason::NoKey), None) => Found::Nothing,
        (Destination::Baseline(Reason::InvalidKey), None) => Found::Invalid,
        (_, Some(key)) => Found::Key(key.as_bytes().to_vec()),
        (destination, None) => panic!("{destination:?} without a key"),
    }
}

/// A request that has these values in every header there is.
pub struct Everywhere<'v> {
    /// Of the path.
    pub path: &'v [u8],
    /// Of every header else.
    pub values: &'v [&'v [u8]],
    /// Milliseconds since 1970.
    pub now: u64,
}

impl RequestHead<'_> for Everywhere<'_> {
    fn any_value(&self, name: &str, mut test: impl FnMut(&[u8]) -> bool) -> bool {
        if name == ":path" {
            return test(self.path);
        }
        self.values.iter().any(|value| test(value))
    }

    fn now(&self) -> u64 {
        self.now
    }

    fn random(&self) -> u64 {
        0x9e37_79b9_7f4a_7c15
    }
}

/// Reads all that a decision can show, and looks at every rule that it looked at.
#[derive(Default)]
pub struct Reader {
    /// How much that was. Also keeps the compiler from leaving the reading out.
    pub read: usize,
}

impl Reader {
    fn rule_too(&mut self, rule: Rule<'_>) {
        self.read += rule.name().len();
        self.read += rule.targets().map(|(cluster, _)| cluster.len()).sum::<usize>();
        self.read += rule.removed_headers().map(str::len).sum::<usize>();
        self.read += rule
            .additional_headers()
            .map(|(name, value)| name.len() + value.len())
            .sum::<usize>();
    }
}

impl Recorder for Reader {
    fn source(&mut self, source: Source<'_>, key: Option<&[u8]>) {
        self.read += source.name.len() + key.map_or(0, <[u8]>::len);
    }

    fn rule(&mut self, rule: Rule<'_>, _expired: bool) {
        self.rule_too(rule);
    }

    fn condition(&mut self, condition: &Condition<'_>, actual: Option<&[u8]>, _held: bool) {
        self.read += condition.value.len() + actual.map_or(0, <[u8]>::len);
    }
}

/// Decides `head`, watched, unwatched and explained: all must come to the same.
pub fn decide_twice<'t>(table: &'t RouteTable, head: &impl RequestHead<'t>) {
    let mut reader = Reader::default();
    let watched = decide_with(table, head, &mut reader);
    let unwatched = decide(table, head);
    assert_eq!(format!("{watched:?}"), format!("{unwatched:?}"));
    let explained = explain(table, head);
    assert_eq!(explained.key.is_some(), watched.key.is_some());
    assert_eq!(explained.disagreement, watched.disagreement);
    reader.read += format!("{explained:?}").len();
    if let Destination::Target { rule, cluster, mirror } = watched.destination {
        reader.rule_too(rule);
        assert!(rule.targets().any(|(target, _)| target == cluster));
        reader.read += mirror.map_or(0, str::len);
    }
    std::hint::black_box(reader.read);
}
