//! Where a configuration comes from: a YAML file, read whole, checked whole, watched for changes.

mod file;
mod files;
mod schema;
mod watch;
pub(crate) mod yaml;

pub use file::{InvalidConfig, Loaded, Located, LocatedWarning, Reading, TextHash, load, load_unless};
pub use schema::schema;
pub use watch::watch;
