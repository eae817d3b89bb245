"""A job on many processes, as events: starts, claims, units, deaths, and who says at the end that all is done.

A process starts, looks at the records, works through what it may claim, looks again, and goes or waits. What costs what
stands in `costs.py`; who may claim what in `claims.py`; what a process works on in `hosts.py`. The law of its size: a
process takes `2 + claims + deaths` events and as many for each life, however many units there are.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import simpy

from benchmarks.scale.claims import Claims
from benchmarks.scale.costs import Cost, Fleet, Store
from benchmarks.scale.hosts import Died, Host, Steps


@dataclass(frozen=True)
class Asks:
    """Requests that a process makes at once: reads and writes, and pages of listings."""

    reads: float = 0.0
    pages: float = 0.0
    writes: float = 0.0

    def seconds(self, store: Store) -> float:
        """How long they take where nobody else asks."""
        return (self.reads * store.get + self.writes * store.put + self.pages * store.list_page) / store.at_once


@dataclass(frozen=True)
class Work:
    """A job as the simulation sees it.

    Args:
        pieces: of each unit, what a host's `do` takes.
        start: of a process, until it asks for work, but for what it asks the store.
        opening: what it asks the store for then.
        look: what reading the records takes and asks for, once such a share of all units is committed.
        looks_after: whether a process reads them after every claim, as one does that shares a job by files.
        end: of whoever ends the job.
    """

    pieces: Any
    start: Cost
    opening: Asks
    look: Callable[[float], tuple[Cost, Asks]]
    looks_after: bool
    end: Cost


@dataclass
class Outcome:
    """What became of it."""

    seconds: float = math.inf  # until all was said to be done
    work_done: float = math.inf  # until the last unit was committed
    lost: float = 0.0  # seconds of work that died with their process, of all processes
    deaths: int = 0
    starting: float = 0.0  # seconds of all processes until they had work
    reading: float = 0.0  # after their claims: reading records
    waiting: float = 0.0  # for work
    claims: int = 0
    events: int = 0
    asked: list[tuple[float, float, float]] = field(default_factory=list)  # from, until, how many

    def peak_requests(self) -> float:
        """Of the records, in the busiest second of starts and ends; work and beats come on top."""
        if not self.asked:
            return 0.0
        times = np.array(self.asked)
        rates = times[:, 2] / np.maximum(times[:, 1] - times[:, 0], 1.0)
        at = np.concatenate([times[:, 0], np.maximum(times[:, 1], times[:, 0] + 1.0)])
        order = np.argsort(at, kind="stable")
        return float(np.cumsum(np.concatenate([rates, -rates])[order]).max())


class Environment(simpy.Environment):
    """SimPy's, which counts its events."""

    def __init__(self) -> None:
        super().__init__()
        self.events = 0

    def step(self) -> None:
        """Go to the next event."""
        self.events += 1
        super().step()


