"""Rows to the bytes of a Parquet file, hashed on the way, which is whole under its name or not there.

Plain vectors are written page by page by `source`'s `VectorWriter`; all else by pyarrow, a row group at a time. What
the columns are told of their encoding says `output.py`. The batches that rows come in, which are smaller where there is
less memory, change no byte: a row group ends with the row that fills it, and pyarrow, which would end pages as batches
end, is given each column of it in one piece.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from functools import lru_cache
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from scanrnn_dist.ragged import running_sums
from scanrnn_dist.records.output import STATE, Output, are_steps, feature_names, out_features_of, value_dtype
from scanrnn_dist.source import Gathered, VectorWriter, value_bytes
from scanrnn_dist.storage import Check, NewFile, Store, stopping

_SMALL_BYTES = 1 << 16
"""Less than that is gathered before it is hashed and written."""
_SYNCED_BYTES = 1 << 20
"""So many bytes are sent on to the disk at a time."""


def writer_of(file: Hashed, schema: pa.Schema, output: Output) -> VectorWriter | ArrowWriter:
    """What writes the rows of a part of this schema to an empty file."""
    leaves, names = leaves_of(schema), feature_names(schema)
    own = pa.schema([field for field in schema if field.name in names or _are_states(field)])
    features = {leaf for leaf in leaves_of(own) if leaves[leaf]}

    def options(kept: pa.Table) -> dict[str, Any]:
        return output.writing(kept, leaves, features, value_dtype(schema))

    if output.holds_plain_vectors(are_steps(schema)):
        return VectorWriter(file, schema, out_features_of(schema), options)
    return ArrowWriter(file, schema, options)


class ArrowWriter:
    """Row groups by pyarrow, which is asked for its options with the first of them."""

    def __init__(self, file: Hashed, schema: pa.Schema, options: Callable[[pa.Table], dict[str, Any]]) -> None:
        self._file, self._schema, self._options = file, schema, options
        self._group = Gathered(schema)  # what is not written yet
        self._writer: pq.ParquetWriter | None = None

    def write(self, batch: pa.RecordBatch) -> None:
        """Append rows, which are kept until the row group ends."""
        self._group.append(batch)

    def end_group(self) -> None:
        """Write what was appended."""
        table = self._group.taken()
        if len(table):
            self._begun(table).write_table(table, row_group_size=table.num_rows)

    def close(self) -> None:
        """Write the footer."""
        empty = pa.Table.from_batches([], self._schema)  # `empty_table` does not know every extension type
        self._begun(empty).close()

    def abandon(self) -> None:
        """Write nothing more that counts."""
        if self._writer is not None:
            try:
                self._writer.close()
            finally:
                self._writer.is_open = False  # else it would write the footer when it is collected, and fail once more

    def _begun(self, table: pa.Table) -> pq.ParquetWriter:
        if self._writer is None:
            kept = table.drop_columns(feature_names(self._schema))
            self._writer = pq.ParquetWriter(self._file, self._schema, **self._options(kept))
        return self._writer


class Hashed:
    """A file to write to, which hashes what is written on the way, small pieces together: nothing is read again."""

    def __init__(self, file: NewFile) -> None:
        self._file, self._digest = file, hashlib.sha256()
        self._small: list[bytes] = []
        self._small_bytes = self._nbytes = self._not_begun = 0

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._file.closed

    @property
    def sha256(self) -> str:
        """Of what was written until it was flushed, in hexadecimal."""
        return self._digest.hexdigest()

    def tell(self) -> int:
        """Bytes written so far."""
        return self._nbytes

    def write(self, content: bytes | memoryview) -> int:
        """Append."""
        nbytes = len(content)
        self._nbytes += nbytes
        if nbytes < _SMALL_BYTES:
            self._small.append(bytes(content))
            self._small_bytes += nbytes
            if self._small_bytes >= _SMALL_BYTES:
                self.flush()
        else:
            self.flush()
            self._put(content)
        return nbytes

    def flush(self) -> None:
        """Hand on the small pieces."""
        if self._small:
            content, self._small, self._small_bytes = b"".join(self._small), [], 0
            self._put(content)

    def close(self) -> None:
        """Leave it to the file's own to be closed."""

    def _put(self, content: bytes | memoryview) -> None:
        self._digest.update(content)
        self._file.write(content)
        self._not_begun += len(content)
        if self._not_begun >= _SYNCED_BYTES:
            self._file.begin_sync()
            self._not_begun = 0


