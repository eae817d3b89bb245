"""The outputs of every step, kept until their row is finished. Numpy only."""

from __future__ import annotations

import numpy as np

from scanrnn_dist.engine.submissions import Batch, Submissions
from scanrnn_dist.ragged import Ragged


class StepOutputs:
    """Outputs by position in the stream of all steps, and by row once all of a row's are there.

    Args:
        submissions: the batches, on which the outputs are kept.
        features: numbers per output.

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

    def add(self, batch: Batch) -> None:
        """Expect the outputs of a batch's rows."""
        span = int(batch.starts[-1] + batch.lengths[-1] - batch.starts[0])
        batch.outputs, batch.unfinished = np.empty((span, self._features), np.float32), len(batch.lengths)

    def place(self, positions: np.ndarray, values: np.ndarray) -> None:
        """Take outputs `(n, F)` of the steps at these positions `(n,)`."""
        for batch, mine in self._submissions.of_steps(positions):
            assert batch.outputs is not None
            batch.outputs[positions[mine] - batch.starts[0]] = values[mine]

    def take(self, rows: np.ndarray) -> Ragged:
        """The outputs of finished rows, in their order, which must rise."""
        parts, lengths = [np.empty((0, self._features), np.float32)], [np.zeros(1, np.int64)]
        for batch, mine in self._submissions.of_rows(rows):
            assert batch.outputs is not None
            nth = rows[mine] - batch.first_row
            of_rows = batch.lengths[nth]
            ends = np.cumsum(of_rows)
            shift = batch.starts[nth] - batch.starts[0] - (ends - of_rows)
            parts.append(batch.outputs[np.repeat(shift, of_rows) + np.arange(ends[-1])])
            lengths.append(of_rows)
            batch.unfinished -= len(nth)
        self._submissions.forget()
        return Ragged(np.concatenate(parts), np.cumsum(np.concatenate(lengths)))