class Simulation:
    """All processes of a job, in one environment of SimPy; `run` once."""

    def __init__(
        self,
        env: Environment,
        hosts: Sequence[Host],
        claims: Claims,
        work: Work,
        fleet: Fleet,
        store: Store,
        seed: int = 0,
        killed: tuple[int, float] | None = None,
    ) -> None:
        self._env, self._hosts, self._claims, self._work = env, hosts, claims, work
        self._fleet, self._store, self._killed = fleet, store, killed
        self._rng = np.random.default_rng(seed)
        self._left = len(work.pieces)
        self._complete = env.event()
        self._idle: deque[simpy.Event] = deque()
        self._store_is_free = 0.0
        self.outcome = Outcome()

    def run(self) -> Outcome:
        """Until the job has ended; a job that cannot end, since too many are gone, takes for ever."""
        for worker in range(len(self._hosts)):
            self._begin(worker, is_first=True)
        ended = self._env.process(self._end())
        try:
            self._env.run(until=ended)
            self.outcome.seconds = self._env.now
        except RuntimeError as error:  # SimPy's: nothing happens any more
            assert not ended.triggered, error
        self.outcome.events = self._env.events
        return self.outcome

    def _begin(self, worker: int, is_first: bool = False) -> None:
        process = self._env.process(self._live(worker))
        if self._fleet.lost_per_hour:
            self._env.process(self._take_away(process, self._rng.exponential(3600 / self._fleet.lost_per_hour)))
        if is_first and self._killed is not None and self._killed[0] == worker:
            self._env.process(self._take_away(process, self._killed[1]))

    def _take_away(self, process: simpy.Process, after: float) -> Steps:
        yield self._env.timeout(after)
        if process.is_alive:
            process.interrupt()

    def _live(self, worker: int) -> Steps:
        """One life of a process."""
        units = np.zeros(0, np.int64)
        out, begin = self.outcome, self._env.now
        try:
            yield from self._hosts[worker].run(self._work.start)
            yield from self._ask(self._work.opening)
            yield from self._look(worker)
            out.starting += self._env.now - begin
            while self._left:
                units = self._claims.next(worker)
                if not len(units):
                    if not self._claims.steals:
                        return
                    yield from self._wait()
                    continue
                out.claims += 1
                yield from self._hosts[worker].do(self._pieces(units))
                self._finished(len(units))
                units = units[:0]
                if self._work.looks_after and self._left:
                    begin = self._env.now
                    yield from self._look(worker)
                    out.reading += self._env.now - begin
        except Died as death:
            out.lost += death.lost
            self._died(worker, units[death.whole :])
            self._finished(death.whole)
        except simpy.Interrupt:
            self._died(worker, units)

    def _pieces(self, units: np.ndarray) -> Any:
        pieces = self._work.pieces
        return pieces[units] if isinstance(pieces, np.ndarray) else [pieces[unit] for unit in units]

    def _wait(self) -> Steps:
        begin, called = self._env.now, self._env.event()
        self._idle.append(called)
        try:
            yield called
        finally:
            self.outcome.waiting += self._env.now - begin
            if called in self._idle:
                self._idle.remove(called)

    def _finished(self, units: int) -> None:
        self._left -= units
        if not self._left and not self._complete.triggered:
            self.outcome.work_done = self._env.now
            self._complete.succeed()

    def _died(self, worker: int, units: np.ndarray) -> None:
        self.outcome.deaths += 1
        self._env.process(self._come_back(worker, units))

    def _come_back(self, worker: int, units: np.ndarray) -> Steps:
        """After a death: its claim, once that is noticed; then another process in its place, where one comes."""
        yield self._env.timeout(self._claims.notice)
        for _ in range(min(self._claims.back(worker, units), len(self._idle))):
            self._idle.popleft().succeed()
        if self._fleet.back_after is not None:
            yield self._env.timeout(max(0.0, self._fleet.back_after - self._claims.notice))
            self._begin(worker)

    def _look(self, worker: int) -> Steps:
        """Read the records."""
        cost, asks = self._work.look(1 - self._left / len(self._work.pieces))
        yield from self._ask(asks)
        yield from self._hosts[worker].run(cost)

    def _ask(self, asks: Asks) -> Steps:
        """Have the store answer: all who ask at once wait for one another once it is at its rate."""
        store, now = self._store, self._env.now
        taken = (asks.reads + asks.pages) / store.reads + asks.writes / store.writes
        self._store_is_free = max(now, self._store_is_free) + taken
        until = max(self._store_is_free, now + asks.seconds(store))
        if until > now:
            self.outcome.asked.append((now, until, asks.reads + asks.pages + asks.writes))
            yield self._env.timeout(until - now)

    def _end(self) -> Steps:
        """The last one to look sees that all is committed, and says so."""
        yield self._complete
        cost, asks = self._work.look(1.0)
        yield from self._ask(asks)
        yield self._env.timeout(cost.wall + self._work.end.wall)
