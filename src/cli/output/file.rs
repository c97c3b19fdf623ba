//! What a server sends, into a file: whole or not at all, and never in the place of another unasked.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};

use super::{NobodyReads, print_bytes};

/// What the name of a file ends with while it is written.
const PART_SUFFIX: &str = ".part";

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
            // Unlike a line for whoever still reads, a file that was cut is a failure.
            Self::StandardOutput => print_bytes(bytes).map_err(|error| match error.is::<NobodyReads>() {
                true => anyhow!("what comes is not whole: whoever read standard output went away before the end"),
                false => error,
            }),
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
        let out = target_of(out);
        remove_left_over(&out);
        loop {
            // Beside the file, since a rename stays within a file system; of another name each time, since two may write the same.
            let mut temporary = OsString::from(&out);
            let id = getrandom::u32().unwrap_or_else(|_| std::process::id());
            temporary.push(format!(".{id:08x}{PART_SUFFIX}"));
            let temporary = PathBuf::from(temporary);
            let file = match File::create_new(&temporary) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
                file => file.with_context(|| cannot_write(&temporary))?,
            };
            // Held while it is written, so that nobody takes it for left over. Where the file system has no locks nobody does, either.
            let is_taken = matches!(file.try_lock(), Err(TryLockError::WouldBlock));
            if !is_taken && temporary.exists() {
                return Ok(Self { file, temporary, out });
            }
        }
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

/// Where a link leads to, so that the link stays: what is written is beside it.
fn target_of(out: &Path) -> PathBuf {
    if let Ok(target) = fs::read_link(out) {
        let beside = out.parent().unwrap_or(Path::new("")).join(target);
        return fs::canonicalize(out).unwrap_or(beside);
    }
    out.to_owned()
}

/// Removes what a process that was killed left of the same file. What another one still writes is locked, and stays.
fn remove_left_over(out: &Path) {
    let Some(name) = out.file_name().and_then(|name| name.to_str()) else { return };
    let folder = out.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let is_part = |other: &str| {
        let id = other.strip_prefix(name).and_then(|id| id.strip_prefix('.')?.strip_suffix(PART_SUFFIX));
        id.is_some_and(|id| id.len() == 8 && id.bytes().all(|byte| byte.is_ascii_hexdigit()))
    };
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_name().to_str().is_some_and(is_part)
            && let Ok(file) = OpenOptions::new().read(true).write(true).open(entry.path())
            && file.try_lock().is_ok()
        {
            // Nothing depends on it.
            drop(fs::remove_file(entry.path()));
        }
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
    fn what_a_killed_process_left_goes_and_what_another_one_writes_stays() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("epochd.tar");
        let others = ["epochd.tar.notes.part", "epochd.tar.old", "other.tar.0123abcd.part"];
        for name in others.into_iter().chain(["epochd.tar.0123abcd.part"]) {
            fs::write(folder.path().join(name), "cut short").unwrap();
        }
        let first = Sink::open(&out, false).unwrap();
        assert_eq!(names(folder.path()).len(), 4);
        let second = Sink::open(&out, false).unwrap();
        assert_eq!(names(folder.path()).len(), 5);
        first.finish(false).unwrap();
        drop(second);
        let mut left = names(folder.path());
        left.sort();
        assert_eq!(left, ["epochd.tar", others[0], others[1], others[2]]);
    }

    #[cfg(unix)]
    #[test]
    fn a_link_stays_and_its_target_is_written() {
        let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (link, target) = (folder.path().join("link"), other.path().join("target"));
        std::os::unix::fs::symlink(&target, &link).unwrap();
        for text in ["to nowhere yet", "again"] {
            let mut sink = Sink::open(&link, true).unwrap();
            sink.write(text.as_bytes()).unwrap();
            sink.finish(true).unwrap();
            assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
            assert_eq!(fs::read(&target).unwrap(), text.as_bytes());
        }
        assert_eq!((names(folder.path()).len(), names(other.path()).len()), (1, 1));
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
