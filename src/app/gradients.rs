//! Gradients of a batch, for who wants to look inside backpropagation. Changes nothing.

use super::predict::wider_or_smaller;
use super::train::expression_fault;
use super::weights::{LayerParameters, split_layers, version_number};
use super::{App, AppError};
use crate::domain::{At, ElementType, Faults, Loss, Matrix, ModelId, RawMatrix, Reduction, Targets};
use crate::engine::GradientError;

/// What is asked.
#[derive(Debug)]
pub struct GradientsRequest {
    /// The model.
    pub model_id: ModelId,
    /// Rows in the caller's own units.
    pub inputs: RawMatrix,
    /// As a training's.
    pub targets: RawMatrix,
    /// `None`: the latest.
    pub version: Option<i64>,
    /// `None`: by the last activation.
    pub loss: Option<Loss>,
    /// How the losses become one number.
    pub reduction: Reduction,
}

/// The answer.
#[derive(Debug)]
pub struct BatchGradients {
    /// The reduced loss.
    pub loss: f64,
    /// The loss of each row alone, reduced likewise.
    pub row_losses: Vec<f64>,
    /// δ of each layer, `[rows, units]`.
    pub deltas: Vec<Matrix>,
    /// By the weights and biases of each layer.
    pub layers: Vec<LayerParameters>,
    /// By the inputs, in the caller's own units.
    pub inputs: Matrix,
    /// The version asked.
    pub version: u32,
}

impl App {
    /// Computes the loss of a batch and its gradients.
    pub async fn gradients(&self, request: GradientsRequest) -> Result<BatchGradients, AppError> {
        let model = self.record(&request.model_id).await?;
        // The weights, their gradients, and what is read from the file.
        let room = self.room_for(&model.architecture, 4).await;
        let permit = self.big_predictions.clone().acquire_owned().await;
        // The permit goes along: a caller who goes away leaves the work behind.
        let gradients = self.blocking(move |app| {
            let _permits = (permit, room);
            app.compute_gradients(request)
        });
        gradients.await
    }

    fn compute_gradients(&self, request: GradientsRequest) -> Result<BatchGradients, AppError> {
        let (model, _) = self.core.snapshots.load_serving(&self.core.store, &request.model_id)?;
        let model = &*model;
        let architecture = &model.architecture;
        let mut faults = Faults::new();
        let at = At::ROOT;
        let output = architecture.output_layer();
        let loss = Loss::choose(request.loss, output.activation, output.units, at.field("loss"), &mut faults);
        let (width, element_type) = (architecture.input_width(), architecture.element_type());
        let inputs = request.inputs.check(width, element_type, at.field("inputs"), &mut faults);
        let rows = inputs.as_ref().map(Matrix::rows);
        let targets = loss.as_ref().zip(rows).and_then(|(loss, rows)| {
            Targets::check(request.targets, rows, loss, architecture, at.field("targets"), &mut faults)
        });
        let checked = loss.zip(inputs).zip(targets);
        let ((loss, inputs), targets) = faults.finish(checked)?;
        let units: usize = architecture.layers().iter().map(|layer| layer.units).sum();
        // Of the losses each has eight bytes, whatever the encoding.
        let numbers = (units + width + 2).saturating_mul(inputs.rows()).saturating_add(architecture.parameter_count());
        self.bound_answer(numbers, "ask with fewer rows, or of a smaller network")?;
        self.bound_expression(architecture, &loss)?;
        if architecture.has_batch_normalization() && inputs.rows() < 2 {
            let message = "need two rows or more for batch normalization, which goes by their mean and variance";
            return Err(Faults::one(at.field("inputs"), message).into());
        }
        let version = version_number(model, request.version)?;
        let snapshot = self.core.snapshots.load(&self.core.store, model, version)?;
        let preprocessing = snapshot.preprocessing.as_ref();
        let gradients = (snapshot.network.gradients(&inputs, &targets, &loss, request.reduction, preprocessing))
            .map_err(|error| refused(error, &loss, element_type))?;
        Ok(BatchGradients {
            loss: gradients.loss,
            row_losses: gradients.row_losses,
            deltas: gradients.deltas,
            layers: split_layers(architecture, &gradients.parameters),
            inputs: gradients.inputs,
            version,
        })
    }
}

/// Why there are no gradients, in words that say what to change.
fn refused(error: GradientError, loss: &Loss, element_type: ElementType) -> AppError {
    match error {
        GradientError::Flat { .. } => AppError::Precondition(error.to_string()),
        GradientError::NotFinite { row } if matches!(loss, Loss::Custom { .. }) => {
            expression_fault(row as u32, "the value or the derivative").into()
        }
        GradientError::NotFinite { .. } => {
            let other = wider_or_smaller(element_type);
            let message = format!("{error}; use smaller inputs, {other}, or a loss that is defined there");
            Faults::one(At::ROOT.field("inputs"), message).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gradients_out_of_range_name_their_row_and_what_their_type_can_change() {
        let told =
            |element_type| refused(GradientError::NotFinite { row: 3 }, &Loss::SquaredError, element_type).to_string();
        let (single, double) = (told(ElementType::Float32), told(ElementType::Float64));
        assert!(single.contains("row 3 ") && single.contains("a model of float64"), "{single}");
        assert!(double.contains("row 3 ") && double.contains("smaller weights"), "{double}");
        assert!(!double.contains("float64"), "it is of float64 already: {double}");
    }
}
