"""What there is to read: files in a fixed order, their row groups and partition values, cut into units of work.

Checking and cutting only; files are listed by `listing.py`, kept by `file_table.py`, units by `units.py`; footers are
read by a child process in `footers.py`, rows by `decode.py`. Partition keys (`split=train/`) are taken from the folders
below what was named: below the folder, below the part of a glob before its first wildcard, below the folder that all
files of a list share; never from above it, and none for a single file.

All of it stands in columns, so that a million files or row groups take tens of megabytes.
"""

from __future__ import annotations

import logging
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import fs

from scanrnn_dist.errors import ConfigError, DataError
from scanrnn_dist.ragged import running_sums
from scanrnn_dist.source.drift import Drift
from scanrnn_dist.source.file_table import FileTable, partition_schema
from scanrnn_dist.source.footers import read_footers
from scanrnn_dist.source.layouts import Path
from scanrnn_dist.source.listing import Listing, SourceLike, list_source
from scanrnn_dist.source.units import Spans, Starts, Units

logger = logging.getLogger("scanrnn_dist")


@dataclass(frozen=True, eq=False)
class RowGroups:
    """What the footers of `N` files say about their `G` row groups, file after file; int64."""

    offsets: np.ndarray  # (N + 1,): those of file `i` are `offsets[i]` to `offsets[i + 1]`
    rows: np.ndarray  # (G,)
    nbytes: np.ndarray  # (G,), uncompressed bytes of all columns
    values: dict[str, np.ndarray] = field(default_factory=dict)
    """`(G,)` for each column of lists: the values in them, a null or an empty list counting one."""


@dataclass(frozen=True)
class LeftOut:
    """A file that is left out, since its footer could not be read, as it was when the source was opened."""

    path: str
    size_bytes: int
    modified_ns: int | None
    reason: str


