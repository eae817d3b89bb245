"""The comparison: every contender on every workload, side by side.

    python -m benchmarks.run                         # warm, Parquet to Parquet
    python -m benchmarks.run --compute               # rows in memory, compute alone
    python -m benchmarks.run --cold                  # whole processes: start-up, imports and compilation included

Each contender runs in its own process; they take turns, round by round, so that a slow spell of the machine hits them
all, and each is checked against the oracle before it is timed. Useful GFLOP/s are 6 H (D + H) per real step.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from benchmarks.contenders import CONTENDERS, Child, Contender
from benchmarks.harness import finish, rate
from benchmarks.memory import idle_cores, peak_memory
from benchmarks.workloads import FOLDER, WORKLOADS, Workload
from scanrnn_dist.encoder import Encoder
from tests.oracle import gru_rows

TOLERANCE = 1e-5
"""float32 against float64 over up to 20,000 steps: a wrong gate or a row out of place is off by 1e-2."""
SAMPLE = 20


@contextmanager
def destination(folder: Path) -> Iterator[Path]:
    """A path to write to; what stands there afterwards is removed."""
    parent = Path(tempfile.mkdtemp(prefix="out-", dir=folder))
    try:
        yield parent / "out"
    finally:
        shutil.rmtree(parent)


def oracle_rows(workload: Workload) -> dict[int, np.ndarray]:
    """The features of some random rows and of the longest, by id, in float64."""
    rows = workload.rows()
    chosen = np.random.default_rng(1).choice(len(rows), SAMPLE, replace=False)
    ids = [int(row) for row in {*chosen, rows.lengths.argmax()}]
    cell = Encoder.from_seed(0, workload.in_features, workload.hidden).cell
    return dict(zip(ids, gru_rows(cell, [rows.row(i) for i in ids]), strict=True))


def check(path: Path, expected: dict[int, np.ndarray], rows: int, who: str) -> float:
    """The largest difference of a Parquet output from the oracle; raises where it is too large or rows are missing."""
    table = pq.read_table(path)
    ids = table["id"].to_numpy()
    if not np.array_equal(np.sort(ids), np.arange(rows)) or not np.array_equal(ids % 10, table["label"].to_numpy()):
        raise ValueError(f"{who}: ids or labels are not those of the source.")
    at = np.argsort(ids)[list(expected)]
    features = np.stack(table["features"].take(at).to_pylist())
    difference = float(np.abs(features - np.stack(list(expected.values()))).max())
    if not difference <= TOLERANCE:
        raise ValueError(f"{who} differs from the oracle by {difference:.1e}; expected at most {TOLERANCE}.")
    return difference


def take_turns(cases: dict[str, Callable[[], float | None]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each case in each round."""
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, case in cases.items():
            taken = case()
            if taken is not None:
                seconds[name].append(taken)
    return {name: taken for name, taken in seconds.items() if taken}


def warm(workload: Workload, contenders: list[Contender], folder: Path, rounds: int, command: str) -> dict[str, Any]:
    """Long-lived children in turns: end to end (`run`) or rows in memory (`compute`)."""
    expected = oracle_rows(workload)
    rows = pq.read_metadata(workload.file(folder)).num_rows
    children, extra = {}, {}

    def case(child: Child) -> Callable[[], float | None]:
        def run() -> float | None:
            with destination(folder) as path:
                return child.ask(command, path)

        return run

    try:
        for contender in contenders:
            child = children[contender.name] = Child(contender, workload, folder)
            with destination(folder) as path:
                child.ask("run", path)
                extra[contender.name] = {"difference": check(path, expected, rows, contender.name)}
            case(child)()
        for name, child in children.items():
            extra[name]["idle_cores"] = idle_cores(child.process.pid)
        seconds = take_turns({name: case(child) for name, child in children.items()}, rounds)
        if command == "run":
            for name, child in children.items():
                extra[name]["peak_mib"] = peak_memory(child.process.pid, case(child))
    finally:
        for child in children.values():
            child.stop()
    return summary(workload, seconds, extra)


