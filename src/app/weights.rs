//! Reading and writing weights, a layer at a time.

use super::disk::version_bytes;
use super::{App, AppError, now};
use crate::domain::{
    Architecture, At, ElementType, Faults, LayerLayout, Matrix, Model, ModelId, RawMatrix, Values, Version,
    VersionSource,
};
use crate::store::{CommittedVersion, StoreError, VersionDraft};

/// The weights of one layer as a request brings them.
#[derive(Clone, Debug)]
pub struct RawLayerParameters {
    /// Which layer; `None`: its place in the list.
    pub layer: Option<i64>,
    /// W.
    pub weights: Option<RawMatrix>,
    /// b.
    pub bias: Option<RawMatrix>,
    /// Of a batch normalization.
    pub normalization: Option<RawNormalizationParameters>,
}

/// The four vectors of a batch normalization as a request brings them.
#[derive(Clone, Debug, Default)]
pub struct RawNormalizationParameters {
    /// γ.
    pub scale: Option<RawMatrix>,
    /// β.
    pub shift: Option<RawMatrix>,
    /// The running mean.
    pub mean: Option<RawMatrix>,
    /// The running variance.
    pub variance: Option<RawMatrix>,
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
    /// `None` for a layer without batch normalization.
    pub normalization: Option<NormalizationParameters>,
}

/// The four vectors of a batch normalization, one row each.
#[derive(Clone, Debug)]
pub struct NormalizationParameters {
    /// γ.
    pub scale: Matrix,
    /// β.
    pub shift: Matrix,
    /// The running mean.
    pub mean: Matrix,
    /// The running variance.
    pub variance: Matrix,
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
        asked: Option<i64>,
        layers: Vec<i64>,
    ) -> Result<ModelWeights, AppError> {
        let model = self.record(&model_id).await?;
        let wanted = wanted_layers(&model.architecture, &layers)?;
        let version = version_number(&model, asked)?;
        let layout = model.architecture.layout();
        let numbers = wanted.iter().map(|&layer| layout[layer].weights.len()).sum();
        self.bound_answer(
            numbers,
            "stream them with DownloadWeights (`epochd download`), or ask for fewer `layers` at a time",
        )?;
        // The file's bytes, the numbers, and the layers cut out of them.
        let room = self.room_for(&model.architecture, 3).await;
        self.blocking(move |app| {
            let _room = room;
            let (Version { version, .. }, parameters) = app.version_and_weights(&model, asked.map(|_| version))?;
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
            app.bound_disk(version_bytes(&architecture))?;
            // Where another version comes first, the layers that are not named are those of that one.
            loop {
                match app.try_to_set(&model_id, &layers) {
                    Err(SetFault::Stale) => {}
                    Err(SetFault::Other(error)) => return Err(error),
                    Ok(version) => return Ok(version),
                }
            }
        })
        .await
    }

    fn try_to_set(&self, model_id: &ModelId, layers: &[RawLayerParameters]) -> Result<Version, SetFault> {
        let (model, base, parameters) = self.latest_version(model_id)?;
        let mut faults = Faults::new();
        let at = At::ROOT.field("layers");
        let merged = merge_layers(&model.architecture, parameters, layers, at, &mut faults);
        let merged = faults.finish(merged).map_err(AppError::from)?;
        let draft = VersionDraft {
            base_version: Some(base.version),
            follows_base: true,
            source: VersionSource::Set,
            preprocessing: base.preprocessing,
            create_time: now(),
        };
        let _change = self.core.snapshots.begin_change(model_id);
        let committed = match self.core.store.commit_version(model.uid, draft, &merged) {
            Err(StoreError::Conflict { .. }) => return Err(SetFault::Stale),
            committed => committed.map_err(AppError::from)?,
        };
        let CommittedVersion { version, pruned } = committed.ok_or_else(|| AppError::no_model(model_id))?;
        self.core.snapshots.forget_pruned(model.uid, &pruned);
        tracing::info!(%model_id, version = version.version, "weights set");
        Ok(version)
    }

    /// A version (`None`: the latest one now) of a model that was read before, with its weights.
    pub(super) fn version_and_weights(&self, model: &Model, asked: Option<u32>) -> Result<(Version, Values), AppError> {
        let missing = |version| AppError::no_version(&model.model_id, version);
        let Some(number) = asked else {
            let (now, version, parameters) = self.latest_version(&model.model_id)?;
            // Another model under the same name may have another shape.
            return if now.uid == model.uid { Ok((version, parameters)) } else { Err(missing(version.version)) };
        };
        let store = &self.core.store;
        let version = store.version(model.uid, number)?.ok_or_else(|| missing(number))?;
        let parameters = store.parameters(model.uid, number, &model.architecture)?.ok_or_else(|| missing(number))?;
        Ok((version, parameters))
    }

    /// A model with its latest version, which may be given back while it is read, since a later one came.
    fn latest_version(&self, model_id: &ModelId) -> Result<(Model, Version, Values), AppError> {
        let store = &self.core.store;
        let mut model = store.model(model_id)?.ok_or_else(|| AppError::no_model(model_id))?;
        loop {
            let number = model.latest_version;
            let version = store.version(model.uid, number)?;
            let parameters = store.parameters(model.uid, number, &model.architecture)?;
            if let (Some(version), Some(parameters)) = (version, parameters) {
                return Ok((model, version, parameters));
            }
            let now = store.model(model_id)?.ok_or_else(|| AppError::no_model(model_id))?;
            if (now.uid, now.latest_version) == (model.uid, number) {
                return Err(AppError::DataLoss(format!(
                    "the latest version of model {:?} is missing",
                    model_id.as_str()
                )));
            }
            model = now;
        }
    }
}

