"""The ledger of a run: which rows were submitted together, and what is kept until they are through. Numpy only.

All that hangs on a batch hangs here: `host_buffers.py` asks where the values of its steps stand, and `run.py` what its
rows begin with and where the outputs of its steps belong.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from scanrnn_dist.ragged import Ragged, compact, joined


@dataclass(eq=False)
class Batch:
    """Rows that were submitted together; their values go on in the stream of all steps where the last batch ended.

    Args:
        first_row: the number of its first row.
        first_step: the step of the stream at which its values begin.
        steps: how many its values are.
        starts: `(n,)` int64, the step of the stream at which each row begins.
        lengths: `(n,)` int64, the steps of each row that count.
        carries: `(n, carry_features)`, each row's own initial carry, if rows bring one.
        unread: rows whose values are not read to their end; while there are any, the values are kept.
        at: where in the arena they begin.
        values: `(steps, D)`, where they are kept here.
        features: `(n, F)`, where the kernel writes those of its rows itself.
        unfinished: rows whose outputs are still kept.
        outputs: `(m, F)`, of all steps that count from `starts[0]` on, where those are asked for.
        belongs: `(m,)`, where in `outputs` that of each step belongs; None where they are in order.
    """

    first_row: int
    first_step: int
    steps: int
    starts: np.ndarray
    lengths: np.ndarray
    carries: np.ndarray | None
    unread: int
    at: int = 0
    values: np.ndarray | None = None
    features: np.ndarray | None = None
    unfinished: int = 0
    outputs: np.ndarray | None = None
    belongs: np.ndarray | None = None


class Submissions:
    """The batches of a run in the order in which they were submitted, each as long as something is kept for it.

    Any may go before the first: one long row must not keep all that came after it in memory.

    Example:
        >>> submissions = Submissions()
        >>> for _ in range(2):
        ...     ragged = Ragged(np.zeros((3, 1), np.float32), np.array([0, 1, 3]))
        ...     batch = submissions.add(ragged, ragged.lengths)
        >>> batch.first_row, batch.starts.tolist()
        (2, [3, 4])
        >>> [(batch.first_row, nth.tolist()) for batch, nth in submissions.of_rows(np.array([3, 0, 2]))]
        [(0, [1]), (2, [0, 2])]
    """

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.times_read = 0  # how often values of rows were read to their end
        self._rows = self._steps = 0

    def add(self, ragged: Ragged, lengths: np.ndarray, carries: np.ndarray | None = None) -> Batch:
        """Enter rows, of each the first `lengths[i]` steps, numbered on from the last."""
        starts, steps = self._steps + ragged.offsets[:-1], len(ragged.values)
        batch = Batch(self._rows, self._steps, steps, starts, lengths, carries, len(ragged))
        self.batches.append(batch)
        self._rows += len(ragged)
        self._steps += steps
        return batch

    def of_rows(self, rows: np.ndarray) -> Iterator[tuple[Batch, np.ndarray]]:
        """Every batch that rows with these numbers are of, and which of `rows` those are."""
        return self._grouped(self._places_of_rows(rows))

    def of_steps(self, positions: np.ndarray) -> Iterator[tuple[Batch, np.ndarray]]:
        """Every batch that steps at these positions `(n,)` of the stream are of, and which of them those are."""
        return self._grouped(self.places_of_steps(positions))

    def places_of_steps(self, positions: np.ndarray) -> np.ndarray:
        """For each position in the stream, where in `batches` the one stands that it is of; means nothing for idle."""
        return np.maximum(np.searchsorted([batch.first_step for batch in self.batches], positions, side="right") - 1, 0)

    def count_read(self, rows: np.ndarray) -> None:
        """Take note that the values of these rows are not needed any more."""
        counts = np.bincount(self._places_of_rows(rows), minlength=len(self.batches))
        for batch, count in zip(self.batches, counts.tolist(), strict=True):
            batch.unread -= count
        self.times_read += 1
        self.forget()

    def forget(self) -> None:
        """Let go of the batches that nothing is kept for."""
        self.batches = [batch for batch in self.batches if batch.unread or batch.unfinished]

    def _places_of_rows(self, rows: np.ndarray) -> np.ndarray:
        return np.searchsorted([batch.first_row for batch in self.batches], rows, side="right") - 1

    def _grouped(self, places: np.ndarray) -> Iterator[tuple[Batch, np.ndarray]]:
        for place in np.flatnonzero(np.bincount(places)):
            yield self.batches[place], np.flatnonzero(places == place)


class StepOutputs:
    """The outputs of every step, `features` numbers each, kept on the batches until their row is finished.

    Example:
        >>> submissions = Submissions()
        >>> outputs = StepOutputs(submissions, features=1)
        >>> rows = Ragged.from_sequences([np.zeros((2, 3)), np.zeros((1, 3))])
        >>> outputs.add(submissions.add(rows, rows.lengths))
        >>> outputs.place(np.array([2, 0, 1]), np.float32([[5], [3], [4]]))
        >>> outputs.take(np.array([1])).values.tolist(), outputs.take(np.array([0])).values.tolist()
        ([[5.0]], [[3.0], [4.0]])
    """

    def __init__(self, submissions: Submissions, features: int) -> None:
        self._submissions, self._features = submissions, features
        self._is_in_place = False

    def add(self, batch: Batch, out: np.ndarray | None = None, belongs: np.ndarray | None = None) -> None:
        """Expect the outputs of a batch's rows, which belong to `out` where that is given for all batches."""
        self._is_in_place, batch.belongs = out is not None, belongs
        steps = int(batch.starts[-1] + batch.lengths[-1] - batch.starts[0])
        batch.outputs = np.empty((steps, self._features), np.float32) if out is None else out
        assert batch.outputs.shape == (steps, self._features)
        batch.unfinished = len(batch.lengths)

    def place(self, positions: np.ndarray, values: np.ndarray) -> None:
        """Take outputs `(n, F)` of the steps at these positions `(n,)`."""
        for batch, mine in self._submissions.of_steps(positions):
            assert batch.outputs is not None
            at = positions[mine] - batch.starts[0]
            batch.outputs[at if batch.belongs is None else batch.belongs[at]] = values[mine]

    def take(self, rows: np.ndarray) -> Ragged | None:
        """The outputs of finished rows, in their order, which must rise; None where they are where they belong."""
        parts = []
        for batch, mine in self._submissions.of_rows(rows):
            assert batch.outputs is not None
            batch.unfinished -= len(mine)
            if not self._is_in_place:
                nth = rows[mine] - batch.first_row
                parts.append(compact(batch.outputs, batch.starts[nth] - batch.starts[0], batch.lengths[nth]))
        self._submissions.forget()
        if self._is_in_place:
            return None
        return parts[0] if len(parts) == 1 else joined(parts, self._features)
