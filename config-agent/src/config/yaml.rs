//! YAML text as a JSON value; where something is wrong with it, lines and columns.

use std::cell::OnceCell;
use std::collections::BTreeMap;

use saphyr::{LoadableYamlNode, MarkedYaml, Scalar, Yaml, YamlData};
use saphyr_parser::{Event, Parser, Span};
use serde_json::{Map, Number, Value};
use sidetrack_routing::{Path, Problem, Segment};

/// How many values anchors, and the references to them, may hold all together.
const MAX_ANCHORED: usize = 100_000;

/// How deep mappings and lists may be in each other. A configuration has nine levels.
const MAX_DEPTH: usize = 64;

/// A place in a file, line and column from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The column, in characters.
    pub column: usize,
}

/// A YAML document.
pub(crate) struct Document<'t> {
    /// What it says. Values that JSON hasn't are null and have a problem.
    pub(crate) value: Value,
    /// What of it is no JSON: tags, keys that aren't text.
    pub(crate) problems: Vec<Problem>,
    text: &'t str,
    /// With a position for every node, which is many times as large as the text: made when somebody asks.
    marked: OnceCell<Option<MarkedYaml<'t>>>,
}

/// Parses `text`, one document of it.
///
/// # Errors
///
/// The first error of syntax. A duplicate key, an endless expansion of aliases and a nesting that no configuration has are
/// such errors.
pub(crate) fn parse(text: &str) -> Result<Document<'_>, (Position, String)> {
    let mut reader = Reader::default();
    for event in Parser::new_from_str(text) {
        let (event, span) =
            event.map_err(|error| (position(error.marker()), format!("is no YAML: {}", error.info())))?;
        reader.read(event, span)?;
    }
    Ok(Document {
        value: reader.root.unwrap_or_default(),
        problems: reader.problems,
        text,
        marked: OnceCell::new(),
    })
}

impl Document<'_> {
    /// Where `path` is, or the innermost part of it that is there. Of a field, that is where its name is.
    pub(crate) fn position(&self, path: &Path) -> Position {
        let load = || {
            MarkedYaml::load_from_parser(&mut Parser::new_from_str(self.text))
                .ok()?
                .pop()
        };
        let Some(root) = self.marked.get_or_init(load) else {
            return Position { line: 1, column: 1 };
        };
        let mut node = root;
        let mut place = root;
        for segment in path.segments() {
            let found = match (segment, &node.data) {
                (Segment::Index(index), YamlData::Sequence(elements)) => elements.get(*index).map(|e| (e, e)),
                (Segment::Key(key), YamlData::Mapping(fields)) => fields.iter().find(|(name, _)| match &name.data {
                    YamlData::Value(scalar) => name_of(scalar).as_deref() == Some(key),
                    _ => false,
                }),
                _ => None,
            };
            let Some((name, inner)) = found else { break };
            (place, node) = (name, inner);
        }
        position(&place.span.start)
    }
}

/// Makes a value of events.
#[derive(Default)]
struct Reader {
    root: Option<Value>,
    /// Mappings and lists whose end hasn't come, the outermost first.
    open: Vec<Open>,
    anchors: BTreeMap<usize, Value>,
    /// How many values have been copied for anchors and references.
    anchored: usize,
    problems: Vec<Problem>,
}

struct Open {
    collection: Collection,
    /// What it is called for references, if it is not 0.
    anchor: usize,
    is_tagged: bool,
}

enum Collection {
    Sequence(Vec<Value>),
    Mapping {
        fields: Map<String, Value>,
        /// That of the field whose value comes next.
        name: Option<Name>,
    },
}

struct Name {
    /// None, if it is something else.
    text: Option<String>,
    position: Position,
}

impl Reader {
    fn read(&mut self, event: Event<'_>, span: Span) -> Result<(), (Position, String)> {
        let position = position(&span.start);
        match event {
            Event::SequenceStart(anchor, tag) => {
                let is_tagged = tag.is_some_and(|tag| !tag.is_yaml_core_schema());
                self.begin(Collection::Sequence(Vec::new()), anchor, is_tagged, position)
            }
            Event::MappingStart(anchor, tag) => {
                let is_tagged = tag.is_some_and(|tag| !tag.is_yaml_core_schema());
                let (fields, name) = Default::default();
                self.begin(Collection::Mapping { fields, name }, anchor, is_tagged, position)
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(ended) = self.open.pop() else { return Ok(()) };
                let value = match ended.collection {
                    Collection::Sequence(elements) => Value::Array(elements),
                    Collection::Mapping { fields, .. } => Value::Object(fields),
                };
                self.take((!ended.is_tagged).then_some(value), ended.anchor, position)
            }
            Event::Scalar(text, style, anchor, tag) => {
                let value = match Yaml::value_from_cow_and_metadata(text, style, tag.as_ref()) {
                    Yaml::Value(scalar) => Some(value_of(scalar)),
                    _ => None,
                };
                self.take(value, anchor, position)
            }
            Event::Alias(anchor) => {
                let value = self.anchors.get(&anchor).cloned();
                self.count_anchored(value.as_ref(), position)?;
                self.take(value, 0, position)
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) | Event::DocumentEnd => {
                Ok(())
            }
        }
    }

