"""What the lessons share: the calls of epochd.v1 with NumPy arrays, and the look of the pictures.

A server must run: `epochd serve --ephemeral`, at 127.0.0.1:50051 or at EPOCHD_SERVER. The messages are made from `proto/` when
this module is imported. Pictures go to docs/course/pictures, or to the folder COURSE_PICTURES.
"""

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import grpc
import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt

ROOT = Path(__file__).resolve().parents[2]
SERVER = os.environ.get("EPOCHD_SERVER", "127.0.0.1:50051").removeprefix("http://")
PICTURES = Path(os.environ.get("COURSE_PICTURES", ROOT / "docs" / "course" / "pictures"))

sys.path.insert(0, str(ROOT / "proto"))
pb, rpc = grpc.protos_and_services("epochd/v1/model_service.proto")
training = grpc.protos("epochd/v1/training.proto")
models = rpc.ModelServiceStub(grpc.insecure_channel(SERVER))


def matrix(array):
    """A NumPy array as a Matrix: one dimension is a column."""
    array = np.asarray(array, "<f8")
    rows, columns = array.shape if array.ndim == 2 else (len(array), 1)
    return {"rows": rows, "columns": columns, "packed": array.tobytes(), "packed_type": "ELEMENT_TYPE_FLOAT64"}


def array(matrix):
    """A Matrix as a NumPy array of two dimensions."""
    if matrix.packed:
        values = np.frombuffer(matrix.packed, "<f4" if matrix.packed_type == 1 else "<f8")
    else:
        values = np.array(matrix.values)
    return values.reshape(matrix.rows, matrix.columns)


def create(input_width, layers, weights=(), **options):
    """CreateModel, in float64; the model's id. `weights` are pairs (W, b), a layer each; options are fields of the request."""
    architecture = {"input_width": input_width, "layers": layers, "element_type": "ELEMENT_TYPE_FLOAT64"}
    request = pb.CreateModelRequest(architecture=architecture, initial_weights=layer_weights(weights), **options)
    return models.CreateModel(request).model_id


def parameter_count(model):
    """GetModel: how many weights and biases there are."""
    return models.GetModel(pb.GetModelRequest(model_id=model)).parameter_count


def train(model, inputs, targets, validation=None, **options):
    """Train, to its end: `epochs` (the reports), `losses`, `reason` and `version`.

    `validation` is a pair of inputs and targets; options are fields of TrainRequest.
    """
    if validation:
        options["validation_data"] = dict(zip(["inputs", "targets"], map(matrix, validation)))
    request = pb.TrainRequest(model_id=model, inputs=matrix(inputs), targets=matrix(targets), **options)
    epochs = []
    for event in models.Train(request):
        epochs.extend(event.epochs.reports)
    if event.finished.HasField("failure"):
        raise RuntimeError(event.finished.failure.message)
    reason = training.StopReason.Name(event.finished.stop_reason).removeprefix("STOP_REASON_")
    losses = np.array([report.loss for report in epochs])
    return SimpleNamespace(epochs=epochs, losses=losses, reason=reason, version=event.finished.version)


def predict(model, inputs, **options):
    """Predict: the outputs. Options are fields of PredictRequest."""
    return array(models.Predict(pb.PredictRequest(model_id=model, inputs=matrix(inputs), **options)).outputs)


def features(model, inputs, layer, **options):
    """Predict with `layers`: what one layer makes of the rows."""
    request = pb.PredictRequest(model_id=model, inputs=matrix(inputs), layers=[layer], **options)
    return array(models.Predict(request).layers[0].values)


def gradients(model, inputs, targets, **options):
    """ComputeGradients: `loss`, `row_losses`, `layers` (each with `delta`, `weights`, `bias`) and `inputs`."""
    request = pb.ComputeGradientsRequest(model_id=model, inputs=matrix(inputs), targets=matrix(targets), **options)
    answer = models.ComputeGradients(request)
    layers = [SimpleNamespace(delta=array(it.delta), weights=array(it.weights), bias=bias(it)) for it in answer.layers]
    row_losses = np.array(answer.row_losses)
    return SimpleNamespace(loss=answer.loss, row_losses=row_losses, layers=layers, inputs=array(answer.inputs))


def get_weights(model, version=None):
    """GetWeights: pairs (W, b), a layer each; b is None for a layer without."""
    answer = models.GetWeights(pb.GetWeightsRequest(model_id=model, version=version))
    return [(array(it.weights), bias(it)) for it in answer.layers]


def set_weights(model, weights):
    """SetWeights from pairs (W, b): the new version's number."""
    return models.SetWeights(pb.SetWeightsRequest(model_id=model, layers=layer_weights(weights))).version


def bias(layer):
    return array(layer.bias)[0] if layer.HasField("bias") else None


def layer_weights(pairs):
    return [{"weights": matrix(W), "bias": matrix([b])} if b is not None else {"weights": matrix(W)} for W, b in pairs]


def figure(columns=1, width=4.5, height=3.6, **options):
    """A figure with a row of axes."""
    return plt.subplots(1, columns, figsize=(width * columns, height), layout="constrained", **options)


def save(figure, name):
    """Writes a picture, .svg or .png; the same picture is the same bytes."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    figure.savefig(PICTURES / name, dpi=110, metadata={"Date": None} if name.endswith(".svg") else {"Software": None})
    plt.close(figure)


plt.rcParams.update({
    "svg.hashsalt": "epochd", "svg.fonttype": "none", "font.size": 10,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25,
    "axes.prop_cycle": plt.cycler(color=["#1f6feb", "#d1495b", "#2a9d8f", "#e9a03b", "#7b5ea7", "#5c677d"]),
})
