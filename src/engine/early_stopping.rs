//! When to stop before the last epoch.

use serde::{Deserialize, Serialize};

use crate::domain::EarlyStopping;

/// How long the monitored loss has not improved.
///
/// An epoch improves where its loss is below the reference by more than `min_delta`; its loss is then the new reference. So a
/// slow fall counts once it adds up, as in Keras.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Patience {
    reference: Option<f64>,
    waited_epochs: u32,
}

impl Patience {
    /// Notes the loss of an epoch; true where patience is at its end.
    pub fn is_exhausted_by(&mut self, settings: EarlyStopping, loss: f64) -> bool {
        if self.reference.is_none_or(|reference| loss < reference - settings.min_delta) {
            *self = Self { reference: Some(loss), waited_epochs: 0 };
        } else {
            self.waited_epochs += 1;
        }
        self.waited_epochs >= settings.patience
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After how many epochs it stops.
    fn stops_after(patience: u32, min_delta: f64, losses: &[f64]) -> Option<usize> {
        let mut state = Patience::default();
        let settings = EarlyStopping { patience, min_delta };
        losses.iter().position(|&loss| state.is_exhausted_by(settings, loss)).map(|index| index + 1)
    }

    #[test]
    fn it_waits_as_many_epochs_as_it_was_told() {
        assert_eq!(stops_after(2, 0.0, &[1.0, 1.0, 1.0, 0.5]), Some(3));
        assert_eq!(stops_after(2, 0.0, &[1.0, 1.1, 0.9, 0.95, 0.8, 0.8, 0.9]), Some(7));
        assert_eq!(stops_after(1, 0.0, &[3.0, 2.0, 1.0]), None);
    }

    #[test]
    fn a_slow_fall_counts_once_it_adds_up() {
        assert_eq!(stops_after(3, 0.25, &[1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4]), None);
        assert_eq!(stops_after(2, 0.25, &[1.0, 0.9, 0.8, 0.7]), Some(3));
    }
}
