"""Rows that were set aside: a Parquet file for each unit that has any, of the table that `source/set_aside.py` makes.

`DST/__scanrnn/quarantine/unit-00012.rows`, which no `**/*.parquet` finds. It is named before the part of its unit, and
that before the record of both: so a record says that the file stood, and a file without a record is of nobody. A unit
that is done again writes the same bytes. Its hash is in the `PartRecord`.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from scanrnn_dist.records.names import quarantine_name
from scanrnn_dist.records.output import ROW_GROUP_BYTES
from scanrnn_dist.records.part_file import read_part, read_part_schema
from scanrnn_dist.records.part_writer import ArrowWriter, TableFile
from scanrnn_dist.storage import Store


class QuarantineFile(TableFile):
    """The rows of one unit that are set aside."""

    _writer: ArrowWriter

    def __init__(self, store: Store, unit: int, units: int, schema: pa.Schema) -> None:
        super().__init__(store, quarantine_name(unit, units), ROW_GROUP_BYTES)
        self._writer = ArrowWriter(self._hashed, schema, lambda _: {"compression": "zstd", "write_page_checksum": True})

    def write(self, batch: pa.RecordBatch) -> None:
        """Append rows."""

        def write(begin: int, end: int) -> None:
            self._writer.write(batch.slice(begin, end - begin))

        self._in_groups(batch, np.zeros(batch.num_rows, np.int64), write)


def read_quarantine(store: Store, unit: int, units: int) -> Iterator[pa.RecordBatch]:
    """The rows of a unit that were set aside; raises `DataError` if they cannot be read."""
    name = quarantine_name(unit, units)
    yield from read_part(store, name, read_part_schema(store, name).names)
