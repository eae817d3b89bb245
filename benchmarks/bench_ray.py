"""`--engine ray` against the plain command, and against Ray Data around our class and around a torch one.

    python -m benchmarks.bench_ray [--rows 100000] [--hidden 512] [--rounds 3] [--contenders plain,ray,...]

Rows of lognormal lengths (mean 99) with 12 features, one Parquet file; two cores. `plain` is the command with two
devices, `ray` has two actors of one CPU on a cluster that stands, `ray-local` begins its own; `data` and `data-torch`
are Ray Data with two actors. All are whole commands, from the start of the process to its end, and take turns. The
parts of the first three must be the same bytes; features of the others are compared row by row. With the default
sizes a job takes a minute or more of two fast cores. The last line is JSON. Not covered: several machines; and a
machine that others use, where Ray's workers, of niceness 15, get what is left (RAY_worker_niceness=0 makes them equal).
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.dataset as ds
import ray

from benchmarks.contenders import weights_file
from benchmarks.harness import finish
from benchmarks.workloads import Workload, lognormal
from scanrnn_dist import Encoder

IN_FEATURES = 12
UNITS = 64
"""Parts of a job, about: enough that two workers end together."""
LIKE_PLAIN = ("ray", "ray-local")
CONTENDERS = ("plain", *LIKE_PLAIN, "data", "data-torch")
MOST_APART = 1e-5
"""Of float32 features by other programs; weights or rows that differ are 0.1 apart."""
LOGICAL_CPUS = 4
"""Of the cluster: two for the actors, two for what Ray Data reads and writes in."""


def main() -> None:
    """Time the contenders and compare what they wrote."""
    arguments = parsed()
    names = arguments.contenders.split(",")
    with tempfile.TemporaryDirectory() as folder, standing_cluster() as address:
        workload = Workload("ray", "", lognormal(arguments.rows), IN_FEATURES, arguments.hidden)
        commands = commands_of(workload, Path(folder), address)
        seconds: dict[str, list[float]] = {name: [] for name in names}
        apart: dict[str, float] = {}
        for number in range(arguments.rounds):
            for name in names:
                out = Path(folder) / name
                shutil.rmtree(out, ignore_errors=True)
                seconds[name].append(timed([*commands[name], str(workload.file(Path(folder))), str(out)], name))
                if number == 0 and name != names[0]:
                    apart[name] = compared(Path(folder) / names[0], out, name in LIKE_PLAIN and names[0] == "plain")
            print_round(number, {name: taken[-1] for name, taken in seconds.items()}, arguments.rows)
    finish("ray", told(seconds, apart, arguments.rows))


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--contenders", default=",".join(CONTENDERS), help="the first is what others are held against")
    return parser.parse_args()


@contextmanager
def standing_cluster() -> Iterator[str]:
    """The address of a cluster of one node."""
    context: Any = ray.init("local", num_cpus=LOGICAL_CPUS, include_dashboard=False, log_to_driver=False)
    try:
        yield context.address_info["gcs_address"]
    finally:
        ray.shutdown()


def commands_of(workload: Workload, folder: Path, address: str) -> dict[str, list[str]]:
    """The command of each contender, up to source and destination, which come last."""
    encoder, weights = folder / "encoder.safetensors", weights_file(workload, folder)
    Encoder.from_seed(0, workload.in_features, workload.hidden).save(encoder)
    rows = len(workload.lengths(np.random.default_rng(workload.seed)))
    python = [sys.executable, "-m"]
    ours = [*python, "scanrnn_dist", "featurize", "--encoder", str(encoder), "--rows-per-part", str(rows // UNITS + 1)]
    data = [*python, "benchmarks.opponents.ray_data", "--address", address]
    return {
        "plain": [*ours, "--devices", "2"],
        "ray": [*ours, "--engine", "ray", "--address", address, "--workers", "2"],
        "ray-local": [*ours, "--engine", "ray", "--address", "local", "--workers", "2"],
        "data": [*data, "--encoder", str(encoder), "ours"],
        "data-torch": [*data, "--weights", str(weights), "torch"],
    }


def timed(command: list[str], name: str) -> float:
    """Seconds of a whole command."""
    begin = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{name} ended with {done.returncode}: {done.stderr[-2000:]}")
    return time.perf_counter() - begin


def compared(expected: Path, out: Path, same_bytes: bool) -> float:
    """How far the features of two outputs are apart at most; they may be in another order.

    Raises:
        AssertionError: too far, or parts that have to be the same are not.
    """
    if same_bytes:
        for part in sorted(expected.glob("part-*")):
            assert part.read_bytes() == (out / part.name).read_bytes(), f"{out / part.name} is another"
    (ids, features), (other_ids, others) = features_of(expected), features_of(out)
    assert np.array_equal(ids, other_ids), f"{out} has other rows"
    apart = float(np.abs(features - others).max())
    assert apart < MOST_APART, f"{out} is {apart} apart"
    return apart


def features_of(out: Path) -> tuple[np.ndarray, np.ndarray]:
    """The ids and features of an output, by id."""
    table = ds.dataset(out, format="parquet").to_table(["id", "features"]).combine_chunks()
    column = table["features"].chunk(0)
    order = np.argsort(table["id"].to_numpy())
    return table["id"].to_numpy()[order], column.flatten().to_numpy().reshape(len(order), -1)[order]


def print_round(number: int, seconds: dict[str, float], rows: int) -> None:
    """A line of figures."""
    figures = ", ".join(f"{name} {taken:.1f} s ({rows / taken:,.0f} rows/s)" for name, taken in seconds.items())
    print(f"round {number + 1}: {figures}", flush=True)


def told(seconds: dict[str, list[float]], apart: dict[str, float], rows: int) -> dict[str, object]:
    """The figures: medians, with the worst and the best, and how fast others are beside the first."""
    medians = {name: statistics.median(taken) for name, taken in seconds.items()}
    first = next(iter(medians))
    return {
        name: {
            "seconds": [round(taken, 2) for taken in seconds[name]],
            "rows_per_second": round(rows / medians[name]),
            f"speed_of_{first}": round(medians[first] / medians[name], 3),
            "most_apart": apart.get(name),
        }
        for name in medians
    }


if __name__ == "__main__":
    main()
