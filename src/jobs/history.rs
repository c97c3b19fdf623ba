//! What a piece of work has reported: appended by one thread, read by any number of cursors, none of which it waits for.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// Reports that are read at once: a watcher that does not take what it was given holds no more.
pub const READ_MAX: usize = 256;

/// An append-only list of reports in chunks. The open chunk and the last few full ones are in memory; older ones are
/// wherever the owner stored them. A full chunk that is not stored yet stays in memory, however old it is.
#[derive(Debug)]
pub struct History<R> {
    /// Bumped by whatever a watcher may want to see. Only the ticker turns it into wake-ups, so that a thousand epochs
    /// a second cost a thousand additions and not a thousand wake-ups.
    changes: AtomicU64,
    told: watch::Sender<u64>,
    /// Changes between the last two ticks, while it is not closed.
    pace: AtomicU64,
    inner: Mutex<Chunks<R>>,
    chunk_len: usize,
    resident_max: usize,
}

#[derive(Debug)]
struct Chunks<R> {
    /// Index of the first full chunk that is still in memory.
    first_resident: u64,
    resident: VecDeque<Arc<Vec<R>>>,
    /// How many full chunks are stored: always the first ones.
    stored: u64,
    open: Vec<R>,
    is_closed: bool,
}

/// A chunk that will not change any more.
#[derive(Debug, Clone)]
pub struct FullChunk<R> {
    /// Its place, from 0.
    pub index: u64,
    /// `chunk_len` reports.
    pub reports: Arc<Vec<R>>,
}

/// Where a reader is: how many reports it has read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor(pub u64);

/// What is there at a cursor.
#[derive(Debug, PartialEq)]
pub enum Read<R> {
    /// These reports come next; the cursor has moved behind them.
    Reports(Vec<R>),
    /// The reports are in this full chunk, which is no longer in memory: read it, skip `skip` of it, and move the cursor.
    Stored {
        /// The chunk.
        chunk: u64,
        /// Reports of it that are before the cursor.
        skip: usize,
    },
    /// All that there is was read; more may come.
    UpToDate,
    /// All was read, and no more will come.
    End,
}

impl<R: Clone> History<R> {
    /// An empty history whose chunks hold `chunk_len` reports, the last `resident_max` full ones of them in memory.
    pub fn new(chunk_len: usize, resident_max: usize) -> Self {
        let chunks = Chunks {
            first_resident: 0,
            resident: VecDeque::new(),
            stored: 0,
            open: Vec::with_capacity(chunk_len),
            is_closed: false,
        };
        Self {
            changes: AtomicU64::new(0),
            told: watch::Sender::new(0),
            pace: AtomicU64::new(0),
            inner: Mutex::new(chunks),
            chunk_len,
            resident_max,
        }
    }

    /// A history that goes on: so many chunks of it are full and stored, and these reports are in the next.
    pub fn resumed(chunk_len: usize, resident_max: usize, stored: u64, open: Vec<R>) -> Self {
        let history = Self::new(chunk_len, resident_max);
        {
            let mut chunks = history.lock();
            (chunks.first_resident, chunks.stored) = (stored, stored);
            chunks.open.extend(open);
        }
        history
    }

    /// Appends a report; whether it filled a chunk, which is to be stored then.
    pub fn append(&self, report: R) -> bool {
        let mut chunks = self.lock();
        chunks.open.push(report);
        let is_full = chunks.open.len() == self.chunk_len;
        if is_full {
            let full = std::mem::replace(&mut chunks.open, Vec::with_capacity(self.chunk_len));
            chunks.resident.push_back(Arc::new(full));
        }
        drop(chunks);
        self.touch();
        is_full
    }

    /// The last report that is in memory; the last one of all, but where none was appended since a full chunk was stored elsewhere.
    pub fn last(&self) -> Option<R> {
        let chunks = self.lock();
        chunks.open.last().or_else(|| chunks.resident.back()?.last()).cloned()
    }

    /// The first full chunks that are not stored, at most so many.
    pub fn unstored(&self, count_max: usize) -> Vec<FullChunk<R>> {
        let chunks = self.lock();
        let first = (chunks.stored - chunks.first_resident) as usize;
        let unstored = (chunks.stored..).zip(chunks.resident.iter().skip(first)).take(count_max);
        unstored.map(|(index, reports)| FullChunk { index, reports: reports.clone() }).collect()
    }

