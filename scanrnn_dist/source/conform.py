"""Columns of one file as the columns of the source: in the united types, nulls where the file lacks a column or field.

Which types hold which is `united.py`'s. Where a file has the types already, its arrays are handed on as they are, at
any depth. A cast that would lose something, such as of a timestamp too far for a finer unit, is an error.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
from pyarrow import types

from scanrnn_dist.errors import DataError
from scanrnn_dist.ragged import running_sums
from scanrnn_dist.source.layouts import Path, is_list, is_view
from scanrnn_dist.source.parquet import least_row_bytes
from scanrnn_dist.source.united import is_number, united, with_wide_indices


def conforms(kind: pa.DataType | None, wanted: pa.DataType) -> bool:
    """Whether a column of a file, None for one that it lacks, can be brought into a type as it stands.

    The indices of dictionaries may be of any width: plans of earlier versions have that of the files.
    """
    if kind is None or kind == wanted:
        return True
    wide = with_wide_indices(wanted)
    return united(wide, with_wide_indices(kind), rounds=True) == wide


def part_of(kind: pa.DataType, ways: Sequence[Path]) -> pa.DataType:
    """A type with those fields of structs alone that ways lead to, also within lists, which become large ones.

    Example:
        >>> part_of(pa.list_(pa.struct([("x", pa.int8()), ("y", pa.int8())])), [("y",)])
        LargeListType(large_list<item: struct<y: int8>>)
    """
    if () in ways:
        return kind
    if types.is_struct(kind):
        within = defaultdict[str, list[Path]](list)
        for name, *rest in ways:
            within[name].append(tuple(rest))
        return pa.struct([of.with_type(part_of(of.type, within[of.name])) for of in kind if of.name in within])
    return pa.large_list(kind.value_field.with_type(part_of(kind.value_type, ways))) if is_list(kind) else kind


def filled_bytes(
    kind: pa.DataType | None, wanted: pa.DataType, lengths: Callable[[Path], float], way: Path, count: float = 1
) -> float:
    """What the nulls take at least, in each row, that stand for what a file lacks of a column, or of a field within it.

    Args:
        kind: of the column in the file; None if it lacks it.
        wanted: the type that it is brought into.
        lengths: how many values a row has in the lists, or items in the maps, that a way leads to.
        way: to the column.
        count: so many of it are in a row.
    """
    if kind is None or types.is_null(kind):
        return count * least_row_bytes(wanted)
    if types.is_struct(kind) and types.is_struct(wanted):
        own = {field.name: field.type for field in kind}
        return sum(
            filled_bytes(own.get(field.name), field.type, lengths, (*way, field.name), count) for field in wanted
        )
    if not all(is_list(each) or types.is_map(each) for each in (kind, wanted)):
        return 0
    count = count * kind.list_size if types.is_fixed_size_list(kind) else lengths(way)
    return filled_bytes(kind.field(0).type, wanted.field(0).type, lengths, way, count)


def conform(batch: pa.RecordBatch, fields: Sequence[pa.Field], where: str, own: frozenset[str]) -> pa.RecordBatch:
    """The columns of `fields` of a batch, in their types.

    Args:
        batch: of a file; may have other columns too.
        fields: those of the source, or the parts of them that are read.
        where: the file and row groups, for messages.
        own: columns in whose lists, and structs of or in these, numbers stay as the file has them: any layout takes
            those apart, and a number is then rounded once at most.

    Raises:
        DataError: a value that the type cannot hold.
    """
    arrays, out = [], []
    for field in fields:
        if field.name not in batch.schema.names:
            arrays.append(pa.nulls(batch.num_rows, field.type))
        else:
            array = batch.column(field.name)
            if field.name in own and not is_number(array.type):
                field = field.with_type(_with_own_numbers(array.type, field.type))
            try:
                array = conformed(array, field.type)
            except MemoryError:
                raise  # pyarrow's, which says nothing about the file
            except pa.ArrowException as error:
                raise DataError(
                    f"{where.rstrip(',')}: {field.name!r} is {array.type}, and {field.type} in all files together, "
                    f"which cannot hold a value of it: {str(error).rstrip(' .')}. Write the file with that type."
                ) from None
            arrays.append(array)
        out.append(field.with_nullable(True))
    if not arrays:
        return batch.select([])
    return pa.RecordBatch.from_arrays(arrays, schema=pa.schema(out))


def conformed(array: pa.Array, wanted: pa.DataType) -> pa.Array:
    """An array in a type that holds its own; `pa.ArrowInvalid` for a value that would be lost."""
    kind = array.type
    if kind == wanted:
        return array
    if types.is_null(kind):
        return pa.nulls(len(array), wanted)
    if types.is_dictionary(kind):
        values = conformed(array.dictionary, wanted.value_type if types.is_dictionary(wanted) else wanted)
        if types.is_dictionary(wanted):
            return pa.DictionaryArray.from_arrays(array.indices.cast(wanted.index_type), values, ordered=wanted.ordered)
        return values.take(array.indices)
    if types.is_struct(kind):
        return _struct(array, wanted)
    if types.is_map(kind):
        return _map(array, wanted)
    return _list(array, wanted) if is_list(kind) else array.cast(wanted)


def _is_list_of_numbers(kind: pa.DataType) -> bool:
    is_such = is_list(kind)
    while is_list(kind):
        kind = kind.value_type
    return is_such and is_number(kind)


def _with_own_numbers(kind: pa.DataType, wanted: pa.DataType) -> pa.DataType:
    """The wanted type, in whose lists and structs numbers are those of a file."""
    if any(is_such(kind) and is_such(wanted) for is_such in (is_number, _is_list_of_numbers)):
        return kind
    if types.is_struct(kind) and types.is_struct(wanted):
        own = {field.name: field.type for field in kind}
        fields = [field.with_type(_with_own_numbers(own.get(field.name, field.type), field.type)) for field in wanted]
        return pa.struct(fields)
    if is_list(kind) and is_list(wanted) and types.is_struct(wanted.value_type):
        return pa.large_list(wanted.value_field.with_type(_with_own_numbers(kind.value_type, wanted.value_type)))
    return wanted


def _struct(array: pa.StructArray, wanted: pa.StructType) -> pa.Array:
    own = [field.name for field in array.type]
    flat = dict(zip(own, array.flatten(), strict=True))
    arrays = [
        conformed(flat[field.name], field.type) if field.name in own else pa.nulls(len(array), field.type)
        for field in wanted
    ]
    # Under a struct that is null its fields are, and may not be: as the array itself has it.
    fields = [field.with_nullable(True) for field in wanted]
    made = pa.StructArray.from_arrays(arrays, fields=fields, mask=array.is_null())
    return _as(made, wanted)


def _map(array: pa.MapArray, wanted: pa.MapType) -> pa.Array:
    offsets, begin, end = _offsets(array)
    keys = conformed(array.keys.slice(begin, end - begin), wanted.key_type)
    items = conformed(array.items.slice(begin, end - begin), wanted.item_type)
    entries = pa.StructArray.from_arrays([keys, items], fields=[wanted.key_field, wanted.item_field])
    buffers = [_validity(array), pa.py_buffer(offsets.astype(np.int32))]
    return pa.Array.from_buffers(wanted, len(array), buffers, array.null_count, children=[entries])


def _list(array: pa.Array, wanted: pa.DataType) -> pa.Array:
    count, kind = len(array), array.type
    if types.is_fixed_size_list(wanted):
        size = wanted.list_size
        values = conformed(array.values.slice(array.offset * size, count * size), wanted.value_type)
        return pa.Array.from_buffers(wanted, count, [_validity(array)], array.null_count, children=[values])
    if types.is_fixed_size_list(kind) or is_view(kind):
        is_valid = array.is_valid().to_numpy(zero_copy_only=False)
        sizes = array.sizes.to_numpy().astype(np.int64) if is_view(kind) else kind.list_size
        # Not `take`, which knows no views of text; in their order, without what stands under nulls.
        offsets, values = running_sums(sizes * is_valid), array.flatten()
    else:
        offsets, begin, end = _offsets(array)
        values = array.values.slice(begin, end - begin)
    children = [conformed(values, wanted.value_type)]
    is_large = types.is_large_list(wanted) or types.is_large_list_view(wanted)
    numbers = offsets.astype(np.int64 if is_large else np.int32)
    buffers = [_validity(array), pa.py_buffer(numbers)]
    if is_view(wanted):
        buffers = [_validity(array), pa.py_buffer(numbers[:-1].copy()), pa.py_buffer(np.diff(numbers))]
    return pa.Array.from_buffers(wanted, count, buffers, array.null_count, children=children)


def _as(array: pa.StructArray, wanted: pa.StructType) -> pa.Array:
    """A struct array with the fields as wanted, not-null ones too."""
    children = [array.field(index) for index in range(array.type.num_fields)]
    return pa.Array.from_buffers(wanted, len(array), [_validity(array)], array.null_count, children=children)


def _offsets(array: pa.Array) -> tuple[np.ndarray, int, int]:
    """Offsets from 0, and where the elements begin and end."""
    offsets = array.offsets.to_numpy().astype(np.int64)
    return offsets - offsets[0], int(offsets[0]), int(offsets[-1])


def _validity(array: pa.Array) -> pa.Buffer | None:
    """Which values are there, as bits from the first on; None if all are."""
    return array.is_valid().buffers()[1] if array.null_count else None
