"""Does a test fail when the mathematics is wrong?

Breaks each derivative, each optimizer and every other formula of the engine in turn, and sees a test fail. What is broken, and how,
stands in `mutations.toml` beside this file. docs/mutations.md has the result of the last run.

How to run, from the root of the repository (Python 3.11 or newer, no packages):

    python3 tests/mutations/mutate.py

All mutations are built at once, into a copy of the source tree below the target folder: each snippet becomes
`(if crate::mutated(N) { MUTANT } else { SNIPPET })`, and N comes from the environment variable EPOCHD_MUTANT. So there is one build
and not one a mutation. Without a mutant every test must pass. With each of them run, until one fails: the unit tests of its own
module, those of the rest of the engine, all other unit tests, and the service's test against PyTorch. Tests run one after another, so
that the first to fail is always the same. A snippet that is not exactly once in its function is an error: the list cannot silently rot.

Prints a Markdown table a file and a summary; exits 1 where a mutant survives. `--only SUBSTRING` takes those whose file, function or
description has it, `--list` runs nothing, and `--jobs` says how many mutants run at once.
"""

import argparse
import itertools
import json
import os
import re
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LIST = Path(__file__).with_name("mutations.toml")
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()
COPY = TARGET / "mutations"
# Apart from the project's own: to cargo, two copies of one package in one target folder are the same, and the last built wins.
BUILD = COPY / "target"

# What the copy has of the repository.
PARTS = ["Cargo.toml", "Cargo.lock", "build.rs", "engine", "src", "proto", "tests", "benches", "examples", "README.md", "ARCHITECTURE.md"]

# Tests that take this many times as long as all of them without a mutant do not come to an end.
PATIENCE = 2.0
BASELINE_SECONDS_MAX = 3600.0

# The first example that fails is enough: no search for the smallest, and no note of it, which would be tried again without the mutant.
# One seed, so that every mutant, and none, meet the same examples.
EXAMPLES = {"PROPTEST_MAX_SHRINK_ITERS": "0", "PROPTEST_DISABLE_FAILURE_PERSISTENCE": "true", "PROPTEST_RNG_SEED": "2"}

SWITCH = """
/// Whether this mutant is the one that runs: see `tests/mutations/mutate.py`.
#[inline]
pub(crate) fn mutated(mutant: u32) -> bool {
    static MUTANT: std::sync::OnceLock<u32> = std::sync::OnceLock::new();
    let read = || std::env::var("EPOCHD_MUTANT").ok().and_then(|number| number.parse().ok()).unwrap_or(0);
    *MUTANT.get_or_init(read) == mutant
}
"""


# What is broken.


@dataclass(frozen=True)
class Mutation:
    """One expression of the source, and what stands in its place."""

    number: int
    file: str
    # `function`, or `Type::function`.
    function: str
    original: str
    mutant: str
    breaks: str

    @property
    def module(self) -> str:
        """`engine::loss::` of src/engine/loss/bits.rs, whose tests are of the whole loss."""
        return "::".join(Path(self.file).with_suffix("").parts[1:3]) + "::"

    def has(self, text: str) -> bool:
        return any(text in part for part in (self.file, self.function, self.breaks))

    def __str__(self) -> str:
        return f"{self.number}: {self.file}, {self.function}: {self.breaks}"


class ListError(Exception):
    """The list does not fit the source."""


def read_list() -> list[Mutation]:
    """The mutations, numbered from 1 in the order of the list."""
    files: dict[str, list[dict[str, str]]] = tomllib.loads(LIST.read_text())
    pairs = ((file, entry) for file, entries in files.items() for entry in entries)
    return [Mutation(number, file, **entry) for number, (file, entry) in enumerate(pairs, 1)]


@dataclass(frozen=True)
class Place:
    """Where a mutation is in its file."""

    start: int
    end: int
    mutation: Mutation


def find_block(source: str, opening: str, what: str, first: int = 0, last: int | None = None) -> tuple[int, int]:
    """From a line that matches `opening` to the line that closes it, which rustfmt indents alike."""
    found = [match for match in re.finditer(opening, source, re.MULTILINE) if first <= match.start() < (last or len(source))]
    if len(found) != 1:
        raise ListError(f"{what} is there {len(found)} times")
    indentation = found[0].group(1)
    closing = re.compile(rf"^{indentation}\}}", re.MULTILINE).search(source, found[0].end())
    if closing is None:
        raise ListError(f"{what} has no end")
    return found[0].start(), closing.end()


