"""Are the kept columns of a part those of the source? Row by row, bit by bit, a few megabytes at a time.

No value becomes a Python object: what Arrow's own comparison cannot do (a NaN that equals itself also within lists, a
zero that has a sign, time zones that nobody knows, extension types) is done here on the buffers. Types are taken apart
until plain values are left: lists to their lengths and elements, structs to their fields, dictionaries to numbers of
distinct values, extension types to their storage.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from scanrnn_dist.errors import DataError
from scanrnn_dist.job.plan import Plan
from scanrnn_dist.ragged import positions
from scanrnn_dist.records import part_name, read_part
from scanrnn_dist.source import KeptReader, ReadOptions, Unit, read_chunks
from scanrnn_dist.storage import Store


def compare_kept(store: Store, plan: Plan, rows_of: Mapping[int, int], reading: ReadOptions) -> int:
    """Hold the kept columns of parts against those of the source; how many rows were compared, if any.

    Args:
        store: the destination.
        plan: of the job.
        rows_of: rows of each part, by its unit.
        reading: how rows become sequences, which is asked where some of a unit were left out.

    Raises:
        DataError: a row differs, or its type does, or there are more rows in one of them; or as `read_kept`.
    """
    if not plan.keep:
        return 0
    compared = 0
    with closing(KeptReader(plan.source, plan.keep, plan.layout)) as reader:
        for index, rows in rows_of.items():
            unit = plan.units[index]
            expected = reader.batches(unit) if rows == unit.rows else _of_sequences(plan, unit, reading)
            with closing(expected):
                compared += _compared(store, plan, unit, expected)
    return compared


def _of_sequences(plan: Plan, unit: Unit, reading: ReadOptions) -> Generator[pa.RecordBatch, None, None]:
    """The kept columns of those rows of a unit that become sequences."""
    with closing(read_chunks(plan.source, [unit], reading, prefetch_bytes=1)) as chunks:
        for chunk in chunks:
            yield chunk.kept


def _compared(store: Store, plan: Plan, unit: Unit, expected: Iterator[pa.RecordBatch]) -> int:
    """The rows of the part of a unit, which are as expected."""
    name, rows = part_name(unit.index, len(plan.units)), 0
    where = store.path(name)
    for part, source in _in_step(read_part(store, name, list(plan.keep)), expected):
        if part is None or source is None:
            raise DataError(f"{where} does not hold as many rows as become sequences of the source's {unit.rows}.")
        for column in plan.keep:
            _check_same(part.column(column), source.column(column), column, where, rows)
        rows += source.num_rows
    return rows


def differing(one: pa.Array, other: pa.Array) -> np.ndarray:
    """Where two arrays of one type and length differ, `(n,)` bool; floating point numbers by their bits.

    Example:
        >>> nan = float("nan")
        >>> differing(pa.array([[nan], [0.0], None]), pa.array([[nan], [-0.0], []], pa.list_(pa.float64()))).tolist()
        [False, True, True]
    """
    one, other = _plain(one), _plain(other)
    is_there, should_be = (array.is_valid().to_numpy(zero_copy_only=False) for array in (one, other))
    differs: np.ndarray = (is_there != should_be) | (is_there & should_be & _values_differ(one, other))
    return differs


def _in_step(
    ones: Iterable[pa.RecordBatch], others: Iterable[pa.RecordBatch]
) -> Iterator[tuple[pa.RecordBatch | None, pa.RecordBatch | None]]:
    """The rows of two streams in batches of equal length; one of the last pair is None if a stream is longer."""
    ones, others = (batch for batch in ones if batch.num_rows), (batch for batch in others if batch.num_rows)
    one, other = next(ones, None), next(others, None)
    while one is not None and other is not None:
        rows = min(one.num_rows, other.num_rows)
        yield one.slice(0, rows), other.slice(0, rows)
        one = one.slice(rows) if one.num_rows > rows else next(ones, None)
        other = other.slice(rows) if other.num_rows > rows else next(others, None)
    if one is not other:
        yield one, other


def _check_same(part: pa.Array, source: pa.Array, column: str, where: str, first_row: int) -> None:
    if part.type != source.type:
        raise DataError(
            f"{where}: the kept column {column!r} is {part.type}; expected {source.type}, as in the source."
        )
    differs = differing(part, source)
    if differs.any():
        row = first_row + int(differs.argmax())
        raise DataError(f"{where}, row {row}: the kept columns are not those of the source: {column!r} differs.")


def _plain(array: pa.Array) -> pa.Array:
    """The storage of an extension type; views, which many kernels do not know, as what they are views of."""
    while isinstance(array, pa.ExtensionArray):
        array = array.storage
    if pa.types.is_string_view(array.type):
        return array.cast(pa.large_string())
    return array.cast(pa.large_binary()) if pa.types.is_binary_view(array.type) else array


def _values_differ(one: pa.Array, other: pa.Array) -> np.ndarray:
    """Where the values differ, whatever is said of rows that are null."""
    types, kind, differs = pa.types, one.type, np.zeros(len(one), bool)
    if not len(one) or types.is_null(kind):
        return differs
    if types.is_dictionary(kind):
        return _dictionaries_differ(one, other)
    if types.is_struct(kind):
        for field, its in zip(one.flatten(), other.flatten(), strict=True):
            differs |= differing(field, its)
        return differs
    if types.is_nested(kind):
        return _lists_differ(one, other)
    is_number = types.is_decimal(kind) or (types.is_primitive(kind) and not types.is_boolean(kind))
    if is_number or types.is_fixed_size_binary(kind):
        return np.asarray((_bits(one) != _bits(other)).any(axis=1))
    unequal: np.ndarray = pc.not_equal(one, other).fill_null(False).to_numpy(zero_copy_only=False)
    return unequal


def _bits(array: pa.Array) -> np.ndarray:
    """The values of fixed width as `(n, words)` unsigned integers."""
    width = array.type.bit_width // 8
    word = next(size for size in (8, 4, 2, 1) if width % size == 0)
    begin, buffer = array.offset * width, array.buffers()[1]
    if not width or buffer is None:
        return np.zeros((len(array), 0), np.uint8)
    return np.frombuffer(buffer, f"u{word}", len(array) * width // word, begin).reshape(len(array), -1)


def _lists_differ(one: pa.Array, other: pa.Array) -> np.ndarray:
    (begins, lengths, children), (its_begins, its_lengths, its_children) = _taken_apart(one), _taken_apart(other)
    is_as_long = lengths == its_lengths
    differs: np.ndarray = ~is_as_long
    rows = np.repeat(np.flatnonzero(is_as_long), lengths[is_as_long])
    for child, its in zip(children, its_children, strict=True):
        if not is_as_long.all():  # only of these rows, element by element
            child = child.take(pa.array(positions(begins[is_as_long], lengths[is_as_long])))
            its = its.take(pa.array(positions(its_begins[is_as_long], lengths[is_as_long])))
        differs[rows[differing(child, its)]] = True
    return differs


def _taken_apart(array: pa.Array) -> tuple[np.ndarray, np.ndarray, list[pa.Array]]:
    """First element and length of every list, and the elements; of a map keys and values."""
    if pa.types.is_fixed_size_list(array.type):
        size = array.type.list_size
        begins = np.arange(len(array) + 1) * size
        return begins[:-1], np.diff(begins), [array.values.slice(array.offset * size, len(array) * size)]
    if pa.types.is_list_view(array.type) or pa.types.is_large_list_view(array.type):
        lengths = array.sizes.to_numpy() * array.is_valid().to_numpy(zero_copy_only=False)
        elements = pa.array(positions(array.offsets.to_numpy(), lengths))
        return np.cumsum(lengths) - lengths, lengths, [array.values.take(elements)]
    offsets = array.offsets.to_numpy()
    children = [array.keys, array.items] if pa.types.is_map(array.type) else [array.values]
    begin, end = int(offsets[0]), int(offsets[-1])
    return offsets[:-1] - begin, np.diff(offsets), [child.slice(begin, end - begin) for child in children]


def _dictionaries_differ(one: pa.DictionaryArray, other: pa.DictionaryArray) -> np.ndarray:
    """By numbers that both share for each distinct value: values may stand in another order, or twice."""
    size = len(one.dictionary)
    both = pa.concat_arrays([one.dictionary, other.dictionary]).dictionary_encode(null_encoding="encode")
    numbers = both.indices.to_numpy()
    ours, its = (array.indices.fill_null(0).to_numpy() for array in (one, other))
    if not len(numbers):
        return np.zeros(len(one), bool)  # all are null
    return np.asarray(np.append(numbers[:size], -1)[ours] != np.append(numbers[size:], -1)[its])
