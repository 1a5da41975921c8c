//! JSON as strangers send it: read strictly, and with bounds on what it may cost.
//!
//! Unlike serde_json's own reading a name that is given twice is refused, and so is null, which could mean anything; and the
//! number of values is bounded: `{}` costs many times its two bytes of memory.

use std::cell::{Cell, RefCell};
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use sidetrack_routing::{Path, Problem, Segment};

/// How deep lists and mappings may be nested.
const MAX_DEPTH: usize = 32;

/// How many values one element of a list may have, or a text that isn't read as a list.
const MAX_VALUES: usize = 65_536;

/// Reads one value.
///
/// # Errors
///
/// It is no JSON, or too deep or too large.
pub(crate) fn read(text: &[u8]) -> Result<Value, Problem> {
    let reading = Reading::default();
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let value = reading.value(0).deserialize(&mut deserializer);
    let value = value.and_then(|value| deserializer.end().map(|()| value));
    value.map_err(|error| reading.problem(&error))
}

/// Reads a list and hands each element with its index to `each`, so that there is never the whole of it.
///
/// # Errors
///
/// It is no JSON, no list, or an element is too deep or too large. Elements may have been handed over.
pub(crate) fn read_list(text: &[u8], each: impl FnMut(usize, Value)) -> Result<(), Problem> {
    let reading = Reading::default();
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let list = List {
        reading: &reading,
        each,
    };
    let read = (&mut deserializer)
        .deserialize_any(list)
        .and_then(|()| deserializer.end());
    read.map_err(|error| reading.problem(&error))
}

/// What is known so far. A problem's segments are noted innermost first, on the way out.
struct Reading {
    left: Cell<usize>,
    found: RefCell<Option<(Vec<Segment>, String)>>,
}

impl Default for Reading {
    fn default() -> Self {
        Self {
            left: Cell::new(MAX_VALUES),
            found: RefCell::default(),
        }
    }
}

impl Reading {
    fn value(&self, depth: usize) -> OneValue<'_> {
        OneValue { reading: self, depth }
    }

    fn refuse<E: serde::de::Error>(&self, message: String) -> E {
        *self.found.borrow_mut() = Some((Vec::new(), message));
        E::custom("refused")
    }

    fn within<E>(&self, error: E, segment: impl FnOnce() -> Segment) -> E {
        if let Some((segments, _)) = self.found.borrow_mut().as_mut() {
            segments.push(segment());
        }
        error
    }

    fn problem(&self, error: &serde_json::Error) -> Problem {
        match self.found.take() {
            Some((segments, message)) => {
                let path = segments
                    .into_iter()
                    .rev()
                    .fold(Path::root(), |path, segment| match segment {
                        Segment::Key(key) => path.key(key),
                        Segment::Index(index) => path.index(index),
                    });
                Problem { path, message }
            }
            None => Problem {
                path: Path::root(),
                message: format!("is no JSON: {error}"),
            },
        }
    }
}

#[derive(Clone, Copy)]
struct OneValue<'r> {
    reading: &'r Reading,
    depth: usize,
}

impl OneValue<'_> {
    fn inner<E: serde::de::Error>(self) -> Result<Self, E> {
        let depth = self.depth + 1;
        if depth > MAX_DEPTH {
            let message = format!("is nested more than {MAX_DEPTH} deep");
            return Err(self.reading.refuse(message));
        }
        Ok(Self { depth, ..self })
    }
}

