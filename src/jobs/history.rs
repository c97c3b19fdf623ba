//! What a piece of work has reported: appended by one thread, read by any number of cursors, none of which it waits for.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// Reports that are read at once: a watcher that does not take what it was given holds no more.
pub const READ_MAX: usize = 256;

/// Full chunks of the last two ticks that stay in memory for watchers, who are woken at a tick.
const RECENT_MAX: usize = 128;

/// A list of reports that grows at its end, however it keeps them.
pub trait Reported: Clone {
    /// A report.
    type Report;

    /// An empty list, with room for so many.
    fn with_capacity(count: usize) -> Self;

    /// Adds those at some places of another list, which are there, at the end.
    fn append(&mut self, reports: &Self, places: Range<usize>);

    /// How many there are.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that they take in memory.
    fn bytes(&self) -> usize;

    /// The one that came last.
    fn last(&self) -> Option<Self::Report>;

    /// A copy of those at some places, which are there.
    fn part(&self, places: Range<usize>) -> Self;
}

/// An append-only list of reports in chunks. The open chunk and the last few full ones are in memory, those that watchers can be behind
/// by two ticks among them; older ones are wherever the owner stored them. A full chunk that is not stored yet stays in memory, however
/// old it is.
#[derive(Debug)]
pub struct History<C> {
    /// Bumped by whatever a watcher may want to see. Only the ticker turns it into wake-ups, so that a thousand appended reports
    /// a second cost a thousand additions and not a thousand wake-ups.
    changes: AtomicU64,
    told: watch::Sender<u64>,
    inner: Mutex<Chunks<C>>,
    chunk_len: usize,
    resident_max: usize,
}

#[derive(Debug)]
struct Chunks<C> {
    /// Index of the first full chunk that is still in memory.
    first_resident: u64,
    resident: VecDeque<Arc<C>>,
    /// How many full chunks are stored: always the first ones.
    stored: u64,
    /// How many full chunks there were at the last tick, and at the one before.
    at_ticks: [u64; 2],
    open: C,
    is_closed: bool,
}

/// A chunk that will not change any more.
#[derive(Debug, Clone)]
pub struct FullChunk<C> {
    /// Its place, from 0.
    pub index: u64,
    /// `chunk_len` reports.
    pub reports: Arc<C>,
}

/// Where a reader is: how many reports it has read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor(pub u64);

/// What is there at a cursor.
#[derive(Debug, PartialEq)]
pub enum Read<C> {
    /// These reports come next; the cursor has moved behind them.
    Reports(C),
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

impl<C: Reported> History<C> {
    /// An empty history whose chunks hold `chunk_len` reports, the last `resident_max` full ones of them in memory.
    pub fn new(chunk_len: usize, resident_max: usize) -> Self {
        let chunks = Chunks {
            first_resident: 0,
            resident: VecDeque::new(),
            stored: 0,
            at_ticks: [0; 2],
            open: C::with_capacity(chunk_len),
            is_closed: false,
        };
        Self {
            changes: AtomicU64::new(0),
            told: watch::Sender::new(0),
            inner: Mutex::new(chunks),
            chunk_len,
            resident_max,
        }
    }

    /// A history that goes on: so many chunks of it are full and stored, and these reports are in the next.
    pub fn resumed(chunk_len: usize, resident_max: usize, stored: u64, open: Option<C>) -> Self {
        let history = Self::new(chunk_len, resident_max);
        {
            let mut chunks = history.lock();
            (chunks.first_resident, chunks.stored) = (stored, stored);
            if let Some(open) = open {
                chunks.open = open;
            }
        }
        history
    }

    /// Appends reports; whether they filled a chunk, which is to be stored then.
    pub fn append(&self, reports: &C) -> bool {
        let (mut start, mut is_any_full) = (0, false);
        let mut chunks = self.lock();
        while start < reports.len() {
            let end = reports.len().min(start + self.chunk_len - chunks.open.len());
            chunks.open.append(reports, start..end);
            start = end;
            if chunks.open.len() == self.chunk_len {
                is_any_full = true;
                let full = std::mem::replace(&mut chunks.open, C::with_capacity(self.chunk_len));
                chunks.resident.push_back(Arc::new(full));
            }
        }
        drop(chunks);
        self.touch();
        is_any_full
    }

    /// The last report that is in memory; the last one of all, but where none was appended since a full chunk was stored elsewhere.
    pub fn last(&self) -> Option<C::Report> {
        let chunks = self.lock();
        chunks.open.last().or_else(|| chunks.resident.back()?.last())
    }

