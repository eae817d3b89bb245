"""The type that holds every value of two types, where there is one: what a column is whose files differ.

Looks at types only; values are brought into the united type by `conform.py`, by casts that are checked.

    ints                    the narrowest that holds both; with a float: float64, for ints of up to 32 bits
    floats                  the wider
    lists of any kind       list, or large_list if one is large, of united elements; of one kind and size: that kind
    text, bytes             the large kind, where kinds differ
    times of several units  the finer
    decimals                as many digits before and after the point as both need
    structs, maps           field by field, by name; a field that one lacks is null there
    dictionaries            stay so where both have the same index type; else what they hold
    null                    what the other is

To unite is commutative up to the order of struct fields. It is associative where defined: what is refused may depend
on the order, as of uint32, int32 and float64.
"""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
from pyarrow import types

from scanrnn_dist.source.layouts import is_list

_UNITS = ("s", "ms", "us", "ns")
_INTS = (pa.uint8(), pa.int8(), pa.uint16(), pa.int16(), pa.uint32(), pa.int32(), pa.uint64(), pa.int64())
_DECIMALS = ((32, 9, pa.decimal32), (64, 18, pa.decimal64), (128, 38, pa.decimal128), (256, 76, pa.decimal256))
_LISTS = (
    (types.is_list, pa.list_), (types.is_large_list, pa.large_list),
    (types.is_list_view, pa.list_view), (types.is_large_list_view, pa.large_list_view),
)  # fmt: skip
_Union = Callable[[pa.DataType, pa.DataType, bool], pa.DataType | None]


def united(one: pa.DataType, other: pa.DataType, rounds: bool = False) -> pa.DataType | None:
    """The type that holds every value of both types; None where there is none.

    Args:
        one, other: the types.
        rounds: whether integers of 64 bits may meet floats, as float64. They may in sequences, whose numbers are held
            against float32 one by one.

    Example:
        >>> united(pa.list_(pa.int32()), pa.large_list(pa.float32()))
        LargeListType(large_list<item: double>)
        >>> united(pa.int64(), pa.float64()) is None
        True
    """
    if one == other:
        return one
    if types.is_null(one) or types.is_null(other):
        return other if types.is_null(one) else one
    for is_kind, union in _KINDS:
        if is_kind(one) and is_kind(other):
            return union(one, other, rounds)
    if types.is_dictionary(one) or types.is_dictionary(other):
        plain = [kind.value_type if types.is_dictionary(kind) else kind for kind in (one, other)]
        return united(plain[0], plain[1], rounds)
    return None


def united_field(one: pa.Field, other: pa.Field, rounds: bool = False) -> pa.Field | None:
    """The same of fields, with the name and metadata of the first."""
    kind = united(one.type, other.type, rounds)
    return None if kind is None else one.with_type(kind).with_nullable(one.nullable or other.nullable)


def with_wide_indices(kind: pa.DataType) -> pa.DataType:
    """A type whose dictionaries, at any depth, have int32 indices where they have narrower ones.

    A writer chooses int8 by how many values its own table has; several tables may have more together.

    Example:
        >>> with_wide_indices(pa.list_(pa.dictionary(pa.int8(), pa.string())))
        ListType(list<item: dictionary<values=string, indices=int32, ordered=0>>)
    """
    if types.is_dictionary(kind):
        index = pa.int32() if kind.index_type.bit_width < 32 else kind.index_type
        return pa.dictionary(index, with_wide_indices(kind.value_type), kind.ordered)
    if types.is_struct(kind):
        return pa.struct([_with_wide_indices(field) for field in kind])
    if types.is_map(kind):
        key, item = _with_wide_indices(kind.key_field), _with_wide_indices(kind.item_field)
        made = pa.map_(key, item, kind.keys_sorted)
        return kind if made == kind else made  # whose entries may have a name of their own
    return _list_of(kind, _with_wide_indices(kind.value_field)) if is_list(kind) else kind


def is_number(kind: pa.DataType) -> bool:
    """Whether values are integers or floats."""
    return bool(types.is_integer(kind) or types.is_floating(kind))


def _with_wide_indices(field: pa.Field) -> pa.Field:
    return field.with_type(with_wide_indices(field.type))


def _numbers(one: pa.DataType, other: pa.DataType, rounds: bool) -> pa.DataType | None:
    floats = [kind for kind in (one, other) if types.is_floating(kind)]
    if len(floats) == 2:
        return max(floats, key=lambda kind: kind.bit_width)
    if floats:
        integer = other if floats[0] is one else one
        # Not the narrowest float: that holds uint8 and int8 is float16, which does not hold int16, what these two are.
        return pa.float64() if integer.bit_width <= 32 or rounds else None
    return next((kind for kind in _INTS if _holds(kind, one) and _holds(kind, other)), None)


