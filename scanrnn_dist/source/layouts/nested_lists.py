"""Sequences as nested lists: an Arrow column taken apart into a `Ragged`.

A row is an outer list of timesteps, a timestep an inner list of numbers or, for one feature, a plain number; each list
may be a `list`, `large_list` or `fixed_size_list`. Pure Arrow to numpy, and vectorised: single rows are looked at only
to say what is wrong with one. float32 is taken as a view of Arrow's buffer.

Which column it is says `find.py`, which numbers may pass `numbers.py`. Not covered: one list column per feature, and
one event per table row; both need a query before they get here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa

from scanrnn_dist.errors import DataError, LayoutError
from scanrnn_dist.ragged import Ragged, time_first_hint
from scanrnn_dist.source.layouts.find import (
    EXPECTED,
    RECIPES,
    fixed_in_features,
    foreign,
    foreign_within,
    is_number,
    step_type,
    way_out,
)
from scanrnn_dist.source.layouts.numbers import Nonfinite, ragged_of

Where = Callable[[int], str]


def to_ragged(
    column: pa.Array | pa.ChunkedArray,
    *,
    in_features: int | None = None,
    lossy_cast: bool = False,
    nonfinite: Nonfinite = "error",
    where: Where,
) -> Ragged:
    """The sequences of an Arrow column, a view of its buffers where it is one chunk of float32.

    Args:
        column: `N` rows; of extension types a tensor of one axis, and those whose storage is the sequence.
        in_features: `D` that every step must have; None takes it from the type or from the first step.
        lossy_cast: whether numbers may be rounded to float32; otherwise only values that float32 holds exactly pass.
        nonfinite: "error" refuses NaN and infinity, "propagate" lets them through.
        where: text that names file, row group and row for an error about a row of `column`.

    Returns:
        A `Ragged` of `N` rows; an empty list becomes a row of 0 steps.

    Raises:
        LayoutError: another layout, another number of features than expected, or one that nobody knows.
        DataError: a null, a number that float32 does not hold, a NaN or an infinity.
    """
    extension = foreign_within(column.type)
    if extension is not None:
        raise LayoutError(f"{where(0)}: the column is {column.type} {foreign(extension)}")
    if step_type(column.type) is None:
        raise LayoutError(
            f"{where(0)}: the column is {column.type}; {EXPECTED} per row. {way_out(column.type)} ({RECIPES})."
        )
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    begins = np.cumsum([0, *map(len, chunks)])
    opened = [_open(chunk, _shifted(where, int(begin))) for chunk, begin in zip(chunks, begins, strict=False)]
    expected = in_features if in_features is not None else fixed_in_features(column.type)
    if expected is None:
        expected = next((int(levels.widths[0]) for levels in opened if len(levels.widths)), None)
    if expected is None:
        raise LayoutError(
            f"{where(0)}: all {len(column)} rows are empty and {column.type} does not say how many features a step "
            "has; expected at least one step. Choose an encoder, which tells how many."
        )
    for levels in opened:
        _check_widths(levels, expected, told=in_features is not None)
    _check_type_width(column.type, expected, where)
    cast = partial(ragged_of, in_features=expected, lossy_cast=lossy_cast, nonfinite=nonfinite)
    parts = [cast(levels.values.to_numpy(), levels.offsets, at=levels.at) for levels in opened]
    return parts[0] if len(parts) == 1 else _concatenated(parts, expected)


def first_width(column: pa.Array, *, where: Where) -> int | None:
    """The numbers in the first step of an Arrow column, whatever they are; None if all of its rows are empty."""
    widths = _open(column, where).widths
    return int(widths[0]) if len(widths) else None


def fixed_lists(batch: pa.RecordBatch, column: str, size: int, *, lossy_cast: bool, where: Where) -> np.ndarray:
    """A column of lists of `size` numbers as `(n, size)` float32; raises `DataError` for any other."""
    lists = to_ragged(batch.column(column), in_features=1, lossy_cast=lossy_cast, where=where)
    wrong = lists.lengths != size
    if wrong.any():
        row = int(wrong.argmax())
        raise DataError(f"{where(row)}: {column!r} holds {lists.lengths[row]} numbers; expected {size}.")
    return lists.values[lists.offsets[0] : lists.offsets[-1]].reshape(-1, size)


@dataclass(frozen=True)
class _Levels:
    """One chunk taken apart: `offsets (N + 1,)` of its steps, `widths (S,)` numbers per step, and the numbers, flat."""

    offsets: np.ndarray
    widths: np.ndarray
    values: pa.Array
    where: Where

    def at(self, index: int) -> str:
        """Where step `index` of the chunk stands."""
        row = int(np.searchsorted(self.offsets, index, side="right")) - 1
        return f"{self.where(row)}, step {index - int(self.offsets[row])}"


def _storage(array: pa.Array) -> pa.Array:
    while isinstance(array, pa.ExtensionArray):
        array = array.storage
    return array


def _shifted(where: Where, begin: int) -> Where:
    return lambda row: where(begin + row)


def _children(array: pa.Array) -> tuple[np.ndarray, pa.Array]:
    """Offsets from 0 and the children of a list array without nulls; respects the slice that the array may be."""
    if pa.types.is_fixed_size_list(array.type):
        size = array.type.list_size
        # `values` of a fixed-size list ignores the slice, as that of a list does.
        children = array.values.slice(array.offset * size, len(array) * size)
        return np.arange(len(array) + 1) * size, _storage(children)
    offsets = array.offsets.to_numpy()
    first = int(offsets[0])
    children = array.values.slice(first, int(offsets[-1]) - first)
    return (offsets - first if first else offsets), _storage(children)


def _first_null(array: pa.Array) -> int:
    return int(array.is_null().to_numpy(zero_copy_only=False).argmax())


def _open(chunk: pa.Array, where: Where) -> _Levels:
    """Take the levels of a chunk apart; a null at any of them is a `DataError`."""
    rows = _storage(chunk)
    if rows.null_count:
        raise DataError(
            f"{where(_first_null(rows))}: the sequence is null; expected a list. "
            "Drop such rows, or store an empty list for a sequence without steps."
        )
    offsets, steps = _children(rows)
    offsets = offsets.astype(np.int64, copy=False)
    if is_number(steps.type):
        levels = _Levels(offsets, np.broadcast_to(np.int64(1), len(steps)), steps, where)
    else:
        if steps.null_count:
            at = _Levels(offsets, np.empty(0), steps, where).at(_first_null(steps))
            raise DataError(f"{at}: the timestep is null; expected a list of numbers. Fill it or drop the step.")
        inner, values = _children(steps)
        levels = _Levels(offsets, np.diff(inner), values, where)
    if levels.values.null_count:
        index = int(np.searchsorted(np.cumsum(levels.widths), _first_null(levels.values), side="right"))
        raise DataError(f"{levels.at(index)}: a value is null; expected a number. Fill it or drop the step.")
    return levels


def _check_type_width(type: pa.DataType, expected: int, where: Where) -> None:
    """Refuse a type that fixes another `D`, also where there is no step to see it by, and a `D` of 0."""
    fixed = fixed_in_features(type)
    if fixed is not None and fixed != expected:
        raise LayoutError(f"{where(0)}: the column is {type}, {fixed} feature(s) a step; expected {expected}.")
    if expected < 1:
        raise LayoutError(
            f"{where(0)}: a step has {expected} features; expected at least one. An empty row is [], not [[]]."
        )


def _check_widths(levels: _Levels, expected: int, *, told: bool) -> None:
    """Every step must have `expected` numbers; a `LayoutError` names the first that has not."""
    wrong = levels.widths != expected
    if not wrong.any():
        return
    index = int(wrong.argmax())
    reason = "as in_features says" if told else "as in the first step"
    is_time_last = _looks_transposed(levels, expected, told=told)
    hint = time_first_hint(is_time_last, "transpose every row before it is stored")
    hint = hint or " A step must hold every feature once."
    raise LayoutError(f"{levels.at(index)}: {levels.widths[index]} features; expected {expected}, {reason}.{hint}")


def _looks_transposed(levels: _Levels, expected: int, *, told: bool) -> bool:
    """Whether all rows have as many lists as there are features, each list of a row being of the same length."""
    lengths = np.diff(levels.offsets)
    filled = lengths > 0
    outer = np.unique(lengths[filled])
    first_of_row = np.repeat(levels.widths[levels.offsets[:-1][filled]], lengths[filled])
    if len(outer) != 1 or not np.array_equal(levels.widths, first_of_row):
        return False
    return int(outer[0]) == expected if told else True


def _concatenated(parts: list[Ragged], in_features: int) -> Ragged:
    if not parts:
        return Ragged.empty(in_features)
    begins = np.cumsum([0, *(len(part.values) for part in parts)])
    offsets = [part.offsets[1:] + begin for part, begin in zip(parts, begins, strict=False)]
    return Ragged(np.concatenate([part.values for part in parts]), np.concatenate([np.zeros(1, np.int64), *offsets]))
