"""Columns that pyarrow cannot give, and Arrow's own schema, which many writers add to a Parquet footer.

pyarrow refuses a whole file for one column of a type that it does not know, so such columns are cut out of the footer,
and named. Arrow's own schema says more of types than Parquet can, and has no checksum; what can be told of its
soundness is checked. What else a footer says is read by `footer.py`.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any
from zoneinfo import available_timezones

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from scanrnn_dist.errors import one_line
from scanrnn_dist.source.parquet.footer import ARROW_SCHEMA, Footer, is_one_bit_off, parse_footer
from scanrnn_dist.source.parquet.thrift import (
    BINARY,
    I32,
    I64,
    LIST,
    STRUCT,
    binary_bytes,
    integer_bytes,
    key,
    list_bytes,
    struct_bytes,
)


def footer_file(content: bytes) -> bytes:
    """A file that is a footer alone."""
    return b"PAR1" + content + len(content).to_bytes(4, "little") + b"PAR1"


def schema_of(content: bytes) -> pa.Schema:
    """The schema that pyarrow makes of a footer."""
    return pq.ParquetFile(pa.BufferReader(footer_file(content)), coerce_int96_timestamp_unit="us").schema_arrow


def checked_footer(tail: bytes, size: int) -> tuple[Footer, bytes, pa.Schema, dict[str, str]]:
    """The footer of a file of this size, by what `read_tail` read of it; then what `readable` gives of it.

    Raises:
        ValueError: it contradicts itself or the size, or pyarrow's reading of it.
    """
    footer = parse_footer(tail[:-8], size - len(tail))
    content, schema, unreadable = readable(footer)
    check_stored_schema(footer, schema)
    return footer, content, schema, unreadable


def readable(footer: Footer) -> tuple[bytes, pa.Schema, dict[str, str]]:
    """The footer without the columns that pyarrow cannot give, its schema, and these columns with the reasons."""
    try:
        if footer.unreadable:
            raise ValueError(next(iter(footer.unreadable.values())))
        return footer.content, schema_of(footer.content), {}
    except (pa.ArrowException, OSError, ValueError):
        fields = arrow_fields(stored_schema(footer), len(footer.columns))
        unreadable = {
            number: one_line(str(error)).rstrip(" .")
            for number in range(len(footer.columns))
            if (error := _trouble(footer, number, fields[number])) is not None
        }
        if not unreadable or len(unreadable) == len(footer.columns):
            raise
    content = _without(footer, set(unreadable), fields)
    return content, schema_of(content), {footer.names[number]: reason for number, reason in unreadable.items()}


def _trouble(footer: Footer, number: int, field: pa.Field | Exception | None) -> Exception | None:
    """Why pyarrow cannot give a column: what Arrow's own schema says of it, or what Parquet's does."""
    if isinstance(field, Exception):
        return field
    if number in footer.unreadable:
        return ValueError(footer.unreadable[number])
    try:
        schema_of(_without(footer, set(range(len(footer.columns))) - {number}))
    except (pa.ArrowException, OSError, ValueError) as error:
        return error
    return None


def _without(footer: Footer, columns: set[int], fields: Sequence[Any] | None = None) -> bytes:
    """The footer without these columns; without Arrow's `fields`, and then without row groups and metadata too."""
    elements = footer.fields[key(2, LIST)]
    spans = [span for number, span in enumerate(footer.columns) if number not in columns]
    kept = [elements[index] for begin, end in spans for index in range(begin, end)]
    root = struct_bytes((4, BINARY, binary_bytes(b"schema")), (5, I32, integer_bytes(len(spans))))
    schema = list_bytes(STRUCT, [root, *(footer.content[raw.begin : raw.end] for raw in kept)])
    groups, metadata = [], []
    if fields is not None:
        groups = [_group_without(footer, raw.fields, columns) for raw in footer.fields[key(4, LIST)]]
        metadata = list(_metadata_without(footer, columns, fields))
    return struct_bytes(
        (1, I32, integer_bytes(2)),
        (2, LIST, schema),
        (3, I64, integer_bytes(sum(group.rows for group in footer.row_groups) if groups else 0)),
        (4, LIST, list_bytes(STRUCT, groups)),
        (5, LIST, list_bytes(STRUCT, metadata)),
        (6, BINARY, binary_bytes(footer.created_by.encode())),
    )


def _group_without(footer: Footer, group: dict[int, Any], columns: set[int]) -> bytes:
    chunks = [
        footer.content[raw.begin : raw.end]
        for leaf, raw in zip(footer.leaves, group[key(1, LIST)], strict=True)
        if leaf.column not in columns
    ]
    size, rows = (integer_bytes(group[key(number, I64)]) for number in (2, 3))
    return struct_bytes((1, LIST, list_bytes(STRUCT, chunks)), (2, I64, size), (3, I64, rows))


