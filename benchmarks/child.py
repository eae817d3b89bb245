"""The process of one contender on one workload: commands come on standard input, seconds go to standard output.

    python -m benchmarks.child vmap_buckets W2 W2.parquet weights.npz

`["run", DESTINATION]` is Parquet to Parquet, `["compute", ""]` rows in memory to features in memory.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Commands = dict[str, Callable[[Path], Any]]


def ours(workload: str, source: Path) -> Commands:
    """scanrnn_dist, with the settings of its command line."""
    from scanrnn_dist.cli import start_devices

    start_devices(None)
    from benchmarks.bench_engine import engine_case
    from benchmarks.workloads import OUR_SHAPES, WORKLOADS
    from scanrnn_dist.api import featurize
    from scanrnn_dist.encoder import Encoder
    from scanrnn_dist.engine import Engine

    sizes, shape = WORKLOADS[workload], OUR_SHAPES.get(workload)
    encoder = Encoder.from_seed(0, sizes.in_features, sizes.hidden)

    def prepare() -> Callable[[], Any]:
        return engine_case(Engine(encoder, shape=shape), sizes.rows())

    def run(destination: Path) -> None:
        featurize(encoder, source, destination, window_shape=shape)

    return {"run": run, "compute": lazily(prepare)}


def opponent(module: str, workload: str, source: Path, weights_file: Path) -> Commands:
    """One of `benchmarks.opponents`, with its tuned settings."""
    from benchmarks.opponents import common

    found = importlib.import_module(f"benchmarks.opponents.{module}")
    settings, weights = found.SETTINGS[workload], common.Weights.load(weights_file)
    job = found.job(weights_file, settings)

    def prepare() -> Callable[[], Any]:
        rows, _ = common.joined(list(common.read_spans(source, settings.look_ahead_mb)))
        model = found.build(weights, settings)
        return lambda: common.compute(rows, model, weights.hidden, settings)

    commands: Commands = {"run": lambda destination: job(source, destination)}
    if hasattr(found, "build"):  # not Ray, which reads and writes by itself
        commands["compute"] = lazily(prepare)
    return commands


def lazily(prepare: Callable[[], Callable[[], Any]]) -> Callable[[Path], Any]:
    """The command that `prepare` makes, made when it is first called."""
    made: list[Callable[[], Any]] = []

    def command(_: Path) -> Any:
        if not made:
            made.append(prepare())
        return made[0]()

    return command


def main() -> None:
    """Answer commands until standard input ends."""
    module, workload, source, weights_file = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever libraries print must not end up among the answers
    if module == "ours":
        commands = ours(workload, Path(source))
    else:
        commands = opponent(module, workload, Path(source), Path(weights_file))
    for line in sys.stdin:
        command, destination = json.loads(line)
        if command not in commands:
            print(json.dumps(None), file=answers, flush=True)
            continue
        begin = time.perf_counter()
        commands[command](Path(destination))
        print(json.dumps(time.perf_counter() - begin), file=answers, flush=True)


if __name__ == "__main__":
    main()