impl<'de> DeserializeSeed<'de> for OneValue<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        let left = self.reading.left.get();
        if left == 0 {
            let message = format!("has more than {MAX_VALUES} values in one");
            return Err(self.reading.refuse(message));
        }
        self.reading.left.set(left - 1);
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for OneValue<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Value, E> {
        Err(self.reading.refuse("is null: leave it out".to_owned()))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        let number = Number::from_f64(value);
        number
            .map(Value::Number)
            .ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        let mut list = Vec::new();
        loop {
            let index = list.len();
            let element = elements.next_element_seed(inner);
            match element.map_err(|error| self.reading.within(error, || Segment::Index(index)))? {
                Some(element) => list.push(element),
                None => return Ok(Value::Array(list)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        let mut map = Map::new();
        while let Some(name) = fields.next_key::<String>()? {
            let value = fields.next_value_seed(inner);
            let value = value.map_err(|error| self.reading.within(error, || Segment::Key(name.clone())))?;
            if map.contains_key(&name) {
                let error = self.reading.refuse("is given twice: leave one out".to_owned());
                return Err(self.reading.within(error, || Segment::Key(name)));
            }
            map.insert(name, value);
        }
        Ok(Value::Object(map))
    }
}

struct List<'r, F> {
    reading: &'r Reading,
    each: F,
}

impl<'de, F: FnMut(usize, Value)> Visitor<'de> for List<'_, F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut elements: A) -> Result<(), A::Error> {
        for index in 0.. {
            self.reading.left.set(MAX_VALUES);
            let element = elements.next_element_seed(self.reading.value(1));
            match element.map_err(|error| self.reading.within(error, || Segment::Index(index)))? {
                Some(element) => (self.each)(index, element),
                None => break,
            }
        }
        Ok(())
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        Err(self.reading.refuse("is null, must be a list".to_owned()))
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<(), E> {
        Err(self.reading.refuse(format!("is {value}, must be a list")))
    }

    fn visit_u64<E: serde::de::Error>(self, _: u64) -> Result<(), E> {
        Err(self.reading.refuse("is a number, must be a list".to_owned()))
    }

    fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<(), E> {
        Err(self.reading.refuse("is a number, must be a list".to_owned()))
    }

    fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<(), E> {
        Err(self.reading.refuse("is a number, must be a list".to_owned()))
    }

    fn visit_str<E: serde::de::Error>(self, _: &str) -> Result<(), E> {
        Err(self.reading.refuse("is text, must be a list".to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<(), A::Error> {
        Err(self.reading.refuse("is a mapping, must be a list".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(text: impl AsRef<[u8]>, expected: &str) {
        let problem = read(text.as_ref()).unwrap_err();
        let said = problem.to_string();
        assert!(said.contains(expected), "{said}");
    }

    #[test]
    fn what_is_json_is_read() {
        let text = r#" {"a": [1, -2, 1.5, true, "x\u00fc"], "b": {}} "#;
        let expected = json!({"a": [1, -2, 1.5, true, "xü"], "b": {}});
        assert_eq!(read(text.as_bytes()).unwrap(), expected);
    }

    #[test]
    fn a_name_given_twice_is_refused_with_its_path() {
        check(
            r#"{"a": [0, {"b": 1, "b": 2}]}"#,
            "a[1].b: is given twice: leave one out",
        );
    }

    #[test]
    fn what_is_no_json_is_refused() {
        check("", "is no JSON: EOF");
        check("{}{}", "is no JSON: trailing characters at line 1 column 3");
        check("[1e999]", "is no JSON: number out of range");
        check(r#""\ud800""#, "is no JSON");
        check(b"\"\xff\"", "is no JSON: invalid unicode code point");
        check("NaN", "is no JSON");
    }

    #[test]
    fn depth_and_number_of_values_are_bounded() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(read(nested(MAX_DEPTH).as_bytes()).is_ok());
        check(nested(MAX_DEPTH + 1), "is nested more than 32 deep");
        check(nested(1_000_000), "is nested more than 32 deep");
        check(
            format!("[{}0]", "0,".repeat(MAX_VALUES)),
            "has more than 65536 values in one",
        );
    }

    #[test]
    fn a_list_is_read_element_by_element() {
        let mut elements = Vec::new();
        let text = format!("[{}]", vec!["{\"a\": 1}"; 100_000].join(","));
        read_list(text.as_bytes(), |index, element| elements.push((index, element))).unwrap();
        assert_eq!(elements.len(), 100_000);
        assert_eq!(elements[99_999], (99_999, json!({"a": 1})));
        for (text, expected) in [
            ("{}", "is a mapping, must be a list"),
            ("null", "is null, must be a list"),
            ("[{\"a\": 1, \"a\": 1}]", "[0].a: is given twice"),
            ("[1] 2", "trailing characters"),
            ("[1, 2", "EOF"),
        ] {
            let said = read_list(text.as_bytes(), |_, _| {}).unwrap_err().to_string();
            assert!(said.contains(expected), "{said}");
        }
    }
}
