"""The outputs of every step, kept until their row is finished. Numpy only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scanrnn_dist.ragged import Ragged


@dataclass
class _Batch:
    """Rows that were submitted together, and their outputs by the position of their steps in the value stream."""

    first_row: int
    starts: np.ndarray
    lengths: np.ndarray
    outputs: np.ndarray
    rows_left: int

    @property
    def base(self) -> int:
        """The position in the stream at which `outputs` begins."""
        return int(self.starts[0])


class StepOutputs:
    """Outputs by position in the stream of all steps, and by row once all of a row's are there.

    Example:
        >>> outputs = StepOutputs(features=1)
        >>> outputs.add(first_row=0, starts=np.array([0, 2]), lengths=np.array([2, 1]))
        >>> outputs.place(np.array([2, 0, 1]), np.float32([[5], [3], [4]]))
        >>> outputs.take(np.array([1])).values.tolist(), outputs.take(np.array([0])).values.tolist()
        ([[5.0]], [[3.0], [4.0]])
    """

    def __init__(self, features: int) -> None:
        self._features = features
        self._batches: list[_Batch] = []  # in the order of the stream

    def add(self, first_row: int, starts: np.ndarray, lengths: np.ndarray) -> None:
        """Expect rows, numbered on from `first_row`, each `lengths[i]` steps from `starts[i]` of the stream on."""
        span = int(starts[-1] + lengths[-1] - starts[0]) if len(starts) else 0
        outputs = np.empty((span, self._features), np.float32)
        self._batches.append(_Batch(first_row, starts, lengths, outputs, len(starts)))

    def place(self, positions: np.ndarray, values: np.ndarray) -> None:
        """Take outputs `(n, F)` of the steps at these positions `(n,)`."""
        batch_of = np.searchsorted([batch.base for batch in self._batches], positions, side="right") - 1
        for index in np.unique(batch_of):
            mine, batch = batch_of == index, self._batches[index]
            batch.outputs[positions[mine] - batch.base] = values[mine]

    def take(self, rows: np.ndarray) -> Ragged:
        """The outputs of finished rows, in their order, which must rise."""
        parts, lengths = [], []
        batch_of = np.searchsorted([batch.first_row for batch in self._batches], rows, side="right") - 1
        for index in np.unique(batch_of):
            batch = self._batches[index]
            nth = rows[batch_of == index] - batch.first_row
            of_rows = batch.lengths[nth]
            ends = np.cumsum(of_rows)
            shift = batch.starts[nth] - batch.base - (ends - of_rows)
            parts.append(batch.outputs[np.repeat(shift, of_rows) + np.arange(ends[-1])])
            lengths.append(of_rows)
            batch.rows_left -= len(nth)
        self._batches = [batch for batch in self._batches if batch.rows_left]
        offsets = np.zeros(len(rows) + 1, np.int64)
        np.cumsum(np.concatenate([np.zeros(0, np.int64), *lengths]), out=offsets[1:])
        return Ragged(np.concatenate([np.empty((0, self._features), np.float32), *parts]), offsets)