@dataclass(frozen=True, eq=False)
class Source:
    """The files of a job in their order, with one schema: that of the files, then the partition fields.

    `rows` are those of all files. `row_groups` is what was read to know them, None once they are cut into units.
    `unreadable` are columns of types that pyarrow does not know, which `schema` lacks, each with the reason;
    `extensions` are extension types that are not understood, by the columns and fields that have them in any file, as
    read from the footers. `rounding` are columns that only sequences may be read from, since no type holds the values
    of all files, each with the reason. `drift` tells how files differ from the schema, `left_out` which could not be
    read. `memory_bytes` is what one page or row of the files may decode to; None for a share of what the process may
    use. `request_bytes` may be asked of a bucket at once, and pyarrow's allocator may keep `kept_bytes` of what was
    freed while files are read.
    """

    filesystem: fs.FileSystem
    files: FileTable
    schema: pa.Schema
    rows: int
    row_groups: RowGroups | None = None
    unreadable: Mapping[str, str] = field(default_factory=dict)
    extensions: Mapping[Path, str] = field(default_factory=dict)
    rounding: Mapping[str, str] = field(default_factory=dict)
    drift: tuple[str, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    memory_bytes: int | None = None
    request_bytes: int = 56 << 20
    kept_bytes: int = 32 << 20

    @property
    def footer_groups(self) -> RowGroups:
        """Its row groups; only of a source whose footers were read, which is not yet cut into units."""
        assert self.row_groups is not None, "a source whose footers were read"
        return self.row_groups


def open_source(source: SourceLike, skip_unreadable: bool = False) -> Source:
    """List the files of a source and read their footers.

    Args:
        source: a file, a folder (with everything below it, hive partitions too; names that begin with `_` or `.` are
            skipped), a glob (`**` for any depth), or a list of files. Paths of this machine, or URIs that pyarrow
            understands (`s3://bucket/folder`, `s3://bucket/*/*.parquet`).
        skip_unreadable: whether files whose footers cannot be read are left out, with a warning.

    Returns:
        The files: those of a folder or glob sorted by path, those of a list in its order.

    Raises:
        ConfigError: nothing found, a file named twice, files of several filesystems, or of a table whose log says
            which of them are live.
        DataError: a file that is no sound Parquet file, or a column whose types in several files cannot be united
            without loss; a link that leads nowhere.
        StoppedError: something may not be read, or its server cannot be reached, which says nothing about its content.
    """
    listing = list_source(source)
    if listing.repeated:
        link, real = listing.repeated[0]
        logger.warning(
            "Each file is read once; links to files or folders that are read anyway are skipped: %s leads to %s%s.",
            link, real, f" (and {len(listing.repeated) - 1:,} more)" * (len(listing.repeated) > 1),
        )  # fmt: skip
    files, read = _with_footers(listing, skip_unreadable)
    groups, drift, schema = read.row_groups(), read.drift, read.drift.schema
    fields = _folder_fields(listing.filesystem, files, drift)
    files = replace(files, partition_schema=fields)
    schema = pa.schema([*schema, *fields], schema.metadata)
    return Source(
        listing.filesystem, files, schema, int(groups.rows.sum()), groups, read.unreadable, drift.extensions,
        drift.rounding, drift.told(read.unreadable), tuple(read.left_out),
    )  # fmt: skip


def _with_footers(listing: Listing, skip_unreadable: bool) -> tuple[FileTable, _Footers]:
    """The files whose footers can be read, and what these say; a file that cannot be read is left out, or raises."""
    files, read, sound = listing.files, _Footers(), list[int]()
    for number, (path, footer) in enumerate(
        zip(_paths(files), read_footers(listing.filesystem, _paths(files)), strict=True)
    ):
        if "error" not in footer:
            sound.append(number)
            read.add(footer, path)
            continue
        reason = footer["error"].rstrip(" .")
        if not skip_unreadable:
            raise DataError(
                f"{path} cannot be read as Parquet: {reason}. Expected sound Parquet files only: mend or replace this "
                "one, name the others by a glob such as 'folder/**/*.parquet', or leave it out by "
                "--unreadable-file skip."
            )
        file = files[number]
        read.left_out.append(LeftOut(path, file.size_bytes, file.modified_ns, reason))
    return (_sound(files, sound, read.left_out) if read.left_out else files), read


def _folder_fields(filesystem: fs.FileSystem, files: FileTable, drift: Drift) -> pa.Schema:
    """The partition fields, but for those that are columns of all files too."""
    fields = partition_schema(filesystem, files)
    twice = [name for name in fields.names if name in drift.schema.names]
    for name in twice:
        if not drift.is_in_all(name):
            raise DataError(
                f"Some files stand in a folder '{name}=...' and have a column {name!r}, others lack it; expected it in "
                "all of them or in none. Read those with the column apart from those without it."
            )
    if twice:
        told = ", ".join(map(repr, twice))
        logger.warning("Files have columns that their folders spell too, %s: these are read from the files.", told)
    return pa.schema([field for field in fields if field.name not in twice])


def _sound(files: FileTable, sound: list[int], left_out: list[LeftOut]) -> FileTable:
    """The files that could be read; says which could not."""
    first = left_out[0]
    if not sound:
        raise DataError(
            f"None of the {len(left_out):,} files can be read as Parquet; the first is {first.path}: {first.reason}. "
            "Expected at least one sound Parquet file."
        )
    logger.warning(
        "%s of %s files cannot be read as Parquet and are left out: %s (%s)%s.",
        f"{len(left_out):,}", f"{len(files):,}", first.path, first.reason,
        f", and {len(left_out) - 1:,} more" * (len(left_out) > 1),
    )  # fmt: skip
    return files.take(np.array(sound, np.int64))


def limited(source: Source, rows: int | None) -> Source:
    """The first rows of a source: its last row group is cut there, and those after it are not there. None for all.

    Of the values of that row group nobody knows which rows have them; they are cut in proportion.
    """
    groups = source.footer_groups
    if rows is None or rows >= source.rows:
        return source
    before = running_sums(groups.rows)
    count = int(np.searchsorted(before, rows))  # row groups that have some of these rows
    counts = groups.rows[:count].copy()
    counts[-1] -= before[count] - rows
    kept, of = int(counts[-1]), int(groups.rows[count - 1])
    values = {
        name: np.append(numbers[: count - 1], int(numbers[count - 1]) * kept // of)
        for name, numbers in groups.values.items()
    }
    cut = RowGroups(np.minimum(groups.offsets, count), counts, groups.nbytes[:count], values)
    return replace(source, rows=rows, row_groups=cut)


ROWS_PER_PART = 65_536
"""Of a unit, about, unless another number is said."""
BYTES_PER_PART = 512 * 2**20
"""Then a unit also ends once its row groups hold so many uncompressed bytes: a crash costs the units that are worked
on, and units are what processes share. A GRU of 256 hidden features takes half a minute for so much input of 16 float32
a step (W2 of `benchmarks.run`: 32 million numbers, 2.5 s); 65,536 rows of 10,000 such steps would take 40 minutes."""


def plan_units(
    source: Source, rows_per_part: int | None, columns: Sequence[str] = (), starts: Starts | None = None
) -> Units:
    """Cut a source into units of whole row groups, of at least `rows_per_part` rows, where a file has as many left.

    None is `ROWS_PER_PART` rows, or fewer that take `BYTES_PER_PART`.

    A unit never spans files, and files without rows give none; only a source without any rows is one unit, of its first
    file. Units are weighed by the values in the lists of `columns` together; by rows where none of them holds lists.
    Where rows are events, `starts` says how many sequences begin in each row group: these are counted as rows, and a
    unit is weighed by their events.

    Raises:
        ConfigError: `rows_per_part` below 1.
    """
    if rows_per_part is not None and rows_per_part < 1:
        raise ConfigError(f"rows_per_part is {rows_per_part}; expected at least 1.")
    groups = source.footer_groups
    counted = groups if starts is None else replace(groups, rows=starts.rows)
    begins, ends = _cut(counted, rows_per_part) if source.rows else (np.zeros(1, np.int64), np.zeros(1, np.int64))
    listed = [groups.values[name] for name in columns if name in groups.values]
    values = sum(listed[1:], listed[0]) if listed else groups.rows
    spans = None if starts is None else _spans(groups.rows, starts, begins, ends)
    weights = _sums_between(values, begins, ends)
    if spans is not None:
        weights = _sums_between(groups.rows, begins, ends) - spans.skip + spans.tail
    # Row groups between two units are those of files without rows, or in which no sequence begins.
    used = np.zeros(len(groups.rows) + 1, np.int64)
    used[begins] += 1
    used[ends] -= 1
    return Units(
        source.files,
        (np.searchsorted(groups.offsets, begins, side="right") - 1 if source.rows else begins).astype(np.int32),
        running_sums(ends - begins),
        groups.rows[np.cumsum(used[:-1]) > 0],
        _sums_between(groups.nbytes, begins, ends),
        weights,
        spans,
    )


def _spans(rows: np.ndarray, starts: Starts, begins: np.ndarray, ends: np.ndarray) -> Spans:
    """Of units of these row groups the events that belong to the sequences that begin in them."""
    before, starting = running_sums(rows), np.flatnonzero(starts.rows)
    if not len(starting):
        return Spans(*(np.zeros(len(begins), np.int64) for _ in range(3)))
    group = starting[np.searchsorted(starting, begins)]
    first = before[group] + starts.skip[group]
    tail = np.append(first[1:], before[-1]) - before[ends]
    return Spans(_sums_between(starts.rows, begins, ends), first - before[begins], tail)


def _cut(groups: RowGroups, rows_per_part: int | None) -> tuple[np.ndarray, np.ndarray]:
    """First row group of every unit and the one after its last, counted over all files, `(U,)` int64 each."""
    most_rows, most_bytes = (ROWS_PER_PART, BYTES_PER_PART) if rows_per_part is None else (rows_per_part, np.inf)
    all_rows, all_bytes, offsets = groups.rows.tolist(), groups.nbytes.tolist(), groups.offsets.tolist()
    begins, ends = array("q"), array("q")
    for file_begin, file_end in pairwise(offsets):
        begin, rows, nbytes, left = file_begin, 0, 0, sum(all_rows[file_begin:file_end])
        for index in range(file_begin, file_end):
            rows, nbytes, left = rows + all_rows[index], nbytes + all_bytes[index], left - all_rows[index]
            is_full = rows >= most_rows or (rows and nbytes >= most_bytes)
            # Row groups without rows at the end of a file go with the unit before them.
            if (left and is_full) or (rows and index == file_end - 1):
                begins.append(begin)
                ends.append(index + 1)
                begin, rows, nbytes = index + 1, 0, 0
    return np.array(begins, np.int64), np.array(ends, np.int64)


def _sums_between(numbers: np.ndarray, begins: np.ndarray, ends: np.ndarray) -> np.ndarray:
    sums = running_sums(numbers)
    return sums[ends] - sums[begins]


class _Footers:
    """Gathers what footers say, and which files are left out since theirs cannot be read."""

    def __init__(self) -> None:
        self.drift, self.unreadable, self.left_out = Drift(), dict[str, str](), list[LeftOut]()
        self._offsets, self._rows, self._nbytes = array("q", [0]), array("q"), array("q")
        self._values: dict[str, array[int]] = {}

    def add(self, footer: dict[str, Any], path: str) -> None:
        """What the next file says; `DataError` as `Drift.add`."""
        self.unreadable.update((name, f"{reason} (in {path})") for name, reason in footer["unreadable"].items())
        self.drift.add(footer["schema"], path)
        rows = [rows for rows, _ in footer["row_groups"]]
        # Where a file does not tell of a column's values, or lacks the column, its rows take their place.
        for name, counts in footer["values"].items():
            self._values.setdefault(name, array("q", self._rows)).extend(counts)
        for name in self._values.keys() - footer["values"].keys():
            self._values[name].extend(rows)
        self._rows.extend(rows)
        self._nbytes.extend(nbytes for _, nbytes in footer["row_groups"])
        self._offsets.append(len(self._rows))

    def row_groups(self) -> RowGroups:
        """Those of all files that were added."""
        values = {name: np.array(counts, np.int64) for name, counts in self._values.items()}
        offsets, rows, nbytes = (np.array(of, np.int64) for of in (self._offsets, self._rows, self._nbytes))
        return RowGroups(offsets, rows, nbytes, values)


def _paths(files: FileTable) -> Iterator[str]:
    return (path.as_py() for path in files.paths)
