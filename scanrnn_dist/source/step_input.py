"""Arrow columns to what travels of each step: an `InputSpec` applied, one float32 per column and step.

Knows one value per step and where rows begin, and which layout has what an input names; what is done with a row that
holds a bad value, is for who calls. `encoder/step_input.py` makes the cell's input of it, on the device.

Of 10,000,000 steps, on 2 cores: numbers as they are 0.01 s, with log1p, scaled and clipped 0.19 s; ids as they are
0.24 s; in a vocabulary of 100,000 integers 0.12 s, strings 0.45 s, dictionary-encoded strings 0.14 s; differences of
times 0.37 s, hours 0.09 s, of a time zone 0.23 s.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from scanrnn_dist.errors import ConfigError, LayoutError, did_you_mean, some_of
from scanrnn_dist.input_spec import UNKNOWN_ID, Category, Column, InputSpec, Number, Time
from scanrnn_dist.source.layouts import (
    EXPECTED_EXACT,
    Asked,
    Layout,
    as_float32,
    in_words,
    is_string,
    side_by_side,
    storage,
)
from scanrnn_dist.source.step_times import TIMES, time_numbers

types = pa.types

SAY_UNKNOWN = 'Say what nulls and unknown values become by unknown = "zeros" or "own" in the input'
"""What to do about categories that have no id."""


class Refusal(NamedTuple):
    """The first step whose value in one column may not pass, and what is wrong: the message after the place."""

    step: int
    reason: str


class StepInputs(NamedTuple):
    """What travels of each step, `(S, in_features)` float32, and of each column the first step that may not pass.

    A value that is no number is a NaN: a null, a time that is not known, and in a column that is scaled an infinity.
    So is a category that is refused.
    """

    values: np.ndarray
    refusals: tuple[Refusal, ...]


def apply_input(
    spec: InputSpec,
    fields: Mapping[str, pa.Array],
    offsets: np.ndarray,
    *,
    lossy_cast: bool = False,
) -> StepInputs:
    """What travels of each step.

    Args:
        spec: the columns.
        fields: for each name an array of `S` values, one per step; others are not looked at.
        offsets: `(N + 1,)` int64, where rows begin among the steps; rows hold all of these.
        lossy_cast: whether numbers that are not scaled may be rounded to float32; else those that float32 does not hold
            are refused.

    Raises:
        ConfigError: a column is missing; lists those there are.
        LayoutError: a column's type is one that its kind does not take.

    Example:
        >>> spec = InputSpec((Category("item", values=("a", "b"), unknown="zeros"), Number("dwell", mean=1.0, std=2.0)))
        >>> fields = {"item": pa.array(["b", "c"]), "dwell": pa.array([3, None])}
        >>> apply_input(spec, fields, np.array([0, 2])).values.tolist()
        [[1.0, 1.0], [-1.0, nan]]
    """
    check_columns(spec, fields)
    steps = len(fields[spec.names[0]])
    columns, refusals = [], []
    for column in spec.columns:
        array = plain(fields[column.name])
        if isinstance(column, Category):
            values, refused = _ids(column, array)
        else:
            values, refused = _numbers(column, array, offsets, lossy_cast)
        columns.append(values)
        if refused is not None:
            refusals.append(refused)
    return StepInputs(side_by_side(columns, steps), tuple(refusals))


def layout_of_input(find: Callable[[Asked], Layout], asked: Asked, schema: pa.Schema, spec: InputSpec) -> Layout:
    """How the sequences of an input stand in columns; where features are not asked for, those that it names come first.

    Args:
        find: finds a layout, as `find_layout` does.
        asked: what the user says of the layout.
        schema: the columns.
        spec: the input.

    Raises:
        ConfigError: a name of the input that the steps do not have.
        LayoutError: as `find`.
    """
    refused: Exception | None = None
    if asked.features is None:
        try:
            return find(replace(asked, features=spec.names))
        except (ConfigError, LayoutError) as error:  # they may be names of fields, or numbers of features without names
            refused = error
    try:
        layout = find(asked)
    except (ConfigError, LayoutError):
        if isinstance(refused, ConfigError) and not all(map(str.isdecimal, spec.names)):
            raise refused from None
        raise
    if (width := layout.width(schema)) is not None:
        others = layout.others(schema) if asked.features is None else {}
        there = [name for name, type in others.items() if type is not None]
        check_columns(spec, [*layout.feature_names(schema, width), *there])
    return layout


def check_columns(spec: InputSpec, there: Collection[str]) -> None:
    """Refuse steps that lack columns of an input; `there` are those that they have."""
    if missing := [name for name in spec.names if name not in there]:
        raise ConfigError(
            f"The input names the columns {some_of(list(map(repr, missing)), 4)}, which the steps do not have; they "
            f"have {some_of(sorted(map(repr, there)), 16)}.{did_you_mean(missing[0], there)}"
        )


def check_type(column: Column, type: pa.DataType) -> None:
    """Refuse a type that a column of this kind does not take; `LayoutError` says which it does."""
    if types.is_dictionary(type) or types.is_run_end_encoded(type):
        type = type.value_type
    if types.is_null(type):
        return
    is_number = types.is_integer(type) or types.is_floating(type) or types.is_boolean(type) or types.is_decimal(type)
    if isinstance(column, Category):
        if column.values is not None and isinstance(column.values[0], str):
            fits, expected = is_string(type), "strings, since the input's values are"
        else:
            fits, expected = is_number, "integers, since the input's values are"
    elif isinstance(column, Number):
        fits, expected = is_number, "numbers"
        if is_string(type) or types.is_temporal(type):
            expected += ' (kind = "category" takes strings, kind = "time" takes times)'
    else:
        fits = (is_number and column.give == "difference") or any(of(type) for of in TIMES[column.give])
        expected = f"times that have {'differences' if column.give == 'difference' else f'a {column.give}'}"
    if not fits:
        raise LayoutError(f"Column {column.name!r} is {type}; expected {expected}. Choose another in the input.")


def plain(array: pa.Array | pa.ChunkedArray) -> pa.Array:
    """The values of steps as one array, without runs and views."""
    return storage(array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array)


def unscaled(column: Number | Time, array: pa.Array, offsets: np.ndarray) -> np.ndarray:
    """The numbers that a column gives before any scaling, `(S,)` float64; a NaN for a null."""
    check_type(column, array.type)
    if isinstance(column, Time):
        return time_numbers(column, decoded(array), offsets)
    return decoded(array).cast(pa.float64(), safe=False).fill_null(np.nan).to_numpy()


def decoded(array: pa.Array) -> pa.Array:
    """An array of values in place of a dictionary."""
    return array.dictionary_decode() if types.is_dictionary(array.type) else array


def _numbers(
    column: Number | Time, array: pa.Array, offsets: np.ndarray, lossy_cast: bool
) -> tuple[np.ndarray, Refusal | None]:
    """A column of numbers, scaled in float64 and rounded once."""
    if isinstance(column, Time) or column.changes_numbers:
        with np.errstate(over="ignore"):  # what becomes an infinity is judged with the others
            return column(unscaled(column, array, offsets)).astype(np.float32), None
    check_type(column, array.type)
    values, _, inexact = as_float32(array, column.name)
    if inexact is None or lossy_cast:
        return values, None
    step, became = inexact
    reason = f"column {column.name!r}: {became}; {EXPECTED_EXACT}, or scale the column in the input."
    return values, Refusal(step, reason)


def _ids(column: Category, array: pa.Array) -> tuple[np.ndarray, Refusal | None]:
    """The ids of a column of categories, float32."""
    check_type(column, array.type)
    ids = _known_ids(column, array)
    if not len(ids) or ids.min() >= 0:
        return ids.astype(np.float32), None
    if column.unknown == "zeros":
        return np.where(ids < 0, np.float32(UNKNOWN_ID), ids.astype(np.float32)), None
    if column.unknown == "own":
        return np.where(ids < 0, np.float32(column.known), ids.astype(np.float32)), None
    values = np.where(ids < 0, np.float32(np.nan), ids.astype(np.float32))
    is_null = pc.is_null(decoded(array), nan_is_null=True).to_numpy(zero_copy_only=False)
    if not (is_unknown := (ids < 0) & ~is_null).any():
        return values, None
    step = int(is_unknown.argmax())
    among = f"the {column.known:,} values" if column.values is not None else f"the ids 0 to {column.known - 1}"
    reason = (
        f"column {column.name!r} is {in_words(array, step)}, which is not among {among} that the input knows; expected "
        f"one of these. {SAY_UNKNOWN}."
    )
    return values, Refusal(step, reason)


def _known_ids(column: Category, array: pa.Array) -> np.ndarray:
    """The id of each value, int64; -1 for a null and for an unknown one."""
    if types.is_dictionary(array.type):
        of_values = np.append(_known_ids(column, array.dictionary), -1)
        return of_values[array.indices.cast(pa.int64()).fill_null(-1).to_numpy()]
    if types.is_null(array.type):
        return np.full(len(array), -1)
    if column.values is None:
        whole = _integers(array)
        if len(whole) and not whole.null_count and types.is_signed_integer(whole.type):
            ids = whole.to_numpy()
            if ids.min() >= 0 and ids.max() < column.known:
                return ids
        ids = whole.fill_null(0).to_numpy()
        is_id = (ids >= 0) & (ids < column.known)
        if whole.null_count:
            is_id &= whole.is_valid().to_numpy(zero_copy_only=False)
        return np.where(is_id, ids, 0).astype(np.int64) - ~is_id
    values = array.cast(pa.large_string()) if is_string(array.type) else _integers(array)
    value_set, ids = _vocabulary(column.values, values.type)
    return ids[pc.index_in(values, value_set=value_set).fill_null(-1).to_numpy()]


@lru_cache(maxsize=32)
def _vocabulary(values: tuple[Any, ...], type: pa.DataType) -> tuple[pa.Array, np.ndarray]:
    """The values that a type can hold as an array of it, and the id of each, -1 following at the end."""
    if types.is_integer(type):
        least, most = (0, 2**64 - 1) if type == pa.uint64() else (-(2**63), 2**63 - 1)
        fitting = [(value, number) for number, value in enumerate(values) if least <= value <= most]
    else:
        fitting = [(value, number) for number, value in enumerate(values)]
    ids = np.array([*(number for _, number in fitting), -1], np.int64)
    return pa.array([value for value, _ in fitting], type), ids


def _integers(array: pa.Array) -> pa.Array:
    """Numbers as int64, or uint64 where they are that; null for what is no whole number in its range."""
    type = array.type
    if types.is_integer(type):
        return array if type == pa.uint64() else array.cast(pa.int64())
    if types.is_boolean(type):
        return array.cast(pa.int8()).cast(pa.int64())
    if types.is_decimal(type):
        widest = array.cast(pa.decimal256(76, type.scale))
        # Cuts fractions off; and holds all of int64, as one with a large scale does not.
        ones = widest.cast(pa.decimal256(76, 0), safe=False)
        whole = ones.cast(pa.int64(), safe=False)  # which wraps around
        is_same = pc.and_(pc.equal(ones.cast(widest.type), widest), pc.equal(whole.cast(ones.type), ones))
        return pc.if_else(is_same, whole, pa.scalar(None, pa.int64()))
    numbers = array.cast(pa.float64()).fill_null(np.nan).to_numpy()
    is_whole = (numbers == np.floor(numbers)) & (numbers >= -(2.0**63)) & (numbers < 2.0**63)
    return pa.array(np.where(is_whole, numbers, 0).astype(np.int64), mask=~is_whole)
