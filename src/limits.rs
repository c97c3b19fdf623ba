//! Every bound of the service, with its reason. A leaf: it imports nothing, so every module may read it.
//!
//! What an operator may change is in `src/config.rs`; here are the defaults of those settings and the bounds that no
//! setting lifts. Their relations are asserted at compile time at the end of the file.

/// Largest message, request or answer, in bytes: inline training data of about eight million float64 values.
pub const MESSAGE_BYTES_DEFAULT: usize = 64 << 20;

/// Texts, byte strings and messages within one request: an empty message is two bytes on the wire and some two hundred in
/// memory. Room for the labels of as many classes as a layer may have units, and more.
pub const MESSAGE_PARTS_MAX: usize = 100_000;

/// Faults of one request that are kept to be told; the rest is only counted.
pub const FAULTS_KEPT_MAX: usize = 1_000;

/// Bytes that all trainings that have begun may take together, by our estimate, and so the most that one may.
pub const TRAINING_BYTES_DEFAULT: u64 = 4 << 30;

/// Bytes that calls on weights may take together, by our estimate: creating, setting, reading and loading them. More calls
/// wait for their turn. Twice what the largest network takes to be made.
pub const CALL_BYTES_MAX: usize = 3 << 30;

/// Bytes of a file of weights in one message of a download: far below the 4 MB that clients take by default, and enough that a message
/// costs little beside its bytes. A client that reads nothing makes the server hold one of them, beside the weights.
pub const DOWNLOAD_CHUNK_BYTES: usize = 256 << 10;

/// How long a download may stand still before it is given up: its weights take room that other calls wait for. A client that takes five
/// kilobytes a second keeps it going.
pub const DOWNLOAD_IDLE_SECONDS_MAX: u64 = 60;

/// Layers of one network. Deep enough for every multilayer perceptron that trains, small enough to describe in one message.
pub const LAYERS_MAX: usize = 256;

/// Units of one layer, and columns of the input.
pub const WIDTH_MAX: usize = 65_536;

/// Weights and biases of one network: with Adam in float64, 2 GiB of parameters, gradients and moments.
pub const PARAMETERS_MAX: usize = 1 << 26;

/// Epochs of one training: the smallest networks do two million a second. No more than the reports that are kept
/// of finished jobs, so that no job's history is past that bound alone.
pub const EPOCHS_MAX: u32 = 20_000_000;

/// Rows of one mini-batch. More rows than the data has mean the full batch, so this only keeps the number in an int32.
pub const BATCH_ROWS_MAX: u32 = i32::MAX as u32;

/// Epochs that early stopping may wait, or that may lie between two reports: as many as there can be.
pub const PATIENCE_MAX: u32 = EPOCHS_MAX;

/// Largest learning rate: past it every network of ours leaves the range of its floats within a few steps.
pub const LEARNING_RATE_MAX: f64 = 1e6;

/// Epochs by default: at least this many ...
pub const EPOCHS_DEFAULT_MIN: u32 = 20;

/// ... and enough of them for about this many optimizer steps.
pub const STEPS_DEFAULT: u32 = 2_000;

/// Rows of a mini-batch by default.
pub const BATCH_ROWS_DEFAULT: u32 = 32;

/// Epochs without an improvement that early stopping waits by default.
pub const PATIENCE_DEFAULT: u32 = 10;

/// k of the top-k accuracy by default, where there are as many classes.
pub const TOP_K_DEFAULT: u32 = 5;

/// Bytes of a loss that a caller writes.
pub const EXPRESSION_BYTES_MAX: usize = 4_096;

/// Multiply-adds (rows × parameters) up to which such a loss is tried on the rows before its training is accepted: a tenth of a
/// second. Past it the job tries it, on a training thread.
pub const EXPRESSION_CHECK_OPERATIONS_MAX: u64 = 100_000_000;

