"""Columns of types that pyarrow does not know: it refuses the whole file, so they are cut out of its footer, and named.

What the footer says is read by `footer.py`, Arrow's own schema in it by `arrow_schema.py`.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from scanrnn_dist.errors import one_line
from scanrnn_dist.source.parquet.arrow_schema import arrow_fields, stored_schema
from scanrnn_dist.source.parquet.footer import ARROW_SCHEMA, Footer
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


def _schema_of(content: bytes) -> pa.Schema:
    return pq.ParquetFile(pa.BufferReader(footer_file(content))).schema_arrow


def readable(footer: Footer) -> tuple[bytes, dict[str, str]]:
    """The footer without the columns that pyarrow cannot give, and these with the reasons."""
    try:
        if footer.unreadable:
            raise ValueError(next(iter(footer.unreadable.values())))
        _schema_of(footer.content)
        return footer.content, {}
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
    _schema_of(content)
    return content, {footer.names[number]: reason for number, reason in unreadable.items()}


def _trouble(footer: Footer, number: int, field: pa.Field | Exception | None) -> Exception | None:
    """Why pyarrow cannot give a column: what Arrow's own schema says of it, or what Parquet's does."""
    if isinstance(field, Exception):
        return field
    if number in footer.unreadable:
        return ValueError(footer.unreadable[number])
    try:
        _schema_of(_without(footer, set(range(len(footer.columns))) - {number}))
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