def cold(workload: Workload, contenders: list[Contender], folder: Path, rounds: int) -> dict[str, Any]:
    """Whole processes in turns, from `exec` to exit."""
    expected = oracle_rows(workload)
    source = workload.file(folder)
    rows = pq.read_metadata(source).num_rows
    extra: dict[str, dict[str, Any]] = {contender.name: {} for contender in contenders}

    def case(contender: Contender) -> Callable[[], float]:
        def run() -> float:
            with destination(folder) as path, open(folder / "cold.log", "w") as log:
                command = contender.cold_command(workload, source, path)
                begin = time.perf_counter()
                process = subprocess.Popen(command, env=contender.process_environment(folder), stdout=log, stderr=log)
                if (status := process.wait()) != 0:
                    raise RuntimeError(f"{command} ended with {status}; see {folder / 'cold.log'}.")
                taken = time.perf_counter() - begin
                extra[contender.name]["difference"] = check(path, expected, rows, contender.name)
            return taken

        return run

    return summary(workload, take_turns({c.name: case(c) for c in contenders}, rounds), extra)


def summary(workload: Workload, seconds: dict[str, list[float]], extra: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Figures of each contender, and how ours compares with the fastest opponent."""
    lengths = workload.rows().lengths
    gflop = 6 * workload.hidden * (workload.in_features + workload.hidden) * int(lengths.sum()) / 1e9
    medians = {name: statistics.median(taken) for name, taken in seconds.items()}
    figures = {
        name: {
            "gflops": rate(taken, gflop),
            "rows_per_second": round(len(lengths) / medians[name]),
            "seconds": [round(s, 4) for s in taken],
            **extra[name],
        }
        for name, taken in seconds.items()
    }
    opponents = {name: median for name, median in medians.items() if name != "ours"}
    result: dict[str, Any] = {"contenders": figures}
    if "ours" in medians and opponents:
        fastest = min(opponents, key=opponents.__getitem__)
        result |= {"fastest_opponent": fastest, "ratio": round(opponents[fastest] / medians["ours"], 3)}
    return result


def show(workload: Workload, result: dict[str, Any]) -> None:
    """Print a workload's figures as a table."""
    print(f"\n{workload.name} {workload.title}; D {workload.in_features}, H {workload.hidden}")
    for name, figures in result["contenders"].items():
        rates, taken = figures["gflops"], statistics.median(figures["seconds"])
        memory = f"{figures['peak_mib']:6.0f} MiB" if "peak_mib" in figures else ""
        print(
            f"  {name:17}{rates['median']:7.1f} GFLOP/s ({rates['min']:.1f} - {rates['max']:.1f})"
            f"{figures['rows_per_second']:11,} rows/s {taken:8.3f} s {memory}  off by {figures['difference']:.0e}"
        )
    if "ratio" in result:
        print(f"  ours is {result['ratio']:.2f} x the fastest opponent, {result['fastest_opponent']}", flush=True)


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workloads", default=",".join(WORKLOADS))
    parser.add_argument("--contenders", default=",".join(CONTENDERS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--json", type=Path, help="where to write the results too")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--compute", action="store_true", help="rows in memory, compute alone")
    mode.add_argument("--cold", action="store_true", help="whole processes")
    arguments = parser.parse_args()
    contenders = [CONTENDERS[name] for name in arguments.contenders.split(",")]
    results = {}
    for workload in (WORKLOADS[name] for name in arguments.workloads.split(",")):
        if arguments.cold:
            result = cold(workload, contenders, arguments.folder, arguments.rounds)
        else:
            command = "compute" if arguments.compute else "run"
            result = warm(workload, contenders, arguments.folder, arguments.rounds, command)
        show(workload, result)
        results[workload.name] = result
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))
    finish("run", results)


if __name__ == "__main__":
    main()
