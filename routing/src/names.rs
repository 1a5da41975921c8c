//! The checked building blocks of a configuration. Each type can only hold what is right, so nothing checks it again.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use thiserror::Error;

use crate::headers::reserved;

/// The longest route key, in bytes. A longer one in a request counts as invalid.
pub const MAX_ROUTE_KEY_BYTES: usize = 256;

const DEFAULT_PORT: u16 = 80;
const MAX_HEADER_NAME_BYTES: usize = 256;
const MAX_HEADER_VALUE_BYTES: usize = 8 * 1024;

/// A route key: 1 to 256 visible ASCII characters without a comma, which would separate two values in one header.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteKey(String);

/// Why a text is no [`RouteKey`].
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum InvalidRouteKey {
    /// It has no characters.
    #[error("is empty, must be 1 to {MAX_ROUTE_KEY_BYTES} visible characters")]
    Empty,
    /// It has this many bytes.
    #[error("has {0} bytes, must have at most {MAX_ROUTE_KEY_BYTES}")]
    TooLong(usize),
    /// It has this character.
    #[error("has the character {0:?}, must be visible ASCII characters other than a comma")]
    Character(char),
}

/// A header name (RFC 9110 §5.1), in lower case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HeaderName(String);

/// Why a text is no [`HeaderName`].
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum InvalidHeaderName {
    /// It has no characters.
    #[error("a header name is empty, must be a name such as X-User")]
    Empty,
    /// It has this many bytes.
    #[error("the header name has {0} bytes, must have at most {MAX_HEADER_NAME_BYTES}")]
    TooLong(usize),
    /// It has this character.
    #[error("the header name has the character {0:?}, must be letters, digits and - only, as in X-User")]
    Character(char),
    /// It is somebody else's, for this reason.
    #[error("this header can't be used here: {0}")]
    Reserved(&'static str),
}

/// A header value (RFC 9110 §5.5): no control characters, no white space around it, at most 8 KiB.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HeaderValue(String);

/// Why a text is no [`HeaderValue`].
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum InvalidHeaderValue {
    /// It has this many bytes.
    #[error("the header value has {0} bytes, must have at most {MAX_HEADER_VALUE_BYTES}")]
    TooLong(usize),
    /// It has this character.
    #[error("the header value has the control character {0:?}, which HTTP forbids")]
    Character(char),
    /// It begins or ends with white space, which HTTP takes away.
    #[error("the header value has white space around it, which HTTP takes away: leave it out")]
    Surrounded,
}

/// A path prefix that matches whole segments: `/api/v1` matches `/api/v1` and `/api/v1/x`, not `/api/v10`; with a slash
/// at its end, only what lies below.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathPrefix(String);

/// Why a text is no [`PathPrefix`].
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum InvalidPathPrefix {
    /// It doesn't begin with a slash.
    #[error("{0:?} must begin with a slash: {1:?}")]
    Relative(String, String),
    /// A normalised path never has this in it.
    #[error("can never match, because a path has no {0} when it is compared: leave it out")]
    Never(&'static str),
}

/// Where a target is reached: `HOST` or `HOST:PORT`, port 80 unless given. Equal targets are one Envoy cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    host: Host,
    port: u16,
}

/// The host of a [`Target`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    /// A DNS name, in lower case.
    Name(String),
    /// An IP address.
    Ip(IpAddr),
}

/// Why a text is no [`Target`].
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum InvalidTarget {
    /// It has no characters.
    #[error("is empty, must be HOST or HOST:PORT")]
    Empty,
    /// It is a URL.
    #[error("{0:?} is a URL, must be HOST or HOST:PORT: write {1:?}")]
    Url(String, String),
    /// Its host is neither a DNS name nor an IP address.
    #[error("{0:?} is no host name and no IP address, must be HOST or HOST:PORT, an IPv6 address in brackets")]
    Host(String),
    /// Its port is no number from 1 to 65535.
    #[error("{0:?} is no port, must be a number from 1 to 65535")]
    Port(String),
}

impl RouteKey {
    /// Checks `text`.
    ///
    /// # Errors
    ///
    /// See [`InvalidRouteKey`].
    pub fn parse(text: &str) -> Result<Self, InvalidRouteKey> {
        if text.is_empty() {
            return Err(InvalidRouteKey::Empty);
        }
        if text.len() > MAX_ROUTE_KEY_BYTES {
            return Err(InvalidRouteKey::TooLong(text.len()));
        }
        match text.chars().find(|c| !c.is_ascii_graphic() || *c == ',') {
            Some(character) => Err(InvalidRouteKey::Character(character)),
            None => Ok(Self(text.to_owned())),
        }
    }