    /// How many full chunks are not stored.
    pub fn unstored_count(&self) -> u64 {
        let chunks = self.lock();
        chunks.full_count() - chunks.stored
    }

    /// So many of the chunks that [`History::unstored`] gave are stored now.
    pub fn mark_stored(&self, count: usize) {
        let mut chunks = self.lock();
        chunks.stored = (chunks.stored + count as u64).min(chunks.full_count());
        while chunks.resident.len() > self.resident_max && chunks.first_resident < chunks.stored {
            chunks.resident.pop_front();
            chunks.first_resident += 1;
        }
    }

    /// The open chunk as it stands: its index and its reports.
    pub fn open_chunk(&self) -> (u64, Vec<R>) {
        let chunks = self.lock();
        (chunks.full_count(), chunks.open.clone())
    }

    /// Reports so far.
    pub fn len(&self) -> u64 {
        let chunks = self.lock();
        chunks.full_count() * self.chunk_len as u64 + chunks.open.len() as u64
    }

    /// Whether there is no report yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// No more reports will come.
    pub fn close(&self) {
        self.lock().is_closed = true;
        self.touch();
    }

    /// What comes at the cursor, which moves behind what is returned: at most [`READ_MAX`] reports.
    pub fn read(&self, cursor: &mut Cursor) -> Read<R> {
        let chunks = self.lock();
        let (chunk, skip) = (cursor.0 / self.chunk_len as u64, (cursor.0 % self.chunk_len as u64) as usize);
        if chunk < chunks.first_resident {
            return Read::Stored { chunk, skip };
        }
        if let Some(full) = chunks.resident.get((chunk - chunks.first_resident) as usize).cloned() {
            // A full chunk is copied from while others append.
            drop(chunks);
            return Read::Reports(part(&full, skip, cursor).unwrap_or_default());
        }
        // A cursor may be ahead of the reports: after a crash, or where a watcher wants to hear of later ones only.
        let open = if chunk == chunks.full_count() { chunks.open.as_slice() } else { &[] };
        match part(open, skip, cursor) {
            Some(reports) => Read::Reports(reports),
            None if chunks.is_closed => Read::End,
            None => Read::UpToDate,
        }
    }