def _metadata_without(footer: Footer, columns: set[int], fields: Sequence[Any]) -> Iterator[bytes]:
    """The metadata; Arrow's own schema with the fields of the other columns, or not at all where it has no such."""
    for raw in footer.fields.get(key(5, LIST), []):
        if raw.fields.get(key(1, BINARY)) != ARROW_SCHEMA:
            yield footer.content[raw.begin : raw.end]
    kept = [field for number, field in enumerate(fields) if number not in columns]
    if all(isinstance(field, pa.Field) for field in kept):
        encoded = base64.b64encode(pa.schema(kept).serialize().to_pybytes())
        yield struct_bytes((1, BINARY, binary_bytes(ARROW_SCHEMA)), (2, BINARY, binary_bytes(encoded)))


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

    Where this version of Arrow wrote it, it must be as this version writes it, but for what is told of extension types,
    whose metadata may be spelled in several ways. And a time zone that nobody knows is refused where one bit makes it a
    known one; others pass, known or not.
    """
    stored = stored_schema(footer)
    ours = footer.created_by.startswith(f"parquet-cpp-arrow version {pa.__version__}")
    plain = without_extensions(stored)
    if stored and ours and pa.ipc.read_schema(pa.py_buffer(plain)).serialize().to_pybytes() != plain:
        raise ValueError("Arrow's own schema in the metadata is not as its writer writes it: it is damaged")
    if below := [kind for kind in types_within(schema) if pa.types.is_fixed_size_list(kind) and kind.list_size < 0]:
        raise ValueError(
            f"Arrow's own schema in the metadata tells of lists of {below[0].list_size} values: it is damaged"
        )
    zones = {kind.tz for kind in types_within(schema) if pa.types.is_timestamp(kind)} - {None, "UTC"}
    for zone in zones - available_timezones() if zones else ():
        for known in {*available_timezones(), "UTC"}:
            if len(known) == len(zone):
                other = stored.replace(zone.encode(), known.encode())
                if is_one_bit_off(base64.b64encode(stored), base64.b64encode(other)):
                    raise ValueError(f"its time zone {zone!r}, which nobody knows, is one bit off {known!r}")


def without_extensions(stored: bytes) -> bytes:
    """Arrow's own schema with all extension types as their storage, of which metadata of another name tells."""
    return stored.replace(b"ARROW:extension:name", b"arrow:extension:name")


def check_indices(array: pa.Array) -> None:
    """Refuse indices that lead outside of their dictionary, which pyarrow does not look at when it reads them.

    Whoever uses such an array reads memory that is not its own. Takes 0.1 ms for a million indices.
    """
    for each in _with_dictionaries(array):
        least, most = (array_limit.as_py() for array_limit in pc.min_max(each.indices).values())
        if most is not None and not 0 <= least <= most < len(each.dictionary):
            raise ValueError(f"it has the indices {least} to {most} of a dictionary of {len(each.dictionary)} values")


def own_bytes(array: pa.Array) -> int:
    """What an array takes but for its dictionaries, which are as large however few of its rows there are."""
    return int(array.nbytes - sum(each.dictionary.nbytes for each in _with_dictionaries(array)))


def _with_dictionaries(array: pa.Array) -> Iterator[pa.DictionaryArray]:
    """The arrays with a dictionary that an array is, or has within lists or structs."""
    if isinstance(array, pa.ExtensionArray):
        yield from _with_dictionaries(array.storage)
    elif isinstance(array, pa.DictionaryArray):
        yield array
    elif isinstance(array, pa.StructArray):
        for number in range(array.type.num_fields):
            yield from _with_dictionaries(array.field(number))
    elif pa.types.is_nested(array.type) and not pa.types.is_union(array.type):
        yield from _with_dictionaries(array.values)


def has_dictionary(kind: pa.DataType) -> bool:
    """Whether a type is a dictionary, or has one within lists or structs."""
    return any(map(pa.types.is_dictionary, types_within(kind)))


def types_within(nested: Any) -> Iterator[pa.DataType]:
    """All types within a schema or a type."""
    kinds = [field.type for field in nested] if isinstance(nested, pa.Schema) else [nested]
    for kind in kinds:
        kind = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind
        yield kind
        if pa.types.is_nested(kind):
            for number in range(kind.num_fields):
                yield from types_within(kind.field(number).type)
        elif pa.types.is_dictionary(kind):
            yield from types_within(kind.value_type)
