//! What was measured, shown.

pub(crate) mod documents;
mod markdown;
mod plot;
mod plots;
mod rows;
pub(crate) mod terminal;
pub(crate) mod text;
