//! Commands on models and versions.

use epochd::rpc::pb;
use epochd::rpc::pb::{Activation, ElementType, JobState, StopReason, VersionSource};

use super::NAMES;
use super::lists::{Bits, Held, Model};
use super::machine::{Machine, agree};
use crate::support::*;

/// One weight and one bias of a layer: numbers that a float64 holds exactly.
fn layer_weights(layer: i32, value: i8) -> pb::LayerWeights {
    let value = f64::from(value);
    pb::LayerWeights {
        layer: Some(layer),
        weights: Some(values(&[value / 4.0 + 0.5])),
        bias: Some(values(&[value / 8.0])),
        ..Default::default()
    }
}

/// The bits of layers, each a weight and a bias.
fn bits_of(layers: &[pb::LayerWeights]) -> Bits {
    let numbers =
        |layer: &pb::LayerWeights| [layer.weights.as_ref(), layer.bias.as_ref()].map(|it| it.unwrap().values[0]);
    layers.iter().flat_map(numbers).map(f64::to_bits).collect()
}

/// The bits with one layer replaced.
fn with_layer(mut bits: Bits, layer: &pb::LayerWeights) -> Bits {
    let at = 2 * layer.layer() as usize;
    bits.splice(at..at + 2, bits_of(std::slice::from_ref(layer)));
    bits
}

/// What a network of two linear units makes of `x`.
fn output(bits: &Bits, x: f64) -> f64 {
    let [w1, b1, w2, b2] = [0, 1, 2, 3].map(|place| f64::from_bits(bits[place]));
    (x * w1 + b1) * w2 + b2
}

impl Machine {
    pub async fn create(&mut self, name: usize, seed: u64, given: Option<i8>) {
        let mut request = model(NAMES[name], 1, &[(1, Activation::Identity), (1, Activation::Identity)]);
        request.architecture.as_mut().unwrap().element_type = ElementType::Float64.into();
        request.seed = Some(seed);
        request.initial_weights = given.map(|value| layer_weights(1, value)).into_iter().collect();
        let given = request.initial_weights.clone();
        let answer = self.api.models.clone().create_model(request).await;
        let Some((created, ())) = agree(answer, self.lists.create(name)) else { return };
        assert_eq!(created.seed, seed);
        assert!(self.lists.models.iter().all(|model| model.uid != created.uid), "two models have one uid");
        let bits = self.read_bits(name, 1).await;
        // What is drawn is told by the first model of a seed: its first layer is always drawn.
        let known = self.lists.drawn.get(&seed).cloned();
        let drawn = match (&known, given.first()) {
            (Some(drawn), Some(given)) => with_layer(drawn.clone(), given),
            (Some(drawn), None) => drawn.clone(),
            (None, Some(given)) => with_layer(bits.clone(), given),
            (None, None) => bits.clone(),
        };
        assert_eq!(bits, drawn, "one seed, or given weights, and other bits");
        if given.is_empty() {
            self.lists.drawn.insert(seed, bits.clone());
        }
        self.lists.models.push(Model::new(name, created.uid, seed, bits));
    }

    /// The weights of a version that is there.
    pub async fn read_bits(&self, name: usize, version: i32) -> Bits {
        let request = pb::GetWeightsRequest { version: Some(version), ..get_weights(NAMES[name]) };
        bits_of(&self.api.models.clone().get_weights(request).await.unwrap().into_inner().layers)
    }

    pub async fn delete(&mut self, name: usize) {
        let request = pb::DeleteModelRequest { model_id: NAMES[name].into() };
        let answer = self.api.models.clone().delete_model(request).await;
        let Some((_, model)) = agree(answer, self.lists.delete(name)) else { return };
        for job in self.lists.models[model].queue.clone() {
            self.lists.end(job, JobState::Cancelled, StopReason::Cancelled, 0);
            self.hear_end(job).await;
        }
    }

    pub async fn get_model(&mut self, name: usize) {
        let answer = self.api.models.clone().get_model(get_model(NAMES[name])).await;
        let Some((told, model)) = agree(answer, self.lists.find(name)) else { return };
        self.assert_model(&told, model);
    }

