"""Rows that were set aside: a Parquet file for each unit that has any, of the table that `source/set_aside.py` makes.

`DST/__scanrnn/quarantine/unit-00012.rows`, which no `**/*.parquet` finds. It is named before the part of its unit, and
that before the record of both: so a record says that the file stood, and a file without a record is of nobody. A unit
that is done again writes the same bytes. Its hash is in the `PartRecord`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from types import TracebackType

import pyarrow as pa

from scanrnn_dist.records.names import quarantine_name
from scanrnn_dist.records.output import ROW_GROUP_BYTES
from scanrnn_dist.records.part_file import file_sha256, read_part, read_part_schema
from scanrnn_dist.records.part_writer import ArrowWriter, Hashed
from scanrnn_dist.storage import Check, Store, stopping


class QuarantineFile:
    """The rows of one unit that are set aside, written batch by batch; nothing stands under its name before `commit`.

    Raises:
        StoppedError: the file system refuses: full, read-only, gone.
    """

    def __init__(self, store: Store, unit: int, units: int, schema: pa.Schema) -> None:
        name = quarantine_name(unit, units)
        self.path, self.rows = store.path(name), 0
        with stopping(self.path):
            self._file = store.new_file(name)
        self._hashed, self._group_bytes = Hashed(self._file), 0
        self._writer = ArrowWriter(self._hashed, schema, lambda _: {"compression": "zstd", "write_page_checksum": True})

    def write(self, batch: pa.RecordBatch) -> None:
        """Append rows."""
        self._writer.write(batch)
        self._group_bytes += batch.nbytes
        self.rows += batch.num_rows
        if self._group_bytes >= ROW_GROUP_BYTES:
            self._group_bytes = 0
            with stopping(self.path, but=(pa.ArrowException,)):
                self._writer.end_group()

    def commit(self, check: Check | None = None) -> str:
        """Make the file durable and give it its name, after a check; its SHA-256 in hexadecimal."""
        with stopping(self.path, but=(pa.ArrowException,)):
            self._writer.end_group()
            self._writer.close()
            self._hashed.flush()
            sha256 = self._hashed.sha256
            self._file.commit(check)
        return sha256

    def __enter__(self) -> QuarantineFile:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Remove what stands aside, where it got no name."""
        if error is not None:
            self.abandon()

    def abandon(self) -> None:
        """Remove what stands aside."""
        with suppress(OSError, pa.ArrowException):
            self._writer.abandon()
        self._file.abandon()


def is_changed(store: Store, unit: int, units: int, sha256: str) -> bool:
    """Whether the file of a unit is missing, or is not what is recorded of it."""
    try:
        return file_sha256(store, quarantine_name(unit, units)) != sha256
    except FileNotFoundError:
        return True


def read_quarantine(store: Store, unit: int, units: int) -> Iterator[pa.RecordBatch]:
    """The rows of a unit that were set aside; raises `DataError` if they cannot be read."""
    name = quarantine_name(unit, units)
    yield from read_part(store, name, read_part_schema(store, name).names)