def _holds(kind: pa.DataType, its: pa.DataType) -> bool:
    if types.is_signed_integer(kind) and types.is_unsigned_integer(its):
        return bool(kind.bit_width > its.bit_width)
    return types.is_signed_integer(kind) == types.is_signed_integer(its) and bool(kind.bit_width >= its.bit_width)


def _is_large(kind: pa.DataType) -> bool:
    return bool(types.is_large_list(kind) or types.is_large_list_view(kind))


def _lists(one: pa.DataType, other: pa.DataType, rounds: bool) -> pa.DataType | None:
    field = united_field(one.value_field, other.value_field, rounds)
    if field is None:
        return None
    if one.id == other.id and not (types.is_fixed_size_list(one) and one.list_size != other.list_size):
        return _list_of(one, field)
    return pa.large_list(field) if _is_large(one) or _is_large(other) else pa.list_(field)


def _list_of(kind: pa.DataType, field: pa.Field) -> pa.DataType:
    """The kind of list, and of the same size, with other elements."""
    if types.is_fixed_size_list(kind):
        return pa.list_(field, kind.list_size)
    return next(make for is_kind, make in _LISTS if is_kind(kind))(field)


def _is_text(kind: pa.DataType) -> bool:
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def _is_bytes(kind: pa.DataType) -> bool:
    is_binary = types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind)
    return bool(is_binary or types.is_fixed_size_binary(kind))


def _is_time(kind: pa.DataType) -> bool:
    return bool(types.is_time32(kind) or types.is_time64(kind))


def _timestamps(one: pa.DataType, other: pa.DataType, _: bool) -> pa.DataType | None:
    return pa.timestamp(_finer(one, other), one.tz) if one.tz == other.tz else None


def _times(one: pa.DataType, other: pa.DataType, _: bool) -> pa.DataType:
    unit = _finer(one, other)
    return pa.time64(unit) if unit in ("us", "ns") else pa.time32(unit)


def _finer(one: pa.DataType, other: pa.DataType) -> str:
    return max(str(one.unit), str(other.unit), key=_UNITS.index)


def _decimals(one: pa.DataType, other: pa.DataType, _: bool) -> pa.DataType | None:
    scale = max(one.scale, other.scale)
    precision = scale + max(one.precision - one.scale, other.precision - other.scale)
    bits = max(one.bit_width, other.bit_width)
    return next((make(precision, scale) for wide, most, make in _DECIMALS if wide >= bits and precision <= most), None)


def _structs(one: pa.DataType, other: pa.DataType, rounds: bool) -> pa.DataType | None:
    (ours, theirs) = ([kind.field(index) for index in range(kind.num_fields)] for kind in (one, other))
    its, own = {field.name: field for field in theirs}, {field.name for field in ours}
    if len(its) < len(theirs) or len(own) < len(ours):
        return None  # names twice: nobody knows which is which
    fields = [united_field(field, its[field.name], rounds) if field.name in its else lacking(field) for field in ours]
    if any(field is None for field in fields):
        return None
    return pa.struct([*fields, *(lacking(field) for field in theirs if field.name not in own)])


def lacking(field: pa.Field) -> pa.Field:
    """A field where it may lack as a whole: with nulls, also in those of its parts that stand for each row.

    Example:
        >>> lacking(pa.field("a", pa.struct([pa.field("x", pa.int8(), nullable=False)]), nullable=False))
        pyarrow.Field<a: struct<x: int8>>
    """
    kind = field.type
    if types.is_struct(kind):  # pyarrow writes no struct whose not-null fields are null, even where it is null itself
        kind = pa.struct([lacking(own) for own in kind])
    elif types.is_fixed_size_list(kind):
        kind = pa.list_(lacking(kind.value_field), kind.list_size)
    return field.with_type(kind).with_nullable(True)


def _maps(one: pa.DataType, other: pa.DataType, rounds: bool) -> pa.DataType | None:
    key = united_field(one.key_field, other.key_field, rounds)
    item = united_field(one.item_field, other.item_field, rounds)
    return None if key is None or item is None else pa.map_(key, item, one.keys_sorted and other.keys_sorted)


def _dictionaries(one: pa.DataType, other: pa.DataType, rounds: bool) -> pa.DataType | None:
    kind = united(one.value_type, other.value_type, rounds)
    if kind is None or one.index_type != other.index_type or one.ordered != other.ordered:
        return kind
    return pa.dictionary(one.index_type, kind, one.ordered)


_KINDS: tuple[tuple[Callable[[pa.DataType], bool], _Union], ...] = (
    (is_number, _numbers),
    (is_list, _lists),
    (_is_text, lambda *_: pa.large_string()),
    (_is_bytes, lambda *_: pa.large_binary()),
    (types.is_timestamp, _timestamps),
    (_is_time, _times),
    (types.is_duration, lambda one, other, _: pa.duration(_finer(one, other))),
    (types.is_decimal, _decimals),
    (types.is_struct, _structs),
    (types.is_map, _maps),
    (types.is_dictionary, _dictionaries),
)
"""Which types can be united, and how."""
