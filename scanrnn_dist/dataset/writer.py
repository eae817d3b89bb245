"""Part files: written aside, synced, renamed, so that a reader sees a whole part or none.

Which rows make a part is decided in `source.py`; what is recorded of it, in `manifest.py`.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from scanrnn_dist.errors import DataError, StoppedError
from scanrnn_dist.ragged import Ragged

FEATURES = "features"
"""The name of the output column."""
ROW_GROUP_BYTES = 4 << 20
"""A row group of a part takes at least so many bytes, unless it is the part's last. Large ones are encoded at the end
of the part, when nothing else is left to do: 20 ms for 10 MB."""


@dataclass(frozen=True)
class PartRecord:
    """What is recorded of a part: its file name, rows, size in bytes, and the SHA-256 of the file in hexadecimal."""

    name: str
    rows: int
    size_bytes: int
    sha256: str


def part_schema(kept: pa.Schema, out_features: int, metadata: dict[str, str], steps: bool = False) -> pa.Schema:
    """The kept columns, then `features: fixed_size_list<float32>[out_features]`, with the metadata.

    With `steps` a list of these, one per step.
    """
    vector = pa.list_(pa.float32(), out_features)
    features = pa.field(FEATURES, pa.list_(vector) if steps else vector)
    return pa.schema([*kept, features], metadata=metadata)


class PartWriter:
    """One part, written batch by batch; nothing stands under its name before `commit`.

    Args:
        path: where the part is to stand.
        schema: from `part_schema`.

    Raises:
        StoppedError: the file system refuses: full, read-only, gone.
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.path, self.schema, self.rows = path, schema, 0
        self._group: list[pa.RecordBatch] = []  # what is not written yet
        self._group_bytes = 0
        self._aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        leaves = _leaves(schema)
        kept = {leaf for leaf in leaves if not leaf.startswith(f"{FEATURES}.")}
        try:
            self._file = _HashedFile(self._aside)
            self._writer = pq.ParquetWriter(
                self._file,
                schema,
                # Features hardly compress (zstd: 10 %) and never repeat: 100,000 rows of 64 take 0.026 s written
                # plainly, 0.064 s with pyarrow's defaults, 0.048 s with zstd.
                compression=dict.fromkeys(kept, "zstd") | dict.fromkeys(leaves - kept, "none"),
                use_dictionary=sorted(kept),
                write_statistics=sorted(kept),
                write_page_checksum=True,
            )
        except OSError as error:
            raise _stopped(path, error) from error
        except BaseException:
            self._file.close()
            self._aside.unlink(missing_ok=True)
            raise

    def write(self, kept: pa.RecordBatch, features: np.ndarray | Ragged) -> None:
        """Append rows: their kept columns and their `(n, out_features)` float32 features, or a `Ragged` of steps'."""
        vectors = features.values if isinstance(features, Ragged) else features
        values = pa.array(np.ascontiguousarray(vectors, np.float32).reshape(-1))
        column = pa.FixedSizeListArray.from_arrays(values, vectors.shape[1])
        if isinstance(features, Ragged):
            column = pa.ListArray.from_arrays(pa.array(features.offsets, pa.int32()), column)
        batch = pa.record_batch([*kept.columns, column], schema=self.schema)
        self._group.append(batch)
        self._group_bytes += batch.nbytes
        self.rows += batch.num_rows
        if self._group_bytes >= ROW_GROUP_BYTES:
            self._write_group()

    def commit(self) -> PartRecord:
        """Sync the file, give it its name, sync the folder."""
        self._write_group()
        try:
            self._writer.close()
            self._file.sync()
            record = PartRecord(self.path.name, self.rows, self._file.tell(), self._file.sha256)
            self._file.close()
            os.rename(self._aside, self.path)
            sync_folder(self.path.parent)
        except OSError as error:
            raise _stopped(self.path, error) from error
        return record

    def _write_group(self) -> None:
        if not self._group:
            return
        table = pa.Table.from_batches(self._group)
        self._group, self._group_bytes = [], 0
        try:
            self._writer.write_table(table, row_group_size=table.num_rows)
        except OSError as error:
            raise _stopped(self.path, error) from error

    def __enter__(self) -> PartWriter:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Remove what stands aside; after `commit` nothing does."""
        if error is not None:
            with suppress(OSError, pa.ArrowException):
                self._writer.close()
            self._writer.is_open = False  # else it would write the footer when it is collected, and fail once more
            with suppress(OSError):
                self._file.close()
            self._aside.unlink(missing_ok=True)


class _HashedFile:
    """A new file to write to, which hashes what is written on the way: nothing is read again."""

    def __init__(self, path: Path) -> None:
        self._file = open(path, "wb")  # noqa: SIM115 - closed by whoever writes
        self._digest = hashlib.sha256()
        self.tell, self.flush, self.close = self._file.tell, self._file.flush, self._file.close

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._file.closed

    @property
    def sha256(self) -> str:
        """SHA-256 of what was written, in hexadecimal."""
        return self._digest.hexdigest()

    def write(self, content: bytes) -> int:
        """Append and hash."""
        self._digest.update(content)
        return self._file.write(content)

    def sync(self) -> None:
        """Make what was written durable."""
        self._file.flush()
        os.fsync(self._file.fileno())


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_file(path: Path, content: bytes) -> None:
    """Write a small file whole or not at all, durably; an existing one is replaced."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(aside, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
        sync_folder(path.parent)
    except OSError as error:
        raise _stopped(path, error) from error
    finally:
        with suppress(OSError):
            aside.unlink(missing_ok=True)


def read_features(path: Path, rows: np.ndarray) -> list[np.ndarray]:
    """The features of some rows of a part, each `(out_features,)` or `(T, out_features)` float32.

    Raises `DataError` for an unreadable part, or one with fewer rows.
    """
    try:
        column = pq.read_table(path, columns=[FEATURES], page_checksum_verification=True)[FEATURES].combine_chunks()
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    if len(column) <= rows.max(initial=-1):
        raise DataError(f"{path} holds {len(column)} rows; expected more than {rows.max()}.")
    vectors = [column[int(row)].values for row in rows]
    if pa.types.is_fixed_size_list(column.type):
        return [vector.to_numpy() for vector in vectors]
    return [steps.flatten().to_numpy().reshape(-1, column.type.value_type.list_size) for steps in vectors]


def _leaves(schema: pa.Schema) -> set[str]:
    """Dotted paths of the Parquet columns that a schema becomes."""
    empty = pa.BufferOutputStream()
    pq.write_table(schema.empty_table(), empty)
    parquet = pq.ParquetFile(empty.getvalue()).schema
    return {parquet.column(index).path for index in range(len(parquet.names))}


def _stopped(path: Path, error: OSError) -> StoppedError:
    return StoppedError(f"{path} could not be written: {error.strerror or error}. What was committed before is whole.")
