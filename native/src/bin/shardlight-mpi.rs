//! The command `shardlight-mpi`: one process of several under `mpirun`.

use std::process::ExitCode;

fn main() -> ExitCode {
    shardlight_cli::mpi::main()
}
