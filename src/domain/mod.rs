//! Checked plain values: what a model, a training and a job are. No wire format, no clock, no I/O.
//!
//! A value here is made by a constructor that checks every documented range and reports each fault with its path in the
//! request, so whatever the rest of the code holds is sound.

pub mod fault;
pub mod job;
pub mod matrix;
pub mod model;
pub mod name;
pub mod optimizer;
pub mod preprocessing;
pub mod report;
pub mod targets;
pub mod time;
pub mod training;

pub use fault::{At, Fault, Faults};
pub use job::{Failure, FailureKind, Job, JobState, StopReason};
pub use matrix::{ElementType, Matrix, RawMatrix, Values};
pub use model::{
    Activation, Architecture, Layer, LayerLayout, Model, RawArchitecture, RawLayer, Version, VersionSource,
};
pub use name::ModelId;
pub use optimizer::{Optimizer, RawOptimizer};
pub use preprocessing::{FittedPreprocessing, Preprocessing, Scaler, Scaling};
pub use report::{EpochReport, Metrics};
pub use targets::Targets;
pub use time::Timestamp;
pub use training::{
    EarlyStopping, Loss, RawEarlyStopping, RawTraining, RawValidation, Reduction, Settings, Start, TrainingData,
    Validation,
};
