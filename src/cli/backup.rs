//! `epochd backup`: everything that a running server keeps, in one file.

use std::fs::{self, File};
use std::io::{self, BufWriter, ErrorKind, IsTerminal as _, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde_json::json;

use super::Outcome;
use super::output::{NobodyReads, print};
use super::remote::ServerArgs;
use super::signals::StopSignals;

/// What stands for standard output.
const STDOUT: &str = "-";

/// Write everything that a running server keeps, as it is at one moment, to a file; `epochd restore` makes a data folder of it.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Example: epochd backup epochd.tar
\x20        epochd backup - | gzip > epochd.tar.gz

The server goes on meanwhile. The file is a tar archive: `tar tf` lists what is in it. It gets its name when it is complete.

Exit codes: 0 complete and on the disk, 1 failed (nothing is left of it), 2 wrong usage, 130 stopped by Ctrl-C.")]
pub struct Args {
    /// The file to write; - is standard output.
    file: PathBuf,

    /// Replace the file where there is one.
    #[arg(long)]
    force: bool,

    #[command(flatten)]
    server: ServerArgs,

    /// One line of JSON: the file and its bytes.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: Args) -> anyhow::Result<Outcome> {
    if args.file == Path::new(STDOUT) {
        if io::stdout().is_terminal() {
            bail!("a backup is no text for a terminal; give a file, or send it on with | or >");
        }
        return match receive(&args.server, &mut io::stdout().lock())? {
            Some(_) => Ok(Outcome::Done),
            None => Ok(Outcome::Interrupted),
        };
    }
    refuse_existing(&args)?;
    let part = Part::create(&args.file)?;
    let mut writer = BufWriter::new(&part.file);
    let Some(bytes) = receive(&args.server, &mut writer)? else { return Ok(Outcome::Interrupted) };
    drop(writer);
    // Another may have come meanwhile.
    refuse_existing(&args)?;
    part.keep_as(&args.file)?;
    if args.json {
        print(&json!({"file": args.file.display().to_string(), "bytes": bytes}).to_string())?;
    } else {
        print(&format!("{} is complete: {bytes} bytes", args.file.display()))?;
    }
    Ok(Outcome::Done)
}

fn refuse_existing(args: &Args) -> anyhow::Result<()> {
    if !args.force && args.file.symlink_metadata().is_ok() {
        bail!("{} exists already; choose another name, or replace it with --force", args.file.display());
    }
    Ok(())
}

/// Writes the backup: how many bytes it has; `None` after a signal to stop.
fn receive(server: &ServerArgs, sink: &mut dyn Write) -> anyhow::Result<Option<u64>> {
    server.talk(async |mut client| {
        let mut signals = StopSignals::listen().context("signals cannot be listened for")?;
        let mut received = 0;
        let mut all = async || {
            let mut chunks = client.backup().await?;
            while let Some(chunk) = chunks.next().await? {
                write(sink, &chunk)?;
                received += chunk.len() as u64;
            }
            flush(sink)
        };
        tokio::select! {
            done = all() => done?,
            () = signals.next() => return Ok(None),
        }
        Ok(Some(received))
    })
}

fn write(sink: &mut dyn Write, bytes: &[u8]) -> anyhow::Result<()> {
    told(sink.write_all(bytes))
}

fn flush(sink: &mut dyn Write) -> anyhow::Result<()> {
    told(sink.flush())
}

fn told(written: io::Result<()>) -> anyhow::Result<()> {
    match written {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(NobodyReads.into()),
        written => written.context("the backup cannot be written"),
    }
}

/// A file that is not complete yet, beside the place where it will be; removed with this.
struct Part {
    path: PathBuf,
    file: File,
}

impl Part {
    fn create(target: &Path) -> anyhow::Result<Self> {
        let mut name = target.file_name().context("the file needs a name")?.to_owned();
        name.push(format!(".{}.part", std::process::id()));
        let path = target.with_file_name(name);
        let file = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self { path, file })
    }

    /// Gives it its name, durably.
    fn keep_as(self, target: &Path) -> anyhow::Result<()> {
        let action = || format!("cannot write {}", target.display());
        self.file.sync_all().with_context(action)?;
        fs::rename(&self.path, target).with_context(action)?;
        // Windows opens no folder as a file, and journals renames by itself.
        if cfg!(unix) {
            let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            File::open(folder).and_then(|folder| folder.sync_all()).with_context(action)?;
        }
        Ok(())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // After the rename there is none any more.
        let _ = fs::remove_file(&self.path);
    }
}
