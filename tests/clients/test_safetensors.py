"""A trained network, downloaded as a safetensors file, predicts without a server: the tensors and the metadata are all that NumPy needs."""

import json
import subprocess
import sys
import unittest
from pathlib import Path

import grpc
import numpy
import safetensors
import safetensors.numpy
from google.protobuf import json_format

import support
from support import Server, stubs, temporary_folder

sys.path.insert(0, stubs())
from epochd.v1 import model_service_pb2 as models_pb  # noqa: E402
from epochd.v1 import model_service_pb2_grpc as models_rpc  # noqa: E402

ROWS = 90
INPUTS = [((index * 7919) % 1000) / 50 - 3 for index in range(ROWS * 3)]
CLASSES = [int(INPUTS[3 * row] > INPUTS[3 * row + 1]) + int(INPUTS[3 * row + 2] > 7) for row in range(ROWS)]
AMOUNTS = [100 + INPUTS[3 * row] * INPUTS[3 * row + 1] for row in range(ROWS)]

HIDDEN = [
    {"units": 12, "activation": "ACTIVATION_LEAKY_RELU", "activation_alpha": 0.2, "batch_normalization": {"epsilon": 1e-3}},
    {"units": 12, "activation": "ACTIVATION_TANH", "bias": False},
    {"units": 6, "activation": "ACTIVATION_SIGMOID", "frozen": True, "dropout": 0.1},
]
MODELS = {
    "classes": {
        "layers": [*HIDDEN, {"units": 3, "activation": "ACTIVATION_SOFTMAX"}],
        "targets": CLASSES,
        "class_labels": ["low", "ein \"Maß\"", "high"],
        "preprocessing": {"inputs": {"standard": {}}},
    },
    "amounts": {
        "layers": [*HIDDEN, {"units": 1, "batch_normalization": {}}],
        "targets": AMOUNTS,
        "preprocessing": {"inputs": {"min_max": {}}, "targets": {"standard": {}}},
    },
    "plain": {"layers": [{"units": 1}], "targets": AMOUNTS},
}
# Of products in another order than the server's.
TOLERANCE = {"F32": 2e-5, "F64": 1e-12}


