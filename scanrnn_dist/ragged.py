"""`Ragged`, the one in-memory form of many sequences, and how lists, padded arrays and flat arrays become one.

Numpy only. What stands in Parquet columns is turned into a `Ragged` by `dataset/layouts.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from scanrnn_dist.errors import ConfigError, DataError


@dataclass(frozen=True)
class Ragged:
    """Many sequences of different lengths, laid one after the other.

    Args:
        values: `(S, D)` float32, the steps of all rows; finite unless the caller let other values through.
        offsets: `(N + 1,)` int64; row `i` is `values[offsets[i]:offsets[i + 1]]`. `offsets[0]` may be above 0 and
            `offsets[N]` below `S`, so a slice of a larger batch needs no copy.

    Example:
        >>> import numpy as np
        >>> ragged = Ragged.from_sequences([np.ones((3, 2)), np.zeros((0, 2))])
        >>> ragged.lengths.tolist(), ragged.in_features
        ([3, 0], 2)
    """

    values: np.ndarray
    offsets: np.ndarray

    def __post_init__(self) -> None:
        """Check the shapes, the dtypes and that the offsets stay within the values; raises `ConfigError`."""
        values, offsets = self.values, self.offsets
        if values.ndim != 2 or values.dtype != np.float32:
            raise ConfigError(
                f"Ragged values are {values.dtype}{list(values.shape)}; expected float32 (steps, features)."
            )
        if offsets.ndim != 1 or offsets.dtype != np.int64 or len(offsets) == 0:
            raise ConfigError(f"Ragged offsets are {offsets.dtype}{list(offsets.shape)}; expected int64 (rows + 1,).")
        if offsets[0] < 0 or offsets[-1] > len(values) or (np.diff(offsets) < 0).any():
            raise ConfigError(f"Ragged offsets must rise from >= 0 to at most {len(values)}, the number of steps.")

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.offsets) - 1

    @property
    def in_features(self) -> int:
        """Features per step, `D`."""
        return int(self.values.shape[1])

    @property
    def lengths(self) -> np.ndarray:
        """Steps of every row, `(N,)` int64."""
        return np.diff(self.offsets)

    def row(self, index: int) -> np.ndarray:
        """Row `index` as a view, `(T, D)` float32."""
        return self.values[self.offsets[index] : self.offsets[index + 1]]

    def slice(self, begin: int, end: int) -> Ragged:
        """Rows `begin` to `end`, as views."""
        return Ragged(self.values, self.offsets[begin : end + 1])

    def first_steps(self, max_steps: int | None) -> Ragged:
        """The first `max_steps` steps of every row, copied; the rows as they are where that is None."""
        if max_steps is None:
            return self
        lengths = np.minimum(self.lengths, max_steps)
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        index = np.repeat(self.offsets[:-1] - offsets[:-1], lengths) + np.arange(offsets[-1])
        return Ragged(self.values[index], offsets)

    def first_nonfinite(self, max_steps: int | None = None) -> tuple[int, int] | None:
        """The `(row, step)` of the first NaN or infinity within the rows, or within `max_steps` of each; or None."""
        begin, end = int(self.offsets[0]), int(self.offsets[-1])
        values = self.values[begin:end]
        # One pass without a temporary: a sum is finite unless a value is not, or the sum itself overflows.
        with np.errstate(over="ignore", invalid="ignore"):
            if np.isfinite(values.sum()):
                return None
        bad = ~np.isfinite(values).all(axis=1)
        if max_steps is not None:
            starts = np.repeat(self.offsets[:-1] - begin, self.lengths)
            bad &= np.arange(len(bad)) - starts < max_steps
        if not bad.any():
            return None
        step = begin + int(bad.argmax())
        row = int(np.searchsorted(self.offsets, step, side="right")) - 1
        return row, step - int(self.offsets[row])

    @staticmethod
    def from_sequences(sequences: Sequence[Any]) -> Ragged:
        """A list of `(T_i, D)` arrays of numbers, all of the same `D`, cast to float32 as `jnp.asarray` does.

        Raises:
            DataError: a sequence that has not two axes, another `D` than the first, or no numbers.
            ConfigError: an empty list, whose `D` nobody knows.
        """
        if len(sequences) == 0:
            raise ConfigError("No sequences were given, so their number of features is unknown; pass Ragged.empty(D).")
        arrays = [np.asarray(sequence) for sequence in sequences]
        first = arrays[0]
        for index, array in enumerate(arrays):
            if array.ndim != 2:
                raise DataError(
                    f"Sequence {index} has shape {array.shape}; expected (T, D), time first. "
                    "A single feature per step is (T, 1): x[:, None]."
                )
            if array.dtype.kind not in "fiub":
                raise DataError(f"Sequence {index} is of dtype {array.dtype}; expected numbers.")
            if array.shape[1] != first.shape[1]:
                hint = ""
                if array.shape[0] == first.shape[0]:
                    hint = " Are the sequences (D, T)? Expected is (T, D): pass x.T."
                raise DataError(
                    f"Sequence {index} has {array.shape[1]} features (shape {array.shape}), "
                    f"sequence 0 has {first.shape[1]} (shape {first.shape}).{hint}"
                )
        offsets = np.zeros(len(arrays) + 1, np.int64)
        np.cumsum([len(array) for array in arrays], out=offsets[1:])
        values = np.empty((int(offsets[-1]), first.shape[1]), np.float32)
        with np.errstate(over="ignore"):  # an overflow becomes an infinity, which is reported with its row
            np.concatenate(arrays, out=values, casting="same_kind" if first.dtype.kind == "f" else "unsafe")
        return Ragged(values, offsets)

    @staticmethod
    def empty(in_features: int) -> Ragged:
        """No rows of `in_features` features."""
        return Ragged(np.empty((0, in_features), np.float32), np.zeros(1, np.int64))

    @staticmethod
    def from_padded(padded: Any, seq_lengths: Any) -> Ragged:
        """A padded `(N, T, D)` array and its `(N,)` lengths; what lies beyond a length is not looked at.

        Raises:
            DataError: other shapes, or a length that is negative, not whole, or beyond `T`.
        """
        padded = np.asarray(padded)
        if padded.ndim != 3 or padded.dtype.kind not in "fiub":
            raise DataError(f"A padded batch is {padded.dtype}{list(padded.shape)}; expected numbers (N, T, D).")
        lengths = _checked_lengths(seq_lengths, len(padded), padded.shape[1])
        offsets = np.zeros(len(padded) + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        real = np.arange(padded.shape[1]) < lengths[:, None]
        with np.errstate(over="ignore"):
            return Ragged(padded[real].astype(np.float32, copy=False), offsets)


def _checked_lengths(seq_lengths: Any, rows: int, steps: int) -> np.ndarray:
    """`seq_lengths` as `(N,)` int64, or a `DataError` that names the first wrong one."""
    given = np.asarray(seq_lengths)
    if given.shape != (rows,) or given.dtype.kind not in "iuf":
        raise DataError(f"seq_lengths is {given.dtype}{list(given.shape)}; expected {rows} whole numbers, one per row.")
    wrong = ~((given >= 0) & (given <= steps) & (given == np.floor(given)))
    if wrong.any():
        row = int(wrong.argmax())
        raise DataError(
            f"seq_lengths[{row}] is {given[row]}; expected a whole number from 0 to {steps}, the padded length."
        )
    return given.astype(np.int64)
