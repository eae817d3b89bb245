"""Pages of a column of vectors, all of one length: levels, checksum and header; the values are not touched.

Arithmetic alone; who writes them, where, is `vector_writer.py`'s. A vector is a list in Parquet, `optional group`,
`repeated group`, `optional` value: each number has a repetition level (0 begins a vector) and a definition level (3 for
a number, 0 for a vector that is null). pyarrow's writer works the levels of each number out, 2.5 ns of them; here they
are a pattern that repeats.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from scanrnn_dist.source.parquet.thrift import I32, STRUCT, integer_bytes, struct_bytes, unsigned_bytes

PLAIN, RLE = 0, 3
"""Encodings, as Parquet numbers them."""
MAX_DEFINITION = 3


class Head(NamedTuple):
    """What stands before the values of a page, its header and the levels; and its values, nulls too."""

    content: bytes
    values: int


def head_of_page(size: int, rows: int, is_null: np.ndarray | None, values: Sequence[memoryview]) -> Head:
    """The head of a page of vectors.

    Args:
        size: numbers of a vector.
        rows: of the page.
        is_null: `(rows,)` bool; None if none is.
        values: the numbers of all vectors that are not null, in pieces.
    """
    runs = [(rows, False)] if is_null is None else list(runs_of(is_null))
    count = sum(many * (1 if is_none else size) for many, is_none in runs)
    levels = _level_bytes(_repetitions(size, runs)) + _level_bytes(_definitions(size, runs))
    nbytes, checksum = len(levels), zlib.crc32(levels)
    for piece in values:
        nbytes, checksum = nbytes + piece.nbytes, zlib.crc32(piece, checksum)
    told = ((1, count), (2, PLAIN), (3, RLE), (4, RLE))
    data_page = struct_bytes(*((number, I32, integer_bytes(value)) for number, value in told))
    signed = checksum - (1 << 32) if checksum >> 31 else checksum
    header = struct_bytes(
        *((number, I32, integer_bytes(value)) for number, value in ((1, 0), (2, nbytes), (3, nbytes), (4, signed))),
        (5, STRUCT, data_page),
    )
    return Head(header + levels, count)


def runs_of(is_null: np.ndarray) -> Iterator[tuple[int, bool]]:
    """How many vectors in a row are null, or are not, and which of both."""
    ends = [*(np.flatnonzero(np.diff(is_null)) + 1).tolist(), len(is_null)]
    begin = 0
    for end in ends:
        if end > begin:
            yield end - begin, bool(is_null[begin])
        begin = end


def _repetitions(size: int, runs: Iterable[tuple[int, bool]]) -> Iterator[bytes]:
    """A bit for each number, which readers are fastest with, eight vectors at a time: so bytes are full."""
    eight = np.packbits(np.arange(8 * size) % size != 0, bitorder="little").tobytes()
    for many, is_none in runs:
        if is_none or size == 1:
            yield _run(many, 0)
        else:
            if many >= 8:
                yield _packed(eight * (many // 8))
            yield (_run(1, 0) + _run(size - 1, 1)) * (many % 8)


def _definitions(size: int, runs: Iterable[tuple[int, bool]]) -> Iterator[bytes]:
    for many, is_none in runs:
        yield _run(many, 0) if is_none else _run(many * size, MAX_DEFINITION)


def _run(many: int, level: int) -> bytes:
    """A level that is repeated so many times."""
    return unsigned_bytes(many << 1) + bytes([level])


def _packed(bits: bytes) -> bytes:
    """Levels of one bit each, the first one lowest."""
    return unsigned_bytes(len(bits) << 1 | 1) + bits


def _level_bytes(runs: Iterable[bytes]) -> bytes:
    content = b"".join(runs)
    return len(content).to_bytes(4, "little") + content
