//! What a server sends, into a file: whole or not at all, and never in the place of another unasked.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use super::print_bytes;

/// Whether `-` stands for it.
pub(in crate::cli) fn is_standard_output(out: &Path) -> bool {
    out.as_os_str() == "-"
}

/// Refuses to replace a file, unless that was asked for, to replace what is no file in any case, and to write to a terminal.
pub(in crate::cli) fn check_place(out: &Path, force: bool) -> anyhow::Result<()> {
    if is_standard_output(out) {
        if std::io::stdout().is_terminal() {
            bail!("it is no text for a terminal: name a file, or send it on with | or >");
        }
        return Ok(());
    }
    match fs::metadata(out) {
        Ok(found) if !found.is_file() => bail!("{} is there and is no file; choose another name", out.display()),
        Ok(_) if !force => bail!("{} is there already; --force replaces it, or choose another name", out.display()),
        _ => Ok(()),
    }
}

/// Where what a server sends goes. A file has its name when it is whole, and is gone when it is not.
pub(in crate::cli) enum Sink {
    StandardOutput,
    File(Partial),
}

impl Sink {
    pub(in crate::cli) fn open(out: &Path, force: bool) -> anyhow::Result<Self> {
        check_place(out, force)?;
        if is_standard_output(out) {
            return Ok(Self::StandardOutput);
        }
        Ok(Self::File(Partial::create(out)?))
    }

    pub(in crate::cli) fn write(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        match self {
            Self::StandardOutput => print_bytes(bytes),
            Self::File(partial) => partial.file.write_all(bytes).with_context(|| cannot_write(&partial.temporary)),
        }
    }

    /// All of it is there: a file gets its name, durably.
    pub(in crate::cli) fn finish(self, force: bool) -> anyhow::Result<()> {
        match self {
            Self::StandardOutput => Ok(()),
            Self::File(partial) => partial.finish(force),
        }
    }
}

/// A file under a temporary name until it is whole; removed when dropped before.
pub(in crate::cli) struct Partial {
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
        fs::rename(&self.temporary, &self.out).with_context(|| cannot_write(&self.out))?;
        // Windows opens no folder as a file, and journals renames by itself.
        if cfg!(unix) {
            let folder = self.out.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            File::open(folder).and_then(|folder| folder.sync_all()).with_context(|| cannot_write(&self.out))?;
        }
        Ok(())
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
