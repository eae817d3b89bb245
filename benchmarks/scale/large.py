"""A job of so many rows on so many hosts: what the simulation takes of it, its records and its requests.

Beside the simulation everything here is arithmetic: units, files and processes times what was measured of one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import simpy

from benchmarks.scale.claims import Claims, Queue, Shares
from benchmarks.scale.costs import (
    AT_ONCE,
    BEATS,
    BUCKET,
    CALL,
    EVEN,
    EXPIRY,
    FILE_ROWS,
    FOOTER_READS,
    GROUP_ROWS,
    HEAVY,
    NEWS_PER_SECOND,
    NOTICE,
    READ_BYTES,
    Cost,
    Costs,
    Fleet,
    Kind,
    Store,
)
from benchmarks.scale.hosts import OwnHost
from benchmarks.scale.simulation import Asks, Outcome, Simulation, Work

PAGE = 1000
"""Names in a page of a listing; lines in an object of a log of a bucket (`SEGMENT_LINES`)."""
NAME_BYTES = 20
"""Assumed bytes of the plan for each file: a name has 16 random bytes, its size and time some."""
DRIVER, SHARES, STEAL = "driver", "shares", "16 shares each"
"""Ways to share a job: handed out; `--shard k/n`, one for each process; 16 for each, with `--steal`."""
SHARES_EACH = 16
LOOKS_AT_LEASES = {DRIVER: (0, 1), SHARES: (3, 1), STEAL: (1, 3)}
"""So often all leases are read, one after the other, by a process that starts, beside its first look at the records,
and with each look: to know who is alive, and which share is free. Four times by a start, three times for the next share
(calls of `read_workers`, counted in a job of four shares)."""


@dataclass(frozen=True)
class Large:
    """A job on hosts of a kind.

    Args:
        costs: that were measured.
        kind, hosts: what it runs on.
        rows, rows_per_part: of the job, and of a unit.
        way: in which processes share it: `DRIVER`, `SHARES` or `STEAL`.
        fleet, store: how hosts and bucket behave.
        at_once: requests for footers, or for logs, that are under way at once.
        seed: of speeds, units and losses.
    """

    costs: Costs
    kind: Kind
    hosts: int
    rows: float = 1e12
    rows_per_part: int = 1 << 20
    way: str = DRIVER
    fleet: Fleet = EVEN
    store: Store = BUCKET
    at_once: int = AT_ONCE
    seed: int = 0

    @property
    def units(self) -> int:
        """Of the whole job."""
        return math.ceil(self.rows / self.rows_per_part)

    @property
    def files(self) -> int:
        """Of the source."""
        return math.ceil(self.rows / max(FILE_ROWS, self.rows_per_part))

    @property
    def processes(self) -> int:
        """That work on it."""
        return self.hosts * self.kind.processes

    @property
    def unit_seconds(self) -> float:
        """Of the steps of a mean unit, on a mean process."""
        return self.rows_per_part * self.costs.work_steps * self.kind.step_seconds(self.costs)

    @property
    def ideal_seconds(self) -> float:
        """The steps alone, spread evenly over all hosts, at the speed that they have."""
        return self.unit_seconds * self.rows / self.rows_per_part / float(self.speeds().sum())

    def speeds(self) -> np.ndarray:
        """Of every process; those of a host are alike."""
        rng = np.random.default_rng((self.seed, 1))
        speed = np.exp(rng.normal(0.0, self.fleet.spread, self.hosts))
        slow = rng.random(self.hosts) < self.fleet.slow
        return np.repeat(np.where(slow, speed / 2, speed), self.kind.processes)

    def plan_seconds(self) -> float:
        """Of listing the source and reading all footers: each `FOOTER_READS` requests, then its file and row groups."""
        groups = self.rows / min(GROUP_ROWS, self.rows_per_part)
        cpu = self.files * self.costs.footer_file + groups * self.costs.footer_group
        listed = self.files / PAGE * self.store.list_page
        read = Asks(together=self.files * FOOTER_READS, at_once=self.at_once).seconds(self.store)
        # One child looks at all, one after the other, while those to come are read.
        return listed + (max(cpu, read) if self.at_once > 1 else cpu + read)

    def unit_asks(self) -> Asks:
        """What each unit asks the store for beside its data; nothing is listed for it."""
        return Asks(self.costs.calls["read per unit"], writes=self.costs.calls["write per unit"])

    def beat_asks(self) -> Asks:
        """What all leases ask for in a second: is there a next file, what is in the own one, and it is replaced."""
        holders = 1 if self.way == DRIVER else self.processes
        each = BEATS / EXPIRY
        return Asks(2 * holders * each, writes=holders * each)

    def units_a_second(self) -> float:
        """If nothing holds the processes up."""
        return self.processes / max(self.unit_seconds, self.unit_asks().seconds(self.store))

    def data_reads_a_second(self) -> float:
        """Requests for the values of the source, which stand under other prefixes."""
        return self.units_a_second() * self.rows_per_part * self.costs.work_steps * self.costs.features * 4 / READ_BYTES

    def requests_a_second(self) -> tuple[float, float]:
        """Reads and writes of the records and parts, while all work."""
        asks, beats, rate = self.unit_asks(), self.beat_asks(), self.units_a_second()
        return rate * asks.reads + beats.reads, rate * asks.writes + beats.writes

    def driver_load(self) -> float:
        """The share of its time that a driver is busy with while all work."""
        return self.units_a_second() * self.costs.hand_out + NEWS_PER_SECOND * CALL

    def stretch(self) -> float:
        """By how much units take longer since the store, or the driver, is at its rate; infinite if beats take all."""
        beats, rate, asks = self.beat_asks(), self.units_a_second(), self.unit_asks()
        reads, writes = self.store.reads - beats.reads, self.store.writes - beats.writes
        if min(reads, writes) <= 0:
            return math.inf
        full = max(rate * asks.reads / reads, rate * asks.writes / writes)
        return max(1.0, full, self.driver_load() if self.way == DRIVER else 0.0)

    def work(self) -> tuple[Work, np.ndarray]:
        """What the simulation takes, and the weights that units are dealt out by."""
        costs, units = self.costs, self.units
        weights = np.random.default_rng((self.seed, 0)).lognormal(0.0, HEAVY, units)
        weights *= self.rows * costs.work_steps / weights.sum()
        seconds = np.maximum(weights * self.kind.step_seconds(costs), self.unit_asks().seconds(self.store))
        seconds = (seconds + costs.unit.cpu / min(2, self.kind.cores)) * self.stretch()
        end = Cost(0.0, units * costs.end_unit + self.store.put)
        plan = Cost(0.0, self.plan_seconds())
        opening = units * costs.open_unit
        if self.way == DRIVER:  # a worker reads the plan; the driver alone reads the records, here at the end
            start = Cost(0.0, costs.start.wall + opening)
            look = self._look(1.0)
            return Work(seconds, start, plan, Asks(reads=3), self._driver_looks, between=look, end=end), weights
        opening += units * costs.share_unit + self.files * costs.open_file
        start, calls, looks = Cost(0.0, costs.start.wall + opening), costs.calls, LOOKS_AT_LEASES[self.way][0]
        leases = looks * self.processes
        asks = Asks(calls["read per job"] + leases, (self.files + leases) / PAGE, calls["write per job"])
        return Work(seconds, start, plan, asks, self._look, looks_after=True, end=end), weights

    def leases(self, committed: float) -> float:
        """Files of leases, once such a share of all units is committed: one for each share that was begun."""
        if self.way == DRIVER:
            return 1
        shares = self.processes * (SHARES_EACH if self.way == STEAL else 1)
        return self.processes + committed * (shares - self.processes)

    def _look(self, committed: float) -> tuple[Cost, Asks]:
        """All leases, all commit logs, and the names of all parts."""
        seconds = committed * self.units * self.costs.open_unit
        segments = self.processes + committed * 2 * self.units / PAGE
        leases = LOOKS_AT_LEASES[self.way][1] * self.leases(committed)
        pages = (segments + committed * self.units + leases) / PAGE
        return Cost(0.0, seconds), Asks(leases, pages, together=segments, at_once=self.at_once)

    def _driver_looks(self, committed: float) -> tuple[Cost, Asks]:
        return self._look(1.0) if committed == 1 else (Cost(), Asks())

    def look_seconds(self) -> float:
        """Of reading all records, once all units are committed."""
        cost, asks = self._look(1.0)
        return cost.wall + asks.seconds(self.store)

    def run(self) -> Outcome:
        """Simulate it."""
        if not math.isfinite(self.stretch()):
            return Outcome()
        env = simpy.Environment()
        work, weights = self.work()
        count, steal = self.processes, self.way == STEAL
        claims: Claims = (
            Queue(weights, count, NOTICE)
            if self.way == DRIVER
            else Shares(weights, count, EXPIRY, steal, SHARES_EACH if steal else 1, self.seed)
        )
        hosts = [OwnHost(env, speed) for speed in self.speeds().tolist()]
        return Simulation(env, hosts, claims, work, self.fleet, self.store, self.seed).run()

    def efficiency(self, outcome: Outcome, with_plan: bool = False) -> float:
        """The ideal over what it took, from the plan on or from the beginning."""
        return self.ideal_seconds / (outcome.seconds - (0.0 if with_plan else outcome.planned))

    def records(self) -> dict[str, float]:
        """Their bytes once all units are committed, and the memory of a process that reads them."""
        costs, units = self.costs, self.units
        return {
            "plan": self.files * NAME_BYTES + units * costs.units_bytes, "logs": units * costs.log_bytes,
            "parts": units * costs.parts_bytes, "memory": units * costs.open_memory,
            "part": 4.0 * costs.hidden * self.rows_per_part,
        }  # fmt: skip
