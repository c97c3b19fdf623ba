//! Checked plain values: what a model, a training and a job are. No wire format, no clock, no I/O.
//!
//! A value here is made by a constructor that checks every documented range and reports each fault with its path in the
//! request, so whatever the rest of the code holds is sound.

pub mod activation;
pub mod architecture;
pub mod continuation;
pub mod expression;
pub mod fault;
pub mod initializer;
pub mod job;
pub mod loss;
pub mod matrix;
pub mod metric;
pub mod model;
pub mod name;
pub mod optimizer;
pub mod packed;
pub mod preprocessing;
pub mod report;
pub mod reports;
pub mod rows;
pub mod schedule;
pub mod settings;
pub mod targets;
pub mod time;
pub mod training;

pub use activation::Activation;
pub use architecture::{
    Architecture, BatchNormalization, Layer, LayerLayout, NormalizationLayout, RawArchitecture, RawBatchNormalization,
    RawLayer,
};
pub use continuation::{Continuation, ContinuationRef};
pub use expression::Expression;
pub use fault::{At, Fault, Faults};
pub use initializer::Initializer;
pub use job::{CheckpointMark, Failure, FailureKind, Job, JobState, StopReason};
pub use loss::{Loss, TargetKind};
pub use matrix::{ElementType, Matrix, RawMatrix, Values, ValuesRef};
pub use metric::{Metric, Task};
pub use model::{Model, Version, VersionSource};
pub use name::ModelId;
pub use optimizer::{Optimizer, RawOptimizer};
pub use packed::Packed;
pub use preprocessing::{FittedPreprocessing, Preprocessing, Scaler, Scaling};
pub use report::{EpochReport, LayerDiagnostics, Metrics};
pub use reports::{ReportRow, Reports};
pub use rows::{RawRows, Rows, TrainingData};
pub use schedule::{RawSchedule, Schedule, ScheduleKind};
pub use settings::{ClassWeights, EarlyStopping, Reduction, Settings, Start, StopAt, Validation};
pub use targets::Targets;
pub use time::Timestamp;
pub use training::{RawClassWeights, RawEarlyStopping, RawStopAt, RawTraining, RawValidation};
