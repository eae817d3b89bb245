"""Jobs to simulate, made of costs and assumptions: one that was really run here, and one of so many rows on so many hosts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.scale.claims import Claims, Queue, Shares
from benchmarks.scale.costs import (
    BEATS,
    DISPATCH,
    EXPIRY,
    HEAVY,
    NO_STORE,
    NOTICE,
    Cost,
    Costs,
    Fleet,
    Kind,
    Store,
)
from benchmarks.scale.hosts import Cores, OwnHost, SharedHost
from benchmarks.scale.simulation import Asks, Environment, Outcome, Simulation, Work

FILE_ROWS = 1 << 20
"""Assumed rows of a file, where units are not larger: 1.6 GB of the measured work. A unit never spans files."""
MOST_PIECES = 1 << 20
"""Units are simulated in bundles beyond so many. A death then loses half a bundle, which is on the careful side."""
PAGE = 1000
"""Names in a page of a listing; lines in an object of a log of a bucket (`SEGMENT_LINES`)."""


def real_job(
    costs: Costs, steps: Sequence[int], processes: int, others: float = 0.0,
    steal: bool = False, killed_after: float | None = None,
) -> tuple[Outcome, float]:  # fmt: skip
    """A job of units of so many steps, shared by processes of one device each on the cores of the measured machine.

    Args:
        costs: of that machine.
        steps: of each unit, which are also what shares are weighed by.
        processes: that share it.
        others: cores that somebody else kept busy meanwhile.
        steal: whether shares of the dead are taken over.
        killed_after: seconds until the last process is killed; None if none is.

    Returns:
        What became of it, and the processor seconds of all its processes.
    """
    env = Environment()
    cores = Cores(env, costs.cores, costs.crowding, others)
    work = Work(
        [costs.unit + float(count) * costs.step for count in steps],
        start=costs.start, opening=Asks(), look=lambda committed: (Cost(), Asks()), looks_after=True, end=Cost(),
    )  # fmt: skip
    claims = Shares(np.array(steps), processes, steal, notice=0.0, returns=False)
    hosts = [SharedHost(env, cores) for _ in range(processes)]
    killed = None if killed_after is None else (processes - 1, killed_after)
    return Simulation(env, hosts, claims, work, Fleet("here"), NO_STORE, killed=killed).run(), cores.seconds


def unit_steps(units: int, steps: float, seed: int) -> np.ndarray:
    """Steps of units that share so many, with a heavy tail: lognormal."""
    weights = np.random.default_rng((seed, 0)).lognormal(0.0, HEAVY, units)
    return np.asarray(weights * (steps / weights.sum()))


@dataclass(frozen=True)
class Large:
    """A job of so many rows on hosts of a kind, one process for each `per_host`."""

    costs: Costs
    kind: Kind
    hosts: int
    rows: float = 1e12
    rows_per_part: int = 1 << 16
    queue: bool = False
    steal: bool = False
    fleet: Fleet = Fleet("even")
    store: Store = NO_STORE
    seed: int = 0

    @property
    def units(self) -> int:
        """Of the whole job."""
        return int(-(-self.rows // self.rows_per_part))

    @property
    def files(self) -> int:
        """Of the source."""
        return int(-(-self.rows // max(FILE_ROWS, self.rows_per_part)))

    @property
    def processes(self) -> int:
        """That share it."""
        return self.hosts * self.kind.processes

    @property
    def step_seconds(self) -> float:
        """Of a step, by one process."""
        return self.kind.step_seconds(self.costs)

    @property
    def ideal_seconds(self) -> float:
        """The steps alone, spread evenly over all hosts, at the speed that they have."""
        return self.rows * self.costs.work_steps * self.step_seconds / self.processes / float(self.speeds().mean())

    def speeds(self) -> np.ndarray:
        """Of every process; those of a host are alike."""
        rng = np.random.default_rng((self.seed, 1))
        speed = np.exp(rng.normal(0.0, self.fleet.spread, self.hosts)) if self.fleet.spread else np.ones(self.hosts)
        slow = rng.random(self.hosts) < self.fleet.slow
        return np.repeat(np.where(slow, speed / 2, speed), self.kind.processes)

    def unit_asks(self) -> Asks:
        """What each unit asks the store for; a listing of the leases takes a page for each thousand processes."""
        calls = self.costs.calls
        pages = calls["list workers per unit"] * (1 if self.queue else -(-self.processes // PAGE))
        return Asks(calls["read per unit"], pages, calls["write per unit"])

    def beat_asks(self) -> Asks:
        """What all leases ask for in a second: who holds one reads it, lists all of them, and writes it."""
        holders = 1 if self.queue else self.processes
        each = BEATS / EXPIRY
        return Asks(holders * each, holders * each * -(-holders // PAGE), holders * each)

    def stretch(self) -> float:
        """By how much units take longer since the store, or a driver, answers no faster; infinite if beats take all."""
        unit = max(self.rows * self.costs.work_steps / self.units * self.step_seconds, self.unit_asks().seconds(self.store))
        rate = self.processes / unit  # units a second
        asks, beats = self.unit_asks(), self.beat_asks()
        for_units = (self.store.reads - beats.reads - beats.pages, self.store.writes - beats.writes)
        if min(for_units) <= 0:
            return float("inf")
        full = max(rate * (asks.reads + asks.pages) / for_units[0], rate * asks.writes / for_units[1])
        return max(1.0, full, rate * DISPATCH if self.queue else 0.0)

    def work(self) -> tuple[Work, np.ndarray]:
        """What the simulation takes, and the weights that units are dealt out by."""
        costs, store = self.costs, self.store
        bundles = -(-self.units // MOST_PIECES)
        steps = unit_steps(-(-self.units // bundles), self.rows * costs.work_steps, self.seed)
        asks = self.unit_asks().seconds(store)
        seconds = np.maximum(steps * self.step_seconds, bundles * asks)  # a thread of its own commits
        seconds = (seconds + bundles * costs.unit.cpu / min(2, self.kind.cores)) * self.stretch()
        opening = 0.0 if self.queue else self.units * (costs.open_unit + costs.share_unit) + self.files * costs.open_file
        pages = 0.0 if self.queue else self.files / PAGE

        def look(committed: float) -> tuple[Cost, Asks]:
            if self.queue and committed < 1:
                return Cost(), Asks()
            seconds = committed * self.units * costs.open_unit
            segments = self.processes + committed * 2 * self.units / PAGE
            listed = (segments + committed * self.units + self.processes) / PAGE
            return Cost(seconds, seconds), Asks(reads=segments, pages=listed)

        start = Cost(costs.start.cpu + opening, costs.start.wall + opening)
        end = self.units * costs.end_unit
        return Work(
            seconds, start, Asks(reads=3, pages=pages, writes=3), look, looks_after=not self.queue, end=Cost(end, end)
        ), steps  # fmt: skip

    def run(self) -> Outcome:
        """Simulate it."""
        if not np.isfinite(self.stretch()):
            return Outcome()
        env = Environment()
        work, weights = self.work()
        claims: Claims
        if self.queue:
            claims = Queue(weights, self.processes, NOTICE)
        else:
            claims = Shares(weights, self.processes, self.steal, EXPIRY, returns=self.fleet.back_after is not None)
        hosts = [OwnHost(env, speed) for speed in self.speeds().tolist()]
        return Simulation(env, hosts, claims, work, self.fleet, self.store, self.seed).run()
