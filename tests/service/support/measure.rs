//! What a server process takes, as Linux tells it, and the sizes of tests that can be larger than they are by default.

use std::fs;
use std::path::Path;
use std::time::Duration;

/// The number in an environment variable, or the default.
pub fn size(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// How the program under test was built: figures of a debug build say little.
pub fn build() -> &'static str {
    if cfg!(debug_assertions) { "debug build" } else { "release build" }
}

pub fn median<T: Copy + PartialOrd>(mut values: Vec<T>) -> T {
    values.sort_by(|one, other| one.partial_cmp(other).unwrap());
    values[values.len() / 2]
}

pub fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

pub fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// What a process holds at an instant.
#[derive(Clone, Copy, Debug)]
pub struct Held {
    /// Resident memory in bytes, now and at its highest so far.
    pub resident: u64,
    pub peak: u64,
    pub handles: u64,
    pub threads: u64,
}

impl Held {
    pub fn by(process: u32) -> Self {
        let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
        let number = |name: &str| -> u64 {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.split_whitespace().next().unwrap().parse().unwrap()
        };
        let handles = fs::read_dir(format!("/proc/{process}/fd")).unwrap().count() as u64;
        let (resident, peak) = (number("VmRSS:") << 10, number("VmHWM:") << 10);
        Self { resident, peak, handles, threads: number("Threads:") }
    }
}

/// Bytes of a file, or of all files below a folder. What goes away meanwhile counts nothing.
pub fn bytes_in(path: &Path) -> u64 {
    let Ok(metadata) = fs::metadata(path) else { return 0 };
    if metadata.is_file() {
        return metadata.len();
    }
    let entries = fs::read_dir(path).into_iter().flatten();
    entries.flatten().map(|entry| bytes_in(&entry.path())).sum()
}
