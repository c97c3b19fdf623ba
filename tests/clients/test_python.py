"""Python: with stubs made from the contract, and with nothing but reflection."""

import array
import sys
import threading
import time
import unittest

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from google.protobuf import json_format
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2

from support import CORNERS, ROOT, XOR, XOR_NETWORK, Server, endless, stubs

sys.path.insert(0, stubs())
from epochd.v1 import job_service_pb2 as jobs_pb  # noqa: E402
from epochd.v1 import job_service_pb2_grpc as jobs_rpc  # noqa: E402
from epochd.v1 import model_service_pb2 as models_pb  # noqa: E402
from epochd.v1 import model_service_pb2_grpc as models_rpc  # noqa: E402
from epochd.v1 import training_pb2  # noqa: E402


def violations(error):
    """The fields that an error names, from its details in the trailer."""
    (packed,) = [value for key, value in error.trailing_metadata() if key == "grpc-status-details-bin"]
    status = status_pb2.Status.FromString(packed)
    bad_request = error_details_pb2.BadRequest()
    assert status.details[0].Unpack(bad_request)
    return [violation.field for violation in bad_request.field_violations]


class Stubs(unittest.TestCase):
    def setUp(self):
        self.server = self.enterContext(Server())
        self.channel = self.enterContext(grpc.insecure_channel(self.server.address))
        self.models = models_rpc.ModelServiceStub(self.channel)
        self.jobs = jobs_rpc.JobServiceStub(self.channel)

    def create(self, model_id, network=XOR_NETWORK, **more):
        request = {"model_id": model_id, "architecture": network, "seed": 7, **more}
        return self.models.CreateModel(json_format.ParseDict(request, models_pb.CreateModelRequest()))

    def training(self, **request):
        return json_format.ParseDict(request, models_pb.TrainRequest())

    def test_everything(self):
        self.create("xor")
        training = self.training(model_id="xor", inputs={"values": CORNERS}, targets={"values": XOR})
        call = self.models.Train(training)
        epochs, finished = [], None
        for event in call:
            epochs += [report.epoch for report in event.epochs.reports]
            finished = event.finished if event.HasField("finished") else finished
        self.assertEqual(epochs, list(range(1, 2001)))
        self.assertEqual(finished.state, training_pb2.JOB_STATE_SUCCEEDED)
        job_id = dict(call.initial_metadata())["epochd-job-id"]
        self.assertEqual(self.jobs.GetJob(jobs_pb.GetJobRequest(job_id=job_id)).version, 2)

        # Packed in, packed out.
        packed = array.array("f", CORNERS).tobytes()
        request = models_pb.PredictRequest(model_id="xor", inputs={"packed": packed})
        answer = self.models.Predict(request)
        outputs = array.array("f", answer.outputs.packed)
        self.assertEqual([round(value) for value in outputs], XOR)
        weights = self.models.GetWeights(models_pb.GetWeightsRequest(model_id="xor"))
        self.assertEqual([layer.weights.columns for layer in weights.layers], [8, 1])
        version = self.models.SetWeights(models_pb.SetWeightsRequest(model_id="xor", layers=weights.layers))
        self.assertEqual(version.version, 3)
        again = self.models.Predict(request)
        self.assertEqual(again.outputs, answer.outputs)

        call = self.models.Train(self.training(**endless("xor")))
        job_id = dict(call.initial_metadata())["epochd-job-id"]
        next(event for event in call if event.HasField("epochs"))
        job = self.jobs.CancelJob(jobs_pb.CancelJobRequest(job_id=job_id))
        self.assertEqual(job.state, training_pb2.JOB_STATE_CANCELLED)
        self.assertTrue(any(event.HasField("finished") for event in call))

    def test_errors_name_the_fields(self):
        network = {"input_width": 2, "layers": [{"units": 0}, {"units": 1, "activation_alpha": 2}]}
        with self.assertRaises(grpc.RpcError) as caught:
            self.create("bad", network)
        self.assertEqual(caught.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)
        expected = ["architecture.layers[0].units", "architecture.layers[1].activation_alpha"]
        self.assertEqual(violations(caught.exception), expected)
        with self.assertRaises(grpc.RpcError) as caught:
            self.models.GetModel(models_pb.GetModelRequest(model_id="nobody"))
        self.assertEqual(caught.exception.code(), grpc.StatusCode.NOT_FOUND)
        # Five hundred faults: the details still fit what clients take as a trailer.
        layers = [{"units": 0, "activation_alpha": -1}] * 250
        with self.assertRaises(grpc.RpcError) as caught:
            self.create("bad", {"input_width": 0, "layers": layers})
        self.assertEqual(caught.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)
        self.assertEqual(len(violations(caught.exception)), 16)

    def test_health(self):
        health = health_pb2_grpc.HealthStub(self.channel)
        for service in ["", "epochd.v1.ModelService", "epochd.v1.JobService"]:
            answer = health.Check(health_pb2.HealthCheckRequest(service=service))
            self.assertEqual(answer.status, health_pb2.HealthCheckResponse.SERVING)

    def test_digits_train_from_packed_rows_while_another_model_answers(self):
        """A thousand predictions a second on another model, none of them in error."""
        lines = (ROOT / "examples" / "data" / "digits.csv").read_text().splitlines()[1:]
        names = sorted({line.rsplit(",", 1)[1] for line in lines})
        pixels, labels = array.array("f"), array.array("f")
        for line in lines:
            *row, name = line.split(",")
            pixels.extend(float(pixel) for pixel in row)
            labels.append(names.index(name))
        layers = [
            {"units": 64, "activation": "ACTIVATION_RELU"},
            {"units": 10, "activation": "ACTIVATION_SOFTMAX"},
        ]
        scaling = {"inputs": {"standard": {}}}
        network = {"input_width": 64, "layers": layers}
        self.create("digits", network, class_labels=names, preprocessing=scaling)
        self.create("xor")
        request = models_pb.PredictRequest(model_id="xor", inputs={"values": CORNERS})
        stop, counts, errors = threading.Event(), [], []

        def ask():
            models = models_rpc.ModelServiceStub(self.channel)
            pending = []
            while not stop.is_set():
                pending.append(models.Predict.future(request))
                if len(pending) == 16:
                    for answer in pending:
                        try:
                            answer.result()
                        except grpc.RpcError as error:
                            errors.append(error)
                    counts.append(len(pending))
                    pending = []
            for answer in pending:
                answer.result()

        clock = time.monotonic()
        asking = threading.Thread(target=ask)
        asking.start()
        training = models_pb.TrainRequest(
            model_id="digits",
            inputs={"packed": pixels.tobytes()},
            targets={"packed": labels.tobytes()},
            validation_fraction=0.2,
            epochs=200,
        )
        last = None
        for event in self.models.Train(training):
            for last in event.epochs.reports:
                pass
        seconds = time.monotonic() - clock
        stop.set()
        asking.join()
        self.assertEqual(errors, [])
        print(f"\ndigits: validation accuracy {last.validation_metrics.accuracy:.3f}; meanwhile "
              f"{sum(counts) / seconds:.0f} predictions a second, none in error")
        self.assertGreater(last.validation_metrics.accuracy, 0.93)
        self.assertGreater(sum(counts), 100)


