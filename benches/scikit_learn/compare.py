"""Does epochd learn as well as scikit-learn's MLPClassifier and MLPRegressor?

Five data sets that come with scikit-learn, twenty seeds each. A seed draws a split, and both sides then get the same numbers, the
same network and the same budget. Our mean score on the held-out rows must be no lower than theirs less two standard errors of the
paired difference. Prints a Markdown table a solver; exits 1 where a verdict is "worse". docs/scikit-learn.md tells more.

How to run, from the root of the repository:

    cargo build --release
    python3 -m venv target/scikit-learn
    target/scikit-learn/bin/pip install --requirement benches/scikit_learn/requirements.txt
    target/scikit-learn/bin/python benches/scikit_learn/compare.py

It starts `target/release/epochd` (or what EPOCHD names) on a free port with a temporary data folder, or asks a server that is
running already: `--server http://127.0.0.1:50051`. Both sides draw their initial weights as Glorot does, which is all that
scikit-learn offers; `--start he` leaves epochd its own default, `--start theirs` gives it scikit-learn's very weights. `--lbfgs`
adds a third table, and `--only iris --seeds 300` looks closer at one data set.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import sklearn
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from numpy.typing import NDArray
from sklearn import datasets
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import accuracy_score, r2_score
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.preprocessing import StandardScaler

ROOT = Path(__file__).resolve().parents[2]
EPOCHD = os.environ.get("EPOCHD", str(ROOT / "target" / "release" / "epochd"))

BATCH_SIZE = 32
Floats = NDArray[np.float64]


# What is compared.


@dataclass(frozen=True)
class Case:
    """A data set and the network that learns it. scikit-learn chooses the output by itself: softmax for three classes or more, one
    sigmoid unit for two, identity for regression."""

    dataset: str
    hidden_units: int
    output: str
    epochs: int

    @property
    def is_regression(self) -> bool:
        return self.output == "identity"


CASES = [
    Case("iris", 16, "softmax", epochs=200),
    Case("wine", 16, "softmax", epochs=200),
    Case("breast_cancer", 32, "sigmoid", epochs=100),
    Case("breast_cancer", 32, "softmax", epochs=100),
    Case("digits", 64, "softmax", epochs=100),
    Case("diabetes", 16, "identity", epochs=60),
]
LOSSES = {"softmax": "softmax_cross_entropy", "sigmoid": "binary_cross_entropy", "identity": "squared_error"}


@dataclass(frozen=True)
class Solver:
    """An optimizer, in scikit-learn's words and in ours."""

    title: str
    theirs: dict[str, Any]
    ours: Callable[[Case], dict[str, Any]]
    full_batch: bool = False


ADAM = Solver(
    "adam (learning rate 0.001, β₁ 0.9, β₂ 0.999, ε 1e-8)",
    {"solver": "adam", "learning_rate_init": 0.001, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-8},
    lambda _: {"adam": {"learning_rate": 0.001, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8}},
)
SGD = Solver(
    "sgd (learning rate 0.01, momentum 0.9, not Nesterov's)",
    {"solver": "sgd", "learning_rate_init": 0.01, "momentum": 0.9, "nesterovs_momentum": False},
    # Their squared error has a factor ½ that ours has not: half the rate takes the same steps.
    lambda case: {"sgd": {"learning_rate": 0.005 if case.is_regression else 0.01, "momentum": 0.9}},
)
# Both keep ten steps, and stop of themselves only where the loss no longer changes.
LBFGS = Solver(
    "lbfgs (full batch, an epoch is an iteration)",
    {"solver": "lbfgs", "max_fun": 1_000_000},
    lambda _: {"lbfgs": {"history_size": 10, "tolerance_gradient": 0}},
    full_batch=True,
)


# The rows.


@dataclass(frozen=True)
class Split:
    """Standardized by the training rows, for both sides."""

    inputs: Floats
    targets: Floats
    held_inputs: Floats
    held_targets: Floats


def split(case: Case, seed: int) -> Split:
    """A fifth is held out: of each class where there are classes."""
    rows, targets = getattr(datasets, f"load_{case.dataset}")(return_X_y=True)
    stratify = None if case.is_regression else targets
    parts = train_test_split(rows, targets.astype(float), test_size=0.2, random_state=seed, stratify=stratify)
    inputs, held_inputs, targets, held_targets = parts
    scaler = StandardScaler().fit(inputs)
    if case.is_regression:
        mean, deviation = targets.mean(), targets.std()
        targets, held_targets = (targets - mean) / deviation, (held_targets - mean) / deviation
    return Split(scaler.transform(inputs), targets, scaler.transform(held_inputs), held_targets)


