"""Steps of rows to a `Ragged`, by the rules for rows and values that are not what they should be.

What a layout made of a batch comes in; what a recurrent cell may be fed goes out. Layouts are in `layouts/`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa

from scanrnn_dist.errors import DataError, LayoutError
from scanrnn_dist.ragged import Ragged
from scanrnn_dist.source.layouts import Fault, Steps, float32_of, foreign, foreign_within, nested_steps

Where = Callable[[int], str]
"""Says of a row where it stands, for messages: file, row group, row."""
BadValue = Literal["error", "propagate"]


@dataclass(frozen=True)
class BadRows:
    """What is done with rows that are not what they should be; `"error"` fails their unit.

    Args:
        bad_value: of a null, a NaN or an infinity within a sequence: "error", or "propagate" to let it through, a null
            as NaN.
        unreadable_file: of a file whose footer cannot be read: "error", or "skip" to leave it out.
    """

    bad_value: BadValue = "error"
    unreadable_file: Literal["error", "skip"] = "error"


@dataclass(frozen=True)
class Taken:
    """Rows as the engine takes them."""

    sequences: Ragged


def take(steps: Steps, in_features: int, bad_rows: BadRows, lossy_cast: bool, where: Where) -> Taken:
    """The rows of a batch, cast to float32 and checked; a view of Arrow's buffer where that is possible.

    Args:
        steps: of the batch.
        in_features: `D`.
        bad_rows: what is done with rows that are not what they should be.
        lossy_cast: whether numbers may be rounded to float32; otherwise only values that float32 holds exactly pass.
        where: says where a row of the batch stands.

    Raises:
        LayoutError: a step of another width.
        DataError: a null, a number that float32 does not hold, a NaN or an infinity, where it is not let through.
    """
    if steps.faults:
        raise _fault_error(steps.faults[0], where)
    values, nulls, inexact = float32_of(steps, in_features)

    def at(step: int) -> str:
        row = int(np.searchsorted(steps.offsets, step, side="right")) - 1
        return f"{where(row)}, step {step - int(steps.offsets[row])}"

    if len(nulls) and bad_rows.bad_value == "error":
        step, feature = divmod(int(nulls[0]), in_features)
        raise DataError(f"{at(step)}: {_missing(nulls, step, in_features)} Fill it or drop the step.")
    if inexact is not None and not lossy_cast:
        step, _, became = inexact
        raise DataError(
            f"{at(step)}: {became}; expected a value that float32 holds exactly. Allow rounding with --lossy-cast / "
            "lossy_cast=True."
        )
    ragged = Ragged(values, steps.offsets)
    bad = ragged.first_nonfinite() if bad_rows.bad_value == "error" else None
    if bad is not None:
        step = int(steps.offsets[bad[0]]) + bad[1]
        feature = int(np.isfinite(values[step]).argmin())
        raise DataError(
            f"{at(step)}: feature {feature} is {_told(steps, step, feature, in_features)}; expected a finite number. "
            "Clean the data: a recurrent cell would carry it through all later steps."
        )
    return Taken(ragged)


def to_ragged(
    column: pa.Array | pa.ChunkedArray,
    *,
    in_features: int | None = None,
    lossy_cast: bool = False,
    nonfinite: BadValue = "error",
    where: Where,
) -> Ragged:
    """The sequences of an Arrow array of nested lists, a view of its buffers where it is float32 of one chunk.

    Args:
        column: `N` rows; of extension types a tensor of one axis, and those whose storage is the sequence.
        in_features: `D` that every step must have; None takes it from the type or from the first step.
        lossy_cast: whether numbers may be rounded to float32.
        nonfinite: what is done with a null, a NaN or an infinity.
        where: says where a row of `column` stands.

    Returns:
        A `Ragged` of `N` rows; an empty list becomes a row of 0 steps.

    Raises:
        LayoutError: another layout, another number of features than expected, or one that nobody knows.
        DataError: as `take`.
    """
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    extension = foreign_within(column.type)
    if extension is not None:
        raise LayoutError(f"{where(0)}: the column is {column.type} {foreign(extension)}")
    steps = placed(nested_steps, column, in_features, where=where)
    if steps.in_features is None and in_features is None:
        raise unknown_width(where(0), f"{column.type}", len(column))
    return take(steps, steps.in_features or in_features or 0, BadRows(nonfinite), lossy_cast, where).sequences


def placed(do: Callable[..., Steps], *given: object, where: Where) -> Steps:
    """What a layout does, its errors with the place in front."""
    try:
        return do(*given)
    except LayoutError as error:
        raise LayoutError(f"{where(0)}: {error}") from error


def unknown_width(place: str, what: str, rows: int) -> LayoutError:
    """What to say of rows without steps whose width nobody knows."""
    return LayoutError(
        f"{place}: all {rows} rows are empty and {what} does not say how many features a step has; expected at least "
        "one step. Choose an encoder, which tells how many."
    )


def fixed_lists(batch: pa.RecordBatch, column: str, size: int, *, lossy_cast: bool, where: Where) -> np.ndarray:
    """A column of lists of `size` numbers as `(n, size)` float32; raises `DataError` for any other."""
    lists = to_ragged(batch.column(column), in_features=1, lossy_cast=lossy_cast, where=where)
    wrong = lists.lengths != size
    if wrong.any():
        row = int(wrong.argmax())
        raise DataError(f"{where(row)}: {column!r} holds {lists.lengths[row]} numbers; expected {size}.")
    return lists.values[lists.offsets[0] : lists.offsets[-1]].reshape(-1, size)


def _fault_error(fault: Fault, where: Where) -> DataError:
    kind = LayoutError if fault.kind == "wrong_width" else DataError
    step = "" if fault.step is None else f", step {fault.step}"
    return kind(f"{where(fault.row)}{step}: {fault.reason}")


def _missing(nulls: np.ndarray, step: int, in_features: int) -> str:
    """What is missing of a step."""
    is_whole = np.isin(np.arange(step * in_features, (step + 1) * in_features), nulls).all()
    if in_features > 1 and is_whole:
        return "the timestep is null; expected a list of numbers."
    return "a value is null; expected a number."


def _told(steps: Steps, step: int, feature: int, in_features: int) -> str:
    """A value that is not finite, as it stands in the source."""
    array = steps.values
    value = array[step * in_features + feature] if isinstance(array, pa.Array) else array[feature][step]
    number = float(value.as_py())
    return f"{number} (too large for float32)" if np.isfinite(number) else f"{number}"