    fn begin(
        &mut self,
        collection: Collection,
        anchor: usize,
        is_tagged: bool,
        position: Position,
    ) -> Result<(), (Position, String)> {
        self.check_only_document(position)?;
        if self.open.len() == MAX_DEPTH {
            return Err((position, format!("is nested more than {MAX_DEPTH} levels deep")));
        }
        self.open.push(Open {
            collection,
            anchor,
            is_tagged,
        });
        Ok(())
    }

    /// Puts a whole value where it belongs. None is one that JSON hasn't.
    fn take(&mut self, value: Option<Value>, anchor: usize, position: Position) -> Result<(), (Position, String)> {
        self.check_only_document(position)?;
        if anchor > 0 {
            self.count_anchored(value.as_ref(), position)?;
            self.anchors.extend(value.clone().map(|value| (anchor, value)));
        }
        if let Some(Open {
            collection: Collection::Mapping { name: name @ None, .. },
            ..
        }) = self.open.last_mut()
        {
            let text = value.as_ref().and_then(name_from);
            let is_text = text.is_some();
            *name = Some(Name { text, position });
            if !is_text {
                let message = "a name in it is no text: put it in quotes".to_owned();
                // Of a mapping whose next field has no name, that is the mapping.
                let path = self.path();
                self.problems.push(Problem { path, message });
            }
            return Ok(());
        }
        let value = value.unwrap_or_else(|| {
            let message =
                "is no plain value: leave out tags (!…) and references to anchors that don't exist".to_owned();
            let path = self.path();
            self.problems.push(Problem { path, message });
            Value::Null
        });
        match self.open.last_mut().map(|open| &mut open.collection) {
            None => self.root = Some(value),
            Some(Collection::Sequence(elements)) => elements.push(value),
            Some(Collection::Mapping { fields, name }) => {
                if let Some(Name {
                    text: Some(text),
                    position,
                }) = name.take()
                    && fields.insert(text, value).is_some()
                {
                    let message = "this name is given twice in one mapping: leave one out".to_owned();
                    return Err((position, message));
                }
            }
        }
        Ok(())
    }

    fn count_anchored(&mut self, value: Option<&Value>, position: Position) -> Result<(), (Position, String)> {
        self.anchored += value.map_or(0, size);
        if self.anchored > MAX_ANCHORED {
            let message =
                format!("anchors and the references to them hold more than {MAX_ANCHORED} values: write them out");
            return Err((position, message));
        }
        Ok(())
    }

    fn check_only_document(&self, position: Position) -> Result<(), (Position, String)> {
        if self.root.is_some() && self.open.is_empty() {
            let message = "a second document begins, a configuration is one".to_owned();
            return Err((position, message));
        }
        Ok(())
    }

    /// That of the value that comes next.
    fn path(&self) -> Path {
        let mut path = Path::root();
        for open in &self.open {
            path = match &open.collection {
                Collection::Sequence(elements) => path.index(elements.len()),
                Collection::Mapping { name, .. } => match name.as_ref().and_then(|name| name.text.as_deref()) {
                    Some(name) => path.key(name),
                    None => return path,
                },
            };
        }
        path
    }
}

fn value_of(scalar: Scalar<'_>) -> Value {
    match scalar {
        Scalar::Null => Value::Null,
        Scalar::Boolean(flag) => Value::Bool(flag),
        Scalar::Integer(integer) => Value::from(integer),
        Scalar::FloatingPoint(float) => Number::from_f64(*float).map_or(Value::Null, Value::Number),
        Scalar::String(text) => Value::String(text.into_owned()),
    }
}

/// A mapping's key as text. Keys such as 123 or true are taken as they are usually meant.
fn name_of(scalar: &Scalar<'_>) -> Option<String> {
    name_from(&value_of(scalar.clone()))
}

