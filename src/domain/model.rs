//! Models: an architecture under a name, and its immutable versions.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::architecture::Architecture;
use super::fault::{At, Faults};
use super::name::ModelId;
use super::preprocessing::{FittedPreprocessing, Preprocessing};
use super::report::EpochReport;
use super::time::Timestamp;
use crate::limits;

/// A model: an architecture and its versions, under a name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Model {
    /// The caller's name for it.
    pub model_id: ModelId,
    /// Ours: a name may be used again after a deletion, a uid never.
    pub uid: Uuid,
    /// The network's shape.
    pub architecture: Architecture,
    /// What the initial weights were drawn from.
    pub seed: u64,
    /// The newest version; 1 is the initial weights.
    pub latest_version: u32,
    /// The version that predictions use; `None`: the latest, whichever that is.
    #[serde(default)]
    pub serving_version: Option<u32>,
    /// Versions that are kept whatever their age.
    #[serde(default)]
    pub pinned_versions: BTreeSet<u32>,
    /// Names of the classes, in the order of their indices; empty where none were given.
    pub class_labels: Vec<String>,
    /// How inputs and targets are scaled.
    pub preprocessing: Preprocessing,
    /// The caller's own notes.
    pub labels: BTreeMap<String, String>,
    /// When it was created.
    pub create_time: Timestamp,
    /// When its latest version was committed.
    pub update_time: Timestamp,
}

impl Model {
    /// The version that predictions use unless they name one.
    pub fn served_version(&self) -> u32 {
        self.serving_version.unwrap_or(self.latest_version)
    }
}

/// Where a version's weights come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum VersionSource {
    /// Drawn, or given, at creation.
    Initial,
    /// Given by `SetWeights`.
    Set,
    /// Trained.
    Training {
        /// By this job.
        job_id: Uuid,
        /// The report of the epoch whose weights these are.
        report: Box<EpochReport>,
    },
}

/// An immutable set of weights with its preprocessing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Version {
    /// Its number, from 1.
    pub version: u32,
    /// The version that it started from; `None` for the first.
    pub base_version: Option<u32>,
    /// Where the weights come from.
    pub source: VersionSource,
    /// What was learned of the data before the weights; `None` before the first training.
    pub preprocessing: Option<FittedPreprocessing>,
    /// When it was committed.
    pub create_time: Timestamp,
}

/// Checks the names of classes against what the output tells apart.
pub fn check_class_labels(labels: &[String], architecture: &Architecture, at: At<'_>, faults: &mut Faults) {
    if labels.is_empty() {
        return;
    }
    match architecture.class_count() {
        None => faults.add(at, "has no meaning for this output: leave it out, or end in softmax or one sigmoid unit"),
        Some(count) if count != labels.len() => {
            faults.add(at, format!("needs {count} labels, one a class, but has {}", labels.len()));
        }
        Some(_) => {
            let mut seen = HashSet::new();
            for (index, label) in labels.iter().enumerate() {
                if label.is_empty() || label.len() > limits::LABEL_BYTES_MAX {
                    faults.add(at.index(index), format!("must have 1 to {} bytes", limits::LABEL_BYTES_MAX));
                } else if !seen.insert(label) {
                    faults.add(at.index(index), format!("repeats the label {label:?}"));
                }
            }
        }
    }
}

/// Checks the caller's own notes.
pub fn check_labels(labels: &BTreeMap<String, String>, at: At<'_>, faults: &mut Faults) {
    if labels.len() > limits::LABELS_MAX {
        faults.add(at, format!("may hold {} entries at most, but has {}", limits::LABELS_MAX, labels.len()));
    }
    let too_long = |text: &String| text.len() > limits::LABEL_BYTES_MAX;
    if labels.iter().any(|(key, value)| key.is_empty() || too_long(key) || too_long(value)) {
        faults.add(at, format!("keys must have 1 to {0} bytes, values at most {0}", limits::LABEL_BYTES_MAX));
    }
}
