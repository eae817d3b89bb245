"""What a job takes of the memory beyond the process itself, for budgets of `--memory`.

    python -m benchmarks.bench_memory                         # the five workloads and one giant row
    python -m benchmarks.bench_memory --workloads giant --memory 32MiB,256MiB,1GiB

Every figure is the peak of a fresh process of the command line, as its report tells it, less that of one that does the
same with `FEW` rows: Python, JAX, pyarrow and the compiled program. *giant* is 20,000 rows of 99 steps on average and
among them one of 1,000,000 steps, 61 MiB of values; *plain* the same without it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.contenders import flags
from benchmarks.harness import finish
from benchmarks.run import destination
from benchmarks.workloads import FOLDER, WORKLOADS, Workload, lognormal, uniform

FEW = 64
GIANT_STEPS = 1_000_000


def with_giant(rng: np.random.Generator) -> np.ndarray:
    """Lengths as those of W2, and one giant among them."""
    lengths = lognormal(20_000)(rng)
    lengths[10_000] = GIANT_STEPS
    return lengths


CASES = {
    **WORKLOADS,
    "plain": Workload("plain", "rows as in W2", lognormal(20_000), 16, 32),
    "giant": Workload("giant", "one of 1,000,000 steps among them", with_giant, 16, 32),
}


def run_fresh(workload: Workload, source: Path, folder: Path, memory: str) -> dict[str, float]:
    """What the report of a fresh process says of its memory, in MiB, and its seconds."""
    with destination(folder) as path:
        program = [sys.executable, "-m", "scanrnn_dist", "--quiet", "featurize"]
        command = [*program, source, path, "--hidden", workload.hidden]
        told = [*map(str, command), *flags(workload.options), "--json", *(["--memory", memory] if memory else [])]
        report = json.loads(subprocess.run(told, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])
    return {"mib": report["peak_memory_bytes"] / 2**20, "seconds": report["seconds"]}


def measured(workload: Workload, folder: Path, budgets: list[str], rounds: int) -> dict[str, Any]:
    """Floor and peaks of a workload."""
    few = replace(workload, name=f"{workload.name}-few", lengths=uniform(FEW, 16))
    floor = min(run_fresh(few, few.file(folder), folder, "")["mib"] for _ in range(rounds))
    found: dict[str, list[dict[str, float]]] = {budget: [] for budget in budgets}
    for _ in range(rounds):
        for budget, runs in found.items():
            runs.append(run_fresh(workload, workload.file(folder), folder, budget))
    peaks = {
        budget or "usual": {
            "beyond_mib": round(max(each["mib"] for each in runs) - floor),
            "seconds": round(statistics.median(each["seconds"] for each in runs), 2),
        }
        for budget, runs in found.items()
    }
    return {"floor_mib": round(floor), "peaks": peaks}


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workloads", default=",".join(CASES))
    parser.add_argument("--memory", default="32MiB,64MiB,,1GiB", help="budgets; an empty one is the usual one")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    arguments = parser.parse_args()
    results = {}
    with tempfile.TemporaryDirectory(prefix="memory-") as own:
        for name in arguments.workloads.split(","):
            case = CASES[name]
            if name in WORKLOADS:  # which stay, for other benchmarks too
                case.file(arguments.folder)
                (Path(own) / f"{name}.parquet").symlink_to((arguments.folder / f"{name}.parquet").resolve())
            results[name] = measured(case, Path(own), arguments.memory.split(","), arguments.rounds)
            told = (
                f"{budget} {peak['beyond_mib']} MiB {peak['seconds']} s"
                for budget, peak in results[name]["peaks"].items()
            )
            print(f"{name:6} floor {results[name]['floor_mib']} MiB; beyond it: {'; '.join(told)}", flush=True)
    finish("memory", results)


if __name__ == "__main__":
    main()
