//! Where a configuration comes from: a YAML file, read whole, checked whole, watched for changes.

mod file;
mod watch;
pub(crate) mod yaml;

pub use file::{InvalidConfig, Located, load};
pub use watch::watch;
