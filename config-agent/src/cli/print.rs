//! Standard output, whose reader may be gone: a pager that was closed, `head`.

use std::io::{self, Write as _};

/// Writes all of `text`.
///
/// # Errors
///
/// Nobody reads it any more, or the disk is full.
pub(super) fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Whether the error is that nobody reads any more.
pub(super) fn is_closed(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<io::Error>();
    io.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// What somebody else has written, without what would move a terminal's cursor.
pub(super) fn harmless(text: &str) -> String {
    let shown = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    text.chars().map(shown).collect()
}