/// Why weights were not set.
enum SetFault {
    /// Another version came first.
    Stale,
    Other(AppError),
}

impl From<AppError> for SetFault {
    fn from(error: AppError) -> Self {
        Self::Other(error)
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

/// Layers by index, all of them where none is named.
pub(super) fn wanted_layers(architecture: &Architecture, asked: &[i64]) -> Result<Vec<usize>, Faults> {
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
    let wanted: Option<Vec<usize>> = wanted.into_iter().map(|layer| layer.map(|layer| layer as usize)).collect();
    for (place, layer) in wanted.iter().flatten().enumerate() {
        if wanted.iter().flatten().take(place).any(|earlier| earlier == layer) {
            faults.add(at.index(place), format!("names layer {layer} a second time"));
        }
    }
    faults.finish(wanted)
}

/// The flat buffer as a matrix and a bias a layer.
pub(super) fn split_layers(architecture: &Architecture, parameters: &Values) -> Vec<LayerParameters> {
    let layout = architecture.layout();
    let layers = layout.into_iter().enumerate().map(|(layer, at)| {
        let row = |range| Matrix::from_values(1, at.units, parameters.slice(range));
        LayerParameters {
            layer,
            weights: Matrix::from_values(at.inputs, at.units, parameters.slice(at.weights)),
            bias: at.bias.map(row),
            normalization: at.normalization.map(|it| NormalizationParameters {
                scale: row(it.scale),
                shift: row(it.shift),
                mean: row(it.mean),
                variance: row(it.variance),
            }),
        }
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
        visit_normalization(shape, raw.normalization.as_ref(), element_type, at, faults, &mut visit);
    }
}

fn visit_normalization(
    shape: &LayerLayout,
    raw: Option<&RawNormalizationParameters>,
    element_type: ElementType,
    at: At<'_>,
    faults: &mut Faults,
    visit: &mut impl FnMut(usize, &Matrix),
) {
    let at = at.field("batch_normalization");
    let Some(places) = &shape.normalization else {
        if raw.is_some() {
            faults.add(at, "must be left out: the layer has no batch normalization");
        }
        return;
    };
    let Some(raw) = raw else {
        faults.add(at, format!("is required: scale, shift, mean and variance, each of 1 × {}", shape.units));
        return;
    };
    for (given, name, place) in [
        (&raw.scale, "scale", &places.scale),
        (&raw.shift, "shift", &places.shift),
        (&raw.mean, "mean", &places.mean),
        (&raw.variance, "variance", &places.variance),
    ] {
        let given = Given { raw: given.clone(), rows: 1, columns: shape.units, name };
        let Some(vector) = given.check(element_type, at, faults) else { continue };
        if name == "variance"
            && let Some(unit) = vector.values().iter().position(|value| value < 0.0)
        {
            let value = vector.show(0, unit);
            faults.add(at.field(name), format!("of unit {unit} (from 0) is {value}, but a variance is at least 0"));
            continue;
        }
        visit(place.start, &vector);
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
    fn check(self, element_type: ElementType, at: At<'_>, faults: &mut Faults) -> Option<Matrix> {
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
    use crate::domain::{RawArchitecture, RawBatchNormalization, RawLayer};

    fn architecture() -> Architecture {
        let layer = |units, bias| RawLayer { units, bias: Some(bias), ..RawLayer::default() };
        let layers = vec![Some(layer(2, true)), Some(layer(1, false))];
        let element_type = ElementType::Float64;
        let raw = RawArchitecture { input_width: 3, element_type, layers, ..RawArchitecture::default() };
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
                normalization: None,
            })
            .collect();
        let zeros = Values::F64(vec![0.0; 10]);
        let mut faults = Faults::new();
        assert_eq!(merge_layers(&architecture, zeros, &layers, At::ROOT, &mut faults), Some(parameters));
    }

    #[test]
    fn the_vectors_of_a_batch_normalization_are_written_to_their_places() {
        let normalized =
            RawLayer { units: 2, batch_normalization: Some(RawBatchNormalization::default()), ..RawLayer::default() };
        let raw = RawArchitecture { input_width: 1, layers: vec![Some(normalized)], ..RawArchitecture::default() };
        let architecture = raw.check(At::ROOT, &mut Faults::new()).unwrap();
        let row =
            |values: [f64; 2]| Some(RawMatrix { values: Values::F64(values.to_vec()), rows: None, columns: None });
        let given = |variance| RawLayerParameters {
            layer: None,
            weights: row([1.0, 2.0]),
            bias: None,
            normalization: Some(RawNormalizationParameters {
                scale: row([3.0, 4.0]),
                shift: row([5.0, 6.0]),
                mean: row([7.0, 8.0]),
                variance: row(variance),
            }),
        };
        let merge = |layer: RawLayerParameters, faults: &mut Faults| {
            merge_layers(&architecture, Values::F32(vec![0.0; 10]), &[layer], At::ROOT.field("layers"), faults)
        };
        let merged = merge(given([9.0, 10.0]), &mut Faults::new());
        assert_eq!(merged, Some(Values::F32((1..=10_u8).map(f32::from).collect())));
        let path = |layer| {
            let mut faults = Faults::new();
            assert_eq!(merge(layer, &mut faults), None);
            faults.as_slice()[0].path.clone()
        };
        let field = "layers[0].batch_normalization";
        assert_eq!(path(given([1.0, -1.0])), format!("{field}.variance"));
        assert_eq!(path(RawLayerParameters { normalization: None, ..given([1.0; 2]) }), field);
        let partial = RawNormalizationParameters { mean: row([0.0; 2]), ..Default::default() };
        let partial = RawLayerParameters { normalization: Some(partial), ..given([1.0; 2]) };
        assert_eq!(path(partial), format!("{field}.scale"));
    }

    #[test]
    fn a_layer_that_does_not_fit_is_named() {
        let architecture = architecture();
        let one = || Some(RawMatrix { values: Values::F64(vec![1.0]), rows: None, columns: None });
        let layers = [
            RawLayerParameters { layer: Some(1), weights: one(), bias: one(), normalization: None },
            RawLayerParameters { layer: Some(1), weights: one(), bias: None, normalization: None },
            RawLayerParameters { layer: Some(2), weights: one(), bias: None, normalization: None },
            RawLayerParameters { layer: Some(0), weights: None, bias: one(), normalization: None },
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
