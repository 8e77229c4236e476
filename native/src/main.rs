//! The command `shardlight`.

use std::process::ExitCode;

fn main() -> ExitCode {
    shardlight_cli::main()
}