/// Bytes of the buffers that such a loss may take on a network, where it sums over a row's outputs: thirty buffers for the
/// widest row, and far more for usual ones.
pub const EXPRESSION_WORK_BYTES_MAX: usize = 16 << 20;

/// Labels of a model (keys and values), so that a list page stays small.
pub const LABELS_MAX: usize = 64;

/// Bytes of one label's key or value, of a class label, of a request id.
pub const LABEL_BYTES_MAX: usize = 128;

/// Bytes of a model id.
pub const MODEL_ID_BYTES_MAX: usize = 63;

/// Items of a list page by default, and at most; a larger request is clamped.
pub const PAGE_SIZE_DEFAULT: usize = 50;
/// See [`PAGE_SIZE_DEFAULT`].
pub const PAGE_SIZE_MAX: usize = 1_000;

/// Field violations told in one answer: they travel in a trailer that clients cut at 8 KB.
pub const VIOLATIONS_MAX: usize = 16;
/// Bytes of those violations: base64 and the message beside them must fit the same 8 KB.
pub const VIOLATION_BYTES_MAX: usize = 4_096;

/// Jobs that may wait in the server, and for one model. They wait on disk; the bound keeps a runaway client from filling it.
pub const QUEUED_JOBS_DEFAULT: usize = 1_000;
/// See [`QUEUED_JOBS_DEFAULT`].
pub const QUEUED_JOBS_PER_MODEL_DEFAULT: usize = 100;

/// From one checkpoint of a job to the next, unless a request says otherwise: what a crash costs, at most, beside the time that a
/// checkpoint takes.
pub const CHECKPOINT_INTERVAL_MICROS: u64 = 10_000_000;

/// The share of its time that a job may spend on checkpoints is one in this many, whatever interval was asked for. What it loses besides,
/// to caches, to a core that has cooled down and to the disk, was up to four times as much again (docs/durability.md).
pub const CHECKPOINT_COST_INVERSE: u32 = 120;

/// Starts of a job in a row that may end with the process, before a new checkpoint: then it is set aside, so that it does not take the
/// server down for ever.
pub const STARTS_WITHOUT_CHECKPOINT_MAX: u32 = 3;

/// Newest versions of a model that are kept: three months of daily trainings, to compare with and to roll back to. Networks are small
/// as a rule; the largest one takes 25 GB at that in float32.
pub const VERSIONS_PER_MODEL_DEFAULT: u32 = 100;

/// Versions of one model that may be pinned: they stand in its record, which stays small.
pub const PINNED_VERSIONS_MAX: usize = 100;

/// Finished jobs of a model whose records and histories are kept, those that ended last: more than anybody reads, at two kilobytes each ...
pub const FINISHED_JOBS_PER_MODEL_DEFAULT: u32 = 1_000;

/// ... and of all models: some 20 MB of records, which a start need not read.
pub const FINISHED_JOBS_DEFAULT: u32 = 10_000;

/// Epoch reports of finished jobs that are kept, jobs that ended last first: 1.3 GB at 65 bytes each, which they rarely take.
pub const KEPT_REPORTS_DEFAULT: u64 = 20_000_000;

/// Reports in one immutable chunk of a history: read, stored and sent as one.
pub const CHUNK_REPORTS: usize = 1_024;

/// Full chunks of a running job's history that stay in memory, beside those that watchers may still want; older ones are read back from
/// the store.
pub const CHUNKS_RESIDENT: usize = 4;

/// Backups at once: each keeps a thread, and the room of what is deleted meanwhile. One for the schedule, one for a person.
pub const BACKUPS_MAX: usize = 2;

/// Bytes of one chunk of a backup, and chunks that may wait for the client: a megabyte for each backup.
pub const BACKUP_CHUNK_BYTES: usize = 256 << 10;
/// See [`BACKUP_CHUNK_BYTES`].
pub const BACKUP_CHUNKS_WAITING: usize = 4;

/// What a backup leaves out since it is damaged, by name: a message of some 100 KB at most. The rest is counted, and stands in the log.
pub const BACKUP_LEFT_OUT_MAX: usize = 1_000;

