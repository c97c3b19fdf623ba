"""Does epochd train faster than JAX, PyTorch and scikit-learn on a CPU?

Seven trainings, workloads.py lists them. In every round ours and each peer train a workload in turn, with one thread and with two,
each in a process of its own; medians of the rounds count, and of each side the better number of threads. Prints a Markdown table
of samples a second and of their ratios, and with `--limit` another of what the matrix products alone take of our time, by whoever
multiplies faster, we or PyTorch; exits 1 where a number is below what it must be. A ratio is the median of the rounds' ratios, since
what is measured minutes apart on a shared machine is no pair; of those to each peer with each number of threads, the least is that to
the best peer. docs/performance.md tells more.

How to run, from the root of the repository, on a machine that does nothing else:

    python3 -m venv target/peers
    target/peers/bin/pip install --requirement benches/peers/requirements.txt
    target/peers/bin/python benches/peers/compare.py --limit

It builds ours itself, as `cargo bench --bench training --no-run` does; `--profile dist` takes the profile that is shipped. A
process may run on as many processors as it has threads (taskset): XLA takes its number of threads from that. `--quick` trains ours
alone for moments, without any peer's library, and exits 0 whatever it measures: it shows that the benchmark works, and no speed.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(__file__).resolve().parent
PEERS = {"jax": "JAX", "torch": "PyTorch", "sklearn": "scikit-learn"}
PRODUCTS = "torch_products"
"""The products of a training alone, by PyTorch."""


# What is compared.


@dataclass(frozen=True)
class Row:
    """A line of the table: a workload, and the ratio to the best peer that it must reach, and aims at."""

    workload: str
    must: float
    aim: float
    report_every: int = 1
    share: float | None = None
    """Of our time, what the matrix products alone must be at least."""

    @property
    def title(self) -> str:
        return self.workload if self.report_every == 1 else f"{self.workload}, `report_every` {self.report_every}"


ROWS = [
    Row("W1_xor", 2.5, 6),
    Row("W1_xor", 2.5, 6, report_every=100),
    Row("W2_iris", 2, 4),
    Row("W3_digits", 1.6, 2.2),
    Row("W4_mnist", 1.3, 1.7, share=0.7),
    Row("W5_mnist_deep", 1.2, 1.4, share=0.75),
    Row("W6_tabular", 1.05, 1.12, share=0.85),
    Row("W7_gemm", 1.03, 1.1, share=0.85),
]


@dataclass(frozen=True)
class Side:
    """Who trains: ours with its reports, or a peer (`report_every` 0); ours beside its products alone is a side of its own."""

    name: str
    report_every: int = 0
    products: bool = False


@dataclass(frozen=True)
class Plan:
    """What the command line asked for."""

    rows: list[Row]
    peers: list[str]
    threads: list[int]
    rounds: int
    repeats: int
    seconds: float
    limit: bool
    quick: bool

    def runs(self, turn: int) -> Iterator[tuple[str, Side, int]]:
        """Workload, side and threads of every process of a round: sides take turns, in every second round from the last to the first."""
        for workload in dict.fromkeys(row.workload for row in self.rows):
            rows = [row for row in self.rows if row.workload == workload]
            ours = [Side("epochd", row.report_every) for row in rows]
            if self.limit and rows[0].share:
                ours.append(Side("epochd", products=True, report_every=1))
            others = list(map(Side, self.peers))
            if self.limit and rows[0].share and "torch" in self.peers:
                others.append(Side(PRODUCTS))
            order = [(side, threads) for threads in self.threads for side in [*ours, *others]]
            for side, threads in order[:: -1 if turn % 2 else 1]:
                yield workload, side, threads


# One process.


def build(profile: str) -> str:
    """Builds our benchmark; the path of its program."""
    command = ["cargo", "bench", "--bench", "training", "--no-run", "--message-format", "json", "--profile", profile]
    output = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    messages = (json.loads(text) for text in output.splitlines() if text.startswith("{"))
    programs = (it["executable"] for it in messages if it.get("target", {}).get("name") == "training")
    return next(program for program in programs if program)


def command(program: str, plan: Plan, workload: str, side: Side, threads: int) -> list[str]:
    processors = sorted(os.sched_getaffinity(0))[:threads]
    pinned = ["taskset", "-c", ",".join(map(str, processors))]
    asked = ["--workload", workload, "--threads", str(threads), "--repeats", str(plan.repeats), "--seconds", str(plan.seconds)]
    if side.name != "epochd":
        script = PRODUCTS if side.name == PRODUCTS else f"{side.name}_peer"
        return [*pinned, sys.executable, str(FOLDER / f"{script}.py"), *asked]
    brief = ["--epochs", "1", "--rows-max", "1024"] if plan.quick else []
    products = ["--products"] if side.products else []
    return [*pinned, program, *asked, "--report-every", str(side.report_every), *products, *brief]


def measure(program: str, plan: Plan, workload: str, side: Side, threads: int) -> dict[str, Any]:
    """The line that a process printed."""
    # Two threads at most, whichever library of linear algebra is below; warnings of libraries are not of interest.
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads), "JAX_PLATFORMS": "cpu"}
    process = subprocess.run(
        command(program, plan, workload, side, threads), env=environment, capture_output=True, text=True, check=False
    )
    if process.returncode != 0:
        raise RuntimeError(f"{side.name} on {workload} failed:\n{process.stderr}")
    line = json.loads(process.stdout.splitlines()[-1])
    print(f"{line['samples_per_s']:14,.0f} samples/s  {side.name} {workload}, {threads} threads", file=sys.stderr, flush=True)
    return line


# The tables.


@dataclass(frozen=True)
class Speed:
    """Samples a second with so many threads, round by round."""

    rounds: list[float]
    threads: int

    @property
    def samples(self) -> float:
        return statistics.median(self.rounds)

    def over(self, other: "Speed") -> float:
        """How many times as fast, in the median of the rounds."""
        return statistics.median(mine / its for mine, its in zip(self.rounds, other.rounds, strict=True))

    def __str__(self) -> str:
        return f"{shown(self.samples)} ({self.threads})"


def shown(samples: float) -> str:
    """Three digits: 1.58 M, 176 k, 3.05 k."""
    for limit, unit in [(999_500, "M"), (999.5, "k")]:
        if samples >= limit:
            scaled = samples / (1e6 if unit == "M" else 1e3)
            return f"{scaled:.{max(0, 2 - (scaled >= 9.995) - (scaled >= 99.95))}f} {unit}"
    return f"{samples:.0f}"


Lines = list[dict[str, Any]]


def speeds(lines: Lines) -> dict[tuple[str, Side], list[Speed]]:
    """Of every workload and side, with each number of threads; the best first."""
    found: dict[tuple[str, Side], dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for line in lines:
        side = Side(line["peer"], line.get("report_every", 0), "products_share" in line)
        found[line["workload"], side][line["threads"]].append(line["samples_per_s"])
    return {
        key: sorted((Speed(them, threads) for threads, them in each.items()), key=lambda it: it.samples, reverse=True)
        for key, each in found.items()
    }


def table(plan: Plan, lines: Lines) -> bool:
    """Prints the table of ratios; whether every one is what it must be."""
    titles = ["workload", "epochd", *(PEERS[peer] for peer in plan.peers), "× best peer", "× PyTorch", "must", "aim", "verdict"]
    print(f"| {' | '.join(titles)} |")
    print(f"|---|{'---:|' * (len(titles) - 2)}---|")
    measured, all_good = speeds(lines), True
    for row in plan.rows:
        ours = measured[row.workload, Side("epochd", row.report_every)][0]
        theirs = {peer: measured[row.workload, Side(peer)] for peer in plan.peers}
        times = {peer: min(map(ours.over, each)) for peer, each in theirs.items()}
        ratio = min(times.values(), default=None)
        verdict = "" if ratio is None else "aim" if ratio >= row.aim else "must" if ratio >= row.must else "below"
        all_good &= verdict != "below"
        ratios = [f"{it:.2f}" if it else "–" for it in (ratio, times.get("torch"))]
        cells = [row.title, ours, *(each[0] for each in theirs.values()), *ratios, row.must, row.aim, verdict]
        print(f"| {' | '.join(map(str, cells))} |")
    return all_good


LIMIT_KEYS = {"ns_per_step", "gflops", "products_gflops"}


def limit_key(line: dict[str, Any]) -> tuple[str, int, int | None, bool]:
    return line["workload"], line["threads"], line.get("report_every"), "products_share" in line


def products_key(line: dict[str, Any]) -> tuple[str, int] | None:
    return (line["workload"], line["threads"]) if line["peer"] == PRODUCTS else None


def limits(plan: Plan, lines: Lines) -> bool:
    """Prints how near ours is to what the machine could do; whether the share of the faster products is what it must be."""
    titles = ["workload", "threads", "µs a step", "GFLOP/s", "our products, GFLOP/s", "PyTorch's", "share of the time", "must"]
    print(f"\n| {' | '.join(titles)} |")
    print(f"|---|{'---:|' * (len(titles) - 1)}")
    all_good = True
    for row in plan.rows:
        for threads in plan.threads:
            asked = (row.workload, threads, row.report_every, row.share is not None)
            same = [line for line in lines if asked == limit_key(line)]
            medians = {key: statistics.median(line[key] for line in same) for key in same[0] if key in LIMIT_KEYS}
            cells = [row.title, str(threads), f"{medians['ns_per_step'] / 1e3:.2f}", f"{medians['gflops']:.1f}"]
            if row.share is None:
                cells += ["–"] * 4
            else:
                theirs = [it["gflops"] for it in lines if products_key(it) == (row.workload, threads)]
                shares = [[line["products_share"] for line in same]]
                if theirs:
                    shares.append([line["gflops"] / its for line, its in zip(same, theirs, strict=True)])
                share = min(map(statistics.median, shares))
                all_good &= share >= row.share
                told = f"{statistics.median(theirs):.1f}" if theirs else "–"
                cells += [f"{medians['products_gflops']:.1f}", told, f"{share:.0%}", f"{row.share:.0%}"]
            print(f"| {' | '.join(cells)} |")
    return all_good


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = list(dict.fromkeys(row.workload for row in ROWS))
    parser.add_argument("--workloads", default=",".join(names), help="some of them, by commas")
    parser.add_argument("--peers", default=",".join(PEERS), help="some of them, by commas; empty for none")
    parser.add_argument("--rounds", type=int, default=5, help="5 where it is left out")
    parser.add_argument("--repeats", type=int, default=3, help="timed runs of a process at least, 3 where it is left out")
    parser.add_argument("--seconds", type=float, default=0.5, help="seconds that they take at least together, 0.5 where it is left out")
    parser.add_argument("--threads", default="1,2", help="1, 2 or both, by a comma")
    parser.add_argument("--profile", default="bench", help="what cargo builds ours with")
    parser.add_argument("--limit", action="store_true", help="ours beside its matrix products alone, too: a second table")
    parser.add_argument("--quick", action="store_true", help="one brief round of ours alone")
    parser.add_argument("--save", type=Path, metavar="FILE", help="every process's line, as JSON")
    asked = parser.parse_args()
    workloads, peers = asked.workloads.split(","), [peer for peer in asked.peers.split(",") if peer]
    unknown = [*(set(workloads) - set(names)), *(set(peers) - set(PEERS))]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}")
    rows, threads = [row for row in ROWS if row.workload in workloads], [int(it) for it in asked.threads.split(",")]
    plan = Plan(rows, peers, threads, asked.rounds, asked.repeats, asked.seconds, asked.limit, quick=False)
    if asked.quick:
        plan = Plan(rows, [], threads, rounds=1, repeats=1, seconds=0, limit=asked.limit, quick=True)
    program, clock = build(asked.profile), time.monotonic()
    lines: Lines = []
    for turn in range(plan.rounds):
        for workload, side, count in plan.runs(turn):
            lines.append(measure(program, plan, workload, side, count))
            if asked.save:
                asked.save.write_text(json.dumps(lines, indent=1))
    all_good = table(plan, lines)
    if plan.limit:
        all_good &= limits(plan, lines)
    versions = dict.fromkeys(
        f"{PEERS.get(line['peer'], line['peer'])} {line['version']}" for line in lines if line["peer"] != PRODUCTS
    )
    told = f"{', '.join(versions)}, Python {platform.python_version()}; {time.monotonic() - clock:.0f} s."
    print(f"\nSamples a second (threads), medians; rounds: {plan.rounds}; {told}")
    return 0 if all_good or plan.quick else 1


if __name__ == "__main__":
    sys.exit(main())
