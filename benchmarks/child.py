"""The process of one contender on one workload: commands come on standard input, what they took goes to output.

    python -m benchmarks.child vmap_buckets W2 W2.parquet weights.npz
    python -m benchmarks.child ours W2 W2.parquet '{}'
    python -m benchmarks.child product
    JAX_NUM_CPU_DEVICES=1 python -m benchmarks.child growth 16 128 SOURCE.parquet

`["run", DESTINATION]` is Parquet to Parquet, `["compute", ""]` rows in memory to features in memory; of `product` it is
a plain matrix product. `growth` serves `bench_growth`, whose processes differ by their CPU devices: their number is
fixed when JAX starts. Its `["scan", ""]` is the dense scan over as many steps in equal rows. The answer is seconds, and
processor seconds of the process and all that it started; null to a command that the contender does not know.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.memory import busy_seconds, family

PRODUCTS = 5
"""Matrix products of a `product`: together about 0.2 seconds, so that it is no short burst that is measured."""

Commands = dict[str, Callable[[Path], Any]]


def ours(workload: str, source: Path, choices: dict[str, Any]) -> Commands:
    """scanrnn_dist, with the settings of its command line, and choices between its own programs."""
    from scanrnn_dist.cli import start_devices

    start_devices(None)
    from benchmarks.bench_engine import engine_case
    from benchmarks.workloads import OUR_SHAPES, WORKLOADS
    from scanrnn_dist.api import featurize
    from scanrnn_dist.encoder import Encoder
    from scanrnn_dist.engine import build_engine

    sizes = WORKLOADS[workload]
    shape = OUR_SHAPES.get(workload) if choices.get("kernel") == "xla" else None
    encoder = Encoder.from_seed(0, sizes.in_features, sizes.hidden)

    def prepare() -> Callable[[], Any]:
        return engine_case(build_engine(encoder, None, shape, **choices), sizes.rows())

    def run(destination: Path) -> None:
        featurize(encoder, source, destination, window_shape=shape, **sizes.options, **choices)

    return {"run": run, "compute": lazily(prepare)}


def opponent(module: str, workload: str, source: Path, weights_file: Path) -> Commands:
    """One of `benchmarks.opponents`, with its tuned settings."""
    from benchmarks.opponents import common, reading

    found = importlib.import_module(f"benchmarks.opponents.{module}")
    settings, weights = found.SETTINGS[workload], common.Weights.load(weights_file)
    job = found.job(weights_file, settings)

    def prepare() -> Callable[[], Any]:
        rows, _ = reading.joined(list(reading.read_spans(source, settings.look_ahead_mb)))
        model = found.build(weights, settings)
        return lambda: common.compute(rows, model, weights.hidden, settings)

    commands: Commands = {"run": lambda destination: job(source, destination)}
    if hasattr(found, "build"):  # not Ray, which reads and writes by itself
        commands["compute"] = lazily(prepare)
    return commands


def product() -> Commands:
    """The rate that this machine can reach: a matrix product on all devices, over and over for about 0.2 seconds."""
    from scanrnn_dist.cli import start_devices

    start_devices(None)
    import jax

    from benchmarks.harness import gemm_case
    from scanrnn_dist.engine import default_mesh

    multiply, _ = gemm_case(default_mesh())

    def run(destination: Path) -> None:
        for _ in range(PRODUCTS):
            jax.block_until_ready(multiply())

    return {"run": run}


def growth(in_features: int, hidden: int, source: Path) -> Commands:
    """scanrnn_dist and the dense scan on the rows of a file, on the devices that the environment asks for."""
    import jax
    import numpy as np
    import pyarrow.parquet as pq

    from benchmarks.bench_engine import dense_case, engine_case
    from scanrnn_dist.api import featurize
    from scanrnn_dist.encoder import Encoder
    from scanrnn_dist.engine import build_engine, default_mesh
    from scanrnn_dist.ragged import Ragged

    encoder, mesh = Encoder.from_seed(0, in_features, hidden), default_mesh()
    engine = build_engine(encoder, mesh)
    sequences = pq.read_table(source)["sequence"].combine_chunks()
    values = sequences.flatten().flatten().to_numpy().reshape(-1, in_features)
    rows = Ragged(values, sequences.offsets.to_numpy().astype(np.int64))
    lanes = engine.devices * engine.shape.lanes
    scan, _ = dense_case(encoder, mesh, engine.shape.lanes, steps=max(1, len(values) // lanes))
    in_memory = engine_case(engine, rows)
    return {
        "scan": lambda _: jax.block_until_ready(scan()),
        "compute": lambda _: in_memory(),
        "run": lambda destination: featurize(encoder, source, destination, mesh=mesh),
    }


def lazily(prepare: Callable[[], Callable[[], Any]]) -> Callable[[Path], Any]:
    """The command that `prepare` makes, made when it is first called."""
    made: list[Callable[[], Any]] = []

    def command(_: Path) -> Any:
        if not made:
            made.append(prepare())
        return made[0]()

    return command


def processor_seconds() -> float:
    """User and system time of this process, of those that it started and that ended, and of those that still run."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used) + busy_seconds(family(os.getpid())[1:])


def main() -> None:
    """Answer commands until standard input ends."""
    module, *given = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever libraries print must not end up among the answers
    if module == "product":
        commands = product()
    elif module == "growth":
        commands = growth(int(given[0]), int(given[1]), Path(given[2]))
    elif module == "ours":
        commands = ours(given[0], Path(given[1]), json.loads(given[2]))
    else:
        commands = opponent(module, given[0], Path(given[1]), Path(given[2]))
    for line in sys.stdin:
        command, destination = json.loads(line)
        if command not in commands:
            print(json.dumps(None), file=answers, flush=True)
            continue
        begin_processor, begin = processor_seconds(), time.perf_counter()
        commands[command](Path(destination))
        taken = time.perf_counter() - begin, processor_seconds() - begin_processor
        print(json.dumps(taken), file=answers, flush=True)


if __name__ == "__main__":
    main()
