"""The same requests give the same bits in the debug and in the release build, with any number of training threads."""

import subprocess
import sys
import threading
import unittest

import grpc
import support
from google.protobuf import json_format
from support import ROOT, Server, endless, stubs

sys.path.insert(0, stubs())
from epochd.v1 import matrix_pb2  # noqa: E402
from epochd.v1 import model_service_pb2 as models_pb  # noqa: E402
from epochd.v1 import model_service_pb2_grpc as models_rpc  # noqa: E402

ROWS = 60
INPUTS = [((index * 7919) % 1000) / 500 - 1 for index in range(ROWS * 3)]
CLASSES = [int(INPUTS[3 * row] * INPUTS[3 * row + 1] > 0) for row in range(ROWS)]

NETWORK = {
    "input_width": 3,
    "input_dropout": 0.1,
    "layers": [
        {"units": 40, "activation": "ACTIVATION_GELU", "batch_normalization": {}, "dropout": 0.2},
        {"units": 24, "activation": "ACTIVATION_TANH", "initializer": {"orthogonal": {}}, "max_norm": 2},
        {"units": 2, "activation": "ACTIVATION_SOFTMAX"},
    ],
}
PLAIN = {"input_width": 3, "layers": [{"units": 40, "activation": "ACTIVATION_MISH"}, *NETWORK["layers"][2:]]}
TRAININGS = {
    "adam": (NETWORK, {"batch_size": 8, "schedule": {"one_cycle": {}}, "l2": 1e-3, "class_weights": {"balanced": True}}),
    "nadam": (NETWORK, {"batch_size": 8, "optimizer": {"nadam": {}}, "max_gradient_norm": 1}),
    "custom": (NETWORK, {"batch_size": 8, "loss": {"custom": {"expression": "-sum(y_true*log(y_pred+1e-9))"}}}),
    "lbfgs": (PLAIN, {"optimizer": {"lbfgs": {}}}),
}


def trained_weights(address):
    """The bytes of every training's weights."""
    with grpc.insecure_channel(address) as channel:
        models = models_rpc.ModelServiceStub(channel)

        def call(method, request, **fields):
            return getattr(models, method)(json_format.ParseDict(fields, request()))

        # Other work beside, on every training thread.
        call("CreateModel", models_pb.CreateModelRequest, model_id="other", architecture=support.XOR_NETWORK)
        other = call("Train", models_pb.TrainRequest, **endless("other"))
        threading.Thread(target=lambda: list(until_cancelled(other)), daemon=True).start()
        weights = {}
        for name, (network, options) in TRAININGS.items():
            call("CreateModel", models_pb.CreateModelRequest, model_id=name, architecture=network, seed=5)
            data = {"inputs": {"values": INPUTS}, "targets": {"values": CLASSES}}
            *_, last = call("Train", models_pb.TrainRequest, model_id=name, seed=6, epochs=15, **data, **options)
            assert last.finished.version == 2, last
            request = models_pb.GetWeightsRequest(model_id=name, encoding=matrix_pb2.MATRIX_ENCODING_PACKED)
            weights[name] = models.GetWeights(request).SerializeToString(deterministic=True)
        other.cancel()
        return weights


def until_cancelled(events):
    try:
        yield from events
    except grpc.RpcError:
        return


class Bits(unittest.TestCase):
    def test_builds_and_threads_change_no_bit(self):
        subprocess.run(["cargo", "build", "--locked", "--quiet", "--release"], cwd=ROOT, check=True)
        release = str(ROOT / "target" / "release" / "epochd")
        debug = support.EPOCHD
        self.addCleanup(setattr, support, "EPOCHD", debug)
        expected = None
        for build, threads in [(debug, 1), (release, 1), (release, 2), (release, 4), (release, 4)]:
            support.EPOCHD = build
            with Server("--train-threads", str(threads)) as server:
                weights = trained_weights(server.address)
            expected = expected or weights
            self.assertEqual(weights, expected, f"{build} with {threads} threads")


if __name__ == "__main__":
    unittest.main()
