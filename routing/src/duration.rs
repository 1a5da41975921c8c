//! Durations as people write them: a whole number and a unit.

use std::time::Duration;

use thiserror::Error;

/// The longest that can be written.
const MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The units, the largest first.
const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Why a text is no duration.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum InvalidDuration {
    /// It is no number with a unit.
    #[error("{0:?} is no duration, must be a whole number and a unit, as in 500ms, 30s, 5m, 1h")]
    Form(String),
    /// It is longer than a week.
    #[error("{0:?} is too long, must be at most 168h")]
    TooLong(String),
    /// It is no time at all.
    #[error("is {0:?}, must be more than 0")]
    Zero(String),
}

/// Reads `500ms`, `30s`, `5m` or `1h`; a zero, too.
///
/// # Errors
///
/// See [`InvalidDuration`].
pub fn parse(text: &str) -> Result<Duration, InvalidDuration> {
    let invalid = || InvalidDuration::Form(text.to_owned());
    let (digits, unit) = text.split_at(text.bytes().take_while(u8::is_ascii_digit).count());
    let (_, milliseconds) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(invalid)?;
    if digits.is_empty() {
        return Err(invalid());
    }
    let number = digits.parse::<u64>().ok();
    let duration = number
        .and_then(|number| number.checked_mul(*milliseconds))
        .map(Duration::from_millis);
    duration
        .filter(|duration| *duration <= MAX)
        .ok_or_else(|| InvalidDuration::TooLong(text.to_owned()))
}

/// Reads the same, but no zero.
///
/// # Errors
///
/// See [`InvalidDuration`].
pub(crate) fn parse_positive(text: &str) -> Result<Duration, InvalidDuration> {
    match parse(text)? {
        Duration::ZERO => Err(InvalidDuration::Zero(text.to_owned())),
        duration => Ok(duration),
    }
}

/// Writes a duration of whole milliseconds as [`parse`] reads it, in the largest unit that fits.
pub(crate) fn text(duration: Duration) -> String {
    let milliseconds = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let fitting = UNITS
        .iter()
        .find(|(_, unit)| milliseconds >= *unit && milliseconds % unit == 0);
    match fitting {
        Some((name, unit)) => format!("{}{name}", milliseconds / unit),
        None => "0s".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_a_duration_reads_back() {
        for (written, milliseconds) in [
            ("0s", 0),
            ("1ms", 1),
            ("500ms", 500),
            ("30s", 30_000),
            ("90s", 90_000),
            ("5m", 300_000),
            ("168h", 604_800_000),
        ] {
            let duration = parse(written).unwrap();
            assert_eq!(duration, Duration::from_millis(milliseconds), "{written}");
            assert_eq!(parse(&text(duration)).unwrap(), duration, "{written}");
        }
        assert_eq!(text(Duration::from_secs(90)), "90s");
        assert_eq!(text(Duration::from_secs(120)), "2m");
    }

    #[test]
    fn what_is_none_says_what_would_be() {
        for written in ["", "5", "s", "-1s", "1.5s", "1m30s", "5 s", "5S", "5min", "٣s"] {
            assert!(matches!(parse(written), Err(InvalidDuration::Form(_))), "{written}");
        }
        for written in ["169h", "99999999999999999999s", "18446744073709551615h"] {
            assert!(matches!(parse(written), Err(InvalidDuration::TooLong(_))), "{written}");
        }
        assert_eq!(parse_positive("0ms"), Err(InvalidDuration::Zero("0ms".to_owned())));
    }
}
