//! A version's weights as a file on its way to one client. The client pulls a chunk at a time: nothing is made ahead of it, and nothing
//! of the store stays open.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

use super::weights::version_number;
use super::{App, AppError};
use crate::domain::{Model, ModelId, Values, Version};
use crate::limits::{DOWNLOAD_CHUNK_BYTES, DOWNLOAD_IDLE_SECONDS_MAX};

/// How often downloads that stand still are looked for.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// What a message takes beside a chunk, at most: two numbers, and the chunk's length.
const FRAME_BYTES: usize = 64;

/// A file that is taken chunk by chunk. Dropping it gives back its memory and its room.
pub struct Download {
    app: App,
    version: u32,
    size_bytes: usize,
    chunk_bytes: usize,
    parcel: Arc<Mutex<Parcel>>,
    is_over: bool,
}

/// What is still to be taken, and when some of it was taken last.
struct Parcel {
    /// `None` once all was taken, or the download was given up.
    contents: Option<Contents>,
    last_taken: Instant,
}

struct Contents {
    head: Bytes,
    weights: Bytes,
    /// Given back after the weights.
    _room: Option<OwnedSemaphorePermit>,
}

/// Numbers as the bytes that they are.
struct Weights(Values);

impl AsRef<[u8]> for Weights {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// The downloads under way.
#[derive(Default)]
pub struct Downloads(Mutex<Vec<Weak<Mutex<Parcel>>>>);

impl App {
    /// A version (`None`: the latest) as a file: what `head` makes of it, then its weights as they lie in the network's flat buffer.
    /// They are read as a whole and verified first, so what becomes of the model meanwhile does not matter.
    pub async fn download(
        &self,
        model_id: ModelId,
        asked: Option<i64>,
        head: impl FnOnce(&Model, &Version) -> Result<Vec<u8>, AppError> + Send + 'static,
    ) -> Result<Download, AppError> {
        let model = self.record(&model_id).await?;
        let number = version_number(&model, asked)?;
        // Read straight into the numbers that chunks are cut from.
        let room = self.room_for(&model.architecture, 1).await;
        let read = self.blocking(move |app| {
            let (version, parameters) = app.version_and_weights(&model, asked.map(|_| number))?;
            let head = head(&model, &version)?.into();
            let contents = Contents { head, weights: Bytes::from_owner(Weights(parameters)), _room: room };
            Ok((version.version, contents))
        });
        let (version, contents) = read.await?;
        let size_bytes = contents.head.len() + contents.weights.len();
        let message_bytes_max = self.bounds.answer_bytes_max.saturating_sub(FRAME_BYTES).max(1);
        let chunk_bytes = DOWNLOAD_CHUNK_BYTES.min(message_bytes_max);
        let parcel = self.core.downloads.begin(contents);
        Ok(Download { app: self.clone(), version, size_bytes, chunk_bytes, parcel, is_over: false })
    }
}

impl Download {
    /// The version.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Bytes of the whole file.
    pub fn size_bytes(&self) -> usize {
        self.size_bytes
    }
}

/// The file's chunks, in order; or those up to where the server stops, or gives the download up, and why.
impl Iterator for Download {
    type Item = Result<Bytes, AppError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let mut parcel = lock(&self.parcel);
        let next = match &mut parcel.contents {
            _ if self.app.core.streams_end.is_cancelled() => Some(Err(AppError::Stopping)),
            None => Some(Err(AppError::Unavailable(format!(
                "nothing of this download was taken for {DOWNLOAD_IDLE_SECONDS_MAX} s, so it was given up; ask again, and read \
                 on as messages come"
            )))),
            Some(contents) => contents.take(self.chunk_bytes).map(Ok),
        };
        parcel.last_taken = Instant::now();
        if !matches!(next, Some(Ok(_))) {
            parcel.contents = None;
            self.is_over = true;
        }
        next
    }
}

impl Contents {
    /// The next bytes, at most `bytes_max` and without a copy; `None` at the end.
    fn take(&mut self, bytes_max: usize) -> Option<Bytes> {
        let part = if self.head.is_empty() { &mut self.weights } else { &mut self.head };
        let chunk = part.split_to(part.len().min(bytes_max));
        (!chunk.is_empty()).then_some(chunk)
    }
}

impl Downloads {
    fn begin(&self, contents: Contents) -> Arc<Mutex<Parcel>> {
        let parcel = Arc::new(Mutex::new(Parcel { contents: Some(contents), last_taken: Instant::now() }));
        lock(&self.0).push(Arc::downgrade(&parcel));
        parcel
    }

    /// Gives up downloads that stand still, for as long as it is polled.
    pub async fn look_forever(&self) {
        let mut interval = tokio::time::interval(LOOK_INTERVAL);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            self.give_up_idle(Instant::now());
        }
    }

    /// Takes the weights from downloads of which nothing was taken for too long: a client that forgot its stream must not keep others
    /// from the room that they take.
    fn give_up_idle(&self, now: Instant) {
        let idle_max = Duration::from_secs(DOWNLOAD_IDLE_SECONDS_MAX);
        lock(&self.0).retain(|parcel| {
            let Some(parcel) = parcel.upgrade() else { return false };
            let mut parcel = lock(&parcel);
            if now.saturating_duration_since(parcel.last_taken) >= idle_max && parcel.contents.take().is_some() {
                tracing::info!("a download of which nothing was taken was given up");
            }
            parcel.contents.is_some()
        });
    }
}