    /// The key as it stands in the header.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl HeaderName {
    /// Checks `text` and makes it lower case.
    ///
    /// # Errors
    ///
    /// See [`InvalidHeaderName`].
    pub fn parse(text: &str) -> Result<Self, InvalidHeaderName> {
        const TOKEN_PUNCTUATION: &str = "!#$%&'*+-.^_`|~";
        let name = text.to_ascii_lowercase();
        if name.is_empty() {
            return Err(InvalidHeaderName::Empty);
        }
        if name.len() > MAX_HEADER_NAME_BYTES {
            return Err(InvalidHeaderName::TooLong(name.len()));
        }
        if let Some(reason) = reserved(&name) {
            return Err(InvalidHeaderName::Reserved(reason));
        }
        match name
            .chars()
            .find(|c| !c.is_ascii_alphanumeric() && !TOKEN_PUNCTUATION.contains(*c))
        {
            Some(character) => Err(InvalidHeaderName::Character(character)),
            None => Ok(Self(name)),
        }
    }

    /// The name in lower case, as HTTP/2 and Envoy have it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl HeaderValue {
    /// Checks `text`.
    ///
    /// # Errors
    ///
    /// See [`InvalidHeaderValue`].
    pub fn parse(text: &str) -> Result<Self, InvalidHeaderValue> {
        if text.len() > MAX_HEADER_VALUE_BYTES {
            return Err(InvalidHeaderValue::TooLong(text.len()));
        }
        if let Some(character) = text.chars().find(|c| c.is_ascii_control() && *c != '\t') {
            return Err(InvalidHeaderValue::Character(character));
        }
        if text.trim_matches([' ', '\t']).len() < text.len() {
            return Err(InvalidHeaderValue::Surrounded);
        }
        Ok(Self(text.to_owned()))
    }

    /// The value.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl PathPrefix {
    /// Checks `text`.
    ///
    /// # Errors
    ///
    /// See [`InvalidPathPrefix`].
    pub fn parse(text: &str) -> Result<Self, InvalidPathPrefix> {
        if !text.starts_with('/') {
            return Err(InvalidPathPrefix::Relative(text.to_owned(), format!("/{text}")));
        }
        let never = if text.contains('?') {
            "query"
        } else if text.contains('#') {
            "fragment"
        } else if text.contains('\\') {
            "backslash"
        } else if text.contains("//") {
            "empty segment"
        } else if text.split('/').any(|segment| segment == "." || segment == "..") {
            "dot segment"
        } else if text.chars().any(|c| c.is_control() || c == ' ') {
            "white space or control character"
        } else {
            return Ok(Self(text.to_owned()));
        };
        Err(InvalidPathPrefix::Never(never))
    }

    /// Whether `path` is matched by this prefix.
    pub(crate) fn has_below(&self, path: &str) -> bool {
        let rest = path.strip_prefix(self.0.as_str());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || self.0.ends_with('/'))
    }

    /// The prefix as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Target {
    /// Checks `text`: `HOST`, `HOST:PORT`, `[IPV6]` or `[IPV6]:PORT`.
    ///
    /// # Errors
    ///
    /// See [`InvalidTarget`].
    pub fn parse(text: &str) -> Result<Self, InvalidTarget> {
        if text.is_empty() {
            return Err(InvalidTarget::Empty);
        }
        if let Some((_, rest)) = text.split_once("://") {
            let authority = rest.split('/').next().unwrap_or_default();
            return Err(InvalidTarget::Url(text.to_owned(), authority.to_owned()));
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !text.ends_with(']') => (host, Some(port)),
            _ => (text, None),
        };
        let port = match port {
            None => DEFAULT_PORT,
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => digits
                .parse()
                .ok()
                .filter(|port| *port != 0)
                .ok_or_else(|| InvalidTarget::Port(digits.to_owned()))?,
            Some(other) => return Err(InvalidTarget::Port(other.to_owned())),
        };
        Ok(Self {
            host: Host::parse(host).map_err(|_| InvalidTarget::Host(text.to_owned()))?,
            port,
        })
    }

    /// The target at this address.
    pub(crate) fn on(ip: IpAddr, port: u16) -> Self {
        Self {
            host: Host::Ip(ip),
            port,
        }
    }

    /// The host.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The port, 1 to 65535.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Host {
    pub(crate) fn parse(text: &str) -> Result<Self, InvalidTarget> {
        let invalid = || InvalidTarget::Host(text.to_owned());
        if let Some(inner) = text.strip_prefix('[') {
            let address = inner.strip_suffix(']').and_then(|ip| ip.parse::<Ipv6Addr>().ok());
            return address.map(|ip| Self::Ip(ip.into())).ok_or_else(invalid);
        }
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        let last_label = name.rsplit('.').next().unwrap_or_default();
        if last_label.bytes().all(|b| b.is_ascii_digit()) {
            // No top-level domain is a number: it is an IPv4 address or a slip in one.
            return name
                .parse::<std::net::Ipv4Addr>()
                .map(|ip| Self::Ip(ip.into()))
                .map_err(|_| invalid());
        }
        let is_label = |label: &str| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        if name.len() > 253 || !name.split('.').all(is_label) {
            return Err(invalid());
        }
        Ok(Self::Name(name))
    }
}

