"""Kept columns: what of a source is carried along beside its sequences, or read without them.

They may be columns of the files or what folders spell. Rows as they stand in files come from `unit_reader.py`, the
sequences beside them from `decode.py`.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from contextlib import closing

import numpy as np
import pyarrow as pa

from scanrnn_dist.errors import ConfigError, DataError, did_you_mean
from scanrnn_dist.source.grouped import Grouping
from scanrnn_dist.source.layouts import Layout
from scanrnn_dist.source.source import Source
from scanrnn_dist.source.unit_reader import UnitReader
from scanrnn_dist.source.units import Unit

_BATCH_BYTES = 8 << 20


class KeptColumns:
    """The kept columns of a source, taken from batches of its rows.

    Args:
        source: has them.
        names: of the columns, in the order in which they are wanted.
        order: the columns that order the steps of a sequence, where rows of the files are steps.
    """

    def __init__(self, source: Source, names: Sequence[str], order: Sequence[str] = ()) -> None:
        self.schema = pa.schema([source.schema.field(name) for name in names])
        # Of a folder that orders steps, a sequence may go through many.
        self._of_file = frozenset(source.files.partition_schema.names) - set(order)

    @property
    def of_rows(self) -> list[str]:
        """Those that a batch of rows has: all but what the folders of a file say of all its rows."""
        return [name for name in self.schema.names if name not in self._of_file]

    def of(self, unit: Unit, numbers: np.ndarray, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The kept columns of a batch of rows of these numbers, partition values as columns."""
        partitions = {name: value for name, value in unit.file.partitions if name in self._of_file}
        arrays = [
            pa.repeat(pa.scalar(partitions[kept.name], kept.type), batch.num_rows)
            if kept.name in partitions
            else batch.column(kept.name)
            for kept in self.schema
        ]
        for kept, array in zip(self.schema, arrays, strict=True):
            if array.null_count and not kept.nullable:  # in a file that came after the job began
                where = unit.where(int(numbers[array.is_null().index(True).as_py()]))
                raise DataError(
                    f"{where}: {kept.name!r} is null, and the files that the job began with say that it "
                    "never is. Write the file without nulls there; or begin anew with --restart."
                )
        # Without columns a record batch made of arrays would forget how many rows it has.
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema) if arrays else batch.select([])


class KeptReader:
    """Reads the kept columns of units without their sequences; a file stays open from one unit of it to the next.

    Where the layout groups steps, one value for each sequence: of a column that orders them that of its last step, or
    with `takes_first` of its first.
    """

    def __init__(
        self, source: Source, keep: Sequence[str], layout: Layout | None = None, *, takes_first: bool = False
    ) -> None:
        ids, order = (layout.ids, layout.asked.order_by or ()) if layout else ((), ())
        order = order if {*keep} & {*order} else ()
        grouped = dict.fromkeys((*ids, *order))
        check_none_twice(keep)
        check_columns(source, (*grouped, *keep))
        self._kept = KeptColumns(source, keep, order)
        grouping = Grouping(ids, order, (), self._kept.of_rows, takes_first)
        paths = [(name,) for name in grouped]
        self._reader = UnitReader(source, paths, keep, frozenset(), grouping, _BATCH_BYTES)
        self.close = self._reader.close

    def batches(self, unit: Unit) -> Generator[pa.RecordBatch, None, None]:
        """Those of a unit. A batch has about 8 MiB, and at least one row. Raises `DataError` as `read_chunks`."""
        for first_row, batch in self._reader.unit_batches(unit):
            yield self._kept.of(unit, np.arange(first_row, first_row + batch.num_rows), batch)


def read_kept(
    source: Source,
    units: Iterable[Unit],
    keep: Sequence[str],
    layout: Layout | None = None,
    *,
    takes_first: bool = False,
) -> Generator[pa.RecordBatch, None, None]:
    """The kept columns of units, one after the other, as a `KeptReader` reads them."""
    with closing(KeptReader(source, keep, layout, takes_first=takes_first)) as reader:
        for unit in units:
            yield from reader.batches(unit)


def check_none_twice(keep: Sequence[str]) -> None:
    """Raise a `ConfigError` where a column would be kept twice."""
    if len(set(keep)) != len(keep):
        raise ConfigError(f"The kept columns {list(keep)} hold a name twice; expected each once.")


def check_columns(source: Source, names: Sequence[str]) -> None:
    """Raise a `ConfigError` for the first of these columns that a source does not have."""
    there = source.schema.names
    for name in names:
        if name not in there:
            raise ConfigError(
                f"{name!r} is no column of the source; expected one of {there}.{did_you_mean(name, there)}"
            )