def widths(case: Case, rows: Split) -> tuple[int, int, int]:
    """Of the input, the hidden layer and the output."""
    output_units = len(np.unique(rows.targets)) if case.output == "softmax" else 1
    return rows.inputs.shape[1], case.hidden_units, output_units


def score(case: Case, rows: Split, predicted: Floats) -> float:
    """R² or accuracy on the held-out rows."""
    return float((r2_score if case.is_regression else accuracy_score)(rows.held_targets, predicted))


# Their side.


def their_network(case: Case, rows: Split, seed: int, **solver: Any) -> MLPClassifier | MLPRegressor:
    """Trained on every epoch: neither `tol` nor early stopping ends it."""
    estimator = MLPRegressor if case.is_regression else MLPClassifier
    network = estimator(
        hidden_layer_sizes=(case.hidden_units,),
        activation="relu",
        alpha=0,
        tol=0,
        early_stopping=False,
        n_iter_no_change=case.epochs,
        batch_size=BATCH_SIZE,
        shuffle=True,
        random_state=seed,
        **{"max_iter": case.epochs, **solver},
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return network.fit(rows.inputs, rows.targets)


def their_initial_weights(case: Case, rows: Split, seed: int) -> list[dict[str, Any]]:
    """Glorot uniform, biases too. An epoch of steps that are too small to change a bit shows them."""
    network = their_network(case, rows, seed, max_iter=1, solver="sgd", learning_rate_init=1e-300)
    layers = zip(network.coefs_, network.intercepts_, strict=True)
    return [{"weights": packed(weights), "bias": packed(bias)} for weights, bias in layers]


# Our side.


class Epochd:
    """A client that has learned the contract from the server, by reflection."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.channel = channel
        self.pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))

    def call(self, method: str, **request: Any) -> Any:
        """The answer of a method of ModelService, or the stream of its answers."""
        found = self.pool.FindServiceByName("epochd.v1.ModelService").methods_by_name[method]
        kind = self.channel.unary_stream if found.server_streaming else self.channel.unary_unary
        function = kind(
            f"/epochd.v1.ModelService/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=GetMessageClass(found.output_type).FromString,
        )
        return function(GetMessageClass(found.input_type)(**request))

    def knows_optimizer(self, name: str) -> bool:
        return name in self.pool.FindMessageTypeByName("epochd.v1.Optimizer").fields_by_name


def packed(values: Floats) -> dict[str, Any]:
    return {"packed": values.astype("<f8").tobytes(), "packed_type": "ELEMENT_TYPE_FLOAT64"}


def start_our_training(
    epochd: Epochd, case: Case, solver: Solver, rows: Split, seed: int, start: str
) -> tuple[str, Iterable[Any]]:
    """A new model's name, and the events of its training. In float64, as scikit-learn."""
    input_width, hidden_units, output_units = widths(case, rows)
    initializer = {"he_uniform" if start == "he" else "glorot_uniform": {}}
    initial_weights = their_initial_weights(case, rows, seed) if start == "theirs" else []
    layers = [
        {"units": hidden_units, "activation": "ACTIVATION_RELU", "initializer": initializer},
        {"units": output_units, "activation": f"ACTIVATION_{case.output.upper()}"},
    ]
    architecture = {"input_width": input_width, "element_type": "ELEMENT_TYPE_FLOAT64", "layers": layers}
    model_id = epochd.call("CreateModel", architecture=architecture, seed=seed, initial_weights=initial_weights).model_id
    events = epochd.call(
        "Train",
        model_id=model_id,
        inputs=packed(rows.inputs),
        targets=packed(rows.targets),
        loss={LOSSES[case.output]: {}},
        optimizer=solver.ours(case),
        epochs=case.epochs,
        batch_size=len(rows.inputs) if solver.full_batch else BATCH_SIZE,
        seed=seed,
        report_every=case.epochs,
        cancel_on_disconnect=True,
    )
    return model_id, events


def our_prediction(epochd: Epochd, case: Case, rows: Split, model_id: str, events: Iterable[Any]) -> Floats:
    """Waits for the end of the training, asks the model, and deletes it."""
    *_, last = events
    if not last.finished.version:
        raise RuntimeError(f"{case.dataset}: the training ended without a version: {last.finished}")
    answer = epochd.call("Predict", model_id=model_id, inputs=packed(rows.held_inputs))
    epochd.call("DeleteModel", model_id=model_id)
    if case.is_regression:
        return np.frombuffer(answer.outputs.packed, dtype="<f8")
    return np.array([row.index for row in answer.classes], dtype=float)


# The tables.


@dataclass(frozen=True)
class Plan:
    """What the command line asked for."""

    cases: list[Case]
    solvers: list[Solver]
    seeds: int
    start: str


def line(epochd: Epochd, plan: Plan, case: Case, solver: Solver) -> tuple[str, bool]:
    """A line of the table, and whether we do no worse."""
    ours, theirs = np.empty(plan.seeds), np.empty(plan.seeds)
    for seed in range(plan.seeds):
        rows = split(case, seed)
        # Ours trains in the server while theirs trains here.
        model_id, events = start_our_training(epochd, case, solver, rows, seed, plan.start)
        network = their_network(case, rows, seed, **solver.theirs)
        theirs[seed] = score(case, rows, network.predict(rows.held_inputs))
        ours[seed] = score(case, rows, our_prediction(epochd, case, rows, model_id, events))
    difference = ours - theirs
    mean, error = difference.mean(), difference.std(ddof=1) / np.sqrt(plan.seeds)
    good = bool(mean >= -2 * error)
    cells = [
        case.dataset.replace("_", " ") + (" (R²)" if case.is_regression else ""),
        f"{'-'.join(map(str, widths(case, rows)))} {case.output}",
        str(case.epochs),
        f"{ours.mean():.4f} ± {ours.std(ddof=1):.4f}",
        f"{theirs.mean():.4f} ± {theirs.std(ddof=1):.4f}",
        f"{mean:+.4f} ± {error:.4f}",
        "no worse" if good else "worse",
    ]
    return f"| {' | '.join(cells)} |", good


def table(epochd: Epochd, plan: Plan, solver: Solver) -> bool:
    """Prints a table; whether we do no worse in any line of it."""
    print(f"\n{solver.title}\n")
    print("| data set | network | epochs | epochd, mean ± sd | scikit-learn, mean ± sd | difference ± standard error | verdict |")
    print("|---|---|---|---|---|---|---|")
    all_good = True
    for case in plan.cases:
        text, good = line(epochd, plan, case, solver)
        print(text, flush=True)
        all_good &= good
    return all_good


# The server.


@contextmanager
def own_server() -> Iterator[str]:
    """The address of a server that lives as long as the `with` block."""
    with tempfile.TemporaryDirectory(prefix="epochd-scikit-learn-") as folder:
        command = [EPOCHD, "serve", "--listen", "127.0.0.1:0", "--data-dir", folder, "--log-format", "json"]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        try:
            told = (json.loads(text) for text in process.stderr)
            address = next((entry["address"] for entry in told if entry["message"] == "serving"), None)
            if address is None:
                raise RuntimeError("the server ended without serving")
            # A log that nobody reads would fill its pipe, and the server would wait.
            threading.Thread(target=process.stderr.read, daemon=True).start()
            yield address
        finally:
            process.terminate()
            process.wait()


@contextmanager
def server_at(url: str) -> Iterator[str]:
    yield url.removeprefix("http://")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", metavar="URL", help="ask this server instead of starting one")
    parser.add_argument("--start", choices=["glorot", "he", "theirs"], default="glorot", help="our initial weights")
    parser.add_argument("--lbfgs", action="store_true", help="compare L-BFGS too")
    parser.add_argument("--seeds", type=int, default=20, help="20 where it is left out")
    parser.add_argument("--only", choices=sorted({case.dataset for case in CASES}), help="one data set instead of five")
    arguments = parser.parse_args()
    if arguments.seeds < 2:
        parser.error("a standard error needs two seeds")
    cases = [case for case in CASES if arguments.only in (None, case.dataset)]
    if arguments.start == "theirs":
        # For two classes they have one unit: there are no weights of theirs for two.
        cases = [case for case in cases if (case.dataset, case.output) != ("breast_cancer", "softmax")]
    plan = Plan(cases, [ADAM, SGD] + [LBFGS] * arguments.lbfgs, arguments.seeds, arguments.start)
    clock = time.monotonic()
    with server_at(arguments.server) if arguments.server else own_server() as address:
        with grpc.insecure_channel(address) as channel:
            epochd = Epochd(channel)
            if arguments.lbfgs and not epochd.knows_optimizer("lbfgs"):
                parser.error("this server knows no lbfgs")
            verdicts = [table(epochd, plan, solver) for solver in plan.solvers]
    versions = f"scikit-learn {sklearn.__version__}, numpy {np.__version__}, Python {platform.python_version()}"
    start = {"glorot": "Glorot's", "he": "He's, and Glorot's for scikit-learn", "theirs": "scikit-learn's"}[plan.start]
    print(f"\n{plan.seeds} seeds; initial weights: {start}; {versions}; {time.monotonic() - clock:.0f} s.")
    return 0 if all(verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
