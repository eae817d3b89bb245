"""Useful positions of all that accelerators would run, and what the host takes to feed them, without an accelerator.

    python -m benchmarks.bench_occupancy
    python -m benchmarks.bench_occupancy --lengths short

The host side of a job is run as it is (chunks from a thread that reads ahead, look-ahead, schedule, copies, features
back in the order of the rows), with the window shapes of accelerators and by their rules: every block of a window is
run, and what comes back is copied. Only the program computes nothing. CPU devices stand in for the accelerators, each
case in a process of its own: 300,000 rows, by default of lognormal lengths (mean 99, at most 2,048 steps).

*occupancy* is real steps of all positions that the programs go through. Seconds are those of the thread that feeds the
devices, all in all and by stage; a stage's CPU seconds are its thread's. *fetched* is what would travel back from the
devices, *programs* how often which were called, those that a probe tries out included. *repacked* is what was copied
from one arena of waiting values to a larger one. Covered: everything between
reader and writer. Not covered: decoding, writing, the devices, and whether programs of fewer lanes have the bits of the
wide one there, which a probe asks the real ones.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any
from unittest import mock

import jax
import numpy as np
import pyarrow as pa

from benchmarks.harness import finish
from benchmarks.noop_engine import NoOpEngine
from benchmarks.workloads import lognormal, pareto, short, uniform
from scanrnn_dist.encoder import Encoder
from scanrnn_dist.job import JobOptions, Memory, MemoryShares, Stream
from scanrnn_dist.observe import peak_memory_bytes
from scanrnn_dist.protocols import WindowShape
from scanrnn_dist.ragged import Ragged
from scanrnn_dist.source import Chunk, FailedUnit, Prefetched, Unit

CHUNK_BYTES = MemoryShares.of().chunk
"""Values of a chunk, as jobs read them."""
LENGTHS = {"lognormal": lognormal, "short": short, "pareto": pareto, "uniform": lambda rows: uniform(rows, 128)}


def chunks_of(lengths: np.ndarray, in_features: int) -> Iterator[Chunk]:
    """Chunks as a job reads them, about 4 MiB of values each; the values are copied from one array."""
    step_bytes = 4 * in_features
    ends = np.cumsum(lengths)
    nth = ends * step_bytes // CHUNK_BYTES
    bounds = np.concatenate([np.flatnonzero(np.diff(nth, prepend=0)), [len(lengths)]])
    values = np.random.default_rng(0).standard_normal(
        (int(lengths.max()) + 2 * CHUNK_BYTES // step_bytes, in_features), np.float32
    )
    unit = Unit(0, None, 0, (len(lengths),), 0, 0, 0)  # type: ignore[arg-type]
    begin = 0
    for end in bounds[bounds > 0].tolist():
        offsets = np.concatenate([[0], np.cumsum(lengths[begin:end])])
        kept = pa.record_batch({"id": np.arange(begin, end)})
        yield Chunk(unit, np.arange(begin, end), Ragged(values[: offsets[-1]].copy(), offsets), kept, begin, end)
        begin = end


def case(
    rows: int,
    in_features: int,
    hidden: int,
    kind: str = "gpu",
    shape: WindowShape | None = None,
    distribution: str = "lognormal",
    seed: int = 0,
) -> dict[str, Any]:
    """Occupancy, seconds and bytes of one job on all local devices; `shape` is that of `kind` when None."""
    lengths = LENGTHS[distribution](rows)(np.random.default_rng(seed))
    engine = NoOpEngine(Encoder.from_seed(0, in_features, hidden), kind, shape)
    chunks = Prefetched(chunks_of(lengths, in_features), MemoryShares.of().read_ahead)
    seconds: defaultdict[str, float] = defaultdict(float)
    cpu_seconds: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def stage(name: str) -> Iterator[None]:
        begin, cpu_begin = time.perf_counter(), time.thread_time()
        yield
        seconds[name] += time.perf_counter() - begin
        cpu_seconds[name] += time.thread_time() - cpu_begin

    before, begin = peak_memory_bytes(), time.perf_counter()
    done = 0
    with (
        mock.patch("scanrnn_dist.engine.run.stage", stage),
        closing(chunks),
        closing(Stream(engine, chunks, JobOptions(), Memory().shares(engine.is_static))) as stream,
    ):
        for finished in stream:
            assert not isinstance(finished, FailedUnit)
            done += len(finished.chunk.numbers)
    wall = time.perf_counter() - begin
    statistics = stream.statistics
    assert done == rows == statistics.rows and statistics.steps == lengths.sum()
    return {
        "shape": str(engine.shape),
        "occupancy": round(statistics.occupancy, 4),
        "windows": statistics.windows,
        "host_seconds_per_million_steps": round(wall / statistics.steps * 1e6, 4),
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "cpu_seconds": {name: round(value, 2) for name, value in cpu_seconds.items()},
        "repacked_mib": round(stream._run._values.repacked_bytes / 2**20, 1),  # type: ignore[attr-defined]
        "fetched_mib": round(engine.traffic.bytes_fetched / 2**20, 1),
        "features_mib": round(rows * engine.out_features * 4 / 2**20, 1),
        "programs": {str(key): value for key, value in engine.traffic.windows.items()},
        "peak_memory_mib": peak_memory_bytes() >> 20,
        "memory_before_mib": before >> 20,
    }


def main() -> None:
    """Parse; one process per case, or this one's own case; print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument("--lengths", choices=LENGTHS, default="lognormal")
    parser.add_argument("--in-features", type=int, default=16)
    parser.add_argument("--hidden", default="128,512", help="hidden features, separated by commas")
    parser.add_argument("--devices", default="1,8", help="numbers of devices, separated by commas")
    parser.add_argument("--kind", default="gpu", choices=("gpu", "tpu"), help="whose window shapes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        jax.config.update("jax_num_cpu_devices", int(arguments.devices))
        sizes = arguments.rows, arguments.in_features, int(arguments.hidden)
        print(json.dumps(case(*sizes, arguments.kind, None, arguments.lengths, arguments.seed)))
        return
    results = {}
    same = [f"--{name}={getattr(arguments, name)}" for name in ("rows", "lengths", "kind", "seed")]
    for hidden in arguments.hidden.split(","):
        for devices in arguments.devices.split(","):
            own = [f"--hidden={hidden}", f"--devices={devices}", f"--in-features={arguments.in_features}"]
            command = [sys.executable, "-m", "benchmarks.bench_occupancy", "--case", *same, *own]
            told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            name = f"H = {hidden}, {devices} devices"
            results[name] = json.loads(told.splitlines()[-1])
            print(name, results[name])
    finish("occupancy", results)


if __name__ == "__main__":
    main()
