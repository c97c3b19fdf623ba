//! Reading and writing weights, a layer at a time.

use super::{App, AppError, now};
use crate::domain::{Architecture, At, Faults, Matrix, Model, ModelId, RawMatrix, Values, Version, VersionSource};
use crate::store::VersionDraft;

/// The weights of one layer as a request brings them.
#[derive(Clone, Debug)]
pub struct RawLayerParameters {
    /// Which layer; `None`: its place in the list.
    pub layer: Option<i64>,
    /// W.
    pub weights: Option<RawMatrix>,
    /// b.
    pub bias: Option<RawMatrix>,
}

/// The weights of one layer.
#[derive(Clone, Debug)]
pub struct LayerParameters {
    /// Its index.
    pub layer: usize,
    /// W, `[inputs, units]`.
    pub weights: Matrix,
    /// b, one row; `None` for a layer without bias.
    pub bias: Option<Matrix>,
}

/// The weights of a version.
#[derive(Debug)]
pub struct ModelWeights {
    /// The model.
    pub model_id: ModelId,
    /// The version.
    pub version: u32,
    /// The layers asked for.
    pub layers: Vec<LayerParameters>,
}

impl App {
    /// Reads the weights of some layers (none named: all) of a version (`None`: the latest).
    pub async fn weights(
        &self,
        model_id: ModelId,
        version: Option<i64>,
        layers: Vec<i64>,
    ) -> Result<ModelWeights, AppError> {
        let model = self.record(&model_id).await?;
        let wanted = wanted_layers(&model.architecture, &layers)?;
        let version = version_number(&model, version)?;
        let layout = model.architecture.layout();
        let numbers = wanted.iter().map(|&layer| layout[layer].weights.len()).sum();
        self.bound_answer(numbers, "ask for fewer `layers` at a time, or raise the server's --message-bytes-max")?;
        // The file's bytes, the numbers, and the layers cut out of them.
        let room = self.room_for(&model.architecture, 3).await;
        self.blocking(move |app| {
            let _room = room;
            let parameters = (app.core.store.parameters(model.uid, version, &model.architecture)?)
                .ok_or_else(|| AppError::no_version(&model_id, version))?;
            let all = split_layers(&model.architecture, &parameters);
            let layers = all.into_iter().filter(|layer| wanted.contains(&layer.layer)).collect();
            Ok(ModelWeights { model_id, version, layers })
        })
        .await
    }

    /// Commits a new version with some layers' weights replaced.
    pub async fn set_weights(&self, model_id: ModelId, layers: Vec<RawLayerParameters>) -> Result<Version, AppError> {
        if layers.is_empty() {
            return Err(Faults::one(At::ROOT.field("layers"), "needs the weights of at least one layer").into());
        }
        let architecture = self.record(&model_id).await?.architecture;
        let mut faults = Faults::new();
        check_layers(&architecture, &layers, At::ROOT.field("layers"), &mut faults);
        faults.finish(Some(()))?;
        // The version before, the new one, and its bytes.
        let room = self.room_for(&architecture, 3).await;
        self.blocking(move |app| {
            let _room = room;
            let store = &app.core.store;
            let missing = || AppError::no_model(&model_id);
            let model = store.model(&model_id)?.ok_or_else(missing)?;
            let base_version = model.latest_version;
            let base = store.version(model.uid, base_version)?.ok_or_else(missing)?;
            let parameters = store.parameters(model.uid, base_version, &model.architecture)?.ok_or_else(missing)?;
            let mut faults = Faults::new();
            let at = At::ROOT.field("layers");
            let merged = merge_layers(&model.architecture, parameters, &layers, at, &mut faults);
            let merged = faults.finish(merged)?;
            let draft = VersionDraft {
                base_version: Some(base_version),
                source: VersionSource::Set,
                preprocessing: base.preprocessing,
                create_time: now(),
            };
            let version = store.commit_version(model.uid, draft, &merged)?.ok_or_else(missing)?;
            app.core.snapshots.forget_serving(&model_id);
            tracing::info!(%model_id, version = version.version, "weights set");
            Ok(version)
        })
        .await
    }
}