class ReflectionAlone(unittest.TestCase):
    """A client with no stub: it learns the contract from the server."""

    def test_everything(self):
        with Server() as server, grpc.insecure_channel(server.address) as channel:
            pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))

            def call(service, method, request):
                found = pool.FindServiceByName(f"epochd.v1.{service}").methods_by_name[method]
                kind = channel.unary_stream if found.server_streaming else channel.unary_unary
                function = kind(
                    f"/epochd.v1.{service}/{method}",
                    request_serializer=lambda message: message.SerializeToString(),
                    response_deserializer=GetMessageClass(found.output_type).FromString,
                )
                return function(json_format.ParseDict(request, GetMessageClass(found.input_type)()))

            model = call("ModelService", "CreateModel", {"architecture": XOR_NETWORK, "seed": 7})
            training = {"model_id": model.model_id, "inputs": {"values": CORNERS}, "targets": {"values": XOR}}
            events = list(call("ModelService", "Train", training))
            epochs = [report.epoch for event in events for report in event.epochs.reports]
            self.assertEqual(epochs, list(range(1, 2001)))
            question = {"model_id": model.model_id, "inputs": {"values": CORNERS}}
            answer = call("ModelService", "Predict", question)
            self.assertEqual([row.index for row in answer.classes], XOR)
            weights = call("ModelService", "GetWeights", {"model_id": model.model_id})
            self.assertEqual(len(weights.layers), 2)
            stream = call("ModelService", "Train", endless(model.model_id))
            job_id = next(event.job_id for event in stream if event.HasField("epochs"))
            job = call("JobService", "CancelJob", {"job_id": job_id, "commit": True})
            self.assertEqual(job.version, 3)
            with self.assertRaises(grpc.RpcError) as caught:
                call("ModelService", "Predict", {**question, "version": 9})
            self.assertEqual(caught.exception.code(), grpc.StatusCode.NOT_FOUND)


if __name__ == "__main__":
    unittest.main()
