"""Rows that wait for the native kernel: which of them go next. Numpy only.

The kernel gives the next row to whichever lane is free, so there is nothing to lay out; only the order matters.
"""

from __future__ import annotations

import numpy as np

from scanrnn_dist.engine.long_first import LongFirst, joined

ROW = np.dtype(
    [("x", "<u8"), ("carry", "<u8"), ("steps_to", "<u8"), ("features", "<u8"),
     ("number", "<i8"), ("left", "<i8"), ("done", "<i8")]
)  # fmt: skip
"""A row as the kernel takes it: addresses of its steps, of what it begins with, of where the outputs of its steps go,
and of where its features go (0 for none); its number; steps that are left, and that were done before. `Item` in
`native/cpp/task.h`."""
NEXT, MORE, NEXT_IS_HERE = 2, 4, 2
"""Where the number of rows that were taken stands in a queue; where it stands that others follow, and what is written
there once the next one is on its way."""


def queue_of(
    rows: np.ndarray, devices: int, more: bool, most_steps: int, most_dry: int, strides: tuple[int, int]
) -> np.ndarray:
    """Rows as the kernel takes them, `Queue` in `native/cpp/task.h`; whoever holds it holds the rows too.

    `strides` are floats from one step to the next, and from the output of one to that of the next.
    """
    address = rows.ctypes.data if len(rows) else 0
    load = int(rows["left"].sum())
    return np.array([address, len(rows), 0, devices, more, most_steps, most_dry, *strides, load], np.int64)


def left_of(rows: np.ndarray, queue: np.ndarray) -> np.ndarray:
    """The rows of a queue that no device took: with lanes full of long rows, it may end before they are."""
    return rows[queue[NEXT] :]


def address_of(queue: np.ndarray) -> np.ndarray:
    """Where a queue stands, as the program takes it: `(2,)` uint32, since JAX has no wider numbers by default."""
    return np.array([queue.ctypes.data], np.uint64).view(np.uint32)


class RowQueue:
    """Rows in the order in which they go, as of `LongFirst`; those of more than `long_steps` are long.

    Example:
        >>> queue = RowQueue(lanes=1, long_steps=100)
        >>> rows = np.zeros(3, ROW)
        >>> rows["left"] = 5, 200, 7
        >>> queue.add(rows)
        >>> queue.take(most_steps=201, most_rows=10, more=True)["left"].tolist()
        [200, 5]
    """

    def __init__(self, lanes: int, long_steps: int) -> None:
        self.rows = self.steps = 0  # that wait; a row without steps counts as one
        self._lanes = lanes
        self._order = LongFirst("left", long_steps)

    def add(self, rows: np.ndarray) -> None:
        """Append rows, `(n,)` of `ROW`."""
        self.rows += len(rows)
        self.steps += int(np.maximum(rows["left"], 1).sum())
        self._order.add(rows)

    def take(self, most_steps: int, most_rows: int, more: bool, least_rows: int = 0) -> np.ndarray:
        """The next rows: at most so many, and no more than it takes to have so many steps.

        But `least_rows`, if there are, however many steps they have. With `more`, rows are still to come.
        """
        if not more:
            self._order.sort(self.steps // self._lanes)
        taken, groups = [np.empty(0, ROW)], self._order.groups
        while groups and (most_steps > 0 or least_rows > 0) and most_rows > 0:
            group = groups.popleft()
            ends = np.cumsum(np.maximum(group["left"][:most_rows], 1))
            n = min(max(int(np.searchsorted(ends, most_steps)) + 1, least_rows), len(ends))
            taken.append(group[:n])
            most_rows, most_steps, least_rows = most_rows - n, most_steps - int(ends[n - 1]), least_rows - n
            self.rows, self.steps = self.rows - n, self.steps - int(ends[n - 1])
            if n < len(group):
                groups.appendleft(group[n:])
        return joined(taken)

    def give_back(self, rows: np.ndarray) -> None:
        """Rows that were taken, and did not go; they go next."""
        self.rows += len(rows)
        self.steps += int(np.maximum(rows["left"], 1).sum())
        if len(rows):
            self._order.groups.appendleft(rows)
