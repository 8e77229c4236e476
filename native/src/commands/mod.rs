//! One file per subcommand.

pub mod completions;
pub mod devices;
pub mod list;
pub mod pull;