    /// Says that something changed that watchers see.
    pub fn touch(&self) {
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// Wakes watchers if anything changed since the last tick.
    pub fn tick(&self) {
        let changes = self.changes.load(Ordering::Acquire);
        let mut before = changes;
        self.told.send_if_modified(|told| {
            before = std::mem::replace(told, changes);
            before != changes
        });
        let pace = if self.lock().is_closed { 0 } else { changes - before };
        self.pace.store(pace, Ordering::Relaxed);
    }

    /// How many reports came between the last two ticks, about; none where no more will.
    pub fn pace(&self) -> u64 {
        self.pace.load(Ordering::Relaxed)
    }

    /// Completes at the first tick after a change that came after this call.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.told.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, Chunks<R>> {
        // A panic while holding the lock cannot leave it torn: every change is one push.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A chunk's reports from `skip` on, at most [`READ_MAX`], and the cursor behind them; `None` where there are none.
fn part<R: Clone>(reports: &[R], skip: usize, cursor: &mut Cursor) -> Option<Vec<R>> {
    let rest = reports.get(skip..).filter(|rest| !rest.is_empty())?;
    let rest = &rest[..rest.len().min(READ_MAX)];
    cursor.0 += rest.len() as u64;
    Some(rest.to_vec())
}

impl<R: Clone> Chunks<R> {
    fn full_count(&self) -> u64 {
        self.first_resident + self.resident.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_ahead_of_the_reports_waits_for_its_own() {
        let history = History::new(4, 2);
        let mut cursor = Cursor(9);
        for report in 0..12 {
            let seen = match history.read(&mut cursor) {
                Read::Reports(reports) => reports,
                Read::UpToDate => Vec::new(),
                other => panic!("{other:?}"),
            };
            assert_eq!(seen, if report > 9 { vec![report - 1] } else { vec![] }, "{report}");
            history.append(report);
        }
        history.close();
        let mut far = Cursor(100);
        assert!(matches!(history.read(&mut far), Read::End));
        assert_eq!(far.0, 100);
    }

    /// Reads everything at the cursor, old chunks from `written`.
    fn read_all(history: &History<u32>, cursor: &mut Cursor, written: &[FullChunk<u32>]) -> Vec<u32> {
        let mut seen = Vec::new();
        loop {
            match history.read(cursor) {
                Read::Reports(reports) => seen.extend(reports),
                Read::Stored { chunk, skip } => {
                    let rest = &written[chunk as usize].reports[skip..];
                    cursor.0 += rest.len() as u64;
                    seen.extend(rest);
                }
                Read::UpToDate | Read::End => return seen,
            }
        }
    }

    #[test]
    fn a_cursor_sees_every_report_once_and_in_order_however_late_it_joins() {
        let history = History::new(4, 2);
        let mut written = Vec::new();
        let (mut early, mut seen) = (Cursor::default(), Vec::new());
        for report in 0..30 {
            history.append(report);
            let chunks = history.unstored(3);
            history.mark_stored(chunks.len());
            written.extend(chunks);
            if report % 7 == 0 {
                seen.extend(read_all(&history, &mut early, &written));
            }
        }
        seen.extend(read_all(&history, &mut early, &written));
        assert_eq!(seen, (0..30).collect::<Vec<_>>());
        assert_eq!(read_all(&history, &mut Cursor::default(), &written), (0..30).collect::<Vec<_>>());
        assert_eq!(read_all(&history, &mut Cursor(17), &written), (17..30).collect::<Vec<_>>());
        assert_eq!(history.len(), 30);
        assert_eq!(history.open_chunk(), (7, vec![28, 29]));
    }

    #[test]
    fn what_is_not_stored_stays_in_memory() {
        let history = History::new(4, 2);
        assert_eq!((0..30).filter(|&report| history.append(report)).count(), 7);
        assert_eq!(history.unstored_count(), 7);
        assert_eq!(read_all(&history, &mut Cursor::default(), &[]), (0..30).collect::<Vec<_>>());
        let first = &history.unstored(1)[0];
        assert_eq!((first.index, &first.reports[..]), (0, &[0, 1, 2, 3][..]));
        history.mark_stored(1);
        assert_eq!(history.read(&mut Cursor::default()), Read::Stored { chunk: 0, skip: 0 });
        let places = |count_max: usize| history.unstored(count_max).iter().map(|chunk| chunk.index).collect::<Vec<_>>();
        assert_eq!((places(2), places(9)), (vec![1, 2], vec![1, 2, 3, 4, 5, 6]));
        assert_eq!(read_all(&history, &mut Cursor(4), &[]), (4..30).collect::<Vec<_>>());
    }

    #[test]
    fn a_history_that_goes_on_shows_what_was_stored_and_what_comes() {
        let written: Vec<_> = (0..2)
            .map(|index| FullChunk { index, reports: Arc::new((index as u32 * 4..).take(4).collect()) })
            .collect();
        let history = History::resumed(4, 2, 2, vec![8, 9]);
        assert_eq!((history.len(), history.unstored_count()), (10, 0));
        history.append(10);
        assert!(history.append(11));
        assert_eq!(read_all(&history, &mut Cursor(3), &written), (3..12).collect::<Vec<_>>());
        assert_eq!(history.unstored(1)[0].index, 2);
    }

    #[test]
    fn a_closed_history_ends_and_only_then() {
        let history = History::new(4, 2);
        history.append(1);
        let mut cursor = Cursor(1);
        assert_eq!(history.read(&mut cursor), Read::UpToDate);
        history.close();
        assert_eq!(history.read(&mut cursor), Read::End);
        assert_eq!(history.read(&mut Cursor(0)), Read::Reports(vec![1]));
    }

    #[test]
    fn the_pace_is_that_between_two_ticks_and_none_once_it_is_closed() {
        let history = History::new(4, 2);
        let pace = |reports: u32| {
            for report in 0..reports {
                history.append(report);
            }
            history.tick();
            history.pace()
        };
        assert_eq!([0, 5, 2, 0].map(pace), [0, 5, 2, 0]);
        history.append(1);
        history.close();
        history.tick();
        assert_eq!(history.pace(), 0);
    }

    #[test]
    fn watchers_wake_at_a_tick_after_a_change_and_at_no_other() {
        let history = History::<u32>::new(4, 2);
        let watcher = history.subscribe();
        history.tick();
        assert!(!watcher.has_changed().unwrap());
        history.append(1);
        assert!(!watcher.has_changed().unwrap());
        history.tick();
        assert!(watcher.has_changed().unwrap());
    }
}
