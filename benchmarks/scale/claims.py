"""Who does which units: shares that were dealt out before, or a driver that hands them out; as the package has both.

Units are numbers of pieces of work with weights; a claim is an array of them.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

import numpy as np

from scanrnn_dist.job import share_of_units

NONE = np.zeros(0, np.int64)
AT_A_TIME = 16
"""A driver gives a worker so small a part of what an even share of the steps left would be (`job/hand_out.py`)."""


class Claims(Protocol):
    """What hands units out."""

    notice: float  # seconds until it is known that a process died
    waits: bool  # whether one without work waits for units of the dead
    polls: bool  # whether it looks for them again and again; else it is told

    def next(self, worker: int) -> np.ndarray:
        """Units for a worker that has none; empty if there is nothing for it now."""

    def back(self, worker: int, units: np.ndarray) -> None:
        """A worker's process died, and that was noticed: these of its units are to be done yet."""

    def claimable(self) -> int:
        """How many of those that wait would get something now."""

    def has_ended_round(self) -> bool:
        """Whether units came back that are to be done once `begin_round` is called; true once for each round."""

    def begin_round(self) -> None:
        """The records were read again."""


class Shares:
    """`--shard k/n`: shares by weight, some for each worker, of which the first is its own.

    With `steal`, whoever has none takes one of the dead, else one that nobody has begun, in random order. Without, the
    process that comes in the place of a dead one goes on with its share. Not covered: two that take the same share at
    once, of which the slower one has to look again.
    """

    def __init__(
        self, weights: np.ndarray, workers: int, notice: float, steal: bool = False, each: int = 1, seed: int = 0
    ) -> None:
        self.notice, self.waits, self.polls = notice, steal, steal
        count = workers * each
        owners = share_of_units(weights, count)
        order = np.argsort(owners, kind="stable")
        ends = np.cumsum(np.bincount(owners, minlength=count))
        shares = np.split(order, ends[:-1])
        self._own = dict(enumerate(shares[:workers]))
        not_begun = np.random.default_rng(seed).permutation(np.arange(workers, count))
        self._free = deque(shares[share] for share in not_begun if len(shares[share]))

    def next(self, worker: int) -> np.ndarray:
        """Its own share, once; then one that is free."""
        own = self._own.pop(worker, NONE)
        return self._free.popleft() if not len(own) and self.waits and self._free else own

    def back(self, worker: int, units: np.ndarray) -> None:
        """What is left of its share."""
        units = np.concatenate([units, self._own.pop(worker, NONE)])  # one that died early had claimed none of them
        if not self.waits:
            self._own[worker] = units
        elif len(units):
            self._free.appendleft(units)

    def claimable(self) -> int:
        """A worker for each share that is free."""
        return len(self._free)

    def has_ended_round(self) -> bool:
        """There are none."""
        return False

    def begin_round(self) -> None:
        """There are none."""


class Queue:
    """A driver: longest units first, within a factor of two; what came back from the dead is a later round."""

    waits, polls = True, False

    def __init__(self, weights: np.ndarray, workers: int, notice: float) -> None:
        self.notice, self._workers, self._weights = notice, workers, weights
        self._set_round(np.arange(len(weights)))
        self._next = 0
        self._returned: list[np.ndarray] = []
        self._busy: set[int] = set()

    def next(self, worker: int) -> np.ndarray:
        """The next units of the round."""
        self._busy.discard(worker)
        begin, before = self._next, self._before
        if self.claimable():
            most = before[begin] + (before[-1] - before[begin]) / (AT_A_TIME * self._workers)
            self._next = max(begin + 1, int(np.searchsorted(before, most, side="right")) - 1)
            self._busy.add(worker)
        return self._order[begin : self._next]

    def back(self, worker: int, units: np.ndarray) -> None:
        """To the next round."""
        self._busy.discard(worker)
        if len(units):
            self._returned.append(units)

    def claimable(self) -> int:
        """A worker for each unit that is left."""
        return len(self._order) - self._next

    def has_ended_round(self) -> bool:
        """Whether nothing is left but what came back."""
        if self.claimable() or self._busy or not self._returned:
            return False
        units, self._returned = np.concatenate(self._returned), []
        self._set_round(units)
        return True

    def begin_round(self) -> None:
        """Hand these out."""
        self._next = 0

    def _set_round(self, units: np.ndarray) -> None:
        self._order = units[np.argsort(-np.frexp(self._weights[units])[1], kind="stable")]
        self._before = np.concatenate([[0.0], np.cumsum(self._weights[self._order], dtype=float)])
        self._next = len(units)  # until it begins
