"""How many predictions a second does epochd answer, beside servers that one would otherwise take?

A 64-64-10 network that scikit-learn trained on its digits is served by epochd, by MLServer with its scikit-learn runtime, and by
ONNX Runtime behind grpcio, each with one process of its own as it is by default. Every call asks for the class probabilities of one
row. The same load generator drives each in turn: 8 connections of 4 streams, a new call on each stream as soon as the one before is
answered. Medians of the rounds count. Prints a Markdown table of calls a second, of times and of resident memory; exits 1 where
epochd is not 30 times as fast as MLServer. docs/serving-performance.md tells more.

How to run, from the root of the repository, on a machine that does nothing else:

    python3 -m venv target/serving
    target/serving/bin/pip install --requirement benches/serving/requirements.txt
    target/serving/bin/python benches/serving/compare.py

It builds epochd and the load generator itself, as `cargo bench --bench service --no-run` does; `--profile dist` takes the profile
that is shipped.
"""

import argparse
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import grpc
import joblib
import numpy as np
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from mlserver.grpc import dataplane_pb2
from numpy.typing import NDArray
from skl2onnx import to_onnx
from sklearn import datasets
from sklearn.neural_network import MLPClassifier

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(__file__).resolve().parent
MUST = 30
"""Times MLServer's calls a second."""
PATIENCE = 60
"""Seconds in which a server has to answer its first call."""

Floats = NDArray[np.float32]


# The model, and its question to each server.


@dataclass(frozen=True)
class Question:
    """One row, and what the network says of it."""

    model: MLPClassifier
    row: Floats
    expected: Floats

    @classmethod
    def make(cls) -> "Question":
        inputs, targets = datasets.load_digits(return_X_y=True)
        inputs = (inputs / 16).astype(np.float32)
        model = MLPClassifier((64,), random_state=1, max_iter=1000).fit(inputs, targets)
        return cls(model, inputs[:1], model.predict_proba(inputs[:1]).astype(np.float32))

    def check(self, name: str, answer: Floats) -> None:
        if not np.allclose(answer.ravel(), self.expected.ravel(), atol=1e-4):
            sys.exit(f"{name} answers {answer}, where scikit-learn says {self.expected}")


@dataclass
class Served:
    """A server that answers."""

    name: str
    process: int
    address: str
    path: str
    message: bytes
    runs: list[dict[str, float]] = field(default_factory=list)

    def resident_mb(self) -> float:
        """Of the process and of all that it started."""
        return sum(resident_bytes(process) for process in [self.process, *descendants(self.process)]) / 1e6

    def median(self, key: str) -> float:
        return statistics.median(run[key] for run in self.runs)


def descendants(process: int) -> Iterator[int]:
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    for child in map(int, children):
        yield child
        yield from descendants(child)


def resident_bytes(process: int) -> int:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("VmRSS:")), 0)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def running(command: list[str | Path], **options: Any) -> Iterator[int]:
    """A process until the block ends."""
    output = subprocess.DEVNULL
    with subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True, **options) as process:
        try:
            yield process.pid
        finally:
            os.killpg(process.pid, 15)


def first_answer(address: str, path: str, message: bytes) -> bytes:
    """Asks until there is an answer: servers take their time to start."""
    with grpc.insecure_channel(address) as channel:
        call = channel.unary_unary(path)
        for left in reversed(range(PATIENCE * 2)):
            try:
                return bytes(call(message, timeout=5))
            except grpc.RpcError as error:
                if left == 0:
                    raise SystemExit(f"{path} does not answer: {error.code()} {error.details()}") from error
                time.sleep(0.5)
    raise AssertionError


# The servers.


@contextmanager
def epochd(program: str, question: Question, folder: Path) -> Iterator[Served]:
    address, path = f"127.0.0.1:{free_port()}", "/epochd.v1.ModelService/Predict"
    with running([program, "serve", "--listen", address, "--data-dir", folder / "epochd"]) as process:
        with grpc.insecure_channel(address) as channel:
            grpc.channel_ready_future(channel).result(timeout=PATIENCE)
            pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
            message = ask_epochd(channel, lambda name: GetMessageClass(pool.FindMessageTypeByName(name)), question)
            answer = GetMessageClass(pool.FindMessageTypeByName("epochd.v1.PredictResponse"))
            said = answer.FromString(first_answer(address, path, message)).outputs.packed
        question.check("epochd", np.frombuffer(said, dtype=np.float32))
        yield Served("epochd", process, address, path, message)


def ask_epochd(channel: grpc.Channel, message_of: Callable[[str], Any], question: Question) -> bytes:
    """Makes the model with scikit-learn's weights; the question."""
    Matrix, Create, Set, Weights, Predict = (
        message_of(f"epochd.v1.{name}")
        for name in ["Matrix", "CreateModelRequest", "SetWeightsRequest", "LayerWeights", "PredictRequest"]
    )

    def call(method: str, request: Any) -> None:
        channel.unary_unary(f"/epochd.v1.ModelService/{method}")(request.SerializeToString())

    create = Create(model_id="digits")
    create.architecture.input_width = 64
    create.architecture.layers.add(units=64, activation="ACTIVATION_RELU")
    create.architecture.layers.add(units=10, activation="ACTIVATION_SOFTMAX")
    call("CreateModel", create)

    def packed(numbers: Any) -> Any:
        return Matrix(packed=np.ascontiguousarray(numbers, dtype=np.float32).tobytes())

    pairs = enumerate(zip(question.model.coefs_, question.model.intercepts_, strict=True))
    layers = [Weights(layer=index, weights=packed(weights), bias=packed(bias)) for index, (weights, bias) in pairs]
    call("SetWeights", Set(model_id="digits", layers=layers))
    return bytes(Predict(model_id="digits", inputs=packed(question.row)).SerializeToString())


