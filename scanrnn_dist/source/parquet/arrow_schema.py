"""Arrow's own schema, which many writers add to a Parquet footer, and what can be told of its soundness.

It says more of types than Parquet can, and has no checksum. Which columns can be given in spite of it says
`readable.py`.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from zoneinfo import available_timezones

import pyarrow as pa

from scanrnn_dist.source.parquet.footer import ARROW_SCHEMA, Footer, is_one_bit_off
from scanrnn_dist.source.parquet.thrift import BINARY, LIST, key

_MAX_LIST = 1 << 16  # a null takes as much room as a list of the type's size, though the file has no value of it


def stored_schema(footer: Footer) -> bytes:
    """The bytes of Arrow's own schema in the metadata, or nothing."""
    for raw in footer.fields.get(key(5, LIST), []):
        if raw.fields.get(key(1, BINARY)) == ARROW_SCHEMA:
            with suppress(ValueError):
                return base64.b64decode(raw.fields.get(key(2, BINARY), b""))
    return b""


def arrow_fields(content: bytes, count: int) -> list[pa.Field | Exception | None]:
    """The fields of a schema in Arrow's format, each read alone, with the error where pyarrow cannot read it.

    `count` times None if there are not so many, or if it is no such schema. A type that pyarrow does not know, as a
    polars' Int128, makes it refuse the whole schema; so each field in turn is made the only one of a copy.
    """
    nothing: list[Any] = [None] * count
    try:
        begin = 8  # after a marker and the length of the message
        message = begin + _number(content, begin)
        schema = _reference(content, _slot(content, message, 2))
        vector = _reference(content, _slot(content, schema, 1))
        if _number(content, vector) != count:
            return nothing
        places = [_reference(content, vector + 4 * (1 + number)) for number in range(count)]
    except (struct.error, ValueError):
        return nothing
    return [_field_alone(content, vector, place) for place in places]


def _field_alone(content: bytes, vector: int, place: int) -> Any:
    alone = bytearray(content)
    struct.pack_into("<II", alone, vector, 1, place - vector - 4)
    try:
        return pa.ipc.read_schema(pa.py_buffer(bytes(alone))).field(0)
    except (pa.ArrowException, OSError, ValueError) as error:
        return error


def _number(content: bytes, position: int) -> int:
    return int(struct.unpack_from("<I", content, position)[0])


def _reference(content: bytes, position: int) -> int:
    """Where a flatbuffer's offset leads."""
    return position + _number(content, position)


def _slot(content: bytes, table: int, number: int) -> int:
    """Where a field of a flatbuffer's table stands."""
    vtable = table - struct.unpack_from("<i", content, table)[0]
    offset = struct.unpack_from("<H", content, vtable + 4 + 2 * number)[0]
    if not offset:
        raise ValueError("the table lacks the field")
    return int(table + offset)


def check_stored_schema(footer: Footer, schema: pa.Schema) -> None:
    """Refuse what a flipped bit makes of Arrow's own schema, as far as that can be told; it has no checksum.

    Where this version of Arrow wrote it, it must be as this version writes it. And a time zone that nobody knows is
    refused where one bit makes it a known one; others pass, known or not.
    """
    stored = stored_schema(footer)
    ours = footer.created_by.startswith(f"parquet-cpp-arrow version {pa.__version__}")
    if stored and ours and pa.ipc.read_schema(pa.py_buffer(stored)).serialize().to_pybytes() != stored:
        raise ValueError("Arrow's own schema in the metadata is not as its writer writes it: it is damaged")
    values = max((chunk.values for group in footer.row_groups for chunk in group.chunks), default=0)
    for kind in _types(schema):
        if pa.types.is_fixed_size_list(kind) and kind.list_size > max(values, _MAX_LIST):
            raise ValueError(f"a column holds lists of {kind.list_size} values, and no row group has as many")
    zones = {kind.tz for kind in _types(schema) if pa.types.is_timestamp(kind)} - {None, "UTC"}
    for zone in zones - available_timezones() if zones else ():
        for known in {*available_timezones(), "UTC"}:
            if len(known) == len(zone):
                other = stored.replace(zone.encode(), known.encode())
                if is_one_bit_off(base64.b64encode(stored), base64.b64encode(other)):
                    raise ValueError(f"its time zone {zone!r}, which nobody knows, is one bit off {known!r}")


def _types(nested: Any) -> Iterator[pa.DataType]:
    """All types within a schema or a type."""
    kinds = [field.type for field in nested] if isinstance(nested, pa.Schema) else [nested]
    for kind in kinds:
        kind = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind
        yield kind
        if pa.types.is_nested(kind):
            for number in range(kind.num_fields):
                yield from _types(kind.field(number).type)
        elif pa.types.is_dictionary(kind):
            yield from _types(kind.value_type)