    pub fn assert_model(&self, told: &pb::Model, model: usize) {
        let model = &self.lists.models[model];
        assert_eq!((told.model_id.as_str(), &told.uid, told.seed), (NAMES[model.name], &model.uid, model.seed));
        assert_eq!((told.latest_version, told.serving_version), (model.latest, model.serving));
        assert_eq!(told.pinned_versions, model.pinned.iter().copied().collect::<Vec<_>>());
        let active = model.queue.first().map_or("", |&job| self.lists.jobs[job].id.as_str());
        assert_eq!(told.active_job_id, active);
    }

    pub async fn set_weights(&mut self, name: usize, layer: i32, value: i8) {
        let layer = layer_weights(layer, value);
        let request = pb::SetWeightsRequest { model_id: NAMES[name].into(), layers: vec![layer.clone()] };
        let answer = self.api.models.clone().set_weights(request).await;
        let Some((told, model)) = agree(answer, self.lists.find(name)) else { return };
        let base = self.lists.models[model].latest;
        let bits = with_layer(self.lists.models[model].newest().bits.clone(), &layer);
        let version = self.lists.commit(model, Held { base, source: VersionSource::Set, bits, job: None, trail: None });
        self.assert_version(&told, model, version);
        self.audit(name).await;
    }

    pub fn assert_version(&self, told: &pb::Version, model: usize, version: i32) {
        let held = &self.lists.models[model].versions[&version];
        assert_eq!((told.version, told.base_version, told.source()), (version, held.base, held.source));
        let job = held.job.map(|job| &self.lists.jobs[job]);
        assert_eq!(told.job_id, job.map_or("", |job| job.id.as_str()));
        assert_eq!(told.report.as_ref(), job.and_then(|job| job.reports.last()), "not the report of its epoch");
    }

    pub async fn get_weights(&mut self, name: usize, version: Option<i32>) {
        let request = pb::GetWeightsRequest { version, ..get_weights(NAMES[name]) };
        let answer = self.api.models.clone().get_weights(request).await;
        let foretold = self.lists.find(name).and_then(|model| {
            let version = version.unwrap_or(self.lists.models[model].latest);
            Ok((version, self.lists.models[model].find(version)?))
        });
        let Some((told, (version, held))) = agree(answer, foretold) else { return };
        assert_eq!((told.version, bits_of(&told.layers)), (version, held.bits.clone()), "other weights than before");
    }

    pub async fn predict(&mut self, name: usize, version: Option<i32>) {
        let inputs = [0.0, 1.0, -3.0];
        let request = pb::PredictRequest { version, ..predict(NAMES[name], values(&inputs)) };
        let answer = self.api.models.clone().predict(request).await;
        let Some((told, (model, version))) = agree(answer, self.lists.served(name, version)) else { return };
        assert_eq!(told.version, version);
        let bits = &self.lists.models[model].versions[&version].bits;
        for (x, y) in inputs.into_iter().zip(told.outputs.unwrap().values) {
            let expected = output(bits, x);
            assert!((y - expected).abs() < 1e-9, "version {version} makes {expected} of {x}, not {y}");
        }
    }

    pub async fn serve(&mut self, name: usize, version: Option<i32>) {
        let request = pb::SetServingVersionRequest { model_id: NAMES[name].into(), version };
        let answer = self.api.models.clone().set_serving_version(request).await;
        let Some((told, model)) = agree(answer, self.lists.serve(name, version)) else { return };
        self.assert_model(&told, model);
        self.predict(name, None).await;
    }

    pub async fn pin(&mut self, name: usize, version: i32, pinned: Option<bool>) {
        let request = pb::PinVersionRequest { model_id: NAMES[name].into(), version, pinned };
        let answer = self.api.models.clone().pin_version(request).await;
        let Some((told, model)) = agree(answer, self.lists.pin(name, version, pinned.unwrap_or(true))) else { return };
        self.assert_model(&told, model);
    }
}
