"""What a Parquet footer says, held against the file's size and against itself before anything relies on it.

Pure Python on `thrift.py`, so that a footer that lies raises `ValueError`: pyarrow believes it, allocates what it
promises, or aborts. What is checked: every column chunk lies in the file and overlaps no other; the schema's names
and types are those that each chunk repeats; counts of rows and values, and the histograms of levels where the writer
stored them, agree with one another and with the schema, which `footer_schema.py` reads.
Not covered: a footer has no checksum, so what it says once only (metadata, statistics) may be changed unseen; what can
be told of Arrow's own schema, such as of time zones, checks `readable.py`. Pages are held against the footer in
`pages.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

from scanrnn_dist.source.parquet.footer_schema import Leaf, read_schema, unreadable_columns
from scanrnn_dist.source.parquet.thrift import (
    BINARY,
    I16,
    I32,
    I64,
    LIST,
    STRUCT,
    Fields,
    check_known,
    key,
    list_of,
    need,
    read_struct,
)

_MAX_COUNT = 2**48  # rows or values, beyond any real file; keeps sums of lying counts far from int64's end
ARROW_SCHEMA = b"ARROW:schema"
"""The name of Arrow's own schema in the metadata: what it says of types is more than Parquet can."""
_TAIL_BYTES = 1 << 16
_USUAL_BYTES = 1 << 20
_HELD = 48
"""Bytes that one of a footer takes once it is read: 41 measured with 500 columns in two row groups; 176 at most."""

# Of the structs whose fields are looked at, by number; from https://github.com/apache/parquet-format.
_FILE = {1: I32, 2: LIST, 3: I64, 4: LIST, 5: LIST, 6: BINARY, 7: LIST, 8: STRUCT, 9: BINARY}
_GROUP = {1: LIST, 2: I64, 3: I64, 4: LIST, 5: I64, 6: I64, 7: I16}
_CHUNK = {1: BINARY, 2: I64, 3: STRUCT, 4: I64, 5: I32, 6: I64, 7: I32, 8: STRUCT, 9: BINARY}
_COLUMN = {
    **{1: I32, 2: LIST, 3: LIST, 4: I32, 5: I64, 6: I64, 7: I64, 8: LIST, 9: I64, 10: I64, 11: I64, 12: STRUCT},
    **{13: LIST, 16: STRUCT, 17: STRUCT},  # 14 and 15, of Bloom filters, nobody reads; Dremio has a list as its 15
}


class Chunk(NamedTuple):
    """Where the pages of a leaf in one row group stand, bytes `begin` to `end`, and what they hold."""

    begin: int
    end: int
    data_begin: int
    values: int
    codec: int
    encodings: frozenset[int]
    uncompressed_bytes: int


class RowGroup(NamedTuple):
    """Rows, uncompressed bytes of all columns, and a chunk for each leaf."""

    rows: int
    nbytes: int
    chunks: tuple[Chunk, ...]


@dataclass(frozen=True, eq=False)
class Footer:
    """A footer that does not contradict itself."""

    content: bytes
    fields: Fields  # what these bytes say; many times as large, so none once they were looked at
    names: list[str]  # of the columns
    created_by: str  # the name and version of the writer
    columns: tuple[tuple[int, int], ...]  # of each the elements of the schema that it takes, `(begin, end)`; no root
    leaves: tuple[Leaf, ...]  # the columns as they are stored
    row_groups: tuple[RowGroup, ...]
    unreadable: dict[int, str]  # why columns cannot be read though all others can, by their numbers


def read_tail(file: Any, memory_bytes: Callable[[], int], end: bytes | None = None) -> bytes:
    """The footer of an open Parquet file and the eight bytes behind it; `size`, `seek` and `read_buffer` are called.

    What may be held at once is asked for where the footer is large. `end` is what `read_end` read before.

    Raises:
        ValueError: it is no Parquet file, is cut off or encrypted, or its footer would take more memory.
    """
    size = file.size()
    end = _last(file, size, _TAIL_BYTES) if end is None else end
    length = _footer_bytes(end, size)
    if length > _USUAL_BYTES and _HELD * length > memory_bytes():
        raise ValueError(
            f"the footer of {length:,} bytes would take {_HELD} times as many of memory, which is too much"
        )
    if length + 8 > len(end):
        end = _last(file, size, length + 8)
    if len(end) < length + 8:
        raise ValueError(f"the file ended after {len(end)} of the last {length + 8} bytes")
    return end[-8 - length :]


