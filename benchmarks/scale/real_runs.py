"""Real jobs, shared by real processes of this machine, and what the simulation foretells of each.

Costs are measured in the same rounds: commands of both kinds take turns, so that a slow spell of the machine hits both.
How many cores others kept busy during a run is read from the system, and told to the simulation; on an idle machine it
is near 0. A run ends when `_SUCCESS` stands. Not covered: other machines, a bucket.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import simpy

from benchmarks.scale.claims import Claims, Queue, Shares
from benchmarks.scale.commands import Took, run
from benchmarks.scale.costs import Costs, Fleet
from benchmarks.scale.hosts import Cores, SharedHost
from benchmarks.scale.measure import CORES, Measured, job, quiet, rows_of, write
from benchmarks.scale.simulation import Outcome, Simulation, Work
from scanrnn_dist.job import JobOptions, plan_job

ROWS, UNITS = 90_000, 48
KILLED_UNITS = 2
"""So many units the process that is killed has committed."""
WITHIN = 0.15
"""How far, relative, the median of what is foretold may be from the median of what was measured."""


@dataclass(frozen=True)
class Case:
    """A way to share a job among processes."""

    name: str
    processes: int
    has_driver: bool = False
    is_one_killed: bool = False

    def commands(self, source: Path, destination: Path) -> list[Sequence[str]]:
        """That do it."""
        if self.has_driver:
            return [job(source, destination, "--processes", str(self.processes))]
        steal = ["--steal"] if self.is_one_killed else []
        shards = [("--shard", f"{k}/{self.processes}", *steal) for k in range(1, self.processes + 1)]
        return [job(source, destination, *shard) for shard in shards]


CASES = (
    Case("1 process", 1),
    Case("2 shares", 2),
    Case("4 shares", 4),
    Case("4 shares with --steal, one killed", 4, is_one_killed=True),
    Case("--processes 2", 2, has_driver=True),
    Case("--processes 4", 4, has_driver=True),
)


def simulate(
    costs: Costs, steps: Sequence[int], case: Case, others: float = 0.0, killed_after: float | None = None
) -> tuple[Outcome, float]:
    """A job of units of so many steps on the cores of the measured machine, by processes of one device each.

    Args:
        costs: of that machine.
        steps: of each unit, which are also what shares are weighed by.
        case: who works on it.
        others: cores that somebody else kept busy meanwhile.
        killed_after: seconds until the last process is killed; None if none is.

    Returns:
        What became of it, and the processor seconds of all its processes.
    """
    env = simpy.Environment()
    cores = Cores(env, costs.cores, costs.crowding, others)
    pieces = [costs.unit + float(count) * costs.step for count in steps]
    claims: Claims
    if case.has_driver:
        work, claims = Work(pieces, costs.start, costs.driver), Queue(np.array(steps), case.processes, 0.0)
    else:
        work = Work(pieces, costs.start)
        claims = Shares(np.array(steps), case.processes, 0.0, case.is_one_killed)
    hosts = [SharedHost(env, cores) for _ in range(case.processes)]
    killed = None if killed_after is None else (case.processes - 1, killed_after)
    return Simulation(env, hosts, claims, work, Fleet(back_after=None), killed=killed).run(), cores.seconds


def compare(rounds: int) -> list[dict[str, Any]]:
    """By case: medians of what was measured and foretold, and their ratio."""
    with tempfile.TemporaryDirectory(prefix="shared-") as folder:
        measured = Measured(Path(folder), ("few", "many", "large", "crowd", "handed few"))
        source = write(rows_of(ROWS, seed=2), Path(folder) / "in.parquet", UNITS)
        steps = (plan_job(source, JobOptions(rows_per_part=1)).units.values // measured.features).tolist()
        runs: dict[Case, list[tuple[float, Took]]] = {case: [] for case in CASES}
        for turn in range(rounds):
            measured.take_turn(turn)
            for number, case in enumerate(CASES):
                runs[case].append(_run(case, source, Path(folder) / f"out-{turn}-{number}"))
    costs = _costs(measured)
    return [_row(costs, steps, case, each) for case, each in runs.items()]


def _costs(measured: Measured) -> Costs:
    """Those that a job on this machine takes; nothing else is asked of them."""
    rest = dict.fromkeys(set(Costs.__dataclass_fields__) - {"calls", "machine"}, 0.0)
    return Costs(**{**rest, "cores": CORES, **measured.costs()})  # type: ignore[arg-type]


def _run(case: Case, source: Path, destination: Path) -> tuple[float, Took]:
    begin = time.time()
    kill = (lambda: _committed(destination, case.processes) >= KILLED_UNITS) if case.is_one_killed else None
    took = run(*case.commands(source, destination), kill=kill)
    return (destination / "_SUCCESS").stat().st_mtime - begin, took


def _row(costs: Costs, steps: list[int], case: Case, runs: list[tuple[float, Took]]) -> dict[str, Any]:
    counted = quiet([took for _, took in runs])
    runs = [each for each in runs if each[1] in counted]
    told = [simulate(costs, steps, case, took.others, took.killed_after) for _, took in runs]
    measured = statistics.median(seconds for seconds, _ in runs)
    foretold = statistics.median(outcome.seconds for outcome, _ in told)
    cpu = statistics.median(took.cost.cpu for _, took in runs)
    cpu_foretold = statistics.median(seconds for _, seconds in told)
    return {
        "case": case.name, "rounds": len(runs), "measured": measured, "foretold": foretold,
        "ratio": foretold / measured,
        "CPU measured": cpu, "CPU foretold": cpu_foretold, "others": statistics.median(took.others for _, took in runs),
        "within 15 %": abs(foretold / measured - 1) <= WITHIN,
    }  # fmt: skip


def _committed(destination: Path, share: int) -> int:
    """Units that the process of a share has committed so far."""
    for log in (destination / "__scanrnn/commits").glob("*.jsonl"):
        first, *lines = log.read_text().splitlines() or [""]
        if first.endswith("}") and json.loads(first)["share"][0] == share:
            return sum(line.startswith('{"unit"') for line in lines)
    return 0
