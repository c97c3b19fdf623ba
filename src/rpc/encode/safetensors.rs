//! The head of a safetensors file: the length of its header as a u64, then the header, JSON that gives each tensor's type, shape and
//! place in the bytes that follow, and what else there is to know. The bytes are the network's flat buffer as it is.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::{Serialize, Serializer};

use super::model::{architecture, scaler};
use crate::app::AppError;
use crate::domain::{Architecture, ElementType, Model, Scaler, Version};
use crate::rpc::json;

/// What the metadata is told in: the JSON of this package's messages.
const FORMAT: &str = "epochd.v1";
/// Bytes of the header's length.
const LENGTH_BYTES: usize = size_of::<u64>();
/// The bytes of tensors begin at a multiple of this.
const ALIGNMENT: usize = 8;

/// What stands in the header under a name.
#[derive(Serialize)]
#[serde(untagged)]
enum Entry {
    Metadata(BTreeMap<&'static str, String>),
    Tensor { dtype: &'static str, shape: Vec<usize>, data_offsets: [usize; 2] },
}

/// The head of the file that holds a version's weights. The same version gives the same bytes.
pub(in crate::rpc) fn safetensors_head(model: &Model, version: &Version) -> Result<Vec<u8>, AppError> {
    // What cannot be written is a bug of ours.
    let metadata = metadata(model, version).map_err(|error| AppError::Internal(error.to_string()))?;
    let entries = std::iter::once(("__metadata__".to_owned(), Entry::Metadata(metadata)));
    let entries = entries.chain(tensors(&model.architecture));
    let mut head = vec![0; LENGTH_BYTES];
    let written = serde_json::Serializer::new(&mut head).collect_map(entries);
    written.map_err(|error| AppError::Internal(error.to_string()))?;
    head.resize(head.len().next_multiple_of(ALIGNMENT), b' ');
    let header_bytes = (head.len() - LENGTH_BYTES) as u64;
    head[..LENGTH_BYTES].copy_from_slice(&header_bytes.to_le_bytes());
    Ok(head)
}

/// What a reader needs beside the weights, as text; what there is none of is left out.
fn metadata(model: &Model, version: &Version) -> Result<BTreeMap<&'static str, String>, json::JsonError> {
    let mut metadata = BTreeMap::from([
        ("format", FORMAT.to_owned()),
        ("model_id", model.model_id.to_string()),
        ("model_uid", model.uid.to_string()),
        ("version", version.version.to_string()),
        ("architecture", json::line(&architecture(&model.architecture))?),
    ]);
    if !model.class_labels.is_empty() {
        metadata.insert("class_labels", serde_json::Value::from(model.class_labels.clone()).to_string());
    }
    let preprocessing = version.preprocessing.as_ref();
    let scalers: [(_, Option<&Scaler>); 2] = [
        ("input_scaler", preprocessing.and_then(|fitted| fitted.inputs.as_ref())),
        ("target_scaler", preprocessing.and_then(|fitted| fitted.targets.as_ref())),
    ];
    for (name, fitted) in scalers {
        if let Some(fitted) = fitted {
            metadata.insert(name, json::line(&scaler(fitted))?);
        }
    }
    Ok(metadata)
}

/// Every tensor in the order of its place.
fn tensors(architecture: &Architecture) -> Vec<(String, Entry)> {
    let element_type = architecture.element_type();
    let (dtype, size) = match element_type {
        ElementType::Float32 => ("F32", element_type.size_bytes()),
        ElementType::Float64 => ("F64", element_type.size_bytes()),
    };
    let mut places: Vec<(Range<usize>, String, Vec<usize>)> = Vec::new();
    for (index, layer) in architecture.layout().into_iter().enumerate() {
        let units = layer.units;
        let mut add = |name: &str, range: Range<usize>, shape: Vec<usize>| {
            places.push((range, format!("layers.{index}.{name}"), shape));
        };
        add("weights", layer.weights, vec![layer.inputs, units]);
        if let Some(bias) = layer.bias {
            add("bias", bias, vec![units]);
        }
        if let Some(normalization) = layer.normalization {
            add("batch_normalization.scale", normalization.scale, vec![units]);
            add("batch_normalization.shift", normalization.shift, vec![units]);
            add("batch_normalization.mean", normalization.mean, vec![units]);
            add("batch_normalization.variance", normalization.variance, vec![units]);
        }
    }
    // The running values of all layers lie behind what is trained.
    places.sort_by_key(|(range, ..)| range.start);
    let tensor = |(range, name, shape): (Range<usize>, String, Vec<usize>)| {
        (name, Entry::Tensor { dtype, shape, data_offsets: [range.start * size, range.end * size] })
    };
    places.into_iter().map(tensor).collect()
}