@contextmanager
def mlserver(workers: int, question: Question, folder: Path) -> Iterator[Served]:
    folder = folder / f"mlserver-{workers}"
    folder.mkdir()
    joblib.dump(question.model, folder / "model.joblib")
    ports = {name: free_port() for name in ["http_port", "grpc_port", "metrics_port"]}
    settings = {"host": "127.0.0.1", "parallel_workers": workers, "debug": False, **ports}
    (folder / "settings.json").write_text(json.dumps(settings))
    runtime = {"name": "digits", "implementation": "mlserver_sklearn.SKLearnModel"}
    (folder / "model-settings.json").write_text(json.dumps(runtime | {"parameters": {"uri": "./model.joblib"}}))
    request = dataplane_pb2.ModelInferRequest(model_name="digits")
    request.inputs.add(name="predict", datatype="FP32", shape=[1, 64]).contents.fp32_contents.extend(question.row[0])
    request.outputs.add(name="predict_proba")
    address, path = f"127.0.0.1:{ports['grpc_port']}", "/inference.GRPCInferenceService/ModelInfer"
    with running([Path(sys.executable).parent / "mlserver", "start", folder], cwd=folder) as process:
        message = request.SerializeToString()
        said = dataplane_pb2.ModelInferResponse.FromString(first_answer(address, path, message)).outputs[0].contents
        question.check("MLServer", np.array(said.fp64_contents or said.fp32_contents))
        yield Served(f"MLServer, `parallel_workers` {workers}", process, address, path, message)


@contextmanager
def onnx(threads: int, question: Question, folder: Path) -> Iterator[Served]:
    model = to_onnx(question.model, question.row, options={"zipmap": False})
    file = folder / f"model-{threads}.onnx"
    file.write_bytes(model.SerializeToString())
    address, path = f"127.0.0.1:{free_port()}", "/bench.Onnx/Predict"
    command = [sys.executable, FOLDER / "onnx_server.py", address, file, str(threads)]
    with running(command) as process:
        message = question.row.tobytes()
        question.check("ONNX Runtime", np.frombuffer(first_answer(address, path, message), dtype=np.float32))
        yield Served(f"ONNX Runtime behind grpcio, {threads} threads", process, address, path, message)


# The comparison.


def build(profile: str) -> tuple[str, str]:
    """Builds epochd and the load generator; the paths of both."""
    command = ["cargo", "bench", "--bench", "service", "--no-run", "--message-format", "json", "--profile", profile]
    output = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    messages = [json.loads(text) for text in output.splitlines() if text.startswith("{")]
    programs = {it["target"]["name"]: it["executable"] for it in messages if it.get("executable")}
    return programs["epochd"], programs["service"]


def measure(load: str, served: Served, seconds: float, folder: Path) -> None:
    message = folder / "message"
    message.write_bytes(served.message)
    command = [load, "load", served.address, served.path, str(message), "--seconds", str(seconds)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    served.runs.append(json.loads(output) | {"resident_mb": served.resident_mb()})


def table(servers: list[Served]) -> bool:
    print("| server | calls a second | of epochd's | p50, µs | p99, µs | resident, MB |")
    print("|---|---:|---:|---:|---:|---:|")
    speed = {served.name: served.median("calls_per_second") for served in servers}
    for served in servers:
        share = speed["epochd"] / speed[served.name]
        cells = [f"{speed[served.name]:,.0f}", f"1 / {share:.1f}" if share > 1 else "1"]
        cells += [f"{served.median(key):,.0f}" for key in ["p50_micros", "p99_micros", "resident_mb"]]
        print(f"| {served.name} | {' | '.join(cells)} |")
    best = max(calls for name, calls in speed.items() if name.startswith("MLServer"))
    ratio = speed["epochd"] / best
    print(f"\n{ratio:.1f} × MLServer's calls a second, where {MUST} is a must: {'must' if ratio >= MUST else 'below'}.")
    return ratio >= MUST


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="5 where it is left out")
    parser.add_argument("--seconds", type=float, default=3, help="of one server in a round, 3 where it is left out")
    parser.add_argument("--profile", default="bench", help="what cargo builds ours with")
    asked = parser.parse_args()
    program, load = build(asked.profile)
    question, clock = Question.make(), time.monotonic()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        starting = [
            epochd(program, question, folder),
            # As it is by default, and in one process, which is quicker for so small a model.
            mlserver(1, question, folder),
            mlserver(0, question, folder),
            onnx(1, question, folder),
            onnx(4, question, folder),
        ]
        servers = [stack.enter_context(server) for server in starting]
        for _ in range(asked.rounds):
            for served in servers:
                measure(load, served, asked.seconds, folder)
        is_good = table(servers)
    names = ["mlserver", "mlserver-sklearn", "scikit-learn", "onnxruntime", "grpcio"]
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    print(f"\nMedians of {asked.rounds} rounds; {versions}, Python {platform.python_version()}; {time.monotonic() - clock:.0f} s.")
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
