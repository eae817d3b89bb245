"""Part files: rows in batches to Parquet, hashed on the way, whole under their name or not there.

Which rows make a part is decided in `source/source.py`; how a file appears, in `storage/`; what is recorded of it, in
`attempt_log.py`; how features stand in it, in `output.py`; how rows become bytes, in `part_writer.py`. The bytes of a
part are a function of the rows and of the options of the output.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from scanrnn_dist.errors import DataError, StoppedError
from scanrnn_dist.ragged import Ragged
from scanrnn_dist.records.output import (
    DEFAULT_OUTPUT,
    Output,
    feature_columns,
    feature_fields,
    feature_names,
    matrix_of,
    out_features_of,
    stored_vectors,
    value_dtype,
    vector_of,
)
from scanrnn_dist.records.part_writer import TableFile, writer_of
from scanrnn_dist.source import VectorWriter, with_true_metadata
from scanrnn_dist.storage import Store


def part_schema(
    kept: pa.Schema,
    out_features: int,
    metadata: dict[str, str],
    steps: bool = False,
    dtype: Any = np.float32,
    output: Output = DEFAULT_OUTPUT,
) -> pa.Schema:
    """The kept columns, then the features as `output` says: a column `features: fixed_size_list<dtype>[out_features]`
    by default.

    With `steps` a list of these. Its metadata is what of the kept columns' is true of these columns, and `metadata`.
    """
    fields = feature_fields(output, out_features, dtype, steps)
    schema = with_true_metadata(pa.schema([*kept, *fields]), kept.metadata, *(field.name for field in fields))
    return schema.with_metadata({**(schema.metadata or {}), **metadata})


class PartFile(TableFile):
    """One part, of a `part_schema`."""

    def __init__(self, store: Store, name: str, schema: pa.Schema, output: Output = DEFAULT_OUTPUT) -> None:
        super().__init__(store, name, output.row_group_bytes)
        self.schema = schema
        self._vector_bytes = out_features_of(schema) * value_dtype(schema).itemsize
        try:
            with self._stopping():
                self._writer = writer_of(self._hashed, schema, output)
        except BaseException:
            self._file.abandon()
            raise

    def write(self, kept: pa.RecordBatch, features: np.ndarray | Ragged, is_null: np.ndarray | None = None) -> None:
        """Append rows: kept columns, and features `(n, out_features)`, or a `Ragged` of those of steps.

        `is_null (n,)` says which rows have null features, whatever is given for them. Raises `DataError` for a feature
        that the part's dtype cannot hold.
        """

        def append(begin: int, end: int) -> None:
            some = features.slice(begin, end) if isinstance(features, Ragged) else features[begin:end]
            self._append(kept.slice(begin, end - begin), some, None if is_null is None else is_null[begin:end])

        vectors = features.lengths if isinstance(features, Ragged) else np.ones(len(features), np.int64)
        self._in_groups(kept, np.maximum(1, vectors) * self._vector_bytes, append)

    def _append(self, kept: pa.RecordBatch, features: np.ndarray | Ragged, is_null: np.ndarray | None) -> None:
        """Add rows to the row group."""
        if isinstance(self._writer, VectorWriter):
            assert isinstance(features, np.ndarray)
            vectors = stored_vectors(self.schema, features, is_null, self._place)
            others = pa.record_batch(kept.columns, schema=pa.schema(list(self.schema)[:-1]))
            self._writer.write(others, vectors, is_null if is_null is not None and is_null.any() else None)
        else:
            columns = feature_columns(self.schema, features, is_null, self._place)
            self._writer.write(pa.record_batch([*kept.columns, *columns], schema=self.schema))

    def _place(self, row: int) -> str:
        """Where one of the rows stands that are written next."""
        return f"{self.path}, row {self.rows + row}"


def file_sha256(store: Store, name: str) -> str | None:
    """SHA-256 of a file, in hexadecimal; None if there is none.

    Raises `StoppedError` if a disk or a server failed, `DataError` if the file cannot be read otherwise.
    """
    digest = hashlib.sha256()
    try:
        with store.open_input(name) as file:
            while content := file.read(8 << 20):
                digest.update(content)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unread(store, name, error) from error
    return digest.hexdigest()


def read_part(store: Store, name: str, columns: list[str] | None) -> Iterator[pa.RecordBatch]:
    """Columns of a part, and maybe more, row group by row group; raises `DataError` for an unreadable one.

    None stands for the columns of the features.
    """
    try:
        with store.open_input(name) as file:
            parquet = pq.ParquetFile(file, pre_buffer=False, buffer_size=1 << 20, page_checksum_verification=True)
            wanted = feature_names(parquet.schema_arrow) if columns is None else columns
            for group in range(parquet.num_row_groups):
                yield from parquet.read_row_group(group, wanted, use_threads=False).to_batches()
    except (OSError, pa.ArrowException) as error:
        raise _unread(store, name, error) from error


def _unread(store: Store, name: str, error: Exception) -> DataError | StoppedError:
    """What to say of a part that could not be read: that it is damaged, or that a disk or a server failed."""
    told = f"{store.path(name)} cannot be read: {error}"
    has_failed = isinstance(error, OSError) and error.errno and not isinstance(error, FileNotFoundError)
    return StoppedError(f"{told}. Start the same command again.") if has_failed else DataError(told)


def read_part_schema(store: Store, name: str) -> pa.Schema:
    """The schema of a part; raises `DataError` for an unreadable one."""
    try:
        with store.open_input(name) as file:
            return pq.read_schema(file)
    except (OSError, pa.ArrowException) as error:
        raise _unread(store, name, error) from error


def read_features(store: Store, name: str, rows: np.ndarray) -> list[np.ndarray | None]:
    """The features of some rows of a part, each `(out_features,)` or `(T, out_features)` of the part's dtype.

    None for a row whose features are null. Raises `DataError` for an unreadable part, or one with fewer rows.
    """
    found, begin = dict[int, np.ndarray | None](), 0
    for batch in read_part(store, name, None):
        here = rows[(rows >= begin) & (rows < begin + len(batch))]
        found |= {int(row): vector_of(batch, int(row) - begin) for row in here}
        begin += len(batch)
    if begin <= rows.max(initial=-1):
        raise DataError(f"{store.path(name)} holds {begin} rows; expected more than {rows.max()}.")
    return [found[int(row)] for row in rows]


def read_matrices(store: Store, name: str) -> Iterator[np.ndarray]:
    """All features of a part, batch by batch, each `(n, out_features)`; NaN where a row's are null."""
    for batch in read_part(store, name, None):
        try:
            yield matrix_of(batch)
        except DataError as error:
            raise DataError(f"{store.path(name)}: {error}.") from error
