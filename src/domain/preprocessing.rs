//! What a model learns from its data before its weights do, applied again at every prediction.

use serde::{Deserialize, Serialize};

use super::activation::Activation;
use super::architecture::Architecture;
use super::fault::{At, Faults};

/// How the columns of a matrix are scaled, each by its own numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scaling {
    /// As they come.
    #[default]
    None,
    /// (x − mean) / standard deviation, with the biased variance (as scikit-learn's StandardScaler).
    Standard,
    /// (x − min) / (max − min), so that the training rows lie in 0 to 1.
    MinMax,
}

/// What a model scales. Fitted on the first training's rows (its validation rows apart), and kept from then on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preprocessing {
    /// Of the inputs.
    pub inputs: Scaling,
    /// Of the targets: regression only. Predictions come back in the targets' own unit.
    pub targets: Scaling,
}

impl Preprocessing {
    /// Refuses scaled targets where the output's range is fixed.
    pub fn check(&self, architecture: &Architecture, at: At<'_>, faults: &mut Faults) {
        let activation = architecture.output_layer().activation;
        if self.targets != Scaling::None && activation != Activation::Identity {
            let message =
                format!("needs an identity output, which can take any value, but the last layer is {activation}");
            faults.add(at.field("targets"), message);
        }
    }
}

/// x' = (x − shift) / scale, a column each; nothing for a matrix that is not scaled.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Scaler {
    /// What is subtracted: the mean, or the minimum.
    pub shift: Vec<f64>,
    /// What it is then divided by: the standard deviation, or the range; 1 for a constant column.
    pub scale: Vec<f64>,
}

/// The scalers in force with a version.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FittedPreprocessing {
    /// For the inputs; `None` where they are not scaled.
    pub inputs: Option<Scaler>,
    /// For the targets; `None` where they are not scaled.
    pub targets: Option<Scaler>,
}