/// The version asked for, in range; by default the latest.
pub(super) fn version_number(model: &Model, asked: Option<i64>) -> Result<u32, AppError> {
    let Some(asked) = asked else { return Ok(model.latest_version) };
    if asked < 1 {
        return Err(Faults::one(At::ROOT.field("version"), format!("must be 1 or more, but is {asked}")).into());
    }
    match u32::try_from(asked) {
        Ok(version) if version <= model.latest_version => Ok(version),
        _ => Err(AppError::NotFound(format!(
            "model {:?} has no version {asked}; its latest is {}",
            model.model_id.as_str(),
            model.latest_version
        ))),
    }
}

fn wanted_layers(architecture: &Architecture, asked: &[i64]) -> Result<Vec<usize>, Faults> {
    let last = architecture.layers().len() - 1;
    if asked.is_empty() {
        return Ok((0..=last).collect());
    }
    let mut faults = Faults::new();
    let at = At::ROOT.field("layers");
    if asked.len() > last + 1 {
        return Err(Faults::one(at, format!("may name each of the {} layers once, but has {}", last + 1, asked.len())));
    }
    let wanted: Vec<Option<i64>> =
        asked.iter().enumerate().map(|(place, &layer)| faults.whole(at.index(place), layer, 0..=last as i64)).collect();
    faults.finish(wanted.into_iter().map(|layer| layer.map(|layer| layer as usize)).collect())
}

/// The flat buffer as a matrix and a bias a layer.
pub(super) fn split_layers(architecture: &Architecture, parameters: &Values) -> Vec<LayerParameters> {
    let layout = architecture.layout();
    let layers = layout.into_iter().enumerate().map(|(layer, at)| LayerParameters {
        layer,
        weights: Matrix::from_values(at.inputs, at.units, parameters.slice(at.weights)),
        bias: at.bias.map(|bias| Matrix::from_values(1, at.units, parameters.slice(bias))),
    });
    layers.collect()
}

/// The flat buffer `base` with the layers given written over it.
pub(super) fn merge_layers(
    architecture: &Architecture,
    mut base: Values,
    layers: &[RawLayerParameters],
    at: At<'_>,
    faults: &mut Faults,
) -> Option<Values> {
    let write = |start: usize, matrix: &Matrix| base.write(start, matrix.values());
    visit_layers(architecture, layers, at, faults, write);
    faults.is_empty().then_some(base)
}

/// Whether layers given fit a network: all that [`merge_layers`] checks, without a buffer to write to.
pub(super) fn check_layers(
    architecture: &Architecture,
    layers: &[RawLayerParameters],
    at: At<'_>,
    faults: &mut Faults,
) {
    visit_layers(architecture, layers, at, faults, |_, _| {});
}

/// Checks layers given, and hands each sound matrix on with its place in the flat buffer.
fn visit_layers(
    architecture: &Architecture,
    layers: &[RawLayerParameters],
    at: At<'_>,
    faults: &mut Faults,
    mut visit: impl FnMut(usize, &Matrix),
) {
    let layout = architecture.layout();
    let element_type = architecture.element_type();
    let mut is_given = vec![false; layout.len()];
    for (place, raw) in layers.iter().enumerate() {
        let at = at.index(place);
        let index = raw.layer.unwrap_or(place as i64);
        let Some(layer) = usize::try_from(index).ok().filter(|&layer| layer < layout.len()) else {
            faults.add(at.field("layer"), format!("must be between 0 and {}, but is {index}", layout.len() - 1));
            continue;
        };
        if std::mem::replace(&mut is_given[layer], true) {
            faults.add(at.field("layer"), format!("names layer {layer} a second time"));
            continue;
        }
        let shape = &layout[layer];
        let given = Given { raw: raw.weights.clone(), rows: shape.inputs, columns: shape.units, name: "weights" };
        if let Some(weights) = given.check(element_type, at, faults) {
            visit(shape.weights.start, &weights);
        }
        match &shape.bias {
            None if raw.bias.is_some() => faults.add(at.field("bias"), "must be left out: the layer has no bias"),
            None => {}
            Some(range) => {
                let given = Given { raw: raw.bias.clone(), rows: 1, columns: shape.units, name: "bias" };
                if let Some(bias) = given.check(element_type, at, faults) {
                    visit(range.start, &bias);
                }
            }
        }
    }
}

