"""What the steps of a job cost on this machine, by real commands of real jobs in fresh processes.

| cost | by |
|---|---|
| imports | a process that imports JAX and the doors of this package |
| start, unit, step | `scanrnn featurize --devices 1` of one row, of many units, of many steps |
| driver, hand_out | the first two of these with `--processes 1` besides; the driver's own processor seconds |
| crowding | the last of these alone, and as many of them side by side as there are cores, each at a job of its own |
| footer, open, end | `plan_job`; jobs of made-up units (as of `bench_resume`), of different sizes, opened and ended |
| bytes | the records of these jobs |
| calls | of the store, counted in two jobs that differ in their units |

Figures are medians of the rounds in which nobody else kept the machine busy. Not covered: a store whose answers take
time, which the simulation adds.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import bench_resume
from benchmarks.harness import machine
from benchmarks.scale.commands import SCANRNN, Took, run
from benchmarks.scale.costs import Cost, Costs
from benchmarks.workloads import lognormal, made_up_rows
from scanrnn_dist.job import JobOptions, plan_job
from scanrnn_dist.ragged import Ragged

CORES = os.cpu_count() or 1
FEATURES, HIDDEN = 4, 128
IDLE = 0.2
"""Cores that others may keep busy in a round that counts, if there is one."""
MANY_UNITS = 400
"""So many that what they cost is some seconds."""
LARGE_ROWS, LARGE_UNITS = 72_000, 24
"""So many that the steps take twice as long as the start. A step is what is left once the start is subtracted: with
24,000 rows, whose steps take half as long, a start that was slow by a tenth made a step wrong by a fifth."""

IMPORTS = "import jax, scanrnn_dist.api, scanrnn_dist.cli"
SHARES = """
import time, numpy as np
from scanrnn_dist.job import share_of_units
weights = np.random.default_rng(0).lognormal(10, 0.5, {units}).astype(np.int64)
begin = time.thread_time()
share_of_units(weights, 1000)
print((time.thread_time() - begin) / {units})
"""


def rows_of(count: int, seed: int = 0) -> Ragged:
    """Rows of lognormal lengths, 99 steps on average, whose steps are short and whose encoder is wide.

    So that a job of many processor seconds reads a small file.
    """
    rng = np.random.default_rng(seed)
    return made_up_rows(lognormal(count)(rng), FEATURES, rng)


def write(rows: Ragged, path: Path, units: int) -> Path:
    """A file of so many row groups."""
    steps = pa.FixedSizeListArray.from_arrays(pa.array(rows.values.reshape(-1)), FEATURES)
    sequence = pa.ListArray.from_arrays(pa.array(rows.offsets.astype(np.int32)), steps)
    table = pa.table({"id": np.arange(len(rows)), "sequence": sequence})
    pq.write_table(table, path, row_group_size=-(-len(rows) // units))
    return path


def job(source: Path, destination: Path, *more: str) -> tuple[str, ...]:
    """The command of a job with a part for every row group, on one device."""
    told = ("--hidden", str(HIDDEN), "--rows-per-part", "1", "--devices", "1", "--json", *more)
    return (*SCANRNN, "featurize", str(source), str(destination), *told)


class Measured:
    """What commands took in each round; a round runs all kinds one after the other, so that a slow spell hits all.

    With `only`, those kinds alone; of the others the costs say nothing.
    """

    features = FEATURES

    def __init__(self, folder: Path, only: Sequence[str] = ()) -> None:
        self._folder, self._only = folder, only
        few, many, large = rows_of(1), rows_of(MANY_UNITS), rows_of(LARGE_ROWS)
        self._sources = {
            "few": write(few, folder / "few.parquet", 1),
            "many": write(many, folder / "many.parquet", MANY_UNITS),
            "large": write(large, folder / "large.parquet", LARGE_UNITS),
        }
        self._units = {"few": 1, "many": MANY_UNITS, "large": LARGE_UNITS}
        self._steps = {"few": len(few.values), "many": len(many.values), "large": len(large.values)}
        self._took: dict[str, list[Took]] = {}

    def take_turn(self, turn: int) -> None:
        """One more round."""
        self._add("imports", (sys.executable, "-c", IMPORTS))
        for name, source in self._sources.items():
            self._add(name, job(source, self._folder / f"{name}-{turn}"))
        self._add(
            "crowd", *(job(self._sources["large"], self._folder / f"crowd-{turn}-{each}") for each in range(CORES))
        )
        for name in ("few", "many"):
            handed = job(self._sources[name], self._folder / f"handed-{name}-{turn}", "--processes", "1")
            self._add(f"handed {name}", handed)

    def costs(self) -> dict[str, Cost | float]:
        """What follows from all rounds."""
        cost = {name: _settled(each) for name, each in self._took.items()}
        solved = {clock: _solved(cost, self._units, self._steps, clock) for clock in ("cpu", "wall")}
        start, unit, step = (Cost(solved["cpu"][i], solved["wall"][i]) for i in range(3))
        alone, handed = cost["few"], cost["handed few"]
        found: dict[str, Cost | float] = {
            "crowding": max(1.0, cost["crowd"].cpu / CORES / cost["large"].cpu),
            "start": start, "unit": unit, "step": step,
            "driver": Cost(max(0.0, handed.cpu - alone.cpu), max(0.0, handed.wall - alone.wall)),
        }  # fmt: skip
        if not self._only:
            few, many = (
                statistics.median(it.own_cpu for it in self._took[f"handed {name}"]) for name in ("few", "many")
            )
            found |= {"imports": cost["imports"], "hand_out": max(0.0, many - few) / (MANY_UNITS - 1)}
        return found

    def record_bytes(self) -> dict[str, float]:
        """Of each kind of records, per unit."""
        many, few = self._folder / "many-0", self._folder / "few-0"
        return {name: (_bytes(many, kind) - _bytes(few, kind)) / (MANY_UNITS - 1) for name, kind in _RECORDS.items()}

    def _add(self, name: str, *commands: Sequence[str]) -> None:
        if not self._only or name in self._only:
            self._took.setdefault(name, []).append(run(*commands))


_RECORDS = {"units_bytes": "units-*.table", "parts_bytes": "parts.table", "log_bytes": "commits/*.jsonl"}


def _bytes(destination: Path, kind: str) -> int:
    """Of all records of a kind."""
    return sum(path.stat().st_size for path in (destination / "__scanrnn").glob(kind))


def quiet(rounds: Sequence[Took]) -> Sequence[Took]:
    """Those in which nobody else kept the machine busy; all, where there is none."""
    return [it for it in rounds if it.others <= IDLE] or rounds


def _settled(rounds: Sequence[Took]) -> Cost:
    """The median of the quiet rounds; where there is none, the clock tells nothing: no more than the processor does."""
    cpu = statistics.median(it.cost.cpu for it in quiet(rounds))
    wall = statistics.median(it.cost.wall for it in quiet(rounds))
    return Cost(cpu, wall if min(it.others for it in rounds) <= IDLE else min(cpu, wall))


def _solved(cost: dict[str, Cost], units: dict[str, int], steps: dict[str, int], clock: str) -> list[float]:
    """Start, unit and step from three jobs that differ in units and steps; each at least 0."""
    names = ("few", "many", "large")
    matrix = np.array([[1.0, units[name], steps[name]] for name in names])
    found = np.linalg.solve(matrix, np.array([getattr(cost[name], clock) for name in names]))
    return np.maximum(found, 0.0).tolist()


def of_records(folder: Path, units: int = 200_000, fewer: int = 20_000) -> dict[str, float]:
    """Costs of opening and ending jobs of so many units, in files of a thousand, and of files of one."""
    opened: dict[tuple[int, int], dict[str, float]] = {}
    for count, groups in ((fewer, 1000), (units, 1000), (fewer, 1)):
        opened[count, groups] = _opened(folder / f"{count}-{groups}", count, groups)
    one, two, three = opened[fewer, 1000], opened[units, 1000], opened[fewer, 1]
    more_units, more_files = units - fewer, fewer - fewer // 1000
    per_unit = {name: max(0.0, (two[name] - one[name]) / more_units) for name in one}
    return {
        "open_unit": per_unit["open"],
        "open_memory": per_unit["memory"],
        "end_unit": per_unit["end"],
        "open_file": max(0.0, (three["again"] - one["again"]) / more_files),
    }


def _opened(folder: Path, units: int, groups: int) -> dict[str, float]:
    """A job of made-up units, all of which but one are committed: what opening it takes, then what ending it does."""
    source, destination = folder / "in", folder / "out"
    bench_resume.make_source(source, units // groups, groups)
    bench_resume.begin_job(source, destination, units)
    bench_resume.commit(destination, units, first=1)
    opening = [_processor_seconds(bench_resume.CHILD, source, destination) for _ in range(2)]
    bench_resume.commit(destination, units, first=0)
    ended, *again = (_processor_seconds(bench_resume.RERUN, source, destination) for _ in range(3))
    seconds = [json.loads(told)["seconds"] for told in opening]
    return {
        "open": min(seconds), "memory": json.loads(opening[0])["peak_memory_bytes"],
        "again": min(map(float, again)), "end": max(0.0, float(ended) - min(map(float, again))),
    }  # fmt: skip


def _processor_seconds(child: str, source: Path, destination: Path) -> str:
    """What a child of `bench_resume` prints, with seconds of the processor in place of those of the clock."""
    program = child.replace("perf_counter", "process_time") % (bench_resume.D, bench_resume.H)
    return run((sys.executable, "-c", program, str(source), str(destination))).output


def of_planning(folder: Path, files: int = 2_000) -> dict[str, float]:
    """Costs of reading footers: of files of one row group, and of one file with as many."""
    for name, count, groups in (("one", 1, 1), ("files", files, 1), ("groups", 1, files)):
        bench_resume.make_source(folder / name, count, groups)
    seconds = {name: min(_planned(folder / name) for _ in range(2)) for name in ("one", "files", "groups")}
    return {
        "footer_file": (seconds["files"] - seconds["one"]) / (files - 1),
        "footer_group": (seconds["groups"] - seconds["one"]) / (files - 1),
    }


def _planned(source: Path) -> float:
    begin = time.perf_counter()
    plan_job(source, JobOptions())
    return time.perf_counter() - begin


def of_store(folder: Path, fewer: int = 20) -> dict[str, float]:
    """Calls of the store by a process that does all of a job: by unit, and beside the units."""
    counts = []
    for units in (fewer, 2 * fewer):
        source = write(rows_of(units), folder / f"{units}.parquet", units)
        counted = run((sys.executable, "-m", "benchmarks.scale.count_calls", str(source), str(folder / f"out-{units}")))
        counts.append(json.loads(counted.output.splitlines()[-1]))
    one, two = counts
    per_unit = {f"{name} per unit": (two[name] - one.get(name, 0)) / fewer for name in two}
    beside = {f"{name} per job": one.get(name, 0) - fewer * per_unit[f"{name} per unit"] for name in two}
    return per_unit | beside


def all_costs(rounds: int) -> Costs:
    """Of this machine; some two minutes on 2 cores, and 40 s for each round after the first."""
    with tempfile.TemporaryDirectory(prefix="scale-") as folder:
        below = {name: Path(folder) / name for name in ("commands", "records", "planning", "store")}
        for each in below.values():
            each.mkdir()
        measured = Measured(below["commands"])
        for turn in range(rounds):
            measured.take_turn(turn)
        told: dict[str, Any] = {**measured.costs(), **measured.record_bytes()}
        told |= of_records(below["records"]) | of_planning(below["planning"])
        calls = of_store(below["store"])
    share = float(run((sys.executable, "-c", SHARES.format(units=300_000))).output)
    steps = float(np.mean(rows_of(100_000, seed=1).lengths))
    return Costs(
        cores=CORES, work_steps=steps, features=FEATURES, hidden=HIDDEN, share_unit=share, calls=calls,
        machine=machine() | {"measured": time.strftime("%Y-%m-%d")}, **told,
    )  # fmt: skip
