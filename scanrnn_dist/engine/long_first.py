"""Rows that wait, in the order in which they go: long ones first. Numpy only.

A long row that begins late is all that is left at the end of a job, in one lane, while the others idle.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np

LONG_SHARE = 64
"""At the end of a job a row is long if it takes more than this part of what is left for a lane; the lanes then end
together within about as much."""


class LongFirst:
    """Groups of rows, structured arrays; whoever takes rows takes the first ones of the first group.

    Rows go in the order in which they came; but those that are longer than `long` go before all others, and once no
    more rows are to come, so do those that are long for what is left, the longest first. So the end of a job does not
    wait for one lane, and few rows ever wait for a later one.

    Args:
        size: the column that says how long a row is.
        long: a row is long, whatever is left, if it is longer than this.
    """

    def __init__(self, size: str, long: int) -> None:
        self.groups: deque[np.ndarray] = deque()
        self._size, self._long = size, long
        self._sorted_above = 0  # the rows that are longer than this go first, longest first

    def add(self, rows: np.ndarray) -> None:
        """Append rows, the long ones behind the long ones that came before."""
        self._sorted_above = 2**62
        is_long = rows[self._size] > self._long
        if is_long.any():
            shorter = (nth for nth, group in enumerate(self.groups) if group[self._size][0] <= self._long)
            self.groups.insert(next(shorter, len(self.groups)), rows.compress(is_long))
            rows = rows.compress(~is_long)
        if len(rows):
            self.groups.append(rows)

    def sort(self, left_for_a_lane: int) -> None:
        """Let the rows go first, longest first, that could keep a lane busy after the others have ended.

        Those are longer than a small part of what is left for a lane. As that shrinks, more of them are; each time it
        has halved they are sorted anew. Shorter rows keep their order, and so finish in it: the parts of 300,000 rows
        of 2 to 20 steps were all committed at the very end before, one after the other, 75 of 390 ms.
        """
        above = left_for_a_lane // LONG_SHARE
        if self.groups and above <= self._sorted_above // 2:
            waiting = joined(self.groups)
            size = waiting[self._size]
            self.groups = deque([waiting.take(longest_first(np.where(size > above, size, 0)))])
            self._sorted_above = above


def joined(groups: Sequence[np.ndarray]) -> np.ndarray:
    """The rows of all groups, one after the other.

    Copied as bytes: numpy copies structured rows column by column, 300,000 of them in 18 ms instead of 0.5.
    """
    kind = groups[0].dtype
    return np.concatenate([group.view(f"V{kind.itemsize}") for group in groups]).view(kind)


def longest_first(size: np.ndarray) -> np.ndarray:
    """The order of rows by their size, the longest first, equal ones as they came.

    In 16 bits where that is enough: numpy then sorts by radix, 300,000 rows in 3 ms instead of 20.
    """
    keys = (2**16 - 1 - size).astype(np.uint16) if size.max(initial=0) < 2**16 else -size
    return np.argsort(keys, kind="stable")