impl fmt::Display for Target {
    /// `HOST:PORT`, also the name of the target's cluster in Envoy.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]:{}", self.port),
            host => write!(f, "{host}:{}", self.port),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Ip(ip) => ip.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn target(text: &str, expected: &str) {
        let actual = Target::parse(text).map_or_else(|error| error.to_string(), |target| target.to_string());
        assert_eq!(actual, expected, "{text}");
    }

    #[test]
    fn a_target_is_a_host_and_a_port() {
        target("default-service", "default-service:80");
        target(
            "Service-A.Sandbox.svc.cluster.local.",
            "service-a.sandbox.svc.cluster.local:80",
        );
        target("a_b:8080", "a_b:8080");
        target("10.0.0.1", "10.0.0.1:80");
        target("10.0.0.1:1", "10.0.0.1:1");
        target("[::1]", "[::1]:80");
        target("[0:0::1]:9", "[::1]:9");
    }

    #[test]
    fn what_is_no_target_says_what_would_be() {
        const HOST: &str = "is no host name and no IP address, must be HOST or HOST:PORT, an IPv6 address in brackets";
        target("", "is empty, must be HOST or HOST:PORT");
        target(
            "http://a:80/x",
            "\"http://a:80/x\" is a URL, must be HOST or HOST:PORT: write \"a:80\"",
        );
        target("a:0", "\"0\" is no port, must be a number from 1 to 65535");
        target("a:65536", "\"65536\" is no port, must be a number from 1 to 65535");
        target("a:", "\"\" is no port, must be a number from 1 to 65535");
        target("a:+1", "\"+1\" is no port, must be a number from 1 to 65535");
        for host in [
            "a b",
            "a/b",
            "-a",
            "a..b",
            "256.0.0.1",
            "1.2.3",
            "::1:80",
            "[::1",
            "ü",
            ".",
            "[10.0.0.1]",
        ] {
            let error = Target::parse(host).unwrap_err().to_string();
            assert!(error.ends_with(HOST), "{host}: {error}");
        }
        assert!(Target::parse(&"a".repeat(64)).is_err());
    }

    #[test]
    fn a_route_key_is_visible_and_bounded() {
        assert!(RouteKey::parse("sandbox-123/äh".trim_end_matches("/äh")).is_ok());
        assert!(RouteKey::parse(&"k".repeat(256)).is_ok());
        assert_eq!(RouteKey::parse(&"k".repeat(257)), Err(InvalidRouteKey::TooLong(257)));
        assert_eq!(RouteKey::parse(""), Err(InvalidRouteKey::Empty));
        for character in [' ', ',', '\n', '\0', 'ä'] {
            assert_eq!(
                RouteKey::parse(&format!("a{character}")),
                Err(InvalidRouteKey::Character(character))
            );
        }
    }

    #[test]
    fn a_header_name_is_a_token_nobody_else_owns() {
        assert_eq!(HeaderName::parse("X-Environment").unwrap().as_str(), "x-environment");
        assert_eq!(HeaderName::parse("a b"), Err(InvalidHeaderName::Character(' ')));
        assert_eq!(HeaderName::parse(""), Err(InvalidHeaderName::Empty));
        for name in [
            ":path",
            "Host",
            "Content-Length",
            "TE",
            "X-Envoy-Retry-On",
            "X-Route-Cluster",
            "x-route-mirror",
        ] {
            assert!(
                matches!(HeaderName::parse(name), Err(InvalidHeaderName::Reserved(_))),
                "{name}"
            );
        }
    }

    #[test]
    fn a_header_value_is_what_http_can_carry() {
        assert!(HeaderValue::parse("").is_ok());
        assert!(HeaderValue::parse("a\tb ü").is_ok());
        assert_eq!(HeaderValue::parse("a\r\nb"), Err(InvalidHeaderValue::Character('\r')));
        assert_eq!(HeaderValue::parse(" a"), Err(InvalidHeaderValue::Surrounded));
        assert_eq!(
            HeaderValue::parse(&"a".repeat(8193)),
            Err(InvalidHeaderValue::TooLong(8193))
        );
    }

    #[test]
    fn a_prefix_that_can_never_match_is_refused() {
        for prefix in ["/", "/api/v1", "/api/v1/", "/a.b/..c"] {
            assert!(PathPrefix::parse(prefix).is_ok(), "{prefix}");
        }
        for prefix in [
            "", "api", "/a?b", "/a#b", "/a//b", "/a/../b", "/.", "/a\\b", "/a b", "/a\n",
        ] {
            assert!(PathPrefix::parse(prefix).is_err(), "{prefix}");
        }
    }
}
