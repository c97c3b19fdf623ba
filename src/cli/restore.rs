//! `epochd restore`: a data folder from a backup.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::json;

use super::Outcome;
use super::output::print;
use crate::config::DATA_DIR_DEFAULT;
use crate::store;

/// What stands for standard input.
const STDIN: &str = "-";

/// Make a data folder of what `epochd backup` wrote. The folder must be new or empty; it can be served only once all is verified.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Example: epochd restore epochd.tar --data-dir /var/lib/epochd
\x20        gunzip -c epochd.tar.gz | epochd restore - --data-dir /var/lib/epochd

Exit codes: 0 restored, verified and on the disk, 1 failed (nothing is restored; each fault is told), 2 wrong usage.")]
pub struct Args {
    /// The backup; - is standard input.
    file: PathBuf,

    /// The folder to fill, as `epochd serve` will name it.
    #[arg(long, env = "EPOCHD_DATA_DIR", value_name = "FOLDER", default_value = DATA_DIR_DEFAULT)]
    data_dir: PathBuf,

    /// One line of JSON: the folder, its files and their bytes.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: Args) -> anyhow::Result<Outcome> {
    let restored = if args.file == Path::new(STDIN) {
        store::restore(&mut io::stdin().lock() as &mut dyn Read, &args.data_dir)?
    } else {
        let mut file = File::open(&args.file).with_context(|| format!("cannot open {}", args.file.display()))?;
        store::restore(&mut file, &args.data_dir)?
    };
    let folder = args.data_dir.display();
    if args.json {
        let (files, bytes) = (restored.files, restored.bytes);
        print(&json!({"dataDir": folder.to_string(), "files": files, "bytes": bytes}).to_string())?;
    } else {
        print(&format!("{folder} is restored: {} files, {} bytes", restored.files, restored.bytes))?;
        print(&format!("serve it with: epochd serve --data-dir {folder}"))?;
    }
    Ok(Outcome::Done)
}