def find_function(source: str, name: str) -> tuple[int, int]:
    """The text of a function, `function` at the outermost level or `Type::function` in a block of that type."""
    owner, _, function = name.rpartition("::")
    opening = rf"(?:pub(?:\([a-z]+\))? )?fn {function}\b"
    if not owner:
        return find_block(source, rf"^(){opening}", name)
    # Of a trait's block the type is what stands after `for`.
    blocks = [match.start() for match in re.finditer(rf"^impl\b(?:.* for )?(?!.* for ).*\b{owner}\b", source, re.MULTILINE)]
    ends = [source.index("\n}", start) for start in blocks]
    holding = [(a, b) for a, b in zip(blocks, ends) if re.search(rf"^    {opening}", source[a:b], re.MULTILINE)]
    if len(holding) != 1:
        raise ListError(f"{name} is there {len(holding)} times")
    return find_block(source, rf"^(    ){opening}", name, *holding[0])


def find(source: str, mutation: Mutation) -> Place:
    try:
        start, end = find_function(source, mutation.function)
    except ListError as error:
        raise ListError(f"{mutation}: {error}") from error
    count = source.count(mutation.original, start, end)
    if count != 1:
        raise ListError(f"{mutation}: `{mutation.original}` is there {count} times")
    at = source.index(mutation.original, start, end)
    return Place(at, at + len(mutation.original), mutation)


def switched(source: str, places: Iterable[Place]) -> str:
    """The source with a switch at each place. Places may lie within one another, and several may be the same."""
    waiting = sorted(places, key=lambda place: (place.start, -place.end, place.mutation.number))

    def render(start: int, end: int) -> str:
        text, at = "", start
        while waiting and waiting[0].start < end:
            span = (waiting[0].start, waiting[0].end)
            if span[1] > end:
                raise ListError(f"{waiting[0].mutation}: begins within another snippet and ends behind it")
            same: list[Mutation] = []
            while waiting and (waiting[0].start, waiting[0].end) == span:
                same.append(waiting.pop(0).mutation)
            switches = "".join(f"if crate::mutated({it.number}) {{ {it.mutant} }} else " for it in same)
            text += source[at : span[0]] + f"({switches}{{ {render(*span)} }})"
            at = span[1]
        return text + source[at:end]

    return render(0, len(source))


def source_files() -> Iterable[Path]:
    """Paths of what the copy has, from the root."""
    for part in PARTS:
        path = ROOT / part
        files = [path] if path.is_file() else (it for it in path.rglob("*") if it.is_file() and "node_modules" not in it.parts)
        yield from (file.relative_to(ROOT) for file in files)


def write_copy(mutations: Iterable[Mutation]) -> None:
    """The source tree with every mutation behind its switch. All faults of the list are told at once."""
    by_file: dict[str, list[Mutation]] = {}
    for mutation in mutations:
        by_file.setdefault(mutation.file, []).append(mutation)
    faults: list[str] = []
    for file in source_files():
        content = (ROOT / file).read_bytes()
        if of_file := by_file.get(file.as_posix()):
            source = content.decode()
            places: list[Place] = []
            for mutation in of_file:
                try:
                    places.append(find(source, mutation))
                except ListError as error:
                    faults.append(str(error))
            content = switched(source, places).encode()
        if file == Path("engine/lib.rs"):
            content += SWITCH.encode()
        # What is the same stays as it is, so that Cargo has nothing to do again.
        copy = COPY / file
        if not copy.is_file() or copy.read_bytes() != content:
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(content)
    if faults:
        raise ListError("\n".join(faults))


# What is run.


@dataclass(frozen=True)
class Stage:
    """Some tests of one binary."""

    name: str
    command: list[str]


@dataclass(frozen=True)
class Outcome:
    """What became of a mutant: the first test that failed, or `None`."""

    failed: str | None
    seconds: float


@dataclass(frozen=True)
class Binaries:
    """Paths of the tests."""

    engine: str
    unit: str
    service: str

    def everything(self) -> list[Stage]:
        """What must pass without a mutant."""
        return [Stage("engine", [self.engine]), Stage("unit", [self.unit]), Stage("service", [self.service, "pytorch::"])]

    def stages(self, mutation: Mutation) -> list[Stage]:
        """In the order in which they are run, the likeliest to fail first."""
        return [
            Stage("module", [self.engine, mutation.module]),
            Stage("engine", [self.engine, "--skip", mutation.module]),
            Stage("unit", [self.unit]),
            Stage("service", [self.service, "pytorch::"]),
        ]


