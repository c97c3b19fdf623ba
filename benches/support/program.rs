//! The program that is measured, of the same profile as the benchmark.

use std::process::Command;

/// Where it is.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_epochd");

/// It, without what the caller's environment would tell it.
pub fn command() -> Command {
    let mut command = Command::new(PROGRAM);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("EPOCHD_") || name == "RUST_LOG") {
        command.env_remove(name);
    }
    command
}