/// A poisoned lock is used on: what it guards is replaced as a whole, never half.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use tokio::runtime::Handle;

    use super::*;
    use crate::app::{Bounds, CreateModel};
    use crate::domain::{At, ElementType, Faults, Preprocessing, RawArchitecture, RawLayer};
    use crate::jobs::Limits;
    use crate::store::Store;

    /// Half a million float64: four MiB of room.
    const WEIGHTS_BYTES: usize = 4 << 20;
    const HEAD: &[u8] = b"the head";

    /// The use cases with one such model, where a message may have `answer_bytes_max`.
    async fn app(answer_bytes_max: usize) -> App {
        let slice = Duration::from_secs(1);
        let limits = Limits { threads: 1, slice, bytes_max: 0, queued_max: 1, queued_per_key_max: 1 };
        let bounds = Bounds { answer_bytes_max, training_bytes_max: 0, disk_bytes_max: u64::MAX };
        let app = App::new(Store::ephemeral().unwrap(), Handle::current(), limits, bounds).unwrap();
        let layer = RawLayer { units: 1_024, bias: Some(false), ..RawLayer::default() };
        let architecture = RawArchitecture {
            input_width: 512,
            element_type: ElementType::Float64,
            layers: vec![Some(layer)],
            input_dropout: None,
        };
        let request = CreateModel {
            model_id: Some(model_id()),
            architecture,
            seed: Some(1),
            initial_weights: Vec::new(),
            class_labels: Vec::new(),
            preprocessing: Preprocessing::default(),
            labels: Default::default(),
        };
        app.create_model(request).await.unwrap();
        app
    }

    fn model_id() -> ModelId {
        ModelId::new("wide", At::ROOT, &mut Faults::new()).unwrap()
    }

    async fn download(app: &App) -> Download {
        app.download(model_id(), None, |_, _| Ok(HEAD.to_vec())).await.unwrap()
    }

    #[tokio::test]
    async fn chunks_are_the_head_and_then_the_bytes_of_the_weights() {
        for (answer_bytes_max, chunk_bytes) in [(64 << 20, DOWNLOAD_CHUNK_BYTES), (10_000, 10_000 - FRAME_BYTES)] {
            let app = app(answer_bytes_max).await;
            let weights = app.weights(model_id(), None, Vec::new()).await;
            let download = download(&app).await;
            assert_eq!((download.version(), download.size_bytes()), (1, HEAD.len() + WEIGHTS_BYTES));
            let chunks: Vec<Bytes> = download.map(Result::unwrap).collect();
            assert_eq!(chunks[0], HEAD);
            assert!(chunks[1..].iter().all(|chunk| (1..=chunk_bytes).contains(&chunk.len())));
            assert_eq!(chunks.len(), 1 + WEIGHTS_BYTES.div_ceil(chunk_bytes));
            if let Ok(weights) = weights {
                assert_eq!(chunks[1..].concat(), weights.layers[0].weights.values().as_bytes());
            }
        }
    }

    #[tokio::test]
    async fn room_is_given_back_at_the_end_and_when_the_client_goes_away() {
        let app = app(64 << 20).await;
        let free = app.room.available_permits();
        let mut unread = download(&app).await;
        assert!(unread.next().unwrap().is_ok());
        assert_eq!(app.room.available_permits(), free - (WEIGHTS_BYTES >> 20));
        drop(unread);
        assert_eq!(app.room.available_permits(), free);
        let mut read = download(&app).await;
        assert!(read.by_ref().all(|chunk| chunk.is_ok()));
        assert_eq!(app.room.available_permits(), free);
        assert!(read.next().is_none());
        // One that comes to nothing keeps none.
        let refused = app.download(model_id(), None, |_, _| Err(AppError::Internal("no head".to_owned()))).await;
        assert!(matches!(refused, Err(AppError::Internal(_))));
        assert_eq!(app.room.available_permits(), free);
    }

    #[tokio::test]
    async fn one_that_stands_still_is_given_up_and_one_that_moves_is_not() {
        let app = app(64 << 20).await;
        let free = app.room.available_permits();
        let mut download = download(&app).await;
        assert!(download.next().unwrap().is_ok());
        let idle_max = Duration::from_secs(DOWNLOAD_IDLE_SECONDS_MAX);
        let last_taken = lock(&download.parcel).last_taken;
        app.core.downloads.give_up_idle(last_taken + idle_max - Duration::from_nanos(1));
        assert!(download.next().unwrap().is_ok());
        app.core.downloads.give_up_idle(last_taken + idle_max);
        assert!(download.next().unwrap().is_ok(), "taking a chunk begins the time anew");
        let last_taken = lock(&download.parcel).last_taken;
        app.core.downloads.give_up_idle(last_taken + idle_max);
        assert_eq!(app.room.available_permits(), free);
        assert!(matches!(download.next(), Some(Err(AppError::Unavailable(_)))));
        assert!(download.next().is_none());
        assert!(lock(&app.core.downloads.0).is_empty());
    }

    #[tokio::test]
    async fn the_end_of_streams_ends_a_download() {
        let app = app(64 << 20).await;
        let free = app.room.available_permits();
        let mut download = download(&app).await;
        assert!(download.next().unwrap().is_ok());
        app.end_streams();
        assert!(matches!(download.next(), Some(Err(AppError::Stopping))));
        assert!(download.next().is_none());
        assert_eq!(app.room.available_permits(), free);
    }
}
