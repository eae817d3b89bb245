"""Units of work: consecutive row groups of one file each, kept as columns, a million of them in 60 MB.

How a source is cut into units stands in `source.py`, who gets which in `job/shares.py`.
"""

from __future__ import annotations

import operator
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import numpy as np

from scanrnn_dist.source.file_table import FileTable, SourceFile


@dataclass(frozen=True)
class Unit:
    """Consecutive row groups of one file: read and committed as a whole, and all that is needed to do so."""

    index: int  # which unit of the job it is
    file: SourceFile
    row_group_begin: int  # the first row group of the file that belongs to it
    group_rows: tuple[int, ...]  # rows of each of its row groups
    first_row: int  # the row of the file at which it starts
    nbytes: int  # uncompressed bytes of its row groups, all columns
    values: int  # those in the lists of the sequence column, in proportion to steps; its rows where there are no lists

    @property
    def row_group_end(self) -> int:
        """The row group of the file after its last one."""
        return self.row_group_begin + len(self.group_rows)

    @property
    def rows(self) -> int:
        """Rows of its row groups."""
        return sum(self.group_rows)

    @property
    def span(self) -> str:
        """Its file and row groups, for messages."""
        last = self.row_group_end - 1
        groups = f"row group {last}" if self.row_group_begin == last else f"row groups {self.row_group_begin} to {last}"
        return f"{self.file.path}, {groups},"

    def pieces(self, nbytes: Sequence[int], test: Callable[[Unit], bool]) -> list[tuple[Unit, bool]]:
        """Its row groups, of these bytes, as units of their own with what a test says of each; alike ones together."""
        pieces: list[tuple[Unit, bool]] = []
        row = self.first_row
        for number, rows in enumerate(self.group_rows):
            size, values = nbytes[number], self.values * rows // self.rows
            piece = Unit(self.index, self.file, self.row_group_begin + number, (rows,), row, size, values)
            row, said = row + rows, test(piece)
            if pieces and pieces[-1][1] == said:
                last, _ = pieces.pop()
                both, size, values = (*last.group_rows, rows), last.nbytes + size, last.values + values
                piece = Unit(self.index, self.file, last.row_group_begin, both, last.first_row, size, values)
            pieces.append((piece, said))
        return pieces

    def where(self, row: int, after: int = 0) -> str:
        """Where a row stands, counted from its row `after` on, for messages: file, row group, row in both."""
        row += after
        ends = list(accumulate(self.group_rows))
        group = bisect_right(ends, row)
        within = row - (ends[group] - self.group_rows[group])
        place = f"{self.file.path}, row group {self.row_group_begin + group}, row {within}"
        return f"{place} (row {self.first_row + row} of the file)"


@dataclass(frozen=True, eq=False)
class Units:
    """`U` units in the order of their rows; a sequence of `Unit`. Those of a file cover it from its first row on."""

    files: FileTable  # of the source
    file: np.ndarray  # (U,) int32, the number of each unit's file, never falling
    offsets: np.ndarray  # (U + 1,) int64: the row groups of unit `i` are `offsets[i]` to `offsets[i + 1]`
    group_rows: np.ndarray  # int64, rows of each row group that some unit has
    nbytes: np.ndarray  # (U,) int64
    values: np.ndarray  # (U,) int64, what the units weigh
    rows: np.ndarray = field(init=False)  # (U,) int64
    row_group_begin: np.ndarray = field(init=False)  # (U,) int32
    first_row: np.ndarray = field(init=False)  # (U,) int64

    def __post_init__(self) -> None:
        rows_before = running_sums(self.group_rows)[self.offsets]
        # The first unit of the file that each is of; a file is covered from its beginning.
        first = np.searchsorted(self.file, self.file)
        object.__setattr__(self, "rows", np.diff(rows_before))
        object.__setattr__(self, "row_group_begin", (self.offsets[:-1] - self.offsets[first]).astype(np.int32))
        object.__setattr__(self, "first_row", rows_before[:-1] - rows_before[first])

    def __len__(self) -> int:
        return len(self.file)

    def __getitem__(self, index: int) -> Unit:
        number = range(len(self))[operator.index(index)]
        return self._unit(number, self.files[self.file[number]])

    def __iter__(self) -> Iterator[Unit]:
        return self.select(range(len(self)))

    def select(self, indices: Iterable[int]) -> Iterator[Unit]:
        """The units of these numbers, one after the other."""
        last, file = -1, None
        for index in indices:
            number = int(self.file[index])
            if file is None or number != last:
                last, file = number, self.files[number]
            yield self._unit(int(index), file)

    def _unit(self, index: int, file: SourceFile) -> Unit:
        group_rows = tuple(self.group_rows[self.offsets[index] : self.offsets[index + 1]].tolist())
        numbers = (self.first_row[index], self.nbytes[index], self.values[index])
        return Unit(index, file, int(self.row_group_begin[index]), group_rows, *map(int, numbers))


def found_again(now: Units, before: Units, places: np.ndarray) -> np.ndarray:
    """Of each unit the number of the one that had the same row groups of the same file before, `(U,)` int64; else -1.

    Args:
        now: units of a source that changed.
        before: those of the source as it was, by the same options.
        places: `(N,)` of each file of `now`, its number in the files of `before`; -1 if it is not the same.
    """
    file = places[now.file].astype(np.int64)
    span = 1 + int(max(now.row_group_begin.max(), before.row_group_begin.max()))
    wanted, there = file * span + now.row_group_begin, before.file.astype(np.int64) * span + before.row_group_begin
    found = np.minimum(np.searchsorted(there, wanted), len(before) - 1)
    groups = np.diff(now.offsets)
    is_same = (file >= 0) & (there[found] == wanted) & (groups == np.diff(before.offsets)[found])
    # Their row groups one by one: of those that may be the same.
    units, groups = np.flatnonzero(is_same), groups[is_same]
    nth = np.arange(groups.sum()) - np.repeat(running_sums(groups)[:-1], groups)
    rows = now.group_rows[np.repeat(now.offsets[units], groups) + nth]
    differ = rows != before.group_rows[np.repeat(before.offsets[found[units]], groups) + nth]
    is_same[np.repeat(units, groups)[differ]] = False
    return np.where(is_same, found, -1)


def running_sums(numbers: np.ndarray) -> np.ndarray:
    """Running sums from 0 on: `(N,)` -> `(N + 1,)` int64."""
    sums = np.zeros(len(numbers) + 1, np.int64)
    np.cumsum(numbers, out=sums[1:])
    return sums
