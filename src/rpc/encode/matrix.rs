//! Matrices to the wire.

use bytes::Bytes;

use crate::app::LayerParameters;
use crate::domain::{ElementType, Matrix, Values};
use crate::rpc::decode::Encoding;
use crate::rpc::pb;

/// A matrix in an encoding.
pub(in crate::rpc) fn matrix(matrix: &Matrix, encoding: Encoding) -> pb::Matrix {
    let mut message = pb::Matrix {
        rows: Some(matrix.rows() as i32),
        columns: Some(matrix.columns() as i32),
        ..pb::Matrix::default()
    };
    match encoding {
        Encoding::Values => message.values = matrix.values().iter().collect(),
        Encoding::Packed => {
            let (bytes, packed_type) = packed(matrix.values());
            message.packed = bytes;
            message.packed_type = packed_type.into();
        }
    }
    message
}

fn packed(values: &Values) -> (Bytes, pb::ElementType) {
    let packed_type = match values.element_type() {
        ElementType::Float32 => pb::ElementType::Float32,
        ElementType::Float64 => pb::ElementType::Float64,
    };
    // As they lie in memory is as they are to be: little-endian.
    (Bytes::copy_from_slice(values.as_bytes()), packed_type)
}

/// The weights of a layer.
pub(in crate::rpc) fn layer_weights(layer: &LayerParameters, encoding: Encoding) -> pb::LayerWeights {
    pb::LayerWeights {
        layer: Some(layer.layer as i32),
        weights: Some(matrix(&layer.weights, encoding)),
        bias: layer.bias.as_ref().map(|bias| matrix(bias, encoding)),
        batch_normalization: layer.normalization.as_ref().map(|it| pb::BatchNormalizationWeights {
            scale: Some(matrix(&it.scale, encoding)),
            shift: Some(matrix(&it.shift, encoding)),
            mean: Some(matrix(&it.mean, encoding)),
            variance: Some(matrix(&it.variance, encoding)),
        }),
    }
}
