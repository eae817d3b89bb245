"""The schema that a Parquet footer holds: its columns, how each is stored, and types that contradict themselves.

A schema that cannot be one raises `ValueError`; a column whose two ways to tell a logical type contradict, or that
holds nothing, is named as unreadable. Whether row groups agree with the schema says `footer.py`.
"""

from __future__ import annotations

from typing import NamedTuple

from scanrnn_dist.source.parquet.thrift import BINARY, I8, I32, STRUCT, TRUE, Fields, Raw, check_known, key, need

_BYTE_WIDTH = {1: 4, 2: 8, 3: 12, 4: 4, 5: 8}
"""Of the physical types INT32, INT64, INT96, FLOAT, DOUBLE."""
INT96, BYTE_ARRAY, _FIXED = 3, 6, 7
_REQUIRED, _OPTIONAL, _REPEATED = range(3)
# By number; from https://github.com/apache/parquet-format.
_ELEMENT = {1: I32, 2: I32, 3: I32, 4: BINARY, 5: I32, 6: I32, 7: I32, 8: I32, 9: I32, 10: STRUCT}
_CONVERTED = {1: {0}, 2: {1, 2}, 3: {3}, 4: {4, 0}, 5: {5}, 6: {6}, 12: {19, 0}, 13: {20}}
"""The converted types that a logical type may have beside it, of the same meaning or of texts; of others `_converted`.

parquet-mr from 1.11 on says "unknown", 11, of intervals, for which pyarrow would give nulls.
"""
_INTEGERS = {(8, False): 11, (16, False): 12, (32, False): 13, (64, False): 14}
_INTEGERS |= {(8, True): 15, (16, True): 16, (32, True): 17, (64, True): 18}


class Leaf(NamedTuple):
    """A column of the file as it is stored: path, physical type, bytes of a fixed value, levels, its field's number."""

    path: tuple[bytes, ...]
    type: int
    width: int | None
    max_definition: int
    max_repetition: int
    column: int

    @property
    def name(self) -> str:
        """Its dotted path, for messages."""
        return b".".join(self.path).decode(errors="replace")


def read_schema(elements: list[Raw]) -> tuple[tuple[tuple[int, int], ...], tuple[Leaf, ...]]:
    """Where each column stands among the elements of the schema, and the leaves."""
    if not elements:
        raise ValueError("the schema is empty")
    check_known("the schema", elements[0].fields, _ELEMENT, may_be_newer=False)
    columns: list[tuple[int, int]] = []
    leaves: list[Leaf] = []
    position = 1
    for _ in range(_children(elements[0].fields, "the schema", len(elements))):
        begin = position
        position = _subtree(elements, begin, (), 0, 0, len(columns), leaves)
        columns.append((begin, position))
    if position != len(elements):
        raise ValueError(f"the schema holds {len(elements)} elements, its columns take {position}")
    return tuple(columns), tuple(leaves)


def _children(fields: Fields, what: str, most: int) -> int:
    count = need(fields, what, 5, I32)
    if not 0 <= count < most:
        raise ValueError(f"{what} promises {count} children in a schema of {most} elements")
    return int(count)


def _subtree(
    elements: list[Raw],
    position: int,
    above: tuple[bytes, ...],
    definition: int,
    repetition: int,
    column: int,
    leaves: list[Leaf],
) -> int:
    """Add the leaves of the element at a position; where the next one stands."""
    if position >= len(elements):
        raise ValueError(f"the schema ends within its column {column}")
    fields = elements[position].fields
    path = (*above, need(fields, f"column {column}", 4, BINARY))
    what = f"column {b'.'.join(path).decode(errors='replace')!r}"
    check_known(what, fields, _ELEMENT, may_be_newer=False)
    kind = need(fields, what, 3, I32)
    if kind not in (_REQUIRED, _OPTIONAL, _REPEATED):
        raise ValueError(f"{what} has repetition {kind}; the format has 0, 1 and 2")
    definition += kind != _REQUIRED
    repetition += kind == _REPEATED
    physical = fields.get(key(1, I32))
    if physical is not None:
        if fields.get(key(5, I32)) or not 0 <= physical <= _FIXED:
            raise ValueError(f"{what} has type {physical} and {fields.get(key(5, I32), 0)} children")
        width = need(fields, what, 2, I32) if physical == _FIXED else _BYTE_WIDTH.get(physical)
        leaves.append(Leaf(path, physical, width, definition, repetition, column))
        return position + 1
    count, position = _children(fields, what, len(elements)), position + 1
    for _ in range(count):
        position = _subtree(elements, position, path, definition, repetition, column, leaves)
    return position


def unreadable_columns(elements: list[Raw], columns: tuple[tuple[int, int], ...]) -> dict[int, str]:
    """Columns whose types contradict themselves, or that pyarrow leaves out, whole or in part, as they hold nothing."""
    found = {}
    for number, (begin, end) in enumerate(columns):
        for fields in (raw.fields for raw in elements[begin:end]):
            what = f"column {fields[key(4, BINARY)].decode(errors='replace')!r}"
            if key(1, I32) not in fields and not fields[key(5, I32)]:
                found[number] = f"{what} is a struct without fields, which holds no values"
            try:
                _check_logical(what, fields)
            except ValueError as error:
                found[number] = str(error)
    return found


def _check_logical(what: str, fields: Fields) -> None:
    """Refuse a logical type that differs from the converted type, the older way to say it, where both are told."""
    logical, converted = fields.get(key(10, STRUCT)), fields.get(key(6, I32))
    if logical is None:
        return
    if len(logical) != 1 or next(iter(logical)) & 15 != STRUCT:
        raise ValueError(f"{what} has {len(logical)} logical types")
    (name,), (kind,) = logical, logical.values()
    if converted is not None and converted not in _converted(name >> 4, kind):
        raise ValueError(f"{what} has logical type {name >> 4} and converted type {converted}, which contradict")
    if name >> 4 == 5:
        told = kind.get(key(1, I32)), kind.get(key(2, I32))
        older = fields.get(key(7, I32), told[0]), fields.get(key(8, I32), told[1])
        if told != older:
            raise ValueError(f"{what} is a decimal of scale and precision {told} and {older}, which contradict")


def _converted(logical: int, fields: Fields) -> set[int]:
    if logical in (7, 8):  # time and timestamp: milliseconds, microseconds
        unit = next(iter(fields.get(key(2, STRUCT), {0: None}))) >> 4
        return {{(7, 1): 7, (7, 2): 8, (8, 1): 9, (8, 2): 10}.get((logical, unit), -1)}
    if logical == 10:
        return {_INTEGERS.get((fields.get(key(1, I8), -1), fields.get(key(2, TRUE), False)), -1)}
    return _CONVERTED.get(logical, set())
