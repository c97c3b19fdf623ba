//! `epochd restore`: a data folder from a backup.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use serde_json::json;
use tokio::sync::oneshot;

use super::Outcome;
use super::output::print;
use super::signals::StopSignals;
use crate::config::DATA_DIR_DEFAULT;
use crate::store::{self, Restored};

/// What stands for standard input.
const STDIN: &str = "-";
/// How long a signal waits for a restore to remove what it made.
const STOP_DEADLINE: Duration = Duration::from_secs(5);

/// Make a data folder of what `epochd backup` wrote. The folder must be new or empty; it can be served only once all is verified.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Example: epochd restore epochd.tar --data-dir /var/lib/epochd
\x20        gunzip -c epochd.tar.gz | epochd restore - --data-dir /var/lib/epochd

What was damaged in the folder that was backed up, and left out, is told on standard error; the rest is restored.

Exit codes: 0 restored, verified and on the disk, 1 failed (nothing is restored; each fault is told), 2 wrong usage,
130 stopped by Ctrl-C.")]
pub struct Args {
    /// The backup; - is standard input.
    file: PathBuf,

    /// The folder to fill, as `epochd serve` will name it.
    #[arg(long, env = "EPOCHD_DATA_DIR", value_name = "FOLDER", default_value = DATA_DIR_DEFAULT)]
    data_dir: PathBuf,

    /// One line of JSON: the folder, its files, their bytes, and notes of what was damaged before.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: Args) -> anyhow::Result<Outcome> {
    let archive: Box<dyn Read + Send> = if args.file == Path::new(STDIN) {
        Box::new(io::stdin())
    } else {
        Box::new(File::open(&args.file).with_context(|| format!("cannot open {}", args.file.display()))?)
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let restored = runtime.context("the restore cannot be started")?.block_on(restore(archive, &args.data_dir))?;
    let Some(restored) = restored else { return Ok(Outcome::Interrupted) };
    let folder = args.data_dir.display();
    for note in &restored.notes {
        eprintln!("note: {note}");
    }
    if !restored.notes.is_empty() {
        eprintln!(
            "note: these faults were in the folder that was backed up, or were left out of the backup; the rest is whole"
        );
    }
    if args.json {
        let Restored { files, bytes, notes } = restored;
        print(&json!({"dataDir": folder.to_string(), "files": files, "bytes": bytes, "notes": notes}).to_string())?;
    } else {
        print(&format!("{folder} is restored: {} files, {} bytes", restored.files, restored.bytes))?;
        print(&format!("serve it with: epochd serve --data-dir {folder}"))?;
    }
    Ok(Outcome::Done)
}

/// Restores in a thread of its own; `None` where a signal ended it, and what was said of it was said.
async fn restore(archive: Box<dyn Read + Send>, folder: &Path) -> anyhow::Result<Option<Restored>> {
    let mut signals = StopSignals::listen().context("signals cannot be listened for")?;
    let stops = Arc::new(AtomicBool::new(false));
    let (mut archive, place) = (Stoppable { archive, stops: Arc::clone(&stops) }, folder.to_owned());
    let (tell, mut told) = oneshot::channel();
    // Nobody waits for it that has its fill of waiting: it may be stuck in a pipe.
    std::thread::spawn(move || tell.send(store::restore(&mut archive, &place)).is_ok());
    let ended = tokio::select! {
        ended = &mut told => ended,
        () = signals.next() => {
            stops.store(true, Ordering::Relaxed);
            match tokio::time::timeout(STOP_DEADLINE, told).await {
                Ok(Ok(Err(_))) => {
                    eprintln!("stopped; nothing is restored");
                    return Ok(None);
                }
                Ok(ended) => ended,
                Err(_) => {
                    eprintln!("stopped; what is in {} is half restored: remove it before you restore again", folder.display());
                    return Ok(None);
                }
            }
        }
    };
    Ok(Some(ended.context("the restore ended without a word")??))
}

/// An archive that cannot be read on once it is to stop.
struct Stoppable {
    archive: Box<dyn Read + Send>,
    stops: Arc<AtomicBool>,
}

impl Read for Stoppable {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self.stops.load(Ordering::Relaxed) {
            true => Err(io::Error::other("the restore was stopped")),
            false => self.archive.read(out),
        }
    }
}
