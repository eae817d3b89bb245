"""Single values of Arrow arrays: as they are stored, to be compared, and as they are told, by whoever writes a message.

Python has no times beyond its years or of unknown zones, no nanoseconds, and no text that is not UTF-8; and of one zone
it holds two times an hour apart for equal where clocks are set back. So values are compared as they are stored, and
nothing here raises because of a value.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.types as pat

from scanrnn_dist.source.layouts.keys import comparable
from scanrnn_dist.source.layouts.lists import plain_values
from scanrnn_dist.source.layouts.types import is_string

REPLACED = "\ufffd"
"""Stands in a text for bytes that are no UTF-8."""


def as_integers(array: pa.Array) -> pa.Array:
    """Times, dates and durations as the integers that are stored; other values as they are."""
    if not pat.is_temporal(array.type) or pat.is_interval(array.type):
        return array
    return array.view(pa.int64() if array.type.bit_width == 64 else pa.int32())


def stored_values(array: pa.Array) -> list[Any]:
    """The values as they are stored, of arrays that are comparable: equal, and in order, where the stored ones are.

    Times, dates and durations are integers of their unit, texts are bytes in UTF-8; a null is None.

    Example:
        >>> stored_values(pa.array([1, None], pa.timestamp("s", "Europe/Berlin"))), stored_values(pa.array(["a"]))
        ([1, None], [b'a'])
    """
    array = as_integers(comparable(array))
    if pat.is_string(array.type):
        array = array.view(pa.binary())
    elif pat.is_large_string(array.type):
        array = array.view(pa.large_binary())
    values: list[Any] = array.to_pylist()
    return values


def python_values(array: pa.Array) -> list[Any]:
    """The values as Python has them, a null as None; what Python does not have becomes a text that tells it.

    Example:
        >>> python_values(pa.array([0, 253402300800], pa.timestamp("s")))
        [datetime.datetime(1970, 1, 1, 0, 0), '10000-01-01 00:00:00']
    """
    try:
        return _as_python(array)
    except Exception:  # of zones, years and texts of any kind, and of types that others wrote
        return [_python_value(array.slice(place, 1)) for place in range(len(array))]


def in_words(array: pa.Array, place: int) -> str:
    """The value at a place, for a message; texts and bytes in quotes, a null as "null".

    Example:
        >>> in_words(pa.array(["a", None]), 0), in_words(pa.array([1], pa.date32()), 0)
        ("'a'", '1970-01-02')
    """
    one = array.slice(place, 1)
    value = python_values(one)[0]
    if value is None:
        return "null"
    return repr(value) if isinstance(value, bytes) or is_string(one.type) else str(value)


def told(names: Sequence[str], keys: Sequence[pa.Array], row: int) -> str:
    """A key in words: "client_id=4, day=2"."""
    return ", ".join(f"{name}={in_words(key, row)}" for name, key in zip(names, keys, strict=True))


def _as_python(array: pa.Array) -> list[Any]:
    """The values as Arrow makes them; raises what Arrow raises where it cannot."""
    if pat.is_dictionary(array.type):
        array = array.dictionary_decode()
    if getattr(array.type, "unit", "") == "ns":  # Python's own times have microseconds
        array = array.cast(_in_microseconds(array.type))
    values: list[Any] = array.to_pylist()
    return values


def _in_microseconds(kind: pa.DataType) -> pa.DataType:
    if pat.is_duration(kind):
        return pa.duration("us")
    return pa.time64("us") if pat.is_time(kind) else pa.timestamp("us", kind.tz)


def _python_value(one: pa.Array) -> Any:
    """The value of an array that has one."""
    try:
        return _as_python(one)[0]
    except Exception:
        one = plain_values(one)
    if is_string(one.type):
        return stored_values(one)[0].decode("utf-8", "replace")
    if pat.is_temporal(one.type) and not pat.is_interval(one.type):
        return _time_in_words(one.type, as_integers(one)[0].as_py())
    return f"a value of the type {one.type}"


def _time_in_words(kind: pa.DataType, number: int) -> str:
    """A time, a date or a duration by numpy, which has all years; times of a zone are told in UTC."""
    unit = _unit(kind)
    time = np.timedelta64(number, unit) if pat.is_duration(kind) else np.datetime64(number, unit)
    if np.isnat(time):
        return f"{number} of the type {kind}"
    told = str(time).replace("T", " ")
    if pat.is_time(kind):
        return told.partition(" ")[2]
    if pat.is_date64(kind):
        return told.partition(" ")[0]
    return f"{told}+00:00" if pat.is_timestamp(kind) and kind.tz else told


def _unit(kind: pa.DataType) -> Any:
    """What numpy calls the unit of the integers that are stored."""
    return "D" if pat.is_date32(kind) else "ms" if pat.is_date64(kind) else kind.unit
