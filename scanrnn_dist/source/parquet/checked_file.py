"""A Parquet file that is opened on a footer that was checked, and read past a look at its pages' headers.

pyarrow is given the very bytes of the footer that `footer.py` found sound, and reads through `PageFile`.
Columns of types that pyarrow does not know are left out by `readable.py`.
INT96 timestamps are read to the microsecond, so that years 1 to 9999 come out as they are, where pyarrow's own
nanoseconds wrap around outside 1677 to 2262; one with nanoseconds is refused.
Which columns and row groups are read say `source/footer_child.py` and `source/decode.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from scanrnn_dist.errors import DataError
from scanrnn_dist.source.parquet.budget import KEPT_BYTES, Budget, FewerRows, least_row_bytes
from scanrnn_dist.source.parquet.footer import read_tail
from scanrnn_dist.source.parquet.footer_schema import INT96
from scanrnn_dist.source.parquet.leaves import Leaves, Path, type_at
from scanrnn_dist.source.parquet.pages import PageFile
from scanrnn_dist.source.parquet.readable import (
    check_indices,
    checked_footer,
    footer_file,
    has_dictionary,
)
from scanrnn_dist.storage import FetchedFile, Span, open_input_file

_READ_BYTES = 1 << 18
"""Of one read of a column; what a page has beyond them goes to the decoder without a copy on the way."""


_SPARE_BYTES = 1 << 20
"""Of a column, so much more is fetched than its part of the rows takes, where rows are of unequal length."""


class CheckedFile:
    """An open Parquet file with a sound footer.

    Args:
        filesystem: where it is.
        path: the file.
        columns: those to be read, or fields within them, by the way there; None for all.
        memory_bytes: what may be held at once while pages are read, of `budget.py`; None for its default.
        kept_bytes: what pyarrow's allocator may keep meanwhile of what was freed, of `budget.py`.
        request_bytes: of a bucket, what may be fetched before it is decoded; None fetches nothing ahead.

    Raises:
        OSError: there is no such file.
        StoppedError: it could not be reached or read, for a reason that says nothing about it.
        ValueError: it is no sound Parquet file.
        DataError: from its methods, pages that contradict the footer.
    """

    def __init__(
        self,
        filesystem: fs.FileSystem,
        path: str,
        columns: Sequence[Path] | None = None,
        memory_bytes: int | None = None,
        kept_bytes: int = KEPT_BYTES,
        request_bytes: int | None = None,
    ) -> None:
        self._budget = Budget(memory_bytes, kept_bytes)
        self._file = open_input_file(filesystem, path, request_bytes)
        self._path, self._announced = path, list[list[Span]]()
        try:
            tail = read_tail(self._file, lambda: self._budget.nbytes)
            footer, self._content, self.schema_arrow, self.unreadable = checked_footer(tail, self.size_bytes)
            self.footer = replace(footer, fields={})
            names = footer.names
            wanted = [(name,) for name in names] if columns is None else columns
            self.leaves = Leaves(self.footer, self.schema_arrow)
            self._wanted = sorted({leaf for way in wanted for leaf in self.leaves.of(way)})
            self._pages = PageFile(self._file, self.footer, self._wanted, path, self._budget)
            self._parquet = self._open("us")
        except BaseException:
            self._file.close()
            raise
        self._int96 = {names[leaf.column] for leaf in self.footer.leaves if leaf.type == INT96}

    @property
    def size_bytes(self) -> int:
        """Its size, as it was opened."""
        return int(self._file.size())

    def fetch(self, row_groups: Sequence[int], rows: int) -> None:
        """Have a bucket send meanwhile what will be read for the first so many rows of these row groups."""
        if not isinstance(self._file, FetchedFile):
            return
        self._announced = []
        for group in (self.footer.row_groups[number] for number in row_groups):
            part, chunks = min(1.0, rows / max(1, group.rows)), [group.chunks[leaf] for leaf in self._wanted]
            ends = [chunk.begin + int(part * (chunk.end - chunk.begin)) + _SPARE_BYTES for chunk in chunks]
            if part:
                spans = [(chunk.begin, min(end, chunk.end)) for chunk, end in zip(chunks, ends, strict=True)]
                self._announced.append(spans)
            rows = max(0, rows - group.rows)
        self._file.fetch(self._announced)

    def iter_batches(
        self, rows: int, *, row_groups: Sequence[int], columns: Sequence[Path]
    ) -> Iterator[pa.RecordBatch]:
        """Record batches of `rows` rows of these row groups, with these columns (and maybe more).

        They have fewer rows from where on `rows` of them may take more memory than they may. Where that shows only in
        the middle, what was decoded is decoded once more and passed over; rows are at least halved each time.
        """
        delivered, rows = 0, self._rows_that_fit(rows, columns)
        while True:
            try:
                for batch in self._batches_after(delivered, rows, row_groups, columns):
                    delivered += batch.num_rows
                    yield batch
                    del batch  # or it would stay alive while the next one is decoded
                return
            except FewerRows as fewer:
                rows = max(1, min(fewer.rows, rows // 2))
                if isinstance(self._file, FetchedFile):
                    self._file.fetch(self._announced)

    def _batches_after(
        self, delivered: int, rows: int, row_groups: Sequence[int], columns: Sequence[Path]
    ) -> Iterator[pa.RecordBatch]:
        """The batches after so many rows."""
        self._budget.begin(rows)
        self._pages.check_rows(row_groups)
        for batch in self._batches(rows, row_groups, columns):
            skipped = min(delivered, batch.num_rows)
            delivered -= skipped
            for name in dict.fromkeys(path[0] for path in columns):
                check_indices(batch.column(name))
            if skipped < batch.num_rows:
                yield batch.slice(skipped) if skipped else batch
            del batch
            self._budget.begin(rows)

    def _rows_that_fit(self, rows: int, columns: Sequence[Path]) -> int:
        """Rows of a batch by what each takes at least; null or not, fixed sizes take their room."""
        row_bytes = {path: least_row_bytes(type_at(self.schema_arrow, path)) for path in columns}
        for path, nbytes in row_bytes.items():
            self.check_row(".".join(path), nbytes)
        return max(1, min(rows, self._budget.nbytes // max(1, sum(row_bytes.values()))))

    def check_row(self, column: str, nbytes: float) -> None:
        """Hold what one row of a column takes by its type against what may be held at once."""
        self._budget.check(nbytes, f"{self._path}, column {column!r}", f"one row of {nbytes:,} bytes, by its type,")

    def _batches(self, rows: int, row_groups: Sequence[int], columns: Sequence[Path]) -> Iterator[pa.RecordBatch]:
        wanted = self.leaves.names_for(columns)
        columns_read = list(dict.fromkeys(path[0] for path in columns))
        pieces = [list(row_groups)]
        kinds = [self.schema_arrow.field(name).type for name in columns_read]
        if any(pa.types.is_nested(kind) and has_dictionary(kind) for kind in kinds):
            pieces = [[group] for group in row_groups]  # pyarrow cannot put several dictionaries into one such batch

        def batches_of(parquet: pq.ParquetFile, wanted: list[str]) -> Iterator[pa.RecordBatch]:
            for groups in pieces:  # not Dataset.to_batches: it reads ahead without bound
                yield from parquet.iter_batches(rows, row_groups=groups, columns=wanted, use_threads=False)

        batches = batches_of(self._parquet, wanted)
        names = [name for name in columns_read if name in self._int96]
        if not names:
            yield from batches
            return
        # All that begin alike: "a.b" is a column, a field of another column, or both at once.
        begins = {name.partition(".")[0] for name in names}
        finer = batches_of(self._open("ns"), [name for name in wanted if name.partition(".")[0] in begins])
        for batch, fine in _cut_alike(batches, finer):
            for name in names:
                _check_microseconds(batch.column(name), fine.column(name), f"{self._path}, column {name!r}")
            yield batch

    def check_pages(self, row_groups: Sequence[int]) -> None:
        """Hold the pages of these row groups against the footer, those that were not read too."""
        self._budget.begin(1)
        self._pages.check_all(row_groups)

    def damaged(self, row_groups: Sequence[int], columns: Sequence[Path]) -> str:
        """Where reading fails, found by reading column after column; pyarrow does not say it. Empty if nowhere."""
        for group in row_groups:
            self.fetch([group], self.footer.row_groups[group].rows)
            for path in columns:
                try:
                    for _ in self.iter_batches(1024, row_groups=[group], columns=[path]):
                        pass
                except (pa.ArrowException, OSError, ValueError):
                    return f"{self._path}, row group {group}, column {'.'.join(path)!r}"
        return ""

    def close(self) -> None:
        """Close the file."""
        self._parquet.close(force=True)
        self._file.close()
        self._budget.give_back()

    def _open(self, int96_unit: str) -> pq.ParquetFile:
        return pq.ParquetFile(
            pa.PythonFile(self._pages, mode="r"),
            metadata=pq.read_metadata(pa.BufferReader(footer_file(self._content))),
            pre_buffer=False,  # would read whole column chunks, and turns the stream buffer off
            buffer_size=_READ_BYTES,
            page_checksum_verification=True,
            coerce_int96_timestamp_unit=int96_unit,
        )


def _cut_alike(
    ones: Iterator[pa.RecordBatch], others: Iterator[pa.RecordBatch]
) -> Iterator[tuple[pa.RecordBatch, pa.RecordBatch]]:
    """The same rows of both, cut where a batch of either ends: one with dictionaries may end at a row group."""
    other = pa.record_batch([], names=[])
    for one in ones:
        while one.num_rows:
            other = other if other.num_rows else next(others, None)
            if other is None:
                raise ValueError("The columns of INT96 have fewer rows when they are read a second time.")
            rows = min(one.num_rows, other.num_rows)
            yield one.slice(0, rows), other.slice(0, rows)
            one, other = one.slice(rows), other.slice(rows)


def _check_microseconds(array: pa.Array, finer: pa.Array, where: str) -> None:
    """Refuse timestamps that lose nanoseconds; where these wrap around, so do thousands of microseconds."""
    for coarse, fine in zip(_timestamps(array), _timestamps(finer), strict=True):
        if coarse.type == fine.type:
            continue  # not of INT96
        coarse, fine = (times.cast(pa.int64()).to_numpy() for times in (coarse, fine))
        lost = coarse * 1000 != fine
        if lost.any():
            value = int(fine[int(lost.argmax())])
            raise DataError(
                f"{where}: an INT96 timestamp has nanoseconds, {np.datetime64(value, 'ns')}; INT96 is read to the "
                "microsecond, for far dates' sake. Leave the column out with --keep, or write it as timestamp[ns]."
            )


def _timestamps(array: pa.Array) -> Iterator[pa.Array]:
    """The valid timestamps of an array at any depth, leaf by leaf."""
    if pa.types.is_timestamp(array.type):
        yield array.drop_null()
    elif pa.types.is_struct(array.type):
        for field in array.flatten():
            yield from _timestamps(field)
    elif pa.types.is_map(array.type):
        for field in (array.keys, array.items):
            yield from _timestamps(field)
    elif pa.types.is_nested(array.type):
        yield from _timestamps(array.flatten())