def build() -> Binaries:
    """Builds the tests."""
    command = ["cargo", "test", "--workspace", "--locked", "--no-run", "--message-format", "json", "--lib", "--test", "service"]
    environment = {**os.environ, "CARGO_TARGET_DIR": str(BUILD)}
    built = subprocess.run(command, cwd=COPY, env=environment, stdout=subprocess.PIPE, text=True)
    messages = [json.loads(line) for line in built.stdout.splitlines()]
    for message in messages:
        if message["reason"] == "compiler-message" and message["message"]["level"] == "error":
            print(message["message"]["rendered"], file=sys.stderr)
    if built.returncode != 0:
        raise ListError("the mutants do not compile")
    tests = [it for it in messages if it["reason"] == "compiler-artifact" and it["profile"]["test"] and it["executable"]]
    paths = {it["target"]["name"]: it["executable"] for it in tests}
    return Binaries(paths["epochd_engine"], paths["epochd"], paths["service"])


def run(stage: Stage, mutant: int, seconds_max: float) -> Outcome:
    """Runs a stage until a test fails."""
    start = time.monotonic()
    environment = {**os.environ, **EXAMPLES, "EPOCHD_MUTANT": str(mutant), "RUST_BACKTRACE": "0"}
    process = subprocess.Popen(
        [*stage.command, "--test-threads", "1"], cwd=COPY, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    is_late = threading.Event()

    def stop() -> None:
        is_late.set()
        process.kill()

    timer = threading.Timer(seconds_max, stop)
    timer.start()
    current, failed = "", None
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if match := re.match(r"test (\S+)(?: - should panic)? \.\.\. ", line):
                current = match.group(1)
            if re.search(r"\bFAILED$", line):
                failed = current
                break
    finally:
        timer.cancel()
        process.kill()
        code = process.wait()
    if failed is None and is_late.is_set():
        failed = "no end"
    elif failed is None and code not in (0, -9):
        failed = f"the process ended with {code}"
    return Outcome(failed, time.monotonic() - start)


def run_all(stages: Iterable[Stage], mutant: int, seconds_max: float) -> Outcome:
    """Runs stages until a test fails."""
    seconds = 0.0
    for stage in stages:
        outcome = run(stage, mutant, seconds_max)
        seconds += outcome.seconds
        if outcome.failed is not None:
            return Outcome(f"service: {outcome.failed}" if stage.name == "service" else outcome.failed, seconds)
    return Outcome(None, seconds)


# What is told.


def cell(text: str) -> str:
    return text.replace("|", "\\|")


def print_tables(mutations: Sequence[Mutation], outcomes: dict[int, Outcome]) -> None:
    for file, of_file in itertools.groupby(mutations, lambda mutation: mutation.file):
        print(f"\n### {file}\n\n| function | what is broken | killed by |\n|---|---|---|")
        for it in of_file:
            failed = outcomes[it.number].failed
            print(f"| `{it.function}` | {cell(it.breaks)} | {f'`{failed}`' if failed else '**survived**'} |")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="SUBSTRING", help="of the file, the function or the description")
    parser.add_argument("--list", action="store_true", help="check the list against the source and run nothing")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="mutants at once")
    arguments = parser.parse_args()
    start = time.monotonic()
    try:
        mutations = read_list()
        chosen = [mutation for mutation in mutations if mutation.has(arguments.only)]
        if arguments.list:
            for mutation in mutations:
                find((ROOT / mutation.file).read_text(), mutation)
            print("\n".join(map(str, chosen)))
            return 0
        write_copy(mutations)
        binaries = build()
    except ListError as error:
        print(error, file=sys.stderr)
        return 2

    whole = run_all(binaries.everything(), 0, BASELINE_SECONDS_MAX)
    if whole.failed is not None:
        print(f"without a mutant: {whole.failed}", file=sys.stderr)
        return 2
    print(f"without a mutant all tests pass, in {whole.seconds:.0f} s", file=sys.stderr)
    seconds_max = PATIENCE * arguments.jobs * whole.seconds

    outcomes: dict[int, Outcome] = {}

    def judge(mutation: Mutation) -> None:
        outcome = run_all(binaries.stages(mutation), mutation.number, seconds_max)
        outcomes[mutation.number] = outcome
        told = outcome.failed or "SURVIVED"
        print(f"[{len(outcomes)}/{len(chosen)}] {mutation}: {told} ({outcome.seconds:.1f} s)", file=sys.stderr, flush=True)

    with ThreadPoolExecutor(arguments.jobs) as pool:
        list(pool.map(judge, chosen))
    print_tables(chosen, outcomes)
    survivors = [mutation for mutation in chosen if outcomes[mutation.number].failed is None]
    minutes = (time.monotonic() - start) / 60
    print(f"\n{len(chosen)} mutations, {len(chosen) - len(survivors)} killed, {len(survivors)} survived; {minutes:.0f} minutes.")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
