"""Times of steps as numbers: the difference to the step before, the hour of the day, the day of the week.

A part of `step_input.py`, which says what a column may be and scales what comes out.
"""

from __future__ import annotations

from math import gcd
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from scanrnn_dist.errors import DataError
from scanrnn_dist.input_spec import UNITS, Time

types = pa.types
TIMES: dict[str, tuple[Any, ...]] = {
    "difference": (types.is_timestamp, types.is_date, types.is_time, types.is_duration),
    "hour": (types.is_timestamp, types.is_date, types.is_time),
    "weekday": (types.is_timestamp, types.is_date),
}
"""The types that have a difference, an hour or a weekday."""
DAY = UNITS["d"]
FIRST_WEEKDAY = 3
"""1970-01-01 was a Thursday."""


def time_numbers(column: Time, array: pa.Array, offsets: np.ndarray) -> np.ndarray:
    """What a column of times gives of each step, `(S,)` float64; a NaN where that is not known."""
    if types.is_null(array.type):
        return np.full(len(array), np.nan)
    is_null = array.is_null().to_numpy(zero_copy_only=False)
    if column.give != "difference":
        counts, nanoseconds = _counts(_local(column.name, array))
        day = DAY // nanoseconds
        is_hour = column.give == "hour"
        numbers = counts % day / (day / 24) if is_hour else (counts // day + FIRST_WEEKDAY) % 7
        return np.where(is_null, np.nan, numbers)
    counts, numerator, denominator = _counted(column, array)
    differences = _differences(counts)
    differences[1:][is_null[1:] | is_null[:-1]] = np.nan
    starts = offsets[:-1][np.diff(offsets) > 0]
    differences[starts] = 0.0
    differences[starts[is_null[starts] | ~np.isfinite(counts[starts].astype(np.float64))]] = np.nan
    return differences * numerator / denominator


def _counted(column: Time, array: pa.Array) -> tuple[np.ndarray, int, int]:
    """Times as numbers, and the fraction of the column's unit that each of them counts.

    Plain numbers without fractions are whole ones with 0 for a null, as of nanoseconds since 1970 float64 keeps but
    every 256th; others float64.
    """
    if not any(of(array.type) for of in TIMES["difference"]):
        whole = _whole_numbers(array)
        return array.cast(pa.float64(), safe=False).fill_null(np.nan).to_numpy() if whole is None else whole, 1, 1
    counts, nanoseconds = _counts(array)
    unit = UNITS[column.unit]
    common = gcd(nanoseconds, unit)
    return counts, nanoseconds // common, unit // common


def _whole_numbers(array: pa.Array) -> np.ndarray | None:
    """Numbers of a type without fractions as int64, uint64 or Python's integers, 0 for a null; None of other types."""
    if not (types.is_integer(array.type) or (types.is_decimal(array.type) and array.type.scale == 0)):
        return None
    try:
        return (array if array.type == pa.uint64() else array.cast(pa.int64())).fill_null(0).to_numpy()
    except pa.ArrowInvalid:  # decimals beyond int64
        return np.array([int(number or 0) for number in array.to_pylist()], object)


def _differences(counts: np.ndarray) -> np.ndarray:
    """Of each to the one before, float64, 0 first; rounded once, to float64, below 2**62."""
    differences = np.zeros(len(counts), np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        exact = counts[1:] - counts[:-1]
        differences[1:] = exact.view(np.int64) if counts.dtype == np.uint64 else exact
        if counts.dtype.kind in "iu":
            rough = counts[1:].astype(np.float64) - counts[:-1]
            is_far = np.abs(rough) > 2.0**62  # where they may have gone round
            differences[1:][is_far] = rough[is_far]
    return differences


def _counts(array: pa.Array) -> tuple[np.ndarray, int]:
    """Times as whole numbers, int64, 0 for a null, and how many nanoseconds each counts."""
    type = array.type
    nanoseconds = DAY if types.is_date32(type) else UNITS["ms" if types.is_date64(type) else type.unit]
    stored = pa.int32() if type.bit_width == 32 else pa.int64()
    return array.view(stored).fill_null(0).to_numpy().astype(np.int64, copy=False), nanoseconds


def _local(name: str, array: pa.Array) -> pa.Array:
    """Timestamps as their time zone's clocks show them."""
    if not types.is_timestamp(array.type) or array.type.tz is None:
        return array
    try:
        return pc.local_timestamp(array)
    except pa.ArrowInvalid as error:
        raise DataError(
            f"Column {name!r} is {array.type}, and its hours and weekdays cannot be told: {error}. Expected a time "
            "zone that this machine knows; write the column in UTC or without a zone."
        ) from error
