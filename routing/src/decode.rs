//! From a JSON value to a valid configuration by way of the wire types, reporting everything that is wrong at once.
//!
//! A serde deserializer stops at its first error. This one notes the error with its path, strikes the offending value
//! out and starts again, until the rest fits or nothing is left. So the wire types stay plain serde structs.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, Error as _, Expected, IntoDeserializer, MapAccess, SeqAccess,
    Unexpected, Visitor,
};
use serde::forward_to_deserialize_any;
use serde_json::Value;

use crate::problem::{Path, Problem, Segment};

/// Every round costs one walk over the value, so the number of rounds has an end.
const MAX_PROBLEMS: usize = 100;

/// Decodes `value` and validates what it decodes to, or says everything that is wrong with it.
///
/// A field without a value (`rules:` with nothing after it) counts as absent.
///
/// # Errors
///
/// All problems of form: unknown and missing fields, values of the wrong type; at most 100, then a last one that says so.
/// And all that `validate` says of the rest.
pub fn decode<T: DeserializeOwned, V>(
    value: &Value,
    validate: impl FnOnce(&T) -> Result<V, Vec<Problem>>,
) -> Result<V, Vec<Problem>> {
    decode_then(value, |decoded| validate(&decoded))
}

/// Like [`decode`], for who wants to keep what was decoded.
///
/// # Errors
///
/// The same.
pub fn decode_then<T: DeserializeOwned, V>(
    value: &Value,
    validate: impl FnOnce(T) -> Result<V, Vec<Problem>>,
) -> Result<V, Vec<Problem>> {
    let mut struck = BTreeSet::new();
    let mut problems = Vec::new();
    loop {
        let mismatch = match T::deserialize(Node {
            value,
            path: Path::root(),
            struck: &struck,
        }) {
            Ok(decoded) => {
                let validated = validate(decoded);
                if problems.is_empty() {
                    return validated;
                }
                let further = validated.err().unwrap_or_default();
                let placed = further.into_iter().map(|p| Problem {
                    path: counting_struck(&p.path, &struck),
                    ..p
                });
                // What is said of a mapping is hardly fair when a part of it was struck out.
                let parents: BTreeSet<Path> = struck.iter().filter_map(Path::parent).collect();
                problems.extend(placed.filter(|problem| !parents.contains(&problem.path)));
                return Err(problems);
            }
            Err(mismatch) => mismatch,
        };
        let place = mismatch.place();
        // A field that is missing because it was struck out has its problem already.
        if !mismatch.missing.is_some_and(|field| struck.contains(&place.key(field))) {
            let path = place.clone();
            problems.push(Problem {
                path,
                message: mismatch.message,
            });
        }
        if problems.len() == MAX_PROBLEMS {
            let message = format!("the first {MAX_PROBLEMS} problems are shown; there may be more");
            problems.push(Problem {
                path: Path::root(),
                message,
            });
            return Err(problems);
        }
        if place == Path::root() || !struck.insert(place) {
            return Err(problems);
        }
    }
}

/// `path` in the value as it was given, from one in the value without the elements that were struck out.
fn counting_struck(path: &Path, struck: &BTreeSet<Path>) -> Path {
    path.segments()
        .iter()
        .fold(Path::root(), |parent, segment| match segment {
            Segment::Key(key) => parent.key(key),
            Segment::Index(left) => {
                let mut kept = (0..)
                    .map(|index| parent.index(index))
                    .filter(|place| !struck.contains(place));
                kept.nth(*left).unwrap_or(parent)
            }
        })
}

/// Why one value doesn't fit, and where it is.
#[derive(Debug)]
struct Mismatch {
    path: Option<Path>,
    message: String,
    missing: Option<&'static str>,
    unknown: Option<String>,
}

impl Mismatch {
    fn new(message: String) -> Self {
        Self {
            path: None,
            message,
            missing: None,
            unknown: None,
        }
    }

    /// The innermost place wins: the containers around it see the same error pass by.
    fn at(mut self, path: &Path) -> Self {
        self.path.get_or_insert_with(|| path.clone());
        self
    }

