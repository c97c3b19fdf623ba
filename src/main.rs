//! The `epochd` program: see `epochd --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    epochd::cli::main()
}
