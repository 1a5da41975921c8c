//! YAML text as a JSON value whose parts know their line and column.

use saphyr::{LoadableYamlNode, MarkedYaml, Scalar, YamlData};
use serde_json::{Map, Number, Value};
use sidetrack_routing::{Path, Problem, Segment};

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
    root: MarkedYaml<'t>,
}

/// Parses `text`, one document of it.
///
/// # Errors
///
/// The first error of syntax. A duplicate key and an endless expansion of aliases are such errors.
pub(crate) fn parse(text: &str) -> Result<Document<'_>, (Position, String)> {
    let mut documents = MarkedYaml::load_from_str(text).map_err(|error| (position(error.marker()), reason(&error)))?;
    if documents.len() > 1 {
        let second = documents.swap_remove(1);
        return Err((
            position(&second.span.start),
            "a second document begins, a configuration is one".to_owned(),
        ));
    }
    let root = documents.pop().unwrap_or_else(|| MarkedYaml::value_from_str("~"));
    let mut problems = Vec::new();
    let value = value(&root, &Path::root(), &mut problems);
    Ok(Document { value, problems, root })
}

impl Document<'_> {
    /// Where `path` is, or the innermost part of it that is there. Of a field, that is where its name is.
    pub(crate) fn position(&self, path: &Path) -> Position {
        let mut node = &self.root;
        let mut place = &self.root;
        for segment in path.segments() {
            let found = match (segment, &node.data) {
                (Segment::Index(index), YamlData::Sequence(elements)) => elements.get(*index).map(|e| (e, e)),
                (Segment::Key(key), YamlData::Mapping(fields)) => {
                    fields.iter().find(|(name, _)| text(name).as_deref() == Some(key))
                }
                _ => None,
            };
            let Some((name, inner)) = found else { break };
            (place, node) = (name, inner);
        }
        position(&place.span.start)
    }
}

fn value(node: &MarkedYaml<'_>, path: &Path, problems: &mut Vec<Problem>) -> Value {
    match &node.data {
        YamlData::Value(scalar) => match scalar {
            Scalar::Null => Value::Null,
            Scalar::Boolean(flag) => Value::Bool(*flag),
            Scalar::Integer(integer) => Value::from(*integer),
            Scalar::FloatingPoint(float) => Number::from_f64(**float).map_or(Value::Null, Value::Number),
            Scalar::String(text) => Value::String(text.to_string()),
        },
        YamlData::Sequence(elements) => elements
            .iter()
            .enumerate()
            .map(|(index, element)| value(element, &path.index(index), problems))
            .collect(),
        YamlData::Mapping(fields) => {
            let mut map = Map::new();
            for (name, field) in fields {
                let Some(name) = text(name) else {
                    let message = "a name in it is no text: put it in quotes".to_owned();
                    problems.push(Problem {
                        path: path.clone(),
                        message,
                    });
                    continue;
                };
                let path = path.key(&name);
                let field = value(field, &path, problems);
                map.insert(name, field);
            }
            Value::Object(map)
        }
        YamlData::Representation(text, ..) => Value::String(text.to_string()),
        YamlData::Tagged(..) | YamlData::Alias(_) | YamlData::BadValue => {
            let message =
                "is no plain value: leave out tags (!…) and references to anchors that don't exist".to_owned();
            problems.push(Problem {
                path: path.clone(),
                message,
            });
            Value::Null
        }
    }
}

/// A mapping's key as text. Keys such as 123 or true are taken as they are usually meant.
fn text(node: &MarkedYaml<'_>) -> Option<String> {
    match &node.data {
        YamlData::Value(Scalar::String(text)) => Some(text.to_string()),
        YamlData::Value(Scalar::Integer(integer)) => Some(integer.to_string()),
        YamlData::Value(Scalar::Boolean(flag)) => Some(flag.to_string()),
        _ => None,
    }
}

fn position(marker: &saphyr::Marker) -> Position {
    Position {
        line: marker.line().max(1),
        column: marker.col() + 1,
    }
}

fn reason(error: &saphyr::ScanError) -> String {
    match error.info() {
        "duplicated key in mapping" => "this name is given twice in one mapping: leave one out".to_owned(),
        info => format!("is no YAML: {info}"),
    }
}