    fn place(&self) -> Path {
        let path = self.path.clone().unwrap_or_default();
        match &self.unknown {
            Some(field) => path.key(field),
            None => path,
        }
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Mismatch {}

impl serde::de::Error for Mismatch {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(message.to_string())
    }

    fn invalid_type(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let wanted = wanted(expected);
        let hint = match unexpected {
            Unexpected::Bool(_) | Unexpected::Unsigned(_) | Unexpected::Signed(_) | Unexpected::Float(_)
                if wanted == "text" =>
            {
                ": put it in quotes"
            }
            _ => "",
        };
        Self::new(format!("is {}, must be {wanted}{hint}", found(unexpected)))
    }

    fn invalid_value(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(format!("is {}, must be {}", found(unexpected), wanted(expected)))
    }

    fn missing_field(field: &'static str) -> Self {
        Self {
            missing: Some(field),
            ..Self::new(format!("`{field}` is missing"))
        }
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Self::new(format!("is {variant:?}, must be one of {}", expected.join(", ")))
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        let message = match nearest(field, expected) {
            Some(near) => format!("unknown field, did you mean `{near}`?"),
            None => format!("unknown field, expected one of {}", expected.join(", ")),
        };
        Self {
            unknown: Some(field.to_owned()),
            ..Self::new(message)
        }
    }
}

/// What serde calls a type, in words of the configuration.
fn wanted(expected: &dyn Expected) -> String {
    let name = expected.to_string();
    match name.as_str() {
        "u16" => "a number from 0 to 65535".to_owned(),
        "u32" | "u64" | "usize" => "a whole number, 0 or more".to_owned(),
        "f64" => "a number".to_owned(),
        "a string" => "text".to_owned(),
        "a sequence" => "a list".to_owned(),
        "a map" => "a mapping of names to values".to_owned(),
        "a boolean" => "true or false".to_owned(),
        _ if name.starts_with("struct ") => "a mapping".to_owned(),
        _ => name,
    }
}

fn unexpected(value: &Value) -> Unexpected<'_> {
    match value {
        Value::Null => Unexpected::Unit,
        Value::Bool(value) => Unexpected::Bool(*value),
        Value::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(value), _) => Unexpected::Unsigned(value),
            (None, Some(value)) => Unexpected::Signed(value),
            (None, None) => Unexpected::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(value) => Unexpected::Str(value),
        Value::Array(_) => Unexpected::Seq,
        Value::Object(_) => Unexpected::Map,
    }
}

fn found(unexpected: Unexpected<'_>) -> String {
    match unexpected {
        Unexpected::Bool(value) => value.to_string(),
        Unexpected::Unsigned(value) => format!("the number {value}"),
        Unexpected::Signed(value) => format!("the number {value}"),
        Unexpected::Float(value) => format!("the number {value}"),
        Unexpected::Str(value) => {
            let short: String = value.chars().take(40).collect();
            let more = if short.len() < value.len() { "…" } else { "" };
            format!("the text {short:?}{more}")
        }
        Unexpected::Seq => "a list".to_owned(),
        Unexpected::Map => "a mapping".to_owned(),
        Unexpected::Unit => "empty".to_owned(),
        other => other.to_string(),
    }
}

/// The known name that `field` is probably a slip of.
fn nearest<'n>(field: &str, known: &[&'n str]) -> Option<&'n str> {
    let plain = |name: &str| name.to_lowercase().replace(['-', '_'], "");
    let field = plain(field);
    known
        .iter()
        .map(|name| (distance(&field, &plain(name)), *name))
        .min()
        .filter(|(distance, name)| *distance <= name.len() / 3)
        .map(|(_, name)| name)
}

/// Edit distance (Levenshtein), one row at a time.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, x) in a.chars().take(64).enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, y) in row.iter_mut().skip(1).zip(b.chars()) {
            let cost = (diagonal + usize::from(x != y)).min(*cell + 1).min(left + 1);
            diagonal = std::mem::replace(cell, cost);
            left = cost;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

/// A value, where it is, and which values are to be passed over.
struct Node<'a> {
    value: &'a Value,
    path: Path,
    struck: &'a BTreeSet<Path>,
}

impl<'de> Deserializer<'de> for Node<'_> {
    type Error = Mismatch;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        let path = self.path.clone();
        match self.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Number(number) => {
                if let Some(value) = number.as_u64() {
                    visitor.visit_u64(value)
                } else if let Some(value) = number.as_i64() {
                    visitor.visit_i64(value)
                } else {
                    visitor.visit_f64(number.as_f64().unwrap_or(f64::NAN))
                }
            }
            Value::String(value) => visitor.visit_str(value),
            Value::Array(elements) => visitor.visit_seq(Elements {
                node: &self,
                rest: elements.iter().enumerate(),
            }),
            Value::Object(fields) => visitor.visit_map(Fields {
                node: &self,
                rest: fields.iter(),
                value: None,
            }),
        }
        .map_err(|mismatch| mismatch.at(&path))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match self.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Mismatch> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        let path = self.path.clone();
        match self.value {
            Value::String(variant) => visitor.visit_enum(IntoDeserializer::<Mismatch>::into_deserializer(&**variant)),
            other => Err(Mismatch::new(format!(
                "is {}, must be one of {}",
                found(unexpected(other)),
                variants.join(", ")
            ))),
        }
        .map_err(|mismatch| mismatch.at(&path))
    }

    /// A derived struct would take a list of its fields' values, too.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        let unexpected = match self.value {
            Value::Array(_) => Unexpected::Seq,
            _ => return self.deserialize_any(visitor),
        };
        Err(Mismatch::invalid_type(unexpected, &visitor).at(&self.path))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map identifier ignored_any
    }
}

struct Elements<'a> {
    node: &'a Node<'a>,
    rest: std::iter::Enumerate<std::slice::Iter<'a, Value>>,
}

