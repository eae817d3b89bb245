"""The ledger of a run: which rows were submitted together, and what is kept until they are through. Numpy only.

All that hangs on a batch hangs here: `host_buffers.py` asks where the values of its steps stand, and `run.py` what its
rows begin with and where their features belong.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from scanrnn_dist.ragged import Ragged


@dataclass(eq=False)
class Batch:
    """Rows that were submitted together; their values go on in the stream of all steps where the last batch ended.

    Args:
        first_row: the number of its first row.
        first_step: the step of the stream at which its values begin.
        steps: how many its values are.
        starts: `(n,)` int64, the step of the stream at which each row begins.
        lengths: `(n,)` int64, the steps of each row that count.
        out: `(n, F)`, where the features of its rows belong; or, of the outputs of all steps that count, `(m, F)`.
        carries: `(n, carry_features)`, each row's own initial carry, if rows bring one.
        unread: rows whose values are not read to their end; while there are any, the values are kept.
        unfinished: rows whose features are not where they belong.
        at: where in the arena its values begin.
        values: `(steps, D)`, where they are kept here.
        turned: `(m,)`, where in `out` the output of each step belongs; None where they are in order.
    """

    first_row: int
    first_step: int
    steps: int
    starts: np.ndarray
    lengths: np.ndarray
    out: np.ndarray
    carries: np.ndarray | None
    unread: int
    unfinished: int
    at: int = 0
    values: np.ndarray | None = None
    turned: np.ndarray | None = None


class Submissions:
    """The batches of a run in the order in which they were submitted, each until all of its rows are finished.

    Any may go before the first: one long row must not keep all that came after it in memory.

    Example:
        >>> submissions = Submissions()
        >>> for _ in range(2):
        ...     ragged = Ragged(np.zeros((3, 1), np.float32), np.array([0, 1, 3]))
        ...     batch = submissions.add(ragged, ragged.lengths, out=np.zeros((2, 1), np.float32))
        >>> batch.first_row, batch.starts.tolist()
        (2, [3, 4])
        >>> [(batch.first_row, nth.tolist()) for batch, nth in submissions.of_rows(np.array([3, 0, 2]))]
        [(0, [1]), (2, [0, 2])]
        >>> submissions.place(np.array([3, 0]), np.float32([[6], [5]]))
        >>> batch.out.tolist()
        [[0.0], [6.0]]
    """

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.times_read = 0  # how often values of rows were read to their end
        self._rows = self._steps = 0

    def add(self, ragged: Ragged, lengths: np.ndarray, out: np.ndarray, carries: np.ndarray | None = None) -> Batch:
        """Enter rows, of each the first `lengths[i]` steps, numbered on from the last."""
        starts, steps, n = self._steps + ragged.offsets[:-1], len(ragged.values), len(ragged)
        batch = Batch(self._rows, self._steps, steps, starts, lengths, out, carries, unread=n, unfinished=n)
        self.batches.append(batch)
        self._rows += len(ragged)
        self._steps += steps
        return batch

    def of_rows(self, rows: np.ndarray) -> Iterator[tuple[Batch, np.ndarray]]:
        """Every batch that rows with these numbers are of, and which of `rows` those are."""
        return self._grouped(self._places_of_rows(rows))

    def places_of_steps(self, positions: np.ndarray) -> np.ndarray:
        """For each position in the stream, where in `batches` the one stands that it is of; means nothing for idle."""
        return np.maximum(np.searchsorted([batch.first_step for batch in self.batches], positions, side="right") - 1, 0)

    def place(self, rows: np.ndarray, features: np.ndarray) -> None:
        """Write the features `(n, F)` of these rows `(n,)` to where they belong."""
        for batch, mine in self.of_rows(rows):
            batch.out[rows[mine] - batch.first_row] = features[mine]

    def place_steps(self, positions: np.ndarray, outputs: np.ndarray) -> None:
        """Write the outputs `(n, F)` of the steps at these positions `(n,)` of the stream to where they belong."""
        for batch, mine in self._grouped(self.places_of_steps(positions)):
            at = positions[mine] - batch.starts[0]
            batch.out[at if batch.turned is None else batch.turned[at]] = outputs[mine]

    def count_read(self, rows: np.ndarray) -> None:
        """Take note that the values of these rows are not needed any more."""
        for batch, count in self._counted(rows):
            batch.unread -= count
        self.times_read += 1

    def count_finished(self, rows: np.ndarray) -> None:
        """Take note that the features of these rows are where they belong; let go of what is kept for no other row."""
        for batch, count in self._counted(rows):
            batch.unfinished -= count
        self.batches = [batch for batch in self.batches if batch.unfinished]

    def _counted(self, rows: np.ndarray) -> Iterator[tuple[Batch, int]]:
        """Every batch, and how many of these rows are of it."""
        counts = np.bincount(self._places_of_rows(rows), minlength=len(self.batches))
        return zip(self.batches, counts.tolist(), strict=True)

    def _places_of_rows(self, rows: np.ndarray) -> np.ndarray:
        return np.searchsorted([batch.first_row for batch in self.batches], rows, side="right") - 1

    def _grouped(self, places: np.ndarray) -> Iterator[tuple[Batch, np.ndarray]]:
        for place in np.flatnonzero(np.bincount(places)):
            yield self.batches[place], np.flatnonzero(places == place)
