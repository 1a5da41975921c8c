//! What a rule compares a request with, checked.

use std::fmt;

use thiserror::Error;

/// The longest regular expression, in bytes.
const MAX_REGEX_BYTES: usize = 1024;

/// The largest compiled regular expression, in bytes. It bounds what matching costs, too.
const MAX_COMPILED_BYTES: usize = 64 * 1024;

/// A regular expression that matches a whole value, in time linear in the value.
#[derive(Clone)]
pub struct Pattern {
    text: String,
    compiled: regex_lite::Regex,
}

/// Why a text is no [`Pattern`].
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum InvalidPattern {
    /// It has this many bytes.
    #[error("the regular expression has {0} bytes, must have at most {MAX_REGEX_BYTES}")]
    TooLong(usize),
    /// The engine refuses it, for this reason.
    #[error("{0:?} is no regular expression: {1}")]
    Syntax(String, String),
}

/// An authority, port aside: a host name, or `*.` and a host name for one label in the wildcard's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostPattern {
    /// This host, in lower case.
    Exact(String),
    /// One label and this, which begins with a dot, in lower case.
    OneLabelBefore(String),
}

/// Why a text is no [`HostPattern`].
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum InvalidHostPattern {
    /// It matches everything.
    #[error("\"*\" matches every host: leave `hosts` out, or write *.HOST")]
    Everything,
    /// It has a port.
    #[error("{0:?} has a port, which isn't compared: leave it out")]
    Port(String),
    /// It is something else.
    #[error("{0:?} is no host, must be a name such as shop.example, or *.shop.example for one label in the place of *")]
    Form(String),
}

impl HostPattern {
    /// Whether there are hosts that both match.
    pub fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exact(one), Self::Exact(other)) | (Self::OneLabelBefore(one), Self::OneLabelBefore(other)) => {
                one == other
            }
            (Self::Exact(host), Self::OneLabelBefore(suffix)) | (Self::OneLabelBefore(suffix), Self::Exact(host)) => {
                let label = host.strip_suffix(suffix.as_str());
                label.is_some_and(|label| !label.is_empty() && !label.contains('.'))
            }
        }
    }
}

/// A request method (RFC 9110 §9.1).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Method(String);

/// Why a text is no [`Method`].
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum InvalidMethod {
    /// It is written in lower case.
    #[error("{0:?} must be in upper case: {1:?}")]
    Case(String, String),
    /// It isn't a token.
    #[error("{0:?} is no method, must be a name such as GET")]
    Form(String),
}

/// What the value of a header or of a query parameter must be.
#[derive(Clone, Debug, PartialEq)]
pub enum ValueTest {
    /// One of these.
    OneOf(Vec<String>),
    /// Begins with this.
    Prefix(String),
    /// Ends with this.
    Suffix(String),
    /// Has this in it.
    Contains(String),
    /// Matches as a whole.
    Regex(Pattern),
    /// Is there.
    Present,
    /// Isn't there.
    Absent,
}

/// What the path must be.
#[derive(Clone, Debug, PartialEq)]
pub enum PathTest {
    /// This.
    Exact(String),
    /// This and what lies below it.
    Prefix(crate::names::PathPrefix),
    /// Matches as a whole.
    Regex(Pattern),
}

impl Pattern {
    /// Compiles `text`.
    ///
    /// # Errors
    ///
    /// See [`InvalidPattern`].
    pub fn parse(text: &str) -> Result<Self, InvalidPattern> {
        if text.len() > MAX_REGEX_BYTES {
            return Err(InvalidPattern::TooLong(text.len()));
        }
        let syntax = |error: regex_lite::Error| InvalidPattern::Syntax(text.to_owned(), error.to_string());
        let build = |pattern: &str| {
            regex_lite::RegexBuilder::new(pattern)
                .size_limit(MAX_COMPILED_BYTES)
                .nest_limit(32)
                .build()
                .map_err(syntax)
        };
        // By itself first: `a)(b` would be an expression within the group below.
        build(text)?;
        let compiled = build(&format!("^(?:{text})$"))?;
        // The engine makes its scratch space when it is first used; a request shall not be that.
        compiled.is_match("");
        Ok(Self {
            text: text.to_owned(),
            compiled,
        })
    }