impl<'de> SeqAccess<'de> for Elements<'_> {
    type Error = Mismatch;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Mismatch> {
        for (index, value) in self.rest.by_ref() {
            let path = self.node.path.index(index);
            if !self.node.struck.contains(&path) {
                return seed
                    .deserialize(Node {
                        value,
                        path,
                        struck: self.node.struck,
                    })
                    .map(Some);
            }
        }
        Ok(None)
    }
}

struct Fields<'a> {
    node: &'a Node<'a>,
    rest: serde_json::map::Iter<'a>,
    value: Option<(Path, &'a Value)>,
}

impl<'de> MapAccess<'de> for Fields<'_> {
    type Error = Mismatch;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Mismatch> {
        for (key, value) in self.rest.by_ref() {
            let path = self.node.path.key(key);
            if !value.is_null() && !self.node.struck.contains(&path) {
                self.value = Some((path, value));
                return seed.deserialize(StrDeserializer::new(key)).map(Some);
            }
        }
        Ok(None)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Mismatch> {
        match self.value.take() {
            Some((path, value)) => seed.deserialize(Node {
                value,
                path,
                struck: self.node.struck,
            }),
            None => Err(Mismatch::custom("a value was asked for before its key")),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::validate::validate;

    #[track_caller]
    fn check(value: Value, expected: &[&str]) {
        let problems: Vec<String> = match decode(&value, validate) {
            Ok(_) => Vec::new(),
            Err(problems) => problems.iter().map(ToString::to_string).collect(),
        };
        assert_eq!(problems, expected);
    }

    #[test]
    fn what_fits_is_decoded() {
        check(json!({"routing": {"defaultTarget": "a"}}), &[]);
        check(
            json!({"server": null, "routing": {"defaultTarget": "a", "rules": null}}),
            &[],
        );
    }

    #[test]
    fn every_mismatch_is_reported_at_once() {
        check(
            json!({
                "sever": {},
                "server": {"httpPort": "80", "grpcPort": 70000, "metricsPort": -1, "bindAddress": 7},
                "routing": {"defaulttarget": "a", "rules": [
                    {"routeKey": 17, "targetService": ["a"], "pathPrefixes": "/x"},
                    "what",
                    {"routeKey": "k", "additionalHeaders": {"X-A": true}},
                ]},
            }),
            &[
                "routing.defaulttarget: unknown field, did you mean `defaultTarget`?",
                "routing.rules[0].pathPrefixes: is the text \"/x\", must be a list",
                "routing.rules[0].routeKey: is the number 17, must be text: put it in quotes",
                "routing.rules[0].targetService: is a list, must be text",
                "routing.rules[1]: is the text \"what\", must be a mapping",
                "routing.rules[2].additionalHeaders.X-A: is true, must be text: put it in quotes",
                "routing: `defaultTarget` is missing",
                "server.bindAddress: is the number 7, must be text: put it in quotes",
                "server.grpcPort: is the number 70000, must be a number from 0 to 65535",
                "server.httpPort: is the text \"80\", must be a number from 0 to 65535",
                "server.metricsPort: is the number -1, must be a number from 0 to 65535",
                "sever: unknown field, did you mean `server`?",
            ],
        );
    }

    #[test]
    fn what_is_left_is_validated_at_its_place() {
        check(
            json!({"server": {"httpPort": 0, "x": 1}, "routing": {"defaultTarget": "a", "rules": [
                {"routeKey": "k", "targetService": "a", "name": 1},
                17,
                {"routeKey": "", "targetService": "a"},
                false,
                {"routeKey": "k", "targetService": "a b", "pathPrefixes": [true, "x"]},
            ]}}),
            &[
                "routing.rules[0].name: is the number 1, must be text: put it in quotes",
                "routing.rules[1]: is the number 17, must be a mapping",
                "routing.rules[3]: is false, must be a mapping",
                "routing.rules[4].pathPrefixes[0]: is true, must be text: put it in quotes",
                "server.x: unknown field, expected one of httpPort, grpcPort, metricsPort, bindAddress, adminPort, mode, tls, \
                 drainTime",
                "server.httpPort: is 0, must be a number from 1 to 65535",
                "routing.rules[2].routeKey: is empty, must be 1 to 256 visible characters",
                "routing.rules[4].targetService: \"a b\" is no host name and no IP address, must be HOST or HOST:PORT, \
                 an IPv6 address in brackets",
                "routing.rules[4].pathPrefixes[1]: \"x\" must begin with a slash: \"/x\"",
            ],
        );
    }

    #[test]
    fn something_else_altogether_is_one_problem() {
        check(json!([]), &["the configuration: is a list, must be a mapping"]);
        check(
            json!("text"),
            &["the configuration: is the text \"text\", must be a mapping"],
        );
        check(json!(null), &["the configuration: is empty, must be a mapping"]);
        check(json!({}), &["the configuration: `routing` is missing"]);
    }

    #[test]
    fn a_flood_of_problems_has_an_end() {
        let rules: Vec<Value> = (0..200).map(Value::from).collect();
        let problems = decode(&json!({"routing": {"rules": rules}}), validate).unwrap_err();
        assert_eq!(problems.len(), MAX_PROBLEMS + 1);
    }
}
