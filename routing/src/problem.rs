//! What is wrong with a configuration, and where.

use std::fmt;

/// Where a value stands in a configuration: `routing.rules[0].pathPrefixes[1]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Path(Vec<Segment>);

/// One step of a [`Path`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Segment {
    /// A field of a mapping.
    Key(String),
    /// An element of a list, from 0.
    Index(usize),
}

/// One thing that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The value that is wrong; of a missing field, the mapping it is missing from.
    pub path: Path,
    /// What is wrong and what would be right: lower case, no full stop.
    pub message: String,
}

impl Path {
    /// The whole configuration.
    pub fn root() -> Self {
        Self::default()
    }

    /// The field `key` below this path.
    #[must_use]
    pub fn key(&self, key: impl Into<String>) -> Self {
        self.with(Segment::Key(key.into()))
    }

    /// The list element `index` below this path.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        self.with(Segment::Index(index))
    }

    /// The mapping or list that this is a part of.
    pub fn parent(&self) -> Option<Self> {
        let (_, segments) = self.0.split_last()?;
        Some(Self(segments.to_vec()))
    }

    /// The steps from the root, outermost first.
    pub fn segments(&self) -> &[Segment] {
        &self.0
    }

    fn with(&self, segment: Segment) -> Self {
        let mut segments = self.0.clone();
        segments.push(segment);
        Self(segments)
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("the configuration");
        }
        for (depth, segment) in self.0.iter().enumerate() {
            match segment {
                Segment::Index(index) => write!(f, "[{index}]")?,
                Segment::Key(key) if is_plain(key) && depth == 0 => f.write_str(key)?,
                Segment::Key(key) if is_plain(key) => write!(f, ".{key}")?,
                Segment::Key(key) => write!(f, "[{key:?}]")?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

fn is_plain(key: &str) -> bool {
    !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_reads_like_code() {
        let rule = Path::root().key("routing").key("rules").index(2);
        assert_eq!(rule.to_string(), "routing.rules[2]");
        assert_eq!(
            rule.key("additionalHeaders").key("X-A").to_string(),
            "routing.rules[2].additionalHeaders.X-A"
        );
        assert_eq!(
            Path::root().key("services").key("a.b:80").to_string(),
            r#"services["a.b:80"]"#
        );
        assert_eq!(Path::root().to_string(), "the configuration");
    }
}