class TableFile:
    """A Parquet file of row groups of at least so many bytes; nothing stands under its name before `commit`.

    It is written batch by batch. Whoever derives from it makes `_writer`, and hands batches to `_in_groups`, which says
    what of them to write to that.

    Raises:
        StoppedError: the file system refuses: full, read-only, gone.
    """

    _writer: VectorWriter | ArrowWriter

    def __init__(self, store: Store, name: str, row_group_bytes: int) -> None:
        self.path, self.rows = store.path(name), 0
        self._row_group_bytes, self._group_bytes, self._is_ended = row_group_bytes, 0, False
        with self._stopping():
            self._file = store.new_file(name)
        self._hashed = Hashed(self._file)

    @property
    def size_bytes(self) -> int:
        """Bytes written so far."""
        return self._hashed.tell()

    def end(self) -> None:
        """Write what is left to be written: after that only `commit` may follow, in whichever thread."""
        if self._is_ended:
            return
        self._end_group()
        with self._stopping():
            self._writer.close()
            self._hashed.flush()
        self._is_ended = True

    def commit(self, check: Check | None = None) -> str:
        """Make the file durable and give it its name, after a check; its SHA-256 in hexadecimal."""
        self.end()
        with self._stopping():
            self._file.commit(check)
        return self._hashed.sha256

    def abandon(self) -> None:
        """Remove what stands aside, of a file that will not be whole."""
        if not self._is_ended:
            with suppress(OSError, pa.ArrowException):
                self._writer.abandon()
        self._file.abandon()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Remove what stands aside; after `commit` nothing does."""
        if error is not None:
            self.abandon()

    def _in_groups(self, batch: pa.RecordBatch, others: np.ndarray, write: Callable[[int, int], None]) -> None:
        """Have rows written, from one to another, and end each row group with the row that fills it.

        They take what is in a batch, and `others` `(n,)` int64 bytes each besides.
        """
        sums, begin = running_sums(others + sum(map(value_bytes, batch.columns))), 0
        while begin < len(others):
            filled = sums[begin] + self._row_group_bytes - self._group_bytes
            end = min(int(np.searchsorted(sums, filled)), len(others))
            write(begin, end)
            self.rows += end - begin
            self._group_bytes += int(sums[end] - sums[begin])
            begin = end
            if self._group_bytes >= self._row_group_bytes:
                self._end_group()

    def _end_group(self) -> None:
        self._group_bytes = 0
        with self._stopping():
            self._writer.end_group()

    def _stopping(self) -> AbstractContextManager[None]:
        return stopping(self.path, but=(pa.ArrowException,))  # which are about the rows, not about the disk


@lru_cache(maxsize=4)
def leaves_of(schema: pa.Schema) -> Mapping[str, str]:
    """The Parquet columns that a schema becomes: physical types by dotted paths, "" for a path of several columns."""
    empty = pa.BufferOutputStream()
    pq.ParquetWriter(empty, schema).close()  # an empty table cannot be made of every extension type
    parquet = pq.ParquetFile(empty.getvalue()).schema
    leaves: dict[str, str] = {}
    for column in map(parquet.column, range(len(parquet.names))):
        leaves[column.path] = "" if column.path in leaves else column.physical_type
    return leaves


def _are_states(field: pa.Field) -> bool:
    """Whether a column holds states, which are numbers like features."""
    return (
        field.name == STATE and pa.types.is_fixed_size_list(field.type) and pa.types.is_floating(field.type.value_type)
    )
