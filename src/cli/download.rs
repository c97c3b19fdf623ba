//! `epochd download`: the weights of a version as a safetensors file.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{IsTerminal, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use super::Outcome;
use super::output::{print, print_bytes};
use super::remote::ServerArgs;
use super::signals::StopSignals;
use crate::rpc::client::Client;
use crate::rpc::pb;

/// Download the weights of a model as a safetensors file.
///
/// With the weights go the network's shape, its class labels and its scaling: all that it takes to predict elsewhere.
#[derive(Debug, clap::Args)]
#[command(allow_negative_numbers = true)]
#[command(after_long_help = "\
The tensors are layers.0.weights of shape [inputs, units] (a layer computes x·W + b), layers.0.bias,
and of a batch normalization layers.0.batch_normalization.scale, .shift, .mean and .variance.
The metadata are format, model_id, model_uid, version, and as JSON architecture, class_labels,
input_scaler and target_scaler.

Example: epochd download iris --version 2 --out iris.safetensors

Exit codes: 0 written, 1 failed, 2 wrong usage, 130 stopped by Ctrl-C. After any but 0 no file was made
or replaced.")]
pub struct Args {
    /// The model; `epochd models` lists them.
    model: String,

    /// The version [default: the latest].
    #[arg(long, value_name = "NUMBER")]
    version: Option<i32>,

    /// The file to write; `-` for standard output [default: MODEL-vVERSION.safetensors].
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,

    /// Replace the file where there is one.
    #[arg(long)]
    force: bool,

    #[command(flatten)]
    server: ServerArgs,

    /// One line of JSON: the file, the model, the version and the bytes.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: Args) -> anyhow::Result<Outcome> {
    // What would fail at the end is told before anything is asked.
    match args.out.as_deref() {
        Some(out) if is_standard_output(out) && std::io::stdout().is_terminal() => {
            bail!("weights are not for a terminal: name a file with --out, or redirect standard output")
        }
        Some(out) if !is_standard_output(out) => check_place(out, args.force)?,
        _ => {}
    }
    args.server.talk(async |client| download(client, &args).await)
}

async fn download(client: Client, args: &Args) -> anyhow::Result<Outcome> {
    let mut signals = StopSignals::listen().context("signals cannot be listened for")?;
    let saved = tokio::select! {
        saved = save(client, args) => saved?,
        () = signals.next() => {
            eprintln!("stopped; the download is incomplete");
            return Ok(Outcome::Interrupted);
        }
    };
    let line = saved.told(args);
    // Beside the file on standard output there is no room for a word.
    if is_standard_output(&saved.out) {
        eprintln!("{line}")
    } else {
        print(&line)?
    }
    Ok(Outcome::Done)
}

/// What was written.
struct Saved {
    out: PathBuf,
    version: i32,
    size_bytes: i64,
}

impl Saved {
    fn told(&self, args: &Args) -> String {
        let Self { out, version, size_bytes } = self;
        let (file, model) = (out.display().to_string(), &args.model);
        if args.json {
            let line = serde_json::json!({
                "file": file, "modelId": model, "version": version, "sizeBytes": size_bytes
            });
            return line.to_string();
        }
        let place = if is_standard_output(out) { "standard output" } else { &file };
        format!("wrote version {version} of {model} to {place}: {size_bytes} bytes")
    }
}

async fn save(mut client: Client, args: &Args) -> anyhow::Result<Saved> {
    let request = pb::DownloadWeightsRequest { model_id: args.model.clone(), version: args.version };
    let mut parts = client.download_weights(request).await?;
    let first = parts.next().await?.context("the server sent no file")?;
    let (version, size_bytes) = (first.version, first.size_bytes);
    let out = args.out.clone().unwrap_or_else(|| format!("{}-v{version}.safetensors", args.model).into());
    let mut sink = Sink::open(&out, args.force)?;
    let (mut part, mut received) = (Some(first), 0);
    while let Some(chunk) = part {
        sink.write(&chunk.data)?;
        received += chunk.data.len() as i64;
        part = parts.next().await?;
    }
    if received != size_bytes {
        bail!("the server sent {received} of {size_bytes} bytes; download again");
    }
    sink.finish(args.force)?;
    Ok(Saved { out, version, size_bytes })
}

