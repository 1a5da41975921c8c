//! Which Envoys a configuration can be rendered for.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// A minor version of Envoy; the releases of one don't differ in what they can be told.
///
/// A field that an Envoy doesn't have, it refuses in a file and ignores without a word when it comes from the agent.
/// So what is rendered depends on this where the versions differ, and `tests/tests/versions.rs` holds that each knows
/// every field it gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "they say it themselves")]
pub enum EnvoyVersion {
    V1_37,
    V1_38,
    V1_39,
    V1_40,
}

/// Why there is no configuration for an Envoy.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InvalidEnvoyVersion {
    /// It is too old.
    #[error(
        "Envoy {major}.{minor} isn't supported: {oldest} to {newest} are, and later ones as {newest}",
        oldest = EnvoyVersion::OLDEST,
        newest = EnvoyVersion::NEWEST
    )]
    TooOld {
        /// Its major version.
        major: u32,
        /// Its minor version.
        minor: u32,
    },
    /// This text isn't `MAJOR.MINOR`, with or without more after it.
    #[error("`{0}` isn't a version: it looks like {newest} or {newest}.0", newest = EnvoyVersion::NEWEST)]
    NotAVersion(String),
}

impl EnvoyVersion {
    /// All that are supported, the oldest first.
    pub const ALL: [Self; 4] = [Self::V1_37, Self::V1_38, Self::V1_39, Self::V1_40];

    /// The oldest of them.
    pub const OLDEST: Self = Self::V1_37;

    /// The newest of them. Envoys that are newer still are treated as this one: Envoy keeps a field for a year at least.
    pub const NEWEST: Self = Self::V1_40;

    /// The version of the releases `major.minor`.
    ///
    /// # Errors
    ///
    /// They are too old.
    pub fn of_release(major: u32, minor: u32) -> Result<Self, InvalidEnvoyVersion> {
        match (major, minor) {
            (0, _) | (1, ..37) => Err(InvalidEnvoyVersion::TooOld { major, minor }),
            (1, 37) => Ok(Self::V1_37),
            (1, 38) => Ok(Self::V1_38),
            (1, 39) => Ok(Self::V1_39),
            _ => Ok(Self::V1_40),
        }
    }
}

impl FromStr for EnvoyVersion {
    type Err = InvalidEnvoyVersion;

    /// Reads `1.40`, and also `1.40.0` or `1.41.0-dev`, as Envoys call themselves.
    fn from_str(text: &str) -> Result<Self, InvalidEnvoyVersion> {
        let mut numbers = text.split('.').map(|number| number.parse().ok());
        match (numbers.next().flatten(), numbers.next().flatten()) {
            (Some(major), Some(minor)) => Self::of_release(major, minor),
            _ => Err(InvalidEnvoyVersion::NotAVersion(text.to_owned())),
        }
    }
}

impl fmt::Display for EnvoyVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V1_37 => "1.37",
            Self::V1_38 => "1.38",
            Self::V1_39 => "1.39",
            Self::V1_40 => "1.40",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_from_its_first_two_numbers() {
        for (text, expected) in [
            ("1.37", Ok(EnvoyVersion::V1_37)),
            ("1.38.3", Ok(EnvoyVersion::V1_38)),
            ("1.39.0-dev", Ok(EnvoyVersion::V1_39)),
            ("1.40.0", Ok(EnvoyVersion::NEWEST)),
            ("1.41.0", Ok(EnvoyVersion::NEWEST)),
            ("2.0.0", Ok(EnvoyVersion::NEWEST)),
            (
                "1.36.4",
                Err("Envoy 1.36 isn't supported: 1.37 to 1.40 are, and later ones as 1.40"),
            ),
            (
                "0.99",
                Err("Envoy 0.99 isn't supported: 1.37 to 1.40 are, and later ones as 1.40"),
            ),
            ("1", Err("`1` isn't a version: it looks like 1.40 or 1.40.0")),
            ("", Err("`` isn't a version: it looks like 1.40 or 1.40.0")),
            ("v1.40", Err("`v1.40` isn't a version: it looks like 1.40 or 1.40.0")),
            ("1.x", Err("`1.x` isn't a version: it looks like 1.40 or 1.40.0")),
        ] {
            let read = text.parse::<EnvoyVersion>().map_err(|error| error.to_string());
            assert_eq!(read, expected.map_err(str::to_owned), "{text}");
        }
    }

    #[test]
    fn every_version_reads_what_it_writes() {
        for version in EnvoyVersion::ALL {
            assert_eq!(version.to_string().parse(), Ok(version));
        }
        assert_eq!(EnvoyVersion::ALL.first(), Some(&EnvoyVersion::OLDEST));
        assert_eq!(EnvoyVersion::ALL.last(), Some(&EnvoyVersion::NEWEST));
    }
}