/// How long a backup's client may take no chunk before the backup ends: else one that stopped to read would keep the room of all that
/// is deleted, for ever.
pub const BACKUP_STALL_SECONDS: u64 = 600;

/// Connections at once, and streams (calls) in each. HTTP/2 leaves both open until told.
pub const CONNECTIONS_MAX: usize = 2_048;
/// See [`CONNECTIONS_MAX`].
pub const STREAMS_PER_CONNECTION_MAX: u32 = 256;

/// Bytes of a prediction's request that is answered by whoever reads its connection: reading more takes longer than what is saved.
pub const PREDICT_AT_ONCE_BYTES_MAX: usize = 64 << 10;

/// Multiply-adds of a prediction (rows × parameters, and as much as its activations and names take) up to which it is answered by whoever reads its connection, some microseconds: other
/// calls on the connection wait meanwhile, and a task of its own would cost as much.
pub const PREDICT_AT_ONCE_OPERATIONS_MAX: usize = 200_000;

/// Multiply-adds of a prediction (rows × parameters) past which it leaves the async workers for the blocking pool.
pub const PREDICT_INLINE_OPERATIONS_MAX: usize = 1_000_000;

/// Multiply-adds of a part of a prediction that another core computes, where one is free: a hundred microseconds or more, which are worth
/// the way there and back.
pub const PREDICT_PART_OPERATIONS_MIN: usize = 16_000_000;

/// Bytes of stored reports kept in memory for watchers that are behind: two hundred chunks with few metrics.
pub const CHUNK_CACHE_BYTES: u64 = 16 << 20;

/// Chunks of stored reports that are read and decoded at once: a fifth of a MiB each with few metrics, some 25 MiB with diagnostics of as many layers
/// as there may be.
pub const CHUNK_READS_MAX: usize = 8;

/// Bytes of networks kept in memory for predictions.
pub const SNAPSHOT_CACHE_BYTES: u64 = 1 << 30;

/// Bytes that the record store's cache may hold: records are small, and idle memory is a promise.
pub const STORE_CACHE_BYTES: usize = 8 << 20;

const _: () = assert!(PAGE_SIZE_DEFAULT <= PAGE_SIZE_MAX);
const _: () = assert!(EPOCHS_DEFAULT_MIN <= STEPS_DEFAULT && STEPS_DEFAULT <= EPOCHS_MAX);
const _: () = assert!(QUEUED_JOBS_PER_MODEL_DEFAULT <= QUEUED_JOBS_DEFAULT);
const _: () = assert!(VIOLATION_BYTES_MAX * 4 / 3 + 1_024 <= 8_192);
const _: () = assert!(WIDTH_MAX <= PARAMETERS_MAX && EPOCHS_MAX <= i32::MAX as u32);
const _: () = assert!(EPOCHS_MAX as u64 <= KEPT_REPORTS_DEFAULT);
const _: () = assert!(PREDICT_AT_ONCE_OPERATIONS_MAX <= PREDICT_INLINE_OPERATIONS_MAX);
// A part has two bytes at least: nobody counts those of a small request.
const _: () = assert!(PREDICT_AT_ONCE_BYTES_MAX <= 2 * MESSAGE_PARTS_MAX);
const _: () = assert!(WIDTH_MAX < MESSAGE_PARTS_MAX && VIOLATIONS_MAX <= FAULTS_KEPT_MAX);
const _: () = assert!(DOWNLOAD_CHUNK_BYTES * 8 <= 4 << 20);
// Readers of safetensors take a header of 100 MB. A label's byte may be seven in it, escaped twice; a float has at most 25 characters.
const _: () = assert!(WIDTH_MAX * (LABEL_BYTES_MAX * 7 + 4 * 26) + LAYERS_MAX * 4_096 <= 100_000_000);
const _: () = assert!(MODEL_ID_BYTES_MAX <= LABEL_BYTES_MAX);
