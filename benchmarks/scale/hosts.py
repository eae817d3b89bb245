"""Where simulated processes work: each on a host of its own, or several on the cores of one machine.

A host's `do` works through pieces one after the other and can be interrupted, which is how a process dies: it then says
how many pieces were whole. On a host of its own that is one event however many pieces there are; on shared cores every
slice of every thread waits for a core, so there are as many events as slices.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import simpy

from benchmarks.scale.costs import Cost

Steps = Generator[simpy.Event, Any, Any]
"""A part of a simulated process: it yields what it waits for."""

SLICE = 0.05
"""Seconds that a thread keeps a core before the next one has it: short for a start of seconds."""


@dataclass
class Died(Exception):
    """The process was killed, with so many pieces whole, and so many seconds of work lost."""

    whole: int
    lost: float


class Host(Protocol):
    """What a simulated process works on."""

    def run(self, cost: Cost) -> Steps:
        """Take the time of something that is no unit."""

    def do(self, pieces: Any) -> Steps:
        """Work through pieces, in order; raises `Died`."""


class OwnHost:
    """A host with one process; seconds on it are those told, over its speed."""

    def __init__(self, env: simpy.Environment, speed: float = 1.0) -> None:
        self._env, self._speed = env, speed

    def run(self, cost: Cost) -> Steps:
        """Take its wall time."""
        yield self._env.timeout(cost.wall)

    def do(self, pieces: np.ndarray) -> Steps:
        """Pieces are seconds at the usual speed."""
        ends, begin = np.cumsum(pieces) / self._speed, self._env.now
        try:
            yield self._env.timeout(float(ends[-1]) if len(ends) else 0.0)
        except simpy.Interrupt:
            spent = self._env.now - begin
            whole = int(np.searchsorted(ends, spent, side="right"))
            raise Died(whole, spent - (float(ends[whole - 1]) if whole else 0.0)) from None


class Cores:
    """The cores of a machine, which threads take turns on; with all of them busy, each is slower by `crowding`.

    Somebody else kept `others` of them busy: the rest is shared evenly by the threads that have a turn.
    """

    def __init__(self, env: simpy.Environment, count: int, crowding: float, others: float = 0.0) -> None:
        self._env, self._count, self._crowding = env, count, crowding
        self._free = max(0.1, count - others)
        self._cores = simpy.Resource(env, count)
        self.seconds = 0.0  # that threads were at work

    def thread(self, seconds: float) -> Steps:
        """Work through a slice."""
        with self._cores.request() as turn:
            yield turn
            busy = self._cores.count
            seconds *= 1 + (self._crowding - 1) * (busy - 1) / max(1, self._count - 1)
            self.seconds += seconds
            yield self._env.timeout(seconds * max(1.0, busy / self._free))


class SharedHost:
    """One of several processes on the same cores."""

    def __init__(self, env: simpy.Environment, cores: Cores) -> None:
        self._env, self._cores = env, cores

    def run(self, cost: Cost) -> Steps:
        """As one thread for as long as it takes on an idle machine, and another one for what is beyond that."""
        main, idle = min(cost.cpu, cost.wall), max(0.0, cost.wall - cost.cpu)
        slices = max(1, math.ceil(max(main, cost.cpu - main) / SLICE))
        for _ in range(slices):
            threads = [seconds / slices for seconds in (main, cost.cpu - main) if seconds > 0]
            yield self._env.all_of([self._env.process(self._cores.thread(seconds)) for seconds in threads])
            if idle:
                yield self._env.timeout(idle / slices)

    def do(self, pieces: list[Cost]) -> Steps:
        """Pieces are costs."""
        for number, cost in enumerate(pieces):
            begin = self._env.now
            try:
                yield from self.run(cost)
            except simpy.Interrupt:
                raise Died(number, self._env.now - begin) from None
