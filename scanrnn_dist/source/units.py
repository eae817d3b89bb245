"""Units of work: consecutive row groups of one file each, kept as columns, a million of them in 60 MB.

Where a row of the files is one step, an event (`layouts/long.py`), a unit is the sequences that begin in its row
groups: the first events may belong to a sequence that began before, and the last sequence may go on in what follows.

How a source is cut into units stands in `source.py`, who gets which in `job/shares.py`.
"""

from __future__ import annotations

import operator
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate

import numpy as np

from scanrnn_dist.ragged import running_sums
from scanrnn_dist.source.file_table import FileTable, SourceFile


@dataclass(frozen=True, eq=False)
class Begins:
    """Consecutive sequences: the event of the unit at which each begins, and its ids in words."""

    events: np.ndarray
    ids: Callable[[int], str]


@dataclass(frozen=True, eq=False)
class Grouped:
    """What is to be known of a unit whose rows are sequences of events.

    Args:
        file: the number of its file among those of the source.
        rows: sequences that begin in its row groups.
        skip: events at their start that belong to a sequence that begins before.
        tail: events after them that belong to its last sequence.
        read: noted by who reads the unit, for messages: which of its sequences begin where.
    """

    file: int
    rows: int
    skip: int
    tail: int
    read: list[Begins] = field(default_factory=list)

    def begin(self, row: int) -> tuple[int, str]:
        """The event at which a sequence begins, and its ids in words; of one that was not read, where the unit does."""
        for piece in self.read:
            if row < len(piece.events):
                return int(piece.events[row]), piece.ids(row)
            row -= len(piece.events)
        return self.skip, ""


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
    grouped: Grouped | None = None  # where its rows are sequences of events

    @property
    def row_group_end(self) -> int:
        """The row group of the file after its last one."""
        return self.row_group_begin + len(self.group_rows)

    @property
    def rows(self) -> int:
        """Rows of its row groups; or the sequences that begin in them."""
        return self._file_rows if self.grouped is None else self.grouped.rows

    @property
    def span(self) -> str:
        """Its file and row groups, for messages."""
        last = self.row_group_end - 1
        groups = f"row group {last}" if self.row_group_begin == last else f"row groups {self.row_group_begin} to {last}"
        return f"{self.file.path}, {groups},"

    def pieces(self, nbytes: Sequence[int], test: Callable[[Unit], bool]) -> list[tuple[Unit, bool]]:
        """Its row groups, of these bytes, as units of their own with what a test says of each; alike ones together.

        One without rows goes with its neighbour: a piece of its own would be the end of the unit once more.
        """
        pieces: list[tuple[Unit, bool]] = []
        row = self.first_row
        for number, rows in enumerate(self.group_rows):
            size, values = nbytes[number], self.values * rows // self.rows
            piece = Unit(self.index, self.file, self.row_group_begin + number, (rows,), row, size, values)
            row, said = row + rows, rows > 0 and test(piece)
            if pieces and (pieces[-1][1] == said or not rows or not pieces[-1][0].rows):
                last, before = pieces.pop()
                said = said or before
                both, size, values = (*last.group_rows, rows), last.nbytes + size, last.values + values
                piece = Unit(self.index, self.file, last.row_group_begin, both, last.first_row, size, values)
            pieces.append((piece, said))
        return pieces

    def where(self, row: int, after: int = 0) -> str:
        """Where a row stands, counted from its row `after` on, for messages: file, row group, row in both."""
        row += after
        if self.grouped is None:
            return self.event(row)
        event, ids = self.grouped.begin(row)
        return f"{self.event(event)}, where {ids} begins" if ids else self.event(event)

    def event(self, row: int) -> str:
        """Where a row of the files stands, counted from the first one of its row groups."""
        if self.group_rows and row >= self._file_rows:
            return f"{self.span} {row - self._file_rows + 1} rows after their end"
        group, within, of_file = self._event_place(row)
        return f"{self.file.path}, row group {group}, row {within} (row {of_file} of the file)"

    def place(self, row: int) -> tuple[int, int, int]:
        """Where a row stands, or begins: its row group, its row within that, and its row of the file."""
        return self._event_place(row if self.grouped is None else self.grouped.begin(row)[0])

    def _event_place(self, row: int) -> tuple[int, int, int]:
        group = bisect_right(self._ends, row)
        within = row - (self._ends[group] - self.group_rows[group])
        return self.row_group_begin + group, within, self.first_row + row

    @cached_property
    def _ends(self) -> list[int]:
        """Where each row group ends, counted from the first row; kept, as places of many rows may be asked for."""
        return list(accumulate(self.group_rows))

    @property
    def _file_rows(self) -> int:
        return self._ends[-1] if self._ends else 0


@dataclass(frozen=True, eq=False)
class Starts:
    """Where sequences of events begin, by the `G` row groups of a source; `(G,)` int64 each."""

    rows: np.ndarray  # sequences that begin in it
    skip: np.ndarray  # its rows before the first of them; all, where none begins


@dataclass(frozen=True, eq=False)
class Spans:
    """The `U` units of events as columns, `(U,)` int64 each; as in `Grouped`."""

    rows: np.ndarray
    skip: np.ndarray
    tail: np.ndarray


@dataclass(frozen=True, eq=False)
class Units:
    """`U` units in the order of their rows; a sequence of `Unit`. Those of a file cover it from its first row on."""

    files: FileTable  # of the source
    file: np.ndarray  # (U,) int32, the number of each unit's file, never falling
    offsets: np.ndarray  # (U + 1,) int64: the row groups of unit `i` are `offsets[i]` to `offsets[i + 1]`
    group_rows: np.ndarray  # int64, rows of each row group that some unit has
    nbytes: np.ndarray  # (U,) int64
    values: np.ndarray  # (U,) int64, what the units weigh
    spans: Spans | None = None  # where rows of the files are events
    rows: np.ndarray = field(init=False)  # (U,) int64
    row_group_begin: np.ndarray = field(init=False)  # (U,) int32
    first_row: np.ndarray = field(init=False)  # (U,) int64

    def __post_init__(self) -> None:
        rows_before = running_sums(self.group_rows)[self.offsets]
        # The first unit of the file that each is of; a file is covered from its beginning.
        first = np.searchsorted(self.file, self.file)
        object.__setattr__(self, "rows", np.diff(rows_before) if self.spans is None else self.spans.rows)
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
        grouped = None
        if (spans := self.spans) is not None:
            rows, skip, tail = (int(of[index]) for of in (spans.rows, spans.skip, spans.tail))
            grouped = Grouped(int(self.file[index]), rows, skip, tail)
        first_row, nbytes, values = map(int, numbers)
        return Unit(index, file, int(self.row_group_begin[index]), group_rows, first_row, nbytes, values, grouped)


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
    if now.spans is not None and before.spans is not None:
        for name in ("rows", "skip", "tail"):
            is_same &= getattr(now.spans, name) == getattr(before.spans, name)[found]
        is_same &= (now.spans.tail == 0) | _goes_on_alike(now, places)
    return np.where(is_same, found, -1)


def _goes_on_alike(now: Units, places: np.ndarray) -> np.ndarray:
    """Whether all files from that of a unit to that of the next are those that came one after the other before."""
    last = np.append(now.file[1:], len(places) - 1)
    is_other = np.ones(len(places), np.int64)
    is_other[1:] = (places[1:] < 0) | (np.diff(places) != 1)
    others = running_sums(is_other)
    return np.asarray(others[last + 1] == others[now.file + 1])