fn name_from(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) if number.is_i64() => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    }
}

/// How many values it has, itself included.
fn size(value: &Value) -> usize {
    1 + match value {
        Value::Array(elements) => elements.iter().map(size).sum(),
        Value::Object(fields) => fields.values().map(size).sum(),
        _ => 0,
    }
}

fn position(marker: &saphyr::Marker) -> Position {
    Position {
        line: marker.line().max(1),
        column: marker.col() + 1,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What `text` says, and what is wrong with it, each with its place.
    fn read(text: &str) -> (Value, Vec<String>) {
        match parse(text) {
            Ok(document) => {
                let said = document.problems.iter().map(|problem| {
                    let Position { line, column } = document.position(&problem.path);
                    format!("{line}:{column}: {problem}")
                });
                (document.value.clone(), said.collect())
            }
            Err((Position { line, column }, message)) => (Value::Null, vec![format!("{line}:{column}: {message}")]),
        }
    }

    fn check(text: &str, value: Value, said: &[&str]) {
        let (found, problems) = read(text);
        let text: String = text.chars().take(40).collect();
        assert_eq!(found, value, "{text}");
        assert_eq!(problems.len(), said.len(), "{text}: {problems:?}");
        for (problem, beginning) in problems.iter().zip(said) {
            assert!(problem.starts_with(beginning), "{text}: {problem}");
        }
    }

    #[test]
    fn plain_values_are_those_of_json() {
        check(
            "a: [1, -2.5, yes, true, ~, '7', !!str 8, \"x\\ny\"]\nb: |\n  text\n1: {true: no}\n",
            json!({"a": [1, -2.5, "yes", true, null, "7", "8", "x\ny"], "b": "text\n", "1": {"true": "no"}}),
            &[],
        );
        check("", Value::Null, &[]);
        check("# nothing\n", Value::Null, &[]);
        check("a:\n---\n", Value::Null, &["3:1: a second document"]);
    }

    #[test]
    fn references_are_what_they_refer_to() {
        check(
            "a: &one {b: &two [1]}\nc: *one\nd: *two\n",
            json!({"a": {"b": [1]}, "c": {"b": [1]}, "d": [1]}),
            &[],
        );
        check("a: &name k\n*name : 1\n", json!({"a": "k", "k": 1}), &[]);
        check("a: &a [*a]\n", json!({"a": [null]}), &["1:8: a[0]: is no plain value"]);
        check("a: *nobody\n", Value::Null, &["1:4: is no YAML"]);
    }

    #[test]
    fn what_json_hasnt_is_said() {
        check("a: !mine 1\n", json!({"a": null}), &["1:1: a: is no plain value"]);
        check(
            "a: !mine [1]\nb: 2\n",
            json!({"a": null, "b": 2}),
            &["1:1: a: is no plain value"],
        );
        check(
            "a: {[1]: 2, b: 3}\n",
            json!({"a": {"b": 3}}),
            &["1:1: a: a name in it is no text"],
        );
        check(
            "a: {~: 2, b: 3}\n",
            json!({"a": {"b": 3}}),
            &["1:1: a: a name in it is no text"],
        );
        check(
            "? {!mine a: 1}\n: {c: !mine 2}\n",
            json!({}),
            &[
                "1:1: the configuration",
                "1:1: the configuration",
                "1:1: the configuration",
            ],
        );
        check("1: a\n'1': b\n", Value::Null, &["2:1: this name is given twice"]);
    }

    #[test]
    fn what_costs_too_much_is_refused() {
        let deep = [
            ("- ".repeat(100_000), "1:129: is nested"),
            ("? ".repeat(100_000), "1:129: is nested"),
            ("[".repeat(100_000), "1:256: is no YAML: recursion limit"),
            ("[".repeat(100) + &"]".repeat(100), "1:65: is nested"),
            ("&a - ".repeat(100_000), "1:4: is no YAML"),
        ];
        for (text, said) in deep {
            check(&text, Value::Null, &[said]);
        }
        // Each anchor holds all that are in it.
        let many = vec!["x"; 20_000].join(", ");
        check(
            &format!("{}{many}{}", "&a [".repeat(10), "]".repeat(10)),
            Value::Null,
            &["1:60043: anchors"],
        );
        let twice = format!("a: &a [{many}]\nb: [*a, *a, *a]\nc: [*a]\n");
        check(&twice, Value::Null, &["3:5: anchors and the references"]);
    }
}
