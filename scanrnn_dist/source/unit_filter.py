"""A filter applied to units of a source: in which of their row groups rows match, and which do.

What a filter is, and what it makes of a batch, stands in `filters.py`; what is then decoded says `decode.py`.
"""

from __future__ import annotations

from contextlib import closing

import numpy as np
import pyarrow as pa

from scanrnn_dist.source.filters import Filter
from scanrnn_dist.source.grouped import Grouping
from scanrnn_dist.source.source import Source
from scanrnn_dist.source.unit_reader import UnitReader
from scanrnn_dist.source.units import Unit

_CHUNK_BYTES = 1 << 20
"""Of a batch of what the filter is about: of a bucket, little is then fetched beyond the first row that matches."""


class UnitFilter:
    """A filter on units of a source; the file that it reads stays open from one unit of it to the next.

    Args:
        source: of the units.
        filter: which rows are wanted.
        own: as of `UnitReader`.

    Raises:
        ConfigError: as `Filter.of`.
    """

    def __init__(self, source: Source, filter: Filter, own: frozenset[str]) -> None:
        self._schema, self._filter = source.schema, filter
        self.columns = filter.of(source.schema)
        """What it is about, also what folders spell."""
        is_read = not {*self.columns} <= {*source.files.partition_schema.names}
        self._reader = UnitReader(source, (), self.columns, own, Grouping(), _CHUNK_BYTES) if is_read else None

    def close(self) -> None:
        """Close the file that it reads; it is opened again where it is needed."""
        if self._reader is not None:
            self._reader.close()

    def may_match(self, unit: Unit) -> bool:
        """Whether a unit may have rows that match, by the folders of its file."""
        return self._filter.may_match(self._partitions(unit))

    def matching(self, unit: Unit, batch: pa.RecordBatch) -> np.ndarray:
        """Which rows of a batch of a unit match, `(n,)` bool; raises `DataError` as `Filter.matching`."""
        return self._filter.matching(batch, self._partitions(unit), unit.span)

    def pieces(self, unit: Unit) -> list[tuple[Unit, bool]]:
        """The row groups of a unit, and whether they may have rows that match; alike ones together.

        What the filter is about is read first, row group by row group, up to a row that matches: statistics in a footer
        are not relied on. Raises `DataError` as `read_chunks`.
        """
        if unit.grouped is not None or not unit.rows:
            return [(unit, True)]
        may_match, reader = self.may_match(unit), self._reader
        if reader is None or not may_match:
            return [(unit, may_match)]
        parquet = reader.file_of(unit)
        nbytes = [group.nbytes for group in parquet.footer.row_groups[unit.row_group_begin : unit.row_group_end]]

        def has_match(piece: Unit) -> bool:
            with closing(reader.unit_batches(piece)) as batches:
                return any(self.matching(unit, batch).any() for _, batch in batches)

        pieces = unit.pieces(nbytes, has_match)
        parquet.fetch((), 0)  # what came beyond the first rows that match is not kept
        return pieces

    def _partitions(self, unit: Unit) -> dict[str, pa.Scalar]:
        """What the folders of a unit's file spell."""
        return {name: pa.scalar(value, self._schema.field(name).type) for name, value in unit.file.partitions}
