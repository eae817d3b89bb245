"""Real jobs, shared by real processes of this machine, and what the simulation foretells of each.

Runs take turns in rounds, so that a slow spell hits all of them. How many cores others kept busy is read from the system for
each run, and told to the simulation; on an idle machine it is near 0. A run ends when `_SUCCESS` stands. Covered: one,
two and four processes, and four with `--steal` of which one is killed. Not covered: other machines, a bucket.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.scale.commands import run
from benchmarks.scale.costs import Costs
from benchmarks.scale.jobs import real_job
from benchmarks.scale.measure import job, rows_of, write
from scanrnn_dist.job import JobOptions, plan_job

ROWS, UNITS = 90_000, 48
KILLED_UNITS = 2
"""So many units the process that is killed has committed."""
WITHIN = 0.15
"""How far, relative, the median of what is foretold may be from the median of what was measured."""


@dataclass(frozen=True)
class Shared:
    """How a job is shared."""

    name: str
    processes: int
    is_one_killed: bool = False


CASES = (
    Shared("1 process", 1),
    Shared("2 processes", 2),
    Shared("4 processes", 4),
    Shared("4 processes, one killed, --steal", 4, is_one_killed=True),
)


@dataclass(frozen=True)
class Point:
    """A real run, and what was foretold of it."""

    case: str
    measured: float
    foretold: float
    cpu_measured: float
    cpu_foretold: float
    others: float
    killed_after: float | None


def compare(costs: Costs, rounds: int) -> list[Point]:
    """Run all cases so many times."""
    points = []
    with tempfile.TemporaryDirectory(prefix="shared-") as folder:
        source = write(rows_of(ROWS, seed=2), Path(folder) / "in.parquet", UNITS)
        steps = plan_job(source, JobOptions(rows_per_part=1)).units.values // costs.features
        for turn in range(rounds):
            for number, case in enumerate(CASES):
                points.append(_point(costs, case, source, Path(folder) / f"out-{turn}-{number}", steps))
    return points


def _point(costs: Costs, case: Shared, source: Path, destination: Path, steps: np.ndarray) -> Point:
    steal = ["--steal"] if case.is_one_killed else []
    shards = [("--shard", f"{k}/{case.processes}", *steal) for k in range(1, case.processes + 1)]
    begin = time.time()
    killed = case.processes if case.is_one_killed else 0
    took = run(*(job(source, destination, *shard) for shard in shards),
               kill=(lambda: _committed(destination, killed) >= KILLED_UNITS) if killed else None)  # fmt: skip
    seconds = (destination / "_SUCCESS").stat().st_mtime - begin
    told, cpu = real_job(costs, steps.tolist(), case.processes, took.others, bool(steal), took.killed_after)
    return Point(case.name, seconds, told.seconds, took.cost.cpu, cpu, took.others, took.killed_after)


def _committed(destination: Path, share: int) -> int:
    """Units that the process of a share has committed so far."""
    for log in (destination / "__scanrnn/commits").glob("*.jsonl"):
        first, *lines = log.read_text().splitlines() or [""]
        if first.endswith("}") and json.loads(first)["share"][0] == share:
            return sum(line.startswith('{"unit"') for line in lines)
    return 0


def table(points: list[Point]) -> list[dict[str, float | str]]:
    """By case: medians, their ratio, and whether it is near enough."""
    rows: list[dict[str, float | str]] = []
    for case in dict.fromkeys(point.case for point in points):
        of = [asdict(point) for point in points if point.case == case]
        names = ("measured", "foretold", "cpu_measured", "cpu_foretold", "others")
        medians = {name: statistics.median(each[name] for each in of) for name in names}
        ratio = medians["foretold"] / medians["measured"]
        cpu = medians["cpu_foretold"] / medians["cpu_measured"]
        rows.append({"case": case, "rounds": len(of), **medians, "ratio": ratio, "cpu_ratio": cpu})
    return rows
