"""Values that are compared row by row: where they change, where they rise, and 64 bits that stand for them.

Vectorised, on numpy views of Arrow's buffers where values are numbers or times: 10,000,000 int64 keys are compared in
10 ms, as many strings of 10 letters in 80 ms. What the comparison is for is said by `long.py` and `grouped.py`.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from scanrnn_dist.source.layouts.lists import plain_values

_MIX, _FACTOR = np.uint64(0x9E3779B97F4A7C15), np.uint64(secrets.randbits(64) | 1)
"""The factor is another in each process, so that nobody can write a file whose keys share their 64 bits."""


def is_comparable(type: pa.DataType) -> bool:
    """Whether values of a type can be compared here: all but lists, structs, maps and nulls."""
    while isinstance(type, pa.BaseExtensionType):
        type = type.storage_type
    if pa.types.is_dictionary(type):
        return is_comparable(type.value_type)
    is_unknown = pa.types.is_null(type) or pa.types.is_interval(type)
    return not (pa.types.is_nested(type) or is_unknown or pa.types.is_run_end_encoded(type))


def comparable(array: pa.Array) -> pa.Array:
    """The same values in a type that all functions here know: without extensions, dictionaries and views.

    Nor short decimals, which pyarrow 26 sorts wrongly, and float16, which it does not sort.
    """
    array = plain_values(array)
    kind = array.type
    if pa.types.is_decimal32(kind) or pa.types.is_decimal64(kind):
        return array.cast(pa.decimal128(kind.precision, kind.scale))
    if pa.types.is_float16(kind):
        return array.cast(pa.float32())
    return array.cast(pa.uint8()) if pa.types.is_boolean(kind) else array


def missing(key: pa.Array) -> pa.BooleanArray:
    """Where a key is null or NaN."""
    return key.is_null(nan_is_null=True) if pa.types.is_floating(key.type) else key.is_null()


def differ(ones: Sequence[pa.Array], others: Sequence[pa.Array]) -> np.ndarray:
    """Where two keys of several columns differ, row by row, `(n,)` bool; null equals null, NaN equals NaN.

    Example:
        >>> differ([pa.array([1, 2, None])], [pa.array([1, 3, None])]).tolist()
        [False, True, False]
    """
    differs = np.zeros(len(ones[0]) if ones else 0, bool)
    for one, other in zip(ones, others, strict=True):
        if _is_number(one.type):
            values, its = _numbers(one), _numbers(other)
            unequal = values != its
            if values.dtype.kind == "f":
                unequal &= ~(np.isnan(values) & np.isnan(its))
        else:
            unequal = pc.not_equal(one, other).fill_null(False).to_numpy(zero_copy_only=False)
        if one.null_count or other.null_count:
            valid, its_valid = (each.is_valid().to_numpy(zero_copy_only=False) for each in (one, other))
            unequal = (valid != its_valid) | (unequal & valid & its_valid)
        differs |= unequal
    return differs


def rise(ones: Sequence[pa.Array], others: Sequence[pa.Array]) -> np.ndarray:
    """Where keys of several columns are less than others, the first column deciding first, `(n,)` bool; without nulls.

    Example:
        >>> rise([pa.array([1, 1, 2]), pa.array([1, 1, 9])], [pa.array([1, 1, 3]), pa.array([2, 1, 0])]).tolist()
        [True, False, True]
    """
    rises, is_equal = np.zeros(len(ones[0]), bool), np.ones(len(ones[0]), bool)
    for one, other in zip(ones, others, strict=True):
        if _is_number(one.type):
            less = _numbers(one) < _numbers(other)
        else:
            less = pc.less(one, other).to_numpy(zero_copy_only=False)
        rises |= is_equal & less
        is_equal &= ~differ([one], [other])
    return rises


def changes(keys: Sequence[pa.Array]) -> np.ndarray:
    """Where a key is another than the one before, `(n,)` bool; the first is."""
    rows = len(keys[0])
    is_new = np.ones(rows, bool)
    if rows > 1:
        is_new[1:] = differ([key.slice(1) for key in keys], [key.slice(0, rows - 1) for key in keys])
    return is_new


def taken(keys: Sequence[pa.Array], rows: np.ndarray) -> list[pa.Array]:
    """The keys of some rows, as copies that hold no other buffer."""
    return [key.take(pa.array(rows)) for key in keys]


def picked(array: pa.Array, rows: pa.Array) -> pa.Array:
    """Some rows of a column, of whatever type it is: pyarrow 26 takes none of views of text, nor of runs."""
    try:
        return array.take(rows)
    except pa.ArrowNotImplementedError:
        plain = _without_views(array.type)
        if plain != array.type:
            return picked(array.cast(plain), rows).cast(array.type)
        numbers = rows.to_numpy()
        runs = [run for run in np.split(numbers, np.flatnonzero(np.diff(numbers) != 1) + 1) if len(run)]
        return pa.concat_arrays([array.slice(0, 0), *(array.slice(int(run[0]), len(run)) for run in runs)])


def _without_views(type: pa.DataType) -> pa.DataType:
    """The same type with texts where it has views of them, also within lists and structs."""

    def inner(field: pa.Field) -> pa.Field:
        return field.with_type(_without_views(field.type))

    if pa.types.is_string_view(type) or pa.types.is_binary_view(type):
        return pa.large_string() if pa.types.is_string_view(type) else pa.large_binary()
    if pa.types.is_struct(type):
        return pa.struct([inner(type.field(nth)) for nth in range(type.num_fields)])
    if pa.types.is_map(type):
        return pa.map_(inner(type.key_field), inner(type.item_field))
    if pa.types.is_fixed_size_list(type):
        return pa.list_(inner(type.value_field), type.list_size)
    if pa.types.is_list(type) or pa.types.is_large_list(type):
        return (pa.list_ if pa.types.is_list(type) else pa.large_list)(inner(type.value_field))
    return type


def picked_rows(batch: pa.RecordBatch, rows: Sequence[int] | np.ndarray) -> pa.RecordBatch:
    """Some rows of a batch, of whatever types its columns are.

    Example:
        >>> batch = pa.record_batch({"x": pa.array(["a", "b", "c"], pa.string_view())})
        >>> picked_rows(batch, [2, 0]).to_pydict()
        {'x': ['c', 'a']}
    """
    places = pa.array(rows, pa.int64())
    if not batch.num_columns:  # made of arrays, it would forget how many rows it has
        return batch.take(places)
    return pa.RecordBatch.from_arrays([picked(column, places) for column in batch.columns], schema=batch.schema)


def hashes(keys: Sequence[pa.Array]) -> np.ndarray:
    """64 bits for each key of several columns, `(n,)` uint64; equal for equal keys."""
    bits = np.full(len(keys[0]), _FACTOR)
    for key in keys:
        own = np.zeros(len(key), np.uint64)
        own[key.is_valid().to_numpy(zero_copy_only=False)] = _bits(key.drop_null() if key.null_count else key)
        bits = _mixed(bits * _FACTOR + own)
    return bits


def _is_number(type: pa.DataType) -> bool:
    return bool(pa.types.is_primitive(type)) and not pa.types.is_boolean(type)


def _numbers(array: pa.Array) -> np.ndarray:
    """Numbers and times as a view of the buffer, whatever stands where one is null."""
    width, kind = array.type.bit_width // 8, array.type
    code = "f" if pa.types.is_floating(kind) else "u" if pa.types.is_unsigned_integer(kind) else "i"
    buffer = array.buffers()[1]
    if buffer is None:
        return np.zeros(len(array), f"{code}{width}")
    return np.frombuffer(buffer, f"{code}{width}", len(array), array.offset * width)


def _bits(array: pa.Array) -> np.ndarray:
    return _number_bits(array) if _is_number(array.type) else _text_bits(array)


def _number_bits(array: pa.Array) -> np.ndarray:
    values = _numbers(array)
    if values.dtype.kind == "f":  # as they compare: one zero, one NaN
        values = np.where(np.isnan(values), np.nan, values + 0.0).astype(np.float64)
        return _mixed(values.view(np.uint64))
    return _mixed(values.astype(np.int64 if values.dtype.kind == "i" else np.uint64).view(np.uint64))


def _text_bits(array: pa.Array) -> np.ndarray:
    """A polynomial of the bytes of each value."""
    if pa.types.is_decimal(array.type):
        array = array.view(pa.binary(array.type.byte_width))
    array = array.cast(pa.large_binary())
    offsets = np.frombuffer(array.buffers()[1], np.int64, len(array) + 1, array.offset * 8)
    lengths = np.diff(offsets)
    bits = lengths.astype(np.uint64)
    if offsets[-1] > offsets[0]:
        letters = np.frombuffer(array.buffers()[2], np.uint8, int(offsets[-1] - offsets[0]), int(offsets[0]))
        place = np.arange(len(letters)) - np.repeat(offsets[:-1] - offsets[0], lengths)
        powers = np.full(int(lengths.max()), _FACTOR)
        powers[0] = 1
        terms = (letters.astype(np.uint64) + np.uint64(1)) * np.cumprod(powers, dtype=np.uint64)[place]
        filled = lengths > 0
        bits[filled] += np.add.reduceat(terms, (offsets[:-1] - offsets[0])[filled])
    return _mixed(bits)


def _mixed(bits: np.ndarray) -> np.ndarray:
    """splitmix64 (Steele, Lea, Flood, 2014)."""
    bits = bits + _MIX
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))