    /// The expression as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether all of `value` matches. What isn't UTF-8 doesn't.
    pub fn matches(&self, value: &[u8]) -> bool {
        std::str::from_utf8(value).is_ok_and(|value| self.compiled.is_match(value))
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text.fmt(f)
    }
}

impl HostPattern {
    /// Checks `text` and makes it lower case.
    ///
    /// # Errors
    ///
    /// See [`InvalidHostPattern`].
    pub fn parse(text: &str) -> Result<Self, InvalidHostPattern> {
        let form = || InvalidHostPattern::Form(text.to_owned());
        if text == "*" {
            return Err(InvalidHostPattern::Everything);
        }
        let text = text.to_ascii_lowercase();
        let (wildcard, name) = match text.strip_prefix('*') {
            Some(rest) => (true, rest.strip_prefix('.').ok_or_else(form)?),
            None => (false, text.as_str()),
        };
        if name
            .rsplit_once(':')
            .is_some_and(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()))
            && !name.ends_with(']')
        {
            return Err(InvalidHostPattern::Port(text));
        }
        let is_ip = name.parse::<std::net::Ipv4Addr>().is_ok()
            || name
                .strip_prefix('[')
                .and_then(|n| n.strip_suffix(']'))
                .is_some_and(|n| n.parse::<std::net::Ipv6Addr>().is_ok());
        let is_label = |label: &str| {
            (1..=63).contains(&label.len())
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        let is_name = name.len() <= 253 && name.split('.').all(is_label);
        if !is_name && (wildcard || !is_ip) {
            return Err(form());
        }
        Ok(if wildcard {
            Self::OneLabelBefore(format!(".{name}"))
        } else {
            Self::Exact(name.to_owned())
        })
    }
}

impl Method {
    /// Checks `text`.
    ///
    /// # Errors
    ///
    /// See [`InvalidMethod`].
    pub fn parse(text: &str) -> Result<Self, InvalidMethod> {
        if text.is_empty() || text.len() > 32 || !text.bytes().all(|b| b.is_ascii_alphabetic() || b == b'-') {
            return Err(InvalidMethod::Form(text.to_owned()));
        }
        if text.bytes().any(|b| b.is_ascii_lowercase()) {
            return Err(InvalidMethod::Case(text.to_owned(), text.to_ascii_uppercase()));
        }
        Ok(Self(text.to_owned()))
    }

    /// The method.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_the_whole_value() {
        let pattern = Pattern::parse("foo|foobar").unwrap();
        assert!(pattern.matches(b"foo") && pattern.matches(b"foobar"));
        assert!(!pattern.matches(b"xfoo") && !pattern.matches(b"foo\n") && !pattern.matches(b"foo\xff"));
        assert!(Pattern::parse("").unwrap().matches(b""));
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for text in [
            "(",
            "a)(b",
            "[",
            "a{99999}",
            r"(a)\1",
            "(?=a)",
            "((((((((((((((((((((((((((((((((((((((((x))))))))))))))))))))))))))))))))))))))))",
        ] {
            assert!(Pattern::parse(text).is_err(), "{text}");
        }
        assert_eq!(Pattern::parse(&"a".repeat(1025)), Err(InvalidPattern::TooLong(1025)));
    }

    #[test]
    fn a_host_is_a_name_or_one_label_before_a_name() {
        assert_eq!(
            HostPattern::parse("Shop.Example"),
            Ok(HostPattern::Exact("shop.example".to_owned()))
        );
        assert_eq!(
            HostPattern::parse("*.shop.example"),
            Ok(HostPattern::OneLabelBefore(".shop.example".to_owned()))
        );
        assert!(HostPattern::parse("10.0.0.1").is_ok() && HostPattern::parse("[::1]").is_ok());
        assert_eq!(HostPattern::parse("*"), Err(InvalidHostPattern::Everything));
        assert_eq!(
            HostPattern::parse("a:80"),
            Err(InvalidHostPattern::Port("a:80".to_owned()))
        );
        for text in ["", "a.*.b", "*a", "*.", "a b", "http://a", "a..b", "*.*.a"] {
            assert!(HostPattern::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_method_is_in_upper_case() {
        assert!(Method::parse("GET").is_ok() && Method::parse("M-SEARCH").is_ok());
        assert_eq!(
            Method::parse("get"),
            Err(InvalidMethod::Case("get".to_owned(), "GET".to_owned()))
        );
        assert!(Method::parse("").is_err() && Method::parse("G T").is_err());
    }
}
