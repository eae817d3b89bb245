"""Tune an opponent on a workload: settings in turns, Parquet to Parquet and compute alone, fastest first.

    python -m benchmarks.tune torch W2 batch=64,128,256,512 look_ahead_mb=32,64,512

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
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.contenders import CONTENDERS, weights_file
from benchmarks.opponents import common, reading
from benchmarks.opponents.common import Settings
from benchmarks.workloads import FOLDER, WORKLOADS

INSIDE = "BENCHMARKS_TUNE_INSIDE"
"""Set in the process that measures, which has the contender's environment."""


def grid(settings: Settings, options: list[str]) -> list[Settings]:
    """The settings with every combination of `name=value,value` options."""
    names = [option.split("=")[0] for option in options]
    values = [[json.loads(value) for value in option.split("=")[1].split(",")] for option in options]
    return [replace(settings, **dict(zip(names, chosen, strict=True))) for chosen in itertools.product(*values)]


def cases(contender: str, workload: str, folder: Path, out: Path, options: list[str]) -> dict[Settings, Any]:
    """Of each setting: Parquet to Parquet, and compute alone."""
    opponent = importlib.import_module(f"benchmarks.opponents.{CONTENDERS[contender].module}")
    sizes = WORKLOADS[workload]
    source, weights = sizes.file(folder), common.Weights.load(weights_file(sizes, folder))
    rows, _ = reading.joined(list(reading.read_spans(source, 1 << 20)))

    def works(settings: Settings) -> tuple[Callable[[], Any], Callable[[], Any]]:
        model = opponent.build(weights, settings)
        return (
            lambda: common.featurize(source, out, model, weights.hidden, settings),
            lambda: common.compute(rows, model, weights.hidden, settings),
        )

    return {settings: works(settings) for settings in grid(opponent.SETTINGS[workload], options)}


def seconds_of(work: Callable[[], Any]) -> float:
    """How long it takes."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def main() -> None:
    """Parse, start the process that measures, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("contender", choices=CONTENDERS)
    parser.add_argument("workload", choices=WORKLOADS)
    parser.add_argument("options", nargs="*", metavar="NAME=VALUE,VALUE")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    arguments = parser.parse_args()
    if INSIDE not in os.environ:
        environment = CONTENDERS[arguments.contender].process_environment(arguments.folder) | {INSIDE: "1"}
        sys.exit(subprocess.run([sys.executable, "-m", "benchmarks.tune", *sys.argv[1:]], env=environment).returncode)
    sizes = WORKLOADS[arguments.workload]
    gflop = sizes.gflop
    with tempfile.TemporaryDirectory(dir=arguments.folder) as out:
        tried = cases(arguments.contender, arguments.workload, arguments.folder, Path(out) / "out", arguments.options)
        warmed = {settings: [seconds_of(work) for work in works] for settings, works in tried.items()}
        rounds = [
            {settings: [seconds_of(work) for work in works] for settings, works in tried.items()}
            for _ in range(arguments.rounds)
        ]
    rates = {
        settings: [gflop / statistics.median(taken[settings][i] for taken in rounds) for i in (0, 1)]
        for settings in tried
    }
    for settings in sorted(rates, key=lambda s: -rates[s][0]):
        end_to_end, compute = rates[settings]
        print(f"{end_to_end:7.1f} end to end {compute:7.1f} compute  first {warmed[settings][0]:6.2f} s  {settings}")


if __name__ == "__main__":
    main()
