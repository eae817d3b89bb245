"""A job on many processes, as events of SimPy: starts, claims, deaths, and who says at the end that all is done.

A process starts, looks at the records, works through what it claims, claims again, and goes or waits. What costs what
stands in `costs.py`; who may claim what in `claims.py`; what a process works on in `hosts.py`. A claim is one event,
however many units it has.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import simpy

from benchmarks.scale.claims import Claims
from benchmarks.scale.costs import EVEN, EXPIRY, NO_STORE, Cost, Fleet, Store
from benchmarks.scale.hosts import Died, Host, Steps

NOTHING = Cost()
FIRST_PAUSE, LAST_PAUSE = 0.2, EXPIRY / 4
"""Seconds that one who has no share waits before it looks again, at first and at most (`job/held_share.py`)."""


@dataclass(frozen=True)
class Asks:
    """Requests of a process: reads, writes, pages of listings, one after the other; `together` reads, many at once."""

    reads: float = 0.0
    pages: float = 0.0
    writes: float = 0.0
    together: float = 0.0
    at_once: int = 1

    @property
    def count(self) -> float:
        """All of them."""
        return self.reads + self.pages + self.writes + self.together

    def seconds(self, store: Store) -> float:
        """How long they take where nobody else asks."""
        reads = self.reads + self.together / self.at_once
        return reads * store.get + self.writes * store.put + self.pages * store.list_page


def no_look(committed: float) -> tuple[Cost, Asks]:
    """Of a process that reads no records."""
    return NOTHING, Asks()


@dataclass(frozen=True)
class Work:
    """A job as the simulation sees it.

    Args:
        pieces: of each unit, what a host's `do` takes.
        start: of a process, until it asks for work, but for what it asks the store.
        plan: of one process, before all others start.
        opening: what each process asks the store for when it starts.
        look: what reading the records takes and asks for, once such a share of all units is committed.
        between: what a driver's reading takes and asks for when units came back.
        looks_after: whether a process reads them after every claim, as one does that shares a job by files.
        end: of whoever ends the job.
    """

    pieces: Any
    start: Cost
    plan: Cost = NOTHING
    opening: Asks = Asks()
    look: Callable[[float], tuple[Cost, Asks]] = no_look
    between: tuple[Cost, Asks] = (NOTHING, Asks())
    looks_after: bool = False
    end: Cost = NOTHING


@dataclass
class Outcome:
    """What became of it; seconds of all processes together but for the first three."""

    planned: float = 0.0  # when the plan was made
    worked: float = math.inf  # when the last unit was committed
    seconds: float = math.inf  # when all was said to be done
    lost: float = 0.0  # work that died with its process
    deaths: int = 0
    starting: float = 0.0
    waiting: float = 0.0
    done: int = 0  # units, each as often as it was committed
    claims: int = 0
    asked: float = 0.0  # requests of starts and looks


class Simulation:
    """All processes of a job, in one environment of SimPy; `run` once."""

    def __init__(
        self,
        env: simpy.Environment,
        hosts: Sequence[Host],
        claims: Claims,
        work: Work,
        fleet: Fleet = EVEN,
        store: Store = NO_STORE,
        seed: int = 0,
        killed: tuple[int, float] | None = None,  # a process, and when
    ) -> None:
        self._env, self._hosts, self._claims, self._work = env, hosts, claims, work
        self._fleet, self._store, self._killed = fleet, store, killed
        self._rng = np.random.default_rng(seed)
        self._left = len(work.pieces)
        self._complete = env.event()
        self._idle: dict[simpy.Event, float] = {}  # who waits for work, and since when
        self._pauses: dict[int, float] = {}  # between two looks of a process that has no work
        self._processes: dict[int, simpy.Process] = {}
        self._store_is_free = 0.0
        self.outcome = Outcome()

    def run(self) -> Outcome:
        """Until the job has ended; a job that cannot end, since too many are gone, takes for ever."""
        ended = self._env.process(self._all())
        try:
            self._env.run(until=ended)
            self.outcome.seconds = self._env.now
        except RuntimeError as error:  # SimPy's: nothing happens any more
            assert not ended.triggered, error
        return self.outcome

    def _all(self) -> Steps:
        """One plans, then all begin; the last one to look sees that all is committed, and says so."""
        yield from self._hosts[0].run(self._work.plan)
        self.outcome.planned = self._env.now
        for worker in range(len(self._hosts)):
            self._begin(worker)
        if self._killed is not None:
            worker, after = self._killed
            self._env.process(self._take_away(self._processes[worker], after - self._env.now))
        yield self._complete
        for called in list(self._idle):
            self._waited(called)
        cost, asks = self._work.look(1.0)
        yield from self._ask(asks)
        yield self._env.timeout(cost.wall + self._work.end.wall)

    def _begin(self, worker: int) -> None:
        process = self._env.process(self._live(worker))
        self._processes[worker] = process
        if self._fleet.hours < math.inf:
            self._env.process(self._take_away(process, self._rng.exponential(3600 * self._fleet.hours)))

    def _take_away(self, process: simpy.Process, after: float) -> Steps:
        yield self._env.timeout(max(0.0, after))
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
                self._look_between_rounds()
                if not len(units):
                    if not self._claims.waits:
                        return
                    yield from self._poll(worker) if self._claims.polls else self._wait()
                    continue
                out.claims += 1
                yield from self._hosts[worker].do(self._pieces(units))
                self._finished(len(units))
                units = units[:0]
                if self._work.looks_after and self._left:
                    yield from self._look(worker)
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
        called = self._env.event()
        self._idle[called] = self._env.now
        try:
            yield called
        except simpy.Interrupt:
            self._waited(called)
            raise

    def _poll(self, worker: int) -> Steps:
        """Pause, a little longer each time, and look again."""
        begin = self._env.now
        self._pauses[worker] = min(1.5 * self._pauses.get(worker, FIRST_PAUSE), LAST_PAUSE)
        try:
            yield self._env.timeout(self._pauses[worker])
            if self._left:
                yield from self._look(worker)
        finally:
            self.outcome.waiting += self._env.now - begin

    def _waited(self, called: simpy.Event) -> None:
        if called in self._idle:
            self.outcome.waiting += self._env.now - self._idle.pop(called)

    def _wake(self) -> None:
        """Have those that wait claim what came back."""
        for called in list(self._idle)[: self._claims.claimable()]:
            self._waited(called)
            called.succeed()

    def _look_between_rounds(self) -> None:
        """A driver reads the records again before it hands out what came back."""
        if self._claims.has_ended_round():
            self._env.process(self._next_round())

    def _next_round(self) -> Steps:
        cost, asks = self._work.between
        yield from self._ask(asks)
        yield self._env.timeout(cost.wall)
        self._claims.begin_round()
        self._wake()

    def _finished(self, units: int) -> None:
        self._left -= units
        self.outcome.done += units
        if not self._left and not self._complete.triggered:
            self.outcome.worked = self._env.now
            self._complete.succeed()

    def _died(self, worker: int, units: np.ndarray) -> None:
        self.outcome.deaths += 1
        self._env.process(self._come_back(worker, units))

    def _come_back(self, worker: int, units: np.ndarray) -> Steps:
        """After a death: its claim, once that is noticed; then another process in its place, where one comes."""
        yield self._env.timeout(self._claims.notice)
        self._claims.back(worker, units)
        self._look_between_rounds()
        self._wake()
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
        taken = (asks.count - asks.writes) / store.reads + asks.writes / store.writes
        self._store_is_free = max(now, self._store_is_free) + taken
        until = max(self._store_is_free, now + asks.seconds(store))
        if until > now:
            self.outcome.asked += asks.count
            yield self._env.timeout(until - now)
