"""Thrift's compact protocol, as Parquet's footers and page headers are written in: bytes to dictionaries of fields.

In Python, so that bytes that lie raise `ValueError`: no abort, no allocation beyond the bytes that are there. What a
field means say `footer.py`, `footer_schema.py` and `pages.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

TRUE, FALSE, I8, I16, I32, I64, DOUBLE, BINARY, LIST, SET, MAP, STRUCT, UUID = range(1, 14)
"""The types of fields, as they stand in the bytes."""
_MAX_DEPTH = 24
_BITS = {I16: 16, I32: 32, I64: 64}
Fields = dict[int, Any]
"""The fields of a struct by their `key`."""


class TooShort(ValueError):
    """The bytes end before what stands in them does."""


class Values(list[Any]):
    """A list, and the type of its elements."""

    kind: int


class Raw(NamedTuple):
    """An element of a list of structs: its fields, and the bytes `begin` to `end` that it takes."""

    fields: Fields
    begin: int
    end: int


def key(number: int, kind: int) -> int:
    """What names a field of a struct. One of another type than expected is another field, as it is for pyarrow.

    Both booleans are `TRUE`.
    """
    return number << 4 | kind


def read_struct(data: Sequence[int], position: int = 0, depth: int = 0) -> tuple[Fields, int]:
    """The fields of the struct that begins at a position, by their keys, and where it ends; `depth` are around it.

    Integers and booleans become those of Python, binaries `bytes`, structs dictionaries, lists lists, and of structs
    lists of `Raw`.

    Raises:
        TooShort: the bytes end within the struct.
        ValueError: these are no such bytes.

    Example:
        >>> fields, end = read_struct(bytes([0x15, 0x0E, 0x18, 0x01, 0x61, 0x00]))
        >>> fields[key(1, I32)], fields[key(2, BINARY)], end
        (7, b'a', 6)
    """
    fields: Fields = {}
    number = 0
    try:
        while True:
            byte = data[position]
            position += 1
            kind = byte & 15
            if kind == 0:
                if byte:
                    raise ValueError("a struct ends in a byte that is not 0")
                return fields, position
            if byte >> 4:
                number += byte >> 4
            else:
                number, position = _integer(data, position, 16)
            name = number << 4 | (TRUE if kind == FALSE else kind)
            if name in fields:
                raise ValueError(f"field {number} stands twice in a struct")
            # Most fields are integers of a byte: 8.0 us for the header of a page instead of 8.8.
            if kind in (I32, I64):
                value = data[position]
                if value < 128:
                    fields[name], position = (value >> 1) ^ -(value & 1), position + 1
                else:
                    fields[name], position = _integer(data, position, _BITS[kind])
            else:
                fields[name], position = _value(data, position, kind, depth)
    except IndexError:
        raise TooShort("the bytes end within a struct") from None


def _value(data: Any, position: int, kind: int, depth: int, in_list: bool = False) -> tuple[Any, int]:
    if depth > _MAX_DEPTH:
        raise ValueError(f"structs stand within one another more than {_MAX_DEPTH} deep")
    if kind in (TRUE, FALSE):
        if in_list:
            return data[position] == TRUE, position + 1
        return kind == TRUE, position
    if kind in _BITS:
        return _integer(data, position, _BITS[kind])
    if kind == BINARY:
        length, position = _unsigned(data, position)
        return bytes(data[position : _end(data, position, length)]), position + length
    if kind == STRUCT:
        return read_struct(data, position, depth + 1)
    if kind in (LIST, SET):
        return _list(data, position, depth)
    if kind == MAP:
        return _map(data, position, depth)
    if kind == I8:
        return (data[position] ^ 128) - 128, position + 1
    if kind in (DOUBLE, UUID):
        size = 8 if kind == DOUBLE else 16
        return bytes(data[position : _end(data, position, size)]), position + size
    raise ValueError(f"a field has type {kind}; the format has 1 to 13")


def _list(data: Any, position: int, depth: int) -> tuple[Values, int]:
    count, kind = data[position] >> 4, data[position] & 15
    position += 1
    if count == 15:
        count, position = _unsigned(data, position)
    _end(data, position, count)  # each element takes a byte at least
    if kind in (LIST, SET, MAP):  # Parquet has none; of empty ones each byte would take 424
        raise ValueError("a list holds lists or maps, which the format does not know")
    values = Values()
    values.kind = kind
    for _ in range(count):
        begin = position
        value, position = _value(data, position, kind, depth + 1, in_list=True)
        values.append(Raw(value, begin, position) if kind == STRUCT else value)
    return values, position


def _map(data: Any, position: int, depth: int) -> tuple[list[Any], int]:
    """Parquet has no maps; one of a field that is not known is passed over."""
    count, position = _unsigned(data, position)
    _end(data, position, count)
    pairs: list[Any] = []
    if count:
        kinds = data[position]
        position += 1
    for _ in range(count):
        key, position = _value(data, position, kinds >> 4, depth + 1, in_list=True)
        value, position = _value(data, position, kinds & 15, depth + 1, in_list=True)
        pairs.append((key, value))
    return pairs, position


def _end(data: Any, position: int, length: int) -> int:
    if length > len(data) - position:
        raise TooShort(f"{length} bytes or elements are promised where {max(0, len(data) - position)} bytes are left")
    return position + length


def _unsigned(data: Any, position: int) -> tuple[int, int]:
    byte = data[position]
    position += 1
    if byte < 128:
        return byte, position
    value, shift = byte & 127, 7
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
        shift += 7
        if shift > 63:
            raise ValueError("an integer takes more than 10 bytes")


def _integer(data: Any, position: int, bits: int) -> tuple[int, int]:
    """A signed integer; beyond its bits it is an error, as pyarrow would cut it."""
    value, position = _unsigned(data, position)
    if value >> bits:
        raise ValueError(f"an integer of {bits} bits holds a larger number")
    return (value >> 1) ^ -(value & 1), position


def need(fields: Fields, what: str, number: int, kind: int) -> Any:
    """A field that must be there."""
    value = fields.get(key(number, kind))
    if value is None:
        raise ValueError(f"{what} lacks its field {number}")
    return value


def list_of(fields: Fields, what: str, number: int, kind: int) -> list[Any]:
    """A list that must be there, of elements of a type; pyarrow would read those of another type as if of this one."""
    values = need(fields, what, number, LIST)
    if values and values.kind != kind:
        raise ValueError(f"{what} holds elements of type {values.kind} in its field {number}; the format has {kind}")
    return list(values)


def check_known(what: str, fields: Fields, known: dict[int, int], may_be_newer: bool) -> None:
    """Refuse fields of other types, which pyarrow would pass over; and unless they may be newer, unknown ones."""
    for name in fields:
        kind = known.get(name >> 4)
        if kind != name & 15 and (kind is not None or not may_be_newer):
            raise ValueError(f"{what} holds a field {name >> 4} of type {name & 15}, which the format does not know")


def struct_bytes(*fields: tuple[int, int, bytes]) -> bytes:
    """A struct of fields `(number, type, bytes of the value)` in rising order of their numbers."""
    parts, before = [], 0
    for number, kind, value in fields:
        step = number - before
        parts += [bytes([step << 4 | kind]) if step < 16 else bytes([kind]) + integer_bytes(number), value]
        before = number
    return b"".join(parts) + b"\0"


def integer_bytes(value: int) -> bytes:
    """A signed integer of 64 bits at most."""
    return unsigned_bytes(value << 1 if value >= 0 else (-value << 1) - 1)


def binary_bytes(value: bytes) -> bytes:
    """A binary or string."""
    return unsigned_bytes(len(value)) + value


def list_bytes(kind: int, values: Sequence[bytes]) -> bytes:
    """A list of values of one type."""
    many = len(values) > 14
    head = bytes([0xF0 | kind]) + unsigned_bytes(len(values)) if many else bytes([len(values) << 4 | kind])
    return head + b"".join(values)


def unsigned_bytes(value: int) -> bytes:
    """An unsigned integer, as lengths are written."""
    parts = []
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes([*parts, value])


def fields_bytes(fields: Fields) -> bytes:
    """The bytes of a struct that `read_struct` read, or of one that is made up of such fields.

    Example:
        >>> content = bytes([0x15, 0x0E, 0x18, 0x01, 0x61, 0x00])
        >>> fields_bytes(read_struct(content)[0]) == content
        True
    """
    told = []
    for name, value in sorted(fields.items()):
        kind = name & 15
        is_false = kind == TRUE and not value
        told.append((name >> 4, FALSE if is_false else kind, b"" if kind == TRUE else value_bytes(kind, value)))
    return struct_bytes(*told)


def value_bytes(kind: int, value: Any) -> bytes:
    """A value of a type, as it stands in a list, or in a struct but for booleans."""
    if kind in _BITS:
        return integer_bytes(value)
    if kind == BINARY:
        return binary_bytes(value)
    if kind == STRUCT:
        return fields_bytes(value.fields if isinstance(value, Raw) else value)
    if kind in (LIST, SET):
        return list_bytes(value.kind, [value_bytes(value.kind, each) for each in value])
    if kind == TRUE:  # within a list
        return bytes([TRUE if value else FALSE])
    if kind == I8:
        return bytes([value & 255])
    if kind in (DOUBLE, UUID):
        return bytes(value)
    raise ValueError(f"a field has type {kind}, which Parquet does not have")
