"""`Ragged`, the one in-memory form of many sequences, and how lists, padded arrays and flat arrays become one.

Numpy only. What stands in Parquet columns is turned into a `Ragged` by `source/taking.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from scanrnn_dist.errors import ConfigError, DataError

NUMBERS = "fiub"
"""The kinds of numpy's dtypes that become float32."""
HINTS = {
    "c": " Make two features of a complex one: np.concatenate([x.real, x.imag], axis=-1).",
    "O": " Of objects that are all numbers make floats: x.astype(float).",
    "U": " Of texts that are all numbers make floats: x.astype(float).",
    "S": " Of texts that are all numbers make floats: x.astype(float).",
    "M": " Make times into numbers, such as seconds since the first: (x - x[0]) / np.timedelta64(1, 's').",
    "m": " Make durations into numbers, such as seconds: x / np.timedelta64(1, 's').",
    "V": " Narrow floats that numpy does not know fit into float32: x.astype(np.float32).",
}
"""What to do with arrays of other kinds."""
_FINITE_BLOCK = 65_536


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
        for name, given in (("values", values), ("offsets", offsets)):
            if not isinstance(given, np.ndarray):
                raise ConfigError(f"Ragged {name} are a {type(given).__name__}; expected a numpy array.")
        if np.ma.is_masked(values):
            raise ConfigError("Ragged values are masked; expected a value at every step, such as values.filled(0).")
        if values.ndim != 2 or values.dtype != np.float32:
            found = f"{values.dtype}{list(values.shape)}"
            raise ConfigError(f"Ragged values are {found}; expected float32 (steps, features).")
        if offsets.ndim != 1 or offsets.dtype != np.int64 or len(offsets) == 0:
            raise ConfigError(f"Ragged offsets are {offsets.dtype}{list(offsets.shape)}; expected int64 (rows + 1,).")
        if offsets[0] < 0 or offsets[-1] > len(values) or (np.diff(offsets) < 0).any():
            raise ConfigError(f"Ragged offsets must rise from >= 0 to at most {len(values)}, the number of steps.")

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> np.ndarray:
        """`row(index)`, so that a `Ragged` is one of the lists that scikit-learn splits."""
        return self.row(index)

    @property
    def in_features(self) -> int:
        """Features per step, `D`."""
        return int(self.values.shape[1])

    @property
    def lengths(self) -> np.ndarray:
        """Steps of every row, `(N,)` int64."""
        return np.diff(self.offsets)

    def row(self, index: int) -> np.ndarray:
        """Row `index` as a view, `(T, D)` float32; of a list's indices, so -1 is the last row, or an `IndexError`."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"There is no row {index}; there are {len(self)}.")
        begin = index + len(self) if index < 0 else index
        return self.values[self.offsets[begin] : self.offsets[begin + 1]]

    def slice(self, begin: int, end: int) -> Ragged:
        """Rows `begin` to `end`, as views; of a list's slices, so negative ones count from the end."""
        begin, end, _ = slice(begin, end).indices(len(self))
        return Ragged(self.values, self.offsets[begin : max(begin, end) + 1])

    def take(self, rows: np.ndarray) -> Ragged:
        """The rows with these numbers `(n,)`, in this order; copied unless they follow one another."""
        begins = self.offsets[:-1][rows]
        return compact(self.values, begins, self.offsets[1:][rows] - begins)

    def lengths_within(self, max_steps: float | None) -> np.ndarray:
        """The steps of each row, `max_steps` at most, a whole number, `(N,)` int64; None is no bound."""
        return self.lengths if max_steps is None else np.minimum(self.lengths, int(max_steps))

    def first_steps(self, max_steps: int | None) -> Ragged:
        """The first `max_steps` steps of every row, copied; the rows as they are where that is None."""
        if max_steps is None:
            return self
        lengths = self.lengths_within(max_steps)
        return Ragged(self.values[positions(self.offsets[:-1], lengths)], running_sums(lengths))

    def first_nonfinite(self, max_steps: int | None = None) -> tuple[int, int] | None:
        """The `(row, step)` of the first NaN or infinity within the rows, or within `max_steps` of each; or None."""
        begin, end = int(self.offsets[0]), int(self.offsets[-1])
        values = self.values[begin:end]
        if all_finite(values):
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
    def from_sequences(sequences: Sequence[Any], in_features: int | None = None, *, lossy_cast: bool = False) -> Ragged:
        """A list of `(T_i, D)` arrays of numbers, all of the same `D`, as float32.

        `[]` is a sequence without steps; where all sequences are, `in_features` says their `D`.

        Raises:
            DataError: a sequence that has not two axes, another `D` than the first, no numbers, a masked value, or,
                without `lossy_cast`, a number that float32 does not hold exactly.
            ConfigError: no sequences or steps, and no `in_features`.
        """
        sequences = list(sequences)
        arrays = [_as_array(sequence, index) for index, sequence in enumerate(sequences)]
        told = next((array.shape[1] for array in arrays if array.ndim == 2), in_features)
        if told is None:
            few, remedy = "No sequences were given", "Ragged.empty(D)"
            if arrays:
                few, remedy = "No sequence has a step", "arrays of shape (0, D)"
            raise ConfigError(f"{few}, so their number of features is unknown; pass {remedy}.")
        arrays = [array if array.ndim == 2 else np.empty((0, told), np.float32) for array in arrays]
        if not arrays:
            return Ragged.empty(told)
        first = arrays[0]
        for index, array in enumerate(arrays):
            if array.shape[1] != first.shape[1]:
                hint = time_first_hint(len(array) == len(first))
                raise DataError(
                    f"Sequence {index} has {array.shape[1]} features (shape {array.shape}), "
                    f"sequence 0 has {first.shape[1]} (shape {first.shape}).{hint}"
                )
        offsets = np.cumsum([0, *map(len, arrays)], dtype=np.int64)
        values = np.empty((int(offsets[-1]), first.shape[1]), np.float32)
        with np.errstate(over="ignore"):  # an overflow becomes an infinity, which is reported with its row
            np.concatenate(arrays, out=values, casting="unsafe")
        for row, array in enumerate([] if lossy_cast else arrays):
            numbers = _as_given(sequences[row], array)
            if (inexact := first_inexact(numbers, values[offsets[row] : offsets[row + 1]])) is not None:
                raise _inexact(numbers, inexact, row, inexact // array.shape[1])
        return Ragged(values, offsets)

    @staticmethod
    def empty(in_features: int) -> Ragged:
        """No rows of `in_features` features."""
        return Ragged(np.empty((0, in_features), np.float32), np.zeros(1, np.int64))

    @staticmethod
    def from_padded(padded: Any, seq_lengths: Any, *, lossy_cast: bool = False) -> Ragged:
        """A padded `(N, T, D)` array and its `(N,)` lengths; what lies beyond a length is not looked at.

        Raises:
            DataError: other shapes, no numbers, a length that is negative, not whole, or beyond `T`; within the
                lengths, a masked value, or, without `lossy_cast`, a number that float32 does not hold exactly.
        """
        array = numbers_of("A padded batch", padded, "(N, T, D)")
        mask, array = np.ma.getmask(array), np.asarray(array)
        if array.ndim != 3 or array.dtype.kind not in NUMBERS:
            found, hint = f"{array.dtype}{list(array.shape)}", HINTS.get(array.dtype.kind, "")
            raise DataError(f"A padded batch is {found}; expected numbers (N, T, D).{hint}")
        lengths = _checked_lengths(seq_lengths, len(array), array.shape[1])
        offsets = running_sums(lengths)
        real = np.arange(array.shape[1]) < lengths[:, None]
        if mask is not np.ma.nomask and (masked := mask & real[:, :, None]).any():
            row, step, feature = (int(index) for index in np.unravel_index(int(masked.argmax()), masked.shape))
            raise _masked(row, step, feature, " For padding, give its lengths as seq_lengths.")
        numbers = (array if lossy_cast else _as_given(padded, array))[real]
        with np.errstate(over="ignore"):
            values = numbers.astype(np.float32, copy=False)
        if not lossy_cast and (inexact := first_inexact(numbers, values)) is not None:
            step = inexact // array.shape[2]
            row = int(np.searchsorted(offsets, step, side="right")) - 1
            raise _inexact(numbers, inexact, row, step - int(offsets[row]))
        return Ragged(values, offsets)


def numbers_of(name: str, given: Any, expected: str) -> np.ndarray:
    """What is given as an array, masked where it or an array in it is; a `DataError` where it is none."""
    try:
        if isinstance(given, np.ma.MaskedArray):
            return given
        if not isinstance(given, list | tuple):
            array = np.asarray(given)
            if array.dtype != object or array.ndim != 1:
                return array
            given = array.tolist()  # an array of arrays, as pandas reads nested lists
        if any(map(_is_masked, given)) and len({np.shape(part) for part in given}) == 1:  # np.asarray forgets masks
            return np.ma.stack([np.ma.stack(part) if isinstance(part, list | tuple) else part for part in given])
        return np.asarray(given)
    except (ValueError, TypeError, RuntimeError) as error:  # the last two: tensors with a gradient or on a device
        raise DataError(f"{name} is no array of numbers: {error} Expected {expected}.") from error


def _as_given(given: Any, array: np.ndarray) -> np.ndarray:
    """The array that `numbers_of` made, or Python's numbers where it was made of lists and may hold other integers.

    numpy makes float64 of integers beside floats, which may round those beyond 2**53.
    """
    if array.dtype != np.float64 or not (np.abs(array) >= 2.0**53).any():
        return array
    if not isinstance(given, list | tuple) and np.asarray(given).dtype != object:
        return array
    objects = np.asarray(list(given), object)
    numbers = [each.item() if isinstance(each, np.generic) else each for each in objects.flat]
    return np.array(numbers, object).reshape(array.shape)


def _is_masked(part: Any) -> bool:
    """Whether it is a masked array, or a list that holds one."""
    parts = part if isinstance(part, list | tuple) else (part,)
    return any(isinstance(each, np.ma.MaskedArray) for each in parts)


def running_sums(numbers: np.ndarray) -> np.ndarray:
    """Running sums from 0 on: `(N,)` -> `(N + 1,)` int64."""
    sums = np.zeros(len(numbers) + 1, np.int64)
    np.cumsum(numbers, out=sums[1:])
    return sums


def positions(begins: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The positions of all steps of rows that begin at `begins` `(N,)` and have `lengths` `(N,)` steps.

    Example:
        >>> import numpy as np
        >>> positions(np.array([5, 0]), np.array([2, 3])).tolist()
        [5, 6, 0, 1, 2]
    """
    offsets = running_sums(lengths)
    return np.arange(offsets[-1]) + np.repeat(begins - offsets[:-1], lengths)


def backward_positions(begins: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The same, the last step of each row first.

    Example:
        >>> backward_positions(np.array([5, 0]), np.array([2, 3])).tolist()
        [6, 5, 2, 1, 0]
    """
    offsets = running_sums(lengths)
    return np.repeat(begins + lengths - 1 + offsets[:-1], lengths) - np.arange(offsets[-1])


def compact(values: np.ndarray, begins: np.ndarray, steps: np.ndarray) -> Ragged:
    """Rows that begin at `begins` and have so many `steps`; the values are copied unless they follow each other."""
    offsets = running_sums(steps)
    filled = steps > 0
    first = int(begins[filled.argmax()]) if filled.any() else 0
    if np.array_equal(begins[filled] - first, offsets[:-1][filled]):
        return Ragged(values[first : first + int(offsets[-1])], offsets)
    return Ragged(values[positions(begins, steps)], offsets)


def cut(ragged: Ragged) -> Ragged:
    """The same rows, with no values beside theirs: whoever is given them may copy all."""
    begin, end = ragged.offsets[0], ragged.offsets[-1]
    return Ragged(ragged.values[begin:end], ragged.offsets - begin)


def row_pieces(costs: np.ndarray, most: int) -> Iterator[tuple[int, int]]:
    """Consecutive rows that cost at most so much together, or one that costs more: where each piece begins and ends.

    Example:
        >>> list(row_pieces(np.array([1, 2, 9, 1]), most=4))
        [(0, 2), (2, 3), (3, 4)]
    """
    sums, begin = running_sums(costs), 0
    while begin < len(costs):
        end = max(begin + 1, int(np.searchsorted(sums, sums[begin] + most, side="right")) - 1)
        yield begin, end
        begin = end


def joined(parts: Sequence[Ragged], in_features: int) -> Ragged:
    """The rows of all parts, one after the other, copied."""
    values = [part.values[part.offsets[0] : part.offsets[-1]] for part in parts]
    lengths = np.concatenate([np.zeros(1, np.int64), *(part.lengths for part in parts)])
    return Ragged(np.concatenate([np.empty((0, in_features), np.float32), *values]), np.cumsum(lengths))


def first_inexact(numbers: np.ndarray, values: np.ndarray) -> int | None:
    """Where, in flat order, the first number stands that its float32 does not equal; None if there is none.

    `numbers` are floats, integers or booleans of any width, or objects of Python that are such, a NaN counting as held;
    `values` are the same as float32, an overflow being an infinity.
    """
    if numbers.dtype == np.float32 or numbers.dtype.itemsize <= 2:
        return None  # float32 holds all of float16, boolean, and integers of 8 and 16 bits
    if numbers.dtype.kind in "fO":
        lost = (values != numbers) & ~np.isnan(values)
    else:  # the way back is undefined where rounding left the integer type: 2**63 - 1 becomes 2**63
        inside = values < np.float32(2.0) ** (8 * numbers.dtype.itemsize - (numbers.dtype.kind == "i"))
        lost = ~inside | (np.where(inside, values, 0).astype(numbers.dtype) != numbers)
    return int(lost.argmax()) if lost.any() else None


def all_finite(values: np.ndarray) -> bool:
    """Whether all floats are finite, looked at in blocks that stay in the cache.

    32 us for 2 MB that are in it, where their sum takes 68.
    """
    if not values.flags.c_contiguous:
        return bool(np.isfinite(values).all())
    flat = values.reshape(-1)
    is_finite = np.empty(min(len(flat), _FINITE_BLOCK), bool)
    for begin in range(0, len(flat), _FINITE_BLOCK):
        block = flat[begin : begin + _FINITE_BLOCK]
        if not np.isfinite(block, out=is_finite[: len(block)]).all():
            return False
    return True


class FeatureRows:
    """The features of so many rows, in their order, as they are finished in any."""

    def __init__(
        self, rows: int, out_features: int, dtype: Any = np.float32, lengths: np.ndarray | None = None
    ) -> None:
        """Room for vectors `(out_features,)`; or, of rows of such `lengths` `(rows,)`, for the outputs of all steps."""
        self._offsets = None if lengths is None else running_sums(lengths)
        self._vectors = np.empty((rows if self._offsets is None else self._offsets[-1], out_features), dtype)

    def out(self, begin: int = 0, end: int | None = None) -> np.ndarray:
        """Where the vectors of rows `begin` to `end`, all when None, are to be written."""
        if self._offsets is None:
            return self._vectors[begin:end]
        return self._vectors[self._offsets[begin] : self._offsets[-1 if end is None else end]]

    @property
    def result(self) -> np.ndarray | Ragged:
        """The features of all rows."""
        return self._vectors if self._offsets is None else Ragged(self._vectors, self._offsets)


def time_first_hint(is_time_last: bool, remedy: str = "pass x.T") -> str:
    """What a message says in the end where sequences seem to stand as `(D, T)`; nothing where they do not."""
    return f" The sequences look like (D, T); expected is (T, D), time first: {remedy}." if is_time_last else ""


def checked_max_steps(max_steps: float | None) -> int | None:
    """`int(max_steps)`, as the specification takes its `T`, or a `ConfigError` if that is below 0; None stays None."""
    if max_steps is None:
        return None
    try:
        is_number = bool(max_steps >= 0)
    except (TypeError, ValueError):  # a text, an array
        is_number = False
    if not is_number:
        raise ConfigError(f"max_steps is {max_steps!r}; expected 0 or more, or None for all steps.")
    return int(min(max_steps, 2**62))


def _as_array(sequence: Any, index: int) -> np.ndarray:
    """Sequence `index` as a `(T, D)` array of numbers, or one of shape `(0,)` for `[]`; else a `DataError`."""
    array = numbers_of(f"Sequence {index}, a {type(sequence).__name__},", sequence, "(T, D)")
    if array.shape == (0,):
        return array
    if array.ndim != 2:
        what, hint = "", ". A single feature per step is (T, 1): x[:, None]"
        if array.ndim == 0:  # None, a dict, a number
            what, hint = f", a {type(sequence).__name__}", "; [] is a sequence without steps"
        raise DataError(f"Sequence {index} has shape {array.shape}{what}; expected (T, D), time first{hint}.")
    if array.dtype.kind not in NUMBERS:
        hint = HINTS.get(array.dtype.kind, "")
        raise DataError(f"Sequence {index} is of dtype {array.dtype}; expected numbers.{hint}")
    mask = np.ma.getmask(array)
    if mask.any():
        raise _masked(index, *divmod(int(mask.argmax()), array.shape[1]))
    return np.asarray(array)


def _inexact(numbers: np.ndarray, index: int, row: int, step: int) -> DataError:
    number, feature = numbers.flat[index], index % numbers.shape[-1]
    kind = type(number).__name__
    with np.errstate(over="ignore"):
        became = np.float32(number)
    return DataError(
        f"Sequence {row}, step {step}, feature {feature}: {kind} value {number} would become {became}; "
        "expected a value that float32 holds exactly. Allow rounding with lossy_cast=True, or pass float32."
    )


def _masked(row: int, step: int, feature: int, hint: str = "") -> DataError:
    return DataError(
        f"Sequence {row}, step {step}, feature {feature} is masked; expected a value at every step. Put one in its "
        f"place, such as x.filled(0), or leave the step out.{hint}"
    )


def _checked_lengths(seq_lengths: Any, rows: int, steps: int) -> np.ndarray:
    """`seq_lengths` as `(N,)` int64, or a `DataError` that names the first wrong one."""
    given = numbers_of("seq_lengths", seq_lengths, "(N,)")
    if np.ma.is_masked(given):
        raise DataError("seq_lengths is masked; expected a length for every row, 0 for one without steps.")
    given = np.asarray(given)
    if given.shape != (rows,) or given.dtype.kind not in "iuf":
        raise DataError(f"seq_lengths is {given.dtype}{list(given.shape)}; expected {rows} whole numbers, one per row.")
    wrong = ~((given >= 0) & (given <= steps) & (given == np.floor(given)))
    if wrong.any():
        row = int(wrong.argmax())
        wanted = f"a whole number from 0 to {steps}, the padded length"
        raise DataError(f"seq_lengths[{row}] is {given[row]}; expected {wanted}.")
    return given.astype(np.int64)
