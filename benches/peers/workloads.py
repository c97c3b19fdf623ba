"""The trainings that every peer runs: the same shapes, sizes, optimizers and batches as in benches/training/workloads.rs.

Inputs are float32 and row-major, drawn from a fixed seed. An epoch visits all rows once, in order, in batches.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Workload:
    """One training: what its network is, how it learns, and how much."""

    name: str
    widths: tuple[int, ...]
    """Input width, hidden units, outputs."""
    hidden: str
    """The activation of the hidden layers."""
    loss: str
    """"softmax", "sigmoid" (both cross-entropy, from logits) or "squared"."""
    optimizer: str
    """"sgd", "momentum" (0.9) or "adam"."""
    learning_rate: float
    batch: int
    rows: int
    epochs: int
    """Epochs in one timed repeat."""

    @property
    def layers(self) -> list[tuple[int, int]]:
        return list(pairwise(self.widths))

    @property
    def operations_per_row(self) -> int:
        """Two for a multiply-add: forward, weight gradient and input gradient, which the first layer does without."""
        return 6 * sum(inputs * units for inputs, units in self.layers) - 2 * self.widths[0] * self.widths[1]


WORKLOADS = {
    workload.name: workload
    for workload in [
        Workload("W1_xor", (2, 4, 1), "tanh", "sigmoid", "sgd", 0.5, 4, 4, 5000),
        Workload("W2_iris", (4, 16, 3), "relu", "softmax", "adam", 1e-3, 16, 150, 100),
        Workload("W3_digits", (64, 64, 10), "relu", "softmax", "adam", 1e-3, 32, 1797, 10),
        Workload("W4_mnist", (784, 128, 10), "relu", "softmax", "momentum", 1e-2, 64, 60000, 1),
        Workload("W5_mnist_deep", (784, 512, 256, 10), "relu", "softmax", "adam", 1e-3, 128, 60000, 1),
        Workload("W6_tabular", (128, 1024, 1024, 1), "relu", "squared", "adam", 1e-3, 512, 50000, 1),
        Workload("W7_gemm", (1024, 2048, 2048, 1000), "relu", "softmax", "adam", 1e-3, 512, 5120, 1),
    ]
}


def data(workload: Workload) -> tuple[NDArray[np.float32], NDArray[Any]]:
    """Inputs [rows, width], and targets: classes [rows] for softmax, numbers [rows, outputs] otherwise."""
    if workload.name == "W1_xor":
        inputs = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], dtype=np.float32)
        return inputs, np.array([[0], [1], [1], [0]], dtype=np.float32)
    generator = np.random.default_rng(7)
    inputs = generator.standard_normal((workload.rows, workload.widths[0]), dtype=np.float32)
    if workload.loss == "softmax":
        return inputs, generator.integers(0, workload.widths[-1], workload.rows)
    return inputs, generator.standard_normal((workload.rows, workload.widths[-1]), dtype=np.float32)


@dataclass(frozen=True)
class Plan:
    """What a peer's command line asked for."""

    workload: Workload
    threads: int
    repeats: int
    seconds: float


def arguments(description: str | None) -> Plan:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workload", required=True, choices=WORKLOADS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5, help="timed runs at least, after one that warms up; the median counts")
    parser.add_argument("--seconds", type=float, default=0.5, help="what timed runs take at least together; half of it goes by before")
    chosen = parser.parse_args()
    return Plan(WORKLOADS[chosen.workload], chosen.threads, chosen.repeats, chosen.seconds)


def report(peer: str, version: str, plan: Plan, run: Callable[[], float], rows: int | None = None) -> None:
    """Times `run`, which trains the workload's epochs and returns the loss of the last, and prints one line of JSON. `rows` is
    how many of the rows an epoch visits, if not all."""
    begun = time.perf_counter()
    run()
    while time.perf_counter() - begun < plan.seconds / 2:
        run()
    times, loss, begun = [], float("nan"), time.perf_counter()
    while len(times) < max(1, plan.repeats) or time.perf_counter() - begun < plan.seconds:
        start = time.perf_counter()
        loss = run()
        times.append((time.perf_counter() - start) / plan.workload.epochs)
    seconds, rows = statistics.median(times), rows or plan.workload.rows
    line = {
        "peer": peer,
        "version": version,
        "workload": plan.workload.name,
        "threads": plan.threads,
        "sec_per_epoch": seconds,
        "samples_per_s": rows / seconds,
        "gflops": plan.workload.operations_per_row * rows / seconds / 1e9,
        "final_loss": loss,
    }
    print(json.dumps(line))
