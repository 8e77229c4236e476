//! The `shardlight` command.
fn main() {}