    /// The first full chunks that are not stored, at most so many.
    pub fn unstored(&self, count_max: usize) -> Vec<FullChunk<C>> {
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

    /// Bytes of the full chunks that are not stored.
    pub fn unstored_bytes(&self) -> usize {
        let chunks = self.lock();
        let first = (chunks.stored - chunks.first_resident) as usize;
        chunks.resident.iter().skip(first).map(|reports| reports.bytes()).sum()
    }

    /// So many of the chunks that [`History::unstored`] gave are stored now.
    pub fn mark_stored(&self, count: usize) {
        let mut chunks = self.lock();
        chunks.stored = (chunks.stored + count as u64).min(chunks.full_count());
        chunks.leave(self.resident_max, self.is_watched());
    }

    fn is_watched(&self) -> bool {
        self.told.receiver_count() > 0
    }

    /// The open chunk as it stands: its index and its reports.
    pub fn open_chunk(&self) -> (u64, C) {
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
    pub fn read(&self, cursor: &mut Cursor) -> Read<C> {
        let chunks = self.lock();
        let (chunk, skip) = (cursor.0 / self.chunk_len as u64, (cursor.0 % self.chunk_len as u64) as usize);
        if chunk < chunks.first_resident {
            return Read::Stored { chunk, skip };
        }
        if let Some(full) = chunks.resident.get((chunk - chunks.first_resident) as usize).cloned() {
            // A full chunk is copied from while others append.
            drop(chunks);
            let reports = part(&*full, skip, cursor);
            return reports.map_or(Read::UpToDate, Read::Reports);
        }
        // A cursor may be ahead of the reports: after a crash, or where a watcher wants to hear of later ones only.
        let open = (chunk == chunks.full_count()).then_some(&chunks.open);
        match open.and_then(|open| part(open, skip, cursor)) {
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
        self.told.send_if_modified(|told| std::mem::replace(told, changes) != changes);
        let mut chunks = self.lock();
        chunks.at_ticks = [chunks.full_count(), chunks.at_ticks[0]];
        chunks.leave(self.resident_max, self.is_watched());
    }

    /// Completes at the first tick after a change that came after this call.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.told.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, Chunks<C>> {
        // Nothing panics while it holds the lock.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A chunk's reports from `skip` on, at most [`READ_MAX`], and the cursor behind them; `None` where there are none.
fn part<C: Reported>(reports: &C, skip: usize, cursor: &mut Cursor) -> Option<C> {
    let count = reports.len().checked_sub(skip).filter(|&count| count > 0)?.min(READ_MAX);
    cursor.0 += count as u64;
    Some(reports.part(skip..skip + count))
}

impl<C> Chunks<C> {
    fn full_count(&self) -> u64 {
        self.first_resident + self.resident.len() as u64
    }

    /// Lets go of chunks that are stored, but for the last so many and those that watchers have not had two ticks to read.
    fn leave(&mut self, resident_max: usize, is_watched: bool) {
        let is_recent = |chunks: &Self| {
            is_watched && chunks.first_resident >= chunks.at_ticks[1] && chunks.resident.len() <= RECENT_MAX
        };
        while self.resident.len() > resident_max && self.first_resident < self.stored && !is_recent(self) {
            self.resident.pop_front();
            self.first_resident += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Reported for Vec<u32> {
        type Report = u32;

        fn with_capacity(count: usize) -> Self {
            Self::with_capacity(count)
        }

        fn append(&mut self, reports: &Self, places: Range<usize>) {
            self.extend_from_slice(&reports[places]);
        }

        fn len(&self) -> usize {
            self.len()
        }

        fn bytes(&self) -> usize {
            size_of_val(self.as_slice())
        }

        fn last(&self) -> Option<u32> {
            self.as_slice().last().copied()
        }

        fn part(&self, places: Range<usize>) -> Self {
            self[places].to_vec()
        }
    }

    #[test]
    fn a_cursor_ahead_of_the_reports_waits_for_its_own() {
        let history = History::<Vec<u32>>::new(4, 2);
        let mut cursor = Cursor(9);
        for report in 0..12 {
            let seen = match history.read(&mut cursor) {
                Read::Reports(reports) => reports,
                Read::UpToDate => Vec::new(),
                other => panic!("{other:?}"),
            };
            assert_eq!(seen, if report > 9 { vec![report - 1] } else { vec![] }, "{report}");
            history.append(&vec![report]);
        }
        history.close();
        let mut far = Cursor(100);
        assert!(matches!(history.read(&mut far), Read::End));
        assert_eq!(far.0, 100);
    }

    /// Reads everything at the cursor, old chunks from `written`.
    fn read_all(history: &History<Vec<u32>>, cursor: &mut Cursor, written: &[FullChunk<Vec<u32>>]) -> Vec<u32> {
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
        let history = History::<Vec<u32>>::new(4, 2);
        let mut written = Vec::new();
        let (mut early, mut seen) = (Cursor::default(), Vec::new());
        for report in 0..30 {
            history.append(&vec![report]);
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
    fn reports_that_come_together_fill_as_many_chunks_as_they_do_one_by_one() {
        let (one_by_one, together) = (History::<Vec<u32>>::new(4, 9), History::<Vec<u32>>::new(4, 9));
        for reports in [0..1, 1..3, 3..3, 3..4, 4..17, 17..24] {
            let are_full: Vec<bool> = reports.clone().map(|report| one_by_one.append(&vec![report])).collect();
            assert_eq!(together.append(&reports.collect()), are_full.contains(&true));
            assert_eq!(together.open_chunk(), one_by_one.open_chunk());
        }
        for history in [&one_by_one, &together] {
            assert_eq!(read_all(history, &mut Cursor::default(), &[]), (0..24).collect::<Vec<_>>());
        }
    }

    #[test]
    fn what_is_not_stored_stays_in_memory() {
        let history = History::<Vec<u32>>::new(4, 2);
        assert_eq!((0..30).filter(|&report| history.append(&vec![report])).count(), 7);
        assert_eq!((history.unstored_count(), history.unstored_bytes()), (7, 7 * 4 * size_of::<u32>()));
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
    fn what_a_watcher_had_no_two_ticks_to_read_stays_in_memory() {
        let history = History::<Vec<u32>>::new(4, 2);
        let grow = |chunks: u32| {
            history.append(&(0..4 * chunks).collect());
            history.mark_stored(chunks as usize);
        };
        let is_in_memory = |chunk: u64| matches!(history.read(&mut Cursor(4 * chunk)), Read::Reports(_));
        grow(4);
        assert_eq!([0, 1, 2, 3].map(is_in_memory), [false, false, true, true]);
        let _watcher = history.subscribe();
        grow(4);
        assert_eq!([1, 2, 3, 4, 7].map(is_in_memory), [false, true, true, true, true]);
        history.tick();
        grow(1);
        assert_eq!([1, 2, 8].map(is_in_memory), [false, true, true]);
        history.tick();
        assert_eq!([6, 7, 8].map(is_in_memory), [false, true, true]);
        grow(RECENT_MAX as u32 + 9);
        assert_eq!([17, 18].map(is_in_memory), [false, true]);
    }

    #[test]
    fn a_history_that_goes_on_shows_what_was_stored_and_what_comes() {
        let written: Vec<_> = (0..2)
            .map(|index| FullChunk { index, reports: Arc::new((index as u32 * 4..).take(4).collect()) })
            .collect();
        let history = History::resumed(4, 2, 2, Some(vec![8, 9]));
        assert_eq!((history.len(), history.unstored_count()), (10, 0));
        history.append(&vec![10]);
        assert!(history.append(&vec![11]));
        assert_eq!(read_all(&history, &mut Cursor(3), &written), (3..12).collect::<Vec<_>>());
        assert_eq!(history.unstored(1)[0].index, 2);
    }

    #[test]
    fn a_closed_history_ends_and_only_then() {
        let history = History::<Vec<u32>>::new(4, 2);
        history.append(&vec![1]);
        let mut cursor = Cursor(1);
        assert_eq!(history.read(&mut cursor), Read::UpToDate);
        history.close();
        assert_eq!(history.read(&mut cursor), Read::End);
        assert_eq!(history.read(&mut Cursor(0)), Read::Reports(vec![1]));
    }

    #[test]
    fn watchers_wake_at_a_tick_after_a_change_and_at_no_other() {
        let history = History::<Vec<u32>>::new(4, 2);
        let watcher = history.subscribe();
        history.tick();
        assert!(!watcher.has_changed().unwrap());
        history.append(&vec![1]);
        assert!(!watcher.has_changed().unwrap());
        history.tick();
        assert!(watcher.has_changed().unwrap());
    }
}