/// A matrix of a known shape, as a request brings it.
struct Given {
    raw: Option<RawMatrix>,
    rows: usize,
    columns: usize,
    name: &'static str,
}

impl Given {
    fn check(self, element_type: crate::domain::ElementType, at: At<'_>, faults: &mut Faults) -> Option<Matrix> {
        let at = at.field(self.name);
        let Some(raw) = self.raw else {
            faults.add(at, format!("is required: a matrix of {} × {}", self.rows, self.columns));
            return None;
        };
        let matrix = raw.check(self.columns, element_type, at, faults)?;
        if matrix.rows() != self.rows {
            faults.add(at, format!("has {} rows, but the layer needs {}", matrix.rows(), self.rows));
            return None;
        }
        Some(matrix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Activation, ElementType, RawArchitecture, RawLayer};

    fn architecture() -> Architecture {
        let layer =
            |units, bias| Some(RawLayer { units, activation: Activation::Identity, activation_alpha: None, bias });
        let layers = vec![layer(2, true), layer(1, false)];
        let raw = RawArchitecture { input_width: 3, element_type: ElementType::Float64, layers };
        raw.check(At::ROOT, &mut Faults::new()).unwrap()
    }

    fn raw(matrix: &Matrix) -> Option<RawMatrix> {
        Some(RawMatrix { values: matrix.values().clone(), rows: Some(matrix.rows()), columns: None })
    }

    #[test]
    fn layers_split_and_merged_are_the_same_parameters() {
        let architecture = architecture();
        let parameters = Values::F64((0..10).map(f64::from).collect());
        let layers: Vec<_> = split_layers(&architecture, &parameters)
            .iter()
            .map(|layer| RawLayerParameters {
                layer: Some(layer.layer as i64),
                weights: raw(&layer.weights),
                bias: layer.bias.as_ref().and_then(raw),
            })
            .collect();
        let zeros = Values::F64(vec![0.0; 10]);
        let mut faults = Faults::new();
        assert_eq!(merge_layers(&architecture, zeros, &layers, At::ROOT, &mut faults), Some(parameters));
    }

    #[test]
    fn a_layer_that_does_not_fit_is_named() {
        let architecture = architecture();
        let one = || Some(RawMatrix { values: Values::F64(vec![1.0]), rows: None, columns: None });
        let layers = [
            RawLayerParameters { layer: Some(1), weights: one(), bias: one() },
            RawLayerParameters { layer: Some(1), weights: one(), bias: None },
            RawLayerParameters { layer: Some(2), weights: one(), bias: None },
            RawLayerParameters { layer: Some(0), weights: None, bias: one() },
        ];
        let mut faults = Faults::new();
        let base = Values::F64(vec![0.0; 10]);
        assert_eq!(merge_layers(&architecture, base, &layers, At::ROOT.field("layers"), &mut faults), None);
        let paths: Vec<_> = faults.as_slice().iter().map(|fault| fault.path.as_str()).collect();
        assert_eq!(
            paths,
            [
                "layers[0].weights",
                "layers[0].bias",
                "layers[1].layer",
                "layers[2].layer",
                "layers[3].weights",
                "layers[3].bias"
            ]
        );
    }
}
