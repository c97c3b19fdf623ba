//! `epochd completions` and `epochd man`: from the same definition as the command line itself.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::CommandFactory as _;

use super::output::print;
use super::{Cli, Outcome};

/// Print a completion script for a shell.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Example: epochd completions bash > /etc/bash_completion.d/epochd

Exit codes: 0 printed, 2 wrong usage.")]
pub struct Args {
    /// The shell.
    shell: clap_complete::Shell,
}

pub(super) fn run(args: Args) -> anyhow::Result<Outcome> {
    // Into memory first: a reader that goes away is an error to tell, not a panic.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "epochd", &mut script);
    print(String::from_utf8_lossy(&script).trim_end())?;
    Ok(Outcome::Done)
}

/// Write the man pages, one a command.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Example: epochd man /usr/local/share/man/man1

Exit codes: 0 written, 1 the folder cannot be written, 2 wrong usage.")]
pub struct ManArgs {
    /// The folder to write them to; made where it is missing.
    folder: PathBuf,
}

pub(super) fn run_man(args: ManArgs) -> anyhow::Result<Outcome> {
    let folder = &args.folder;
    let write = std::fs::create_dir_all(folder).and_then(|()| clap_mangen::generate_to(Cli::command(), folder));
    write.with_context(|| format!("cannot write man pages to {}", folder.display()))?;
    print(&format!("wrote the man pages to {}", folder.display()))?;
    Ok(Outcome::Done)
}