fn is_standard_output(out: &Path) -> bool {
    out.as_os_str() == "-"
}

/// Refuses to replace a file, unless that was asked for, and to replace what is no file in any case.
fn check_place(out: &Path, force: bool) -> anyhow::Result<()> {
    match fs::metadata(out) {
        Ok(found) if !found.is_file() => bail!("{} is there and is no file; name a file with --out", out.display()),
        Ok(_) if !force => bail!("{} is there already; --force replaces it, --out names another", out.display()),
        _ => Ok(()),
    }
}

/// Where the file goes.
enum Sink {
    StandardOutput,
    File(Partial),
}

impl Sink {
    fn open(out: &Path, force: bool) -> anyhow::Result<Self> {
        if is_standard_output(out) {
            return Ok(Self::StandardOutput);
        }
        check_place(out, force)?;
        Ok(Self::File(Partial::create(out)?))
    }

    fn write(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        match self {
            Self::StandardOutput => print_bytes(bytes),
            Self::File(partial) => partial.file.write_all(bytes).with_context(|| cannot_write(&partial.temporary)),
        }
    }

    fn finish(self, force: bool) -> anyhow::Result<()> {
        match self {
            Self::StandardOutput => Ok(()),
            Self::File(partial) => partial.finish(force),
        }
    }
}

/// A file under a temporary name until it is whole; removed when dropped before.
struct Partial {
    file: File,
    temporary: PathBuf,
    out: PathBuf,
}

impl Partial {
    fn create(out: &Path) -> anyhow::Result<Self> {
        // Beside the file, since a rename stays within a file system; by the process, since two may download the same.
        let mut temporary = OsString::from(out);
        temporary.push(format!(".{}.part", std::process::id()));
        let temporary = PathBuf::from(temporary);
        let file = File::create(&temporary).with_context(|| cannot_write(&temporary))?;
        Ok(Self { file, temporary, out: out.to_owned() })
    }

    fn finish(self, force: bool) -> anyhow::Result<()> {
        self.file.sync_all().with_context(|| cannot_write(&self.temporary))?;
        // Somebody may have made it meanwhile.
        check_place(&self.out, force)?;
        fs::rename(&self.temporary, &self.out).with_context(|| cannot_write(&self.out))
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // After the rename there is none.
        drop(fs::remove_file(&self.temporary));
    }
}

fn cannot_write(path: &Path) -> String {
    format!("cannot write {}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<OsString> {
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect()
    }

    #[test]
    fn a_file_has_its_name_when_it_is_whole_and_leaves_nothing_when_it_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("xor.safetensors");
        let begin = |force| {
            let mut sink = Sink::open(&out, force).unwrap();
            sink.write(b"all of").unwrap();
            sink
        };
        let cut_short = begin(false);
        assert!(!out.exists() && names(folder.path()).len() == 1);
        drop(cut_short);
        assert!(names(folder.path()).is_empty());
        let mut whole = begin(false);
        whole.write(b" it").unwrap();
        // Somebody else makes a file of that name meanwhile.
        fs::write(&out, "theirs").unwrap();
        assert!(whole.finish(false).unwrap_err().to_string().contains("--force"));
        assert_eq!((fs::read(&out).unwrap(), names(folder.path()).len()), (b"theirs".to_vec(), 1));
        begin(true).finish(true).unwrap();
        assert_eq!((fs::read(&out).unwrap(), names(folder.path()).len()), (b"all of".to_vec(), 1));
    }

    #[test]
    fn what_is_no_file_is_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        for force in [false, true] {
            assert!(check_place(folder.path(), force).unwrap_err().to_string().contains("no file"));
        }
        #[cfg(unix)]
        assert!(check_place(Path::new("/dev/null"), true).is_err());
    }
}