def read_end(file: Any) -> bytes:
    """The last bytes of an open file, for `read_tail`: of a footer of up to 1 MiB all, of a larger one its end.

    They are not looked into, but for the length.
    """
    size = file.size()
    end = _last(file, size, _TAIL_BYTES)
    length = int.from_bytes(end[-8:-4], "little") + 8
    if len(end) < length <= min(size, _USUAL_BYTES):
        return _last(file, size, length)
    return end[-length:]


def _last(file: Any, size: int, count: int) -> bytes:
    file.seek(max(0, size - count))
    return bytes(file.read_buffer(min(size, count)))


def _footer_bytes(tail: bytes, size: int) -> int:
    """The length of the footer, from the last bytes of a file."""
    if not size:
        raise ValueError("the file is empty, 0 bytes")
    magic = tail[-4:]
    if magic == b"PARE":
        raise ValueError("the file is encrypted, its footer too; decrypt it first")
    if size < 12 or magic != b"PAR1":
        raise ValueError(
            f"the file of {size} bytes does not end as a Parquet file does, in b'PAR1', but in {magic!r}: "
            "it is cut off or is no Parquet file"
        )
    length = int.from_bytes(tail[-8:-4], "little")
    if length > size - 12:
        raise ValueError(f"the footer promises to take {length} bytes of a file of {size}: the file is cut off")
    return length


def parse_footer(content: bytes, begin: int) -> Footer:
    """The footer of these bytes, which begin at byte `begin` of their file; a `ValueError` if it contradicts itself."""
    try:
        fields, end = read_struct(content)
    except ValueError as error:
        raise ValueError(f"its footer is damaged: {error}") from error
    # All writers sign with their name: where that is gone too, a number of a field was changed.
    check_known("the footer", fields, _FILE, may_be_newer=key(6, BINARY) in fields)
    if key(8, STRUCT) in fields:
        # Before anything else is looked at: pyarrow ends the process when asked of such a column.
        raise ValueError(f"the file holds encrypted columns{_encrypted(fields)}; decrypt it first")
    if end != len(content):
        raise ValueError(f"the footer takes {end} of the {len(content)} bytes that it says it takes")
    groups = list_of(fields, "the footer", 4, STRUCT)
    rows = need(fields, "the footer", 3, I64)
    _check_keys(fields)
    elements = list_of(fields, "the footer", 2, STRUCT)
    columns, leaves = read_schema(elements)
    row_groups = tuple(_row_group(raw.fields, index, leaves, begin) for index, raw in enumerate(groups))
    names = [elements[begin].fields[key(4, BINARY)].decode() for begin, _ in columns]
    created_by = fields.get(key(6, BINARY), b"").decode(errors="replace")
    unreadable = unreadable_columns(elements, columns)
    footer = Footer(content, fields, names, created_by, columns, leaves, row_groups, unreadable)
    # Early writers in Rust never counted the rows of the whole file.
    if rows and rows != sum(group.rows for group in row_groups):
        raise ValueError(f"the footer promises {rows} rows, its row groups {sum(group.rows for group in row_groups)}")
    _check_apart(footer)
    return footer


def _check_keys(fields: Fields) -> None:
    """Refuse Arrow's own schema under a name that is one bit off: pyarrow would give other types without it."""
    for raw in fields.get(key(5, LIST), []):
        name = raw.fields.get(key(1, BINARY), b"")
        if is_one_bit_off(name, ARROW_SCHEMA):
            raise ValueError(f"its footer is damaged: a key {name!r} is one bit off {ARROW_SCHEMA!r}")


def is_one_bit_off(one: bytes, other: bytes) -> bool:
    """Whether two texts differ in one bit."""
    differing = (left ^ right for left, right in zip(one, other, strict=False))
    return len(one) == len(other) and sum(bits.bit_count() for bits in differing) == 1


def _encrypted(fields: Fields) -> str:
    """The names of the encrypted columns, for a message."""
    groups = list_of(fields, "the footer", 4, STRUCT)
    names = []
    for raw in list_of(groups[0].fields, "the footer", 1, STRUCT) if groups else []:
        crypto = raw.fields.get(key(8, STRUCT), {})
        path = crypto.get(key(2, STRUCT), {}).get(key(1, LIST))
        names += [b".".join(path).decode(errors="replace")] if path else []
    return f" ({', '.join(map(repr, names[:5]))})" if names else ""


