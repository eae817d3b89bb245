"""Tune an opponent on a workload: settings in turns, Parquet to Parquet and compute alone, fastest first.

    python -m benchmarks.tune torch W2 batch=64,128,256,512 look_ahead_mb=32,64,512
    python -m benchmarks.tune onnx W1L batch=16,32 --end-to-end --rounds 2

Processor seconds stand beside: of two settings that take turns on a busy machine they tell more than the clock.

Tried is every combination of what is given, over the settings of `opponents/tuned.py`. What wins by more than the
rounds spread is copied into that table by hand.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.contenders import CONTENDERS, weights_file
from benchmarks.opponents import common, reading
from benchmarks.opponents.common import Settings
from benchmarks.turns import in_turns, seconds_of
from benchmarks.workloads import FOLDER, WORKLOADS

INSIDE = "BENCHMARKS_TUNE_INSIDE"
"""Set in the process that measures, which has the contender's environment."""
BUILT = [name for name, contender in CONTENDERS.items() if contender.module not in (None, "ray_torch")]
"""Opponents that are one model in one process."""


def grid(settings: Settings, options: list[str]) -> list[Settings]:
    """The settings with every combination of `name=value,value` options."""
    names = [option.split("=")[0] for option in options]
    values = [[json.loads(value) for value in option.split("=")[1].split(",")] for option in options]
    return [replace(settings, **dict(zip(names, chosen, strict=True))) for chosen in itertools.product(*values)]


def cases(
    contender: str, workload: str, folder: Path, out: Path, options: list[str]
) -> dict[Settings, tuple[Callable[[], Any], ...]]:
    """Of each setting: Parquet to Parquet, and compute alone."""
    opponent = importlib.import_module(f"benchmarks.opponents.{CONTENDERS[contender].module}")
    sizes = WORKLOADS[workload]
    source, weights = sizes.file(folder), common.Weights.load(weights_file(sizes, folder))
    rows, _ = reading.joined(list(reading.read_spans(source, 1 << 20)))

    def works(settings: Settings) -> tuple[Callable[[], Any], ...]:
        model = opponent.build(weights, settings)
        return (
            lambda: common.featurize(source, out, model, weights.hidden, settings),
            lambda: common.compute(rows, model, weights.hidden, settings),
        )

    return {settings: works(settings) for settings in grid(opponent.SETTINGS[workload], options)}


def _each(works: tuple[Callable[[], Any], ...]) -> list[tuple[float, float]]:
    return [seconds_of(work) for work in works]


def main() -> None:
    """Parse, start the process that measures, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("contender", choices=BUILT)
    parser.add_argument("workload", choices=WORKLOADS)
    parser.add_argument("options", nargs="*", metavar="NAME=VALUE,VALUE")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--end-to-end", action="store_true", help="leave compute alone out")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    if INSIDE not in os.environ:
        environment = CONTENDERS[arguments.contender].process_environment(arguments.folder) | {INSIDE: "1"}
        sys.exit(subprocess.run([sys.executable, "-m", "benchmarks.tune", *sys.argv[1:]], env=environment).returncode)
    gflop = WORKLOADS[arguments.workload].gflop
    with tempfile.TemporaryDirectory(dir=arguments.folder) as out:
        tried = cases(arguments.contender, arguments.workload, arguments.folder, Path(out) / "out", arguments.options)
        if arguments.end_to_end:
            tried = {settings: works[:1] for settings, works in tried.items()}
        measured = {settings: partial(_each, works) for settings, works in tried.items()}
        first, rounds = in_turns(measured, 1, warmup=0), in_turns(measured, arguments.rounds, warmup=0)
    medians = {
        settings: [[statistics.median(kind) for kind in zip(*work, strict=True)] for work in zip(*taken, strict=True)]
        for settings, taken in rounds.items()
    }
    for settings in sorted(medians, key=lambda s: medians[s][0][0]):
        texts = [
            f"{gflop / clock:7.1f} {what} ({processor:.2f} s CPU)"
            for (clock, processor), what in zip(medians[settings], ("end to end", "compute"), strict=False)
        ]
        print(" ".join(texts), f" first {first[settings][0][0][0]:6.2f} s  {settings}", flush=True)


if __name__ == "__main__":
    main()