def softmax(z):
    powers = numpy.exp(z - z.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


ACTIVATIONS = {
    "ACTIVATION_IDENTITY": lambda z, layer: z,
    "ACTIVATION_LEAKY_RELU": lambda z, layer: numpy.where(z > 0, z, layer["activationAlpha"] * z),
    "ACTIVATION_TANH": lambda z, layer: numpy.tanh(z),
    "ACTIVATION_SIGMOID": lambda z, layer: 1 / (1 + numpy.exp(-z)),
    "ACTIVATION_SOFTMAX": lambda z, layer: softmax(z),
}


def predict(path, inputs):
    """What the network in a file says of rows, and its metadata: by what stands in the file, and nothing else."""
    with safetensors.safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    architecture = json.loads(metadata["architecture"])
    values = numpy.asarray(inputs, dtype=numpy.float64).reshape(-1, architecture["inputWidth"])
    if "input_scaler" in metadata:
        scaler = json.loads(metadata["input_scaler"])
        values = (values - scaler["shift"]) / scaler["scale"]
    values = values.astype(tensors["layers.0.weights"].dtype)
    for index, layer in enumerate(architecture["layers"]):
        values = values @ tensors.pop(f"layers.{index}.weights")
        if layer["bias"]:
            values = values + tensors.pop(f"layers.{index}.bias")
        if "batchNormalization" in layer:
            scale, shift, mean, variance = (
                tensors.pop(f"layers.{index}.batch_normalization.{name}") for name in ["scale", "shift", "mean", "variance"]
            )
            epsilon = layer["batchNormalization"]["epsilon"]
            values = scale * (values - mean) / numpy.sqrt(variance + epsilon) + shift
        values = ACTIVATIONS[layer["activation"]](values, layer)
    assert not tensors, f"not used: {list(tensors)}"
    if "target_scaler" in metadata:
        scaler = json.loads(metadata["target_scaler"])
        values = values * scaler["scale"] + scaler["shift"]
    return values, metadata


class Files(unittest.TestCase):
    def setUp(self):
        self.folder = Path(self.enterContext(temporary_folder()))
        self.server = self.enterContext(Server())
        # With the defaults: a message of more than 4 MB would be refused here.
        self.channel = self.enterContext(grpc.insecure_channel(self.server.address))
        self.models = models_rpc.ModelServiceStub(self.channel)

    def call(self, method, request, **fields):
        return getattr(self.models, method)(json_format.ParseDict(fields, request()))

    def download(self, model_id, version=None):
        messages = self.models.DownloadWeights(models_pb.DownloadWeightsRequest(model_id=model_id, version=version))
        path = self.folder / f"{model_id}.safetensors"
        first = next(messages)
        path.write_bytes(first.data + b"".join(message.data for message in messages))
        self.assertEqual(path.stat().st_size, first.size_bytes)
        return path, first.version

    def train(self, model_id, element_type, layers, targets, **options):
        network = {"input_width": 3, "element_type": element_type, "layers": layers}
        self.call("CreateModel", models_pb.CreateModelRequest, model_id=model_id, architecture=network, seed=5, **options)
        data = {"inputs": {"values": INPUTS}, "targets": {"values": targets}}
        *_, last = self.call("Train", models_pb.TrainRequest, model_id=model_id, seed=6, epochs=30, **data)
        self.assertEqual(last.finished.version, 2)

    def test_numpy_predicts_from_a_file_what_the_server_predicts(self):
        for dtype, element_type in [("F32", "ELEMENT_TYPE_FLOAT32"), ("F64", "ELEMENT_TYPE_FLOAT64")]:
            for name, options in MODELS.items():
                model_id = f"{name}-{dtype.lower()}"
                self.train(model_id, element_type, **options)
                for version in [1, 2]:
                    path, told = self.download(model_id, version)
                    self.assertEqual(told, version)
                    outputs, metadata = predict(path, INPUTS)
                    request = models_pb.PredictRequest(model_id=model_id, inputs={"values": INPUTS}, version=version)
                    expected = numpy.array(self.models.Predict(request).outputs.values).reshape(outputs.shape)
                    tolerance = TOLERANCE[dtype]
                    numpy.testing.assert_allclose(outputs, expected, rtol=tolerance, atol=tolerance, err_msg=model_id)
                    self.assertEqual(metadata["format"], "epochd.v1")
                    self.assertEqual((metadata["model_id"], metadata["version"]), (model_id, str(version)))
                    self.assertEqual(json.loads(metadata.get("class_labels", "[]")), options.get("class_labels", []))
                    self.assertEqual("input_scaler" in metadata, version == 2 and name != "plain")

    def test_weights_past_the_four_megabytes_of_a_message_arrive_bit_for_bit(self):
        network = {"input_width": 1200, "layers": [{"units": 1100}]}
        self.call("CreateModel", models_pb.CreateModelRequest, model_id="wide", architecture=network, seed=5)
        with self.assertRaises(grpc.RpcError) as caught:
            self.models.GetWeights(models_pb.GetWeightsRequest(model_id="wide", encoding="MATRIX_ENCODING_PACKED"))
        self.assertEqual(caught.exception.code(), grpc.StatusCode.RESOURCE_EXHAUSTED)
        path, version = self.download("wide")
        tensors = safetensors.numpy.load_file(path)
        options = [("grpc.max_receive_message_length", -1)]
        with grpc.insecure_channel(self.server.address, options=options) as channel:
            request = models_pb.GetWeightsRequest(model_id="wide", encoding="MATRIX_ENCODING_PACKED")
            (layer,) = models_rpc.ModelServiceStub(channel).GetWeights(request).layers
        self.assertEqual((version, tensors["layers.0.weights"].shape), (1, (1200, 1100)))
        self.assertEqual(tensors["layers.0.weights"].tobytes(), layer.weights.packed)
        self.assertEqual(tensors["layers.0.bias"].tobytes(), layer.bias.packed)

    def test_the_command_writes_the_same_file(self):
        self.call("CreateModel", models_pb.CreateModelRequest, model_id="xor", architecture=support.XOR_NETWORK, seed=5)
        command = [support.EPOCHD, "download", "xor", "--server", f"http://{self.server.address}"]
        subprocess.run(command, cwd=self.folder, check=True, stdout=subprocess.DEVNULL)
        path, _ = self.download("xor")
        self.assertEqual((self.folder / "xor-v1.safetensors").read_bytes(), path.read_bytes())

    def test_a_forgotten_stream_and_a_cancelled_one_leave_the_server_well(self):
        network = {"input_width": 2000, "layers": [{"units": 2000}]}
        self.call("CreateModel", models_pb.CreateModelRequest, model_id="wide", architecture=network, seed=5)
        request = models_pb.DownloadWeightsRequest(model_id="wide")
        forgotten, cancelled = self.models.DownloadWeights(request), self.models.DownloadWeights(request)
        self.assertEqual(next(forgotten).version, 1)
        next(cancelled)
        cancelled.cancel()
        with self.assertRaises(grpc.RpcError) as caught:
            list(cancelled)
        self.assertEqual(caught.exception.code(), grpc.StatusCode.CANCELLED)
        path, _ = self.download("wide")
        self.assertEqual(safetensors.numpy.load_file(path)["layers.0.weights"].shape, (2000, 2000))
        # It is read on as if nothing had been.
        self.assertGreater(sum(len(message.data) for message in forgotten), 15_000_000)


if __name__ == "__main__":
    unittest.main()