def _row_group(fields: Fields, index: int, leaves: tuple[Leaf, ...], footer_begin: int) -> RowGroup:
    """A row group of the footer, held against what its columns say."""
    what = f"row group {index}"
    check_known(what, fields, _GROUP, may_be_newer=True)
    chunks, rows = list_of(fields, what, 1, STRUCT), need(fields, what, 3, I64)
    size = need(fields, what, 2, I64)
    if not 0 <= rows <= _MAX_COUNT or size < 0:
        raise ValueError(f"{what} promises {rows} rows in {size} bytes")
    if len(chunks) != len(leaves):
        raise ValueError(f"{what} holds {len(chunks)} columns, the schema {len(leaves)}")
    own = []
    for leaf, raw in zip(leaves, chunks, strict=True):
        place = f"column {leaf.name!r} of {what}"
        chunk = _chunk(place, raw.fields, leaf, rows)
        if not 4 <= chunk.begin <= chunk.data_begin <= chunk.end <= footer_begin:
            span = f"stands at bytes {chunk.begin} to {chunk.end}"
            raise ValueError(f"{place} {span}, outside the pages of the file, bytes 4 to {footer_begin}")
        own.append(chunk)
    return RowGroup(rows, sum(chunk.uncompressed_bytes for chunk in own), tuple(own))


def _chunk(what: str, fields: Fields, leaf: Leaf, rows: int) -> Chunk:
    check_known(what, fields, _CHUNK, may_be_newer=True)
    if fields.get(key(1, BINARY)):
        raise ValueError(f"{what} stands in another file, {fields[key(1, BINARY)].decode(errors='replace')!r}")
    if key(8, STRUCT) in fields or key(9, BINARY) in fields:
        raise ValueError(f"{what} is encrypted; decrypt it first")
    column = need(fields, what, 3, STRUCT)
    check_known(what, column, _COLUMN, may_be_newer=True)
    physical, path = need(column, what, 1, I32), tuple(list_of(column, what, 3, BINARY))
    if physical != leaf.type or path != leaf.path:
        raise ValueError(f"{what} says of itself that it has path {path} and type {physical}, not type {leaf.type}")
    values, compressed = need(column, what, 5, I64), need(column, what, 7, I64)
    # A flat column has one value (or null) per row, a repeated one at least one.
    if not rows <= values <= _MAX_COUNT or (values != rows and (leaf.max_repetition == 0 or rows == 0)):
        raise ValueError(f"{what} promises {values} values in {rows} rows")
    uncompressed, codec = need(column, what, 6, I64), need(column, what, 4, I32)
    if compressed < 0 or uncompressed < 0:
        raise ValueError(f"{what} promises {uncompressed} bytes, {compressed} compressed, by codec {codec}")
    data, dictionary = need(column, what, 9, I64), column.get(key(11, I64), 0)
    if values == 0:
        data = dictionary = 4  # pyarrow's say 0; nobody reads pages without values
        compressed = 0
    if dictionary < 0 or data < dictionary:
        raise ValueError(f"{what} has its data pages at byte {data} and its dictionary at byte {dictionary}")
    _check_statistics(what, column, leaf, values)
    begin = dictionary or data
    encodings = frozenset(list_of(column, what, 2, I32))
    return Chunk(begin, begin + compressed, data, values, codec, encodings, uncompressed)


def _check_statistics(what: str, column: Fields, leaf: Leaf, values: int) -> None:
    """Levels' histograms have an entry per level and count all values; they may be left out."""
    sizes = column.get(key(16, STRUCT), {})
    for number, greatest in ((2, leaf.max_repetition), (3, leaf.max_definition)):
        histogram = list_of(sizes, what, number, I64) if key(number, LIST) in sizes else []
        if histogram and (len(histogram) != greatest + 1 or sum(histogram) != values):
            raise ValueError(
                f"{what} has {values} values of {greatest + 1} levels, by the schema; its histogram of levels counts "
                f"{sum(histogram)} of {len(histogram)}"
            )


def _check_apart(footer: Footer) -> None:
    spans = sorted((chunk.begin, chunk.end) for group in footer.row_groups for chunk in group.chunks)
    for (begin, end), (after, _) in pairwise(spans):
        if after < end:
            raise ValueError(f"two column chunks overlap, one at bytes {begin} to {end}, one from byte {after} on")
