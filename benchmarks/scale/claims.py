"""Who does which units: fixed shares as today, with or without taking over those of the dead; or a driver's queue.

Units are numbers of pieces of work with weights; a claim is an array of them. A claim that came back, because its
process died, is claimed again: by whom, and when, is what the two kinds differ in.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

import numpy as np

from scanrnn_dist.job import share_of_units

NONE = np.zeros(0, np.int64)
BATCHES = 4
"""A simulated queue gives away a fourth of a worker's even share of what is left at once, and single units at the end: a
hundred events a worker in place of one for each unit. What a batch leaves when its worker dies comes back."""

RETURNED = 16
"""Pieces that such a batch comes back in, for as many workers: of up to so many units, single ones."""


class Claims(Protocol):
    """What hands units out."""

    notice: float  # seconds until it is known that a process died
    steals: bool  # whether one without work waits, since claims of the dead may come to it

    def next(self, worker: int) -> np.ndarray:
        """Units for a worker; none if there is nothing for it now."""

    def back(self, worker: int, units: np.ndarray) -> int:
        """A process died, and that was noticed: these of its units are to be done yet; how many may claim of them."""


class Shares:
    """Shares by weight, as `share_of_units` deals them out; with `steal`, those of the dead go to whoever asks, whole."""

    def __init__(self, weights: np.ndarray, workers: int, steal: bool, notice: float, returns: bool) -> None:
        self.notice, self.steals, self._returns = notice, steal, returns
        owners = share_of_units(weights, workers)
        order = np.argsort(owners, kind="stable")
        ends = np.cumsum(np.bincount(owners, minlength=workers))
        self._shares = {worker: units for worker, units in enumerate(np.split(order, ends[:-1]))}
        self._left: deque[np.ndarray] = deque()

    def next(self, worker: int) -> np.ndarray:
        """Its own share, once; then one that is left."""
        own = self._shares.pop(worker, NONE)
        if len(own) or not self.steals or not self._left:
            return own
        return self._left.popleft()

    def back(self, worker: int, units: np.ndarray) -> int:
        """To be gone on with by the worker that comes in its place, or by another one."""
        units = np.concatenate([units, self._shares.pop(worker, NONE)])  # one that died early had claimed none of them
        if self._returns:
            self._shares[worker] = units
            return 0
        self._left.extend([units] if len(units) else [])
        return min(1, len(units))


class Queue:
    """Longest units first, to whoever asks."""

    def __init__(self, weights: np.ndarray, workers: int, notice: float, one_by_one: bool = False) -> None:
        self.notice, self.steals = notice, True
        self._workers = 0.0 if one_by_one else float(BATCHES * workers)
        self._order = np.argsort(-weights, kind="stable")
        self._before = np.concatenate([[0.0], np.cumsum(weights[self._order], dtype=float)])
        self._next = 0
        self._left: deque[np.ndarray] = deque()

    def next(self, worker: int) -> np.ndarray:
        """What came back first; then the next units of the queue."""
        if self._left:
            return self._left.popleft()
        begin, left = self._next, self._before[-1] - self._before[self._next]
        if begin == len(self._order):
            return NONE
        most = left / self._workers if self._workers else 0.0
        end = int(np.searchsorted(self._before, self._before[begin] + most, side="right")) - 1
        self._next = max(begin + 1, min(end, len(self._order)))
        return self._order[begin : self._next]

    def back(self, worker: int, units: np.ndarray) -> int:
        """In pieces, as whoever asks next would get single units."""
        pieces = np.array_split(units, min(len(units), RETURNED)) if len(units) else []
        self._left.extend(pieces)
        return len(pieces)
