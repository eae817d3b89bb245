"""What rows a job would refuse, before it begins: some are read, or all, as the job would read them. Writes nothing.

What would become of the destination says `destination.py`; how long a job takes is `api/`'s affair.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from scanrnn_dist.errors import DataError, UndoneError, one_line
from scanrnn_dist.job.plan import Plan
from scanrnn_dist.job.undone import FLAG, OTHERWISE
from scanrnn_dist.ragged import Ragged
from scanrnn_dist.source import BadRows, Chunk, FailedUnit, Prefetched, ReadOptions, may_match, read_chunks, read_first
from scanrnn_dist.storage import is_uri

MOST_FILES, MOST_OBJECTS = 1_000, 32
"""Files whose first rows are read, and objects of a bucket, each of which costs some round trips. They are taken evenly
from the whole source."""
FIRST_BYTES, LEAST_BYTES, MOST_BYTES = 64 << 20, 16 << 10, 1 << 20
"""Decoded bytes of all first rows together, and the least and most of one file. `scanrnn plan --hidden 64` of 1,000
files of 50 rows each took 3.4 s, 1.8 s of one file (2 cores)."""
MOST_TOLD = 20
_AS_THEY_ARE: dict[str, Any] = {
    "lossy_cast": True,
    "bad_rows": BadRows(
        "propagate", null_sequence="skip", wrong_width="skip", unequal_lengths="skip", unreadable_file="skip"
    ),
}
"""How rows are read to count their steps, where all are refused as the job would read them."""
_SAMPLE_BYTES = 16 << 20


@dataclass
class Foreseen:
    """What the rows that were read tell of all others.

    Args:
        whole: whether all rows were read.
        files: of which rows were read.
        rows: that were read; without those of row groups and folders where a filter passes over all, unless `whole`.
        steps: about how many all rows have that would be computed; if all rows that were read are refused, about how
            many would be if they were not.
        nbytes: about how many are decoded of all rows.
        failed: units, or files where only first rows were read, that have a row which is refused.
        failures: where these are and why, the first ones.
        set_aside: rows that a policy sets aside.
        sample: sequences to measure with.
    """

    whole: bool
    files: int = 0
    rows: int = 0
    steps: float = 0.0
    nbytes: float = 0.0
    failed: int = 0
    failures: list[str] = field(default_factory=list)
    set_aside: int = 0
    sample: list[Ragged] = field(default_factory=list)

    def check(self, max_bad_rows: int | None = None, of_copy: bool = False) -> None:
        """Raise an `UndoneError` if the job would end with one; the files may be a sorted copy of the source."""
        if self.failures:
            more = [f"  and {self.failed - len(self.failures):,} more"] if self.failed > len(self.failures) else []
            head = "featurize would leave out the parts that hold these rows, and end with 3:"
            ways = [
                "Mend the source, of which this is the sorted copy, and use --restart"
                if of_copy
                else "Mend these files"
            ]
            if any(FLAG.search(it) for it in self.failures):
                ways.append("set the flag in parentheses to skip or to another choice")
            others = (way for flag, way in OTHERWISE.items() if any(flag in it for it in self.failures))
            ways += [f"{what} with {by}{' --restart' if of_copy else ''}" for what, by in others]
            told = [f"  {one_line(it)}" for it in self.failures]
            raise UndoneError("\n".join([head, *told, *more, f"{', or '.join(ways)}."]))
        if max_bad_rows is not None and self.set_aside > max_bad_rows:
            raise UndoneError(
                f"featurize would stop: {self.set_aside:,} rows would be set aside, and --max-bad-rows is "
                f"{max_bad_rows:,}."
            )


def foresee(
    plan: Plan,
    reading: Callable[[int], ReadOptions],
    carries: Callable[[Chunk], np.ndarray | None],
    *,
    whole: bool = False,
    on_rows: Callable[[int], None] | None = None,
) -> Foreseen:
    """Read the first rows of each file, or all rows, as a job would.

    Args:
        plan: of the job.
        reading: how it reads, for a size of chunks in bytes.
        carries: reads the initial carries of a chunk; raises if they are not what they should be.
        whole: whether to read all rows.
        on_rows: called with the number of rows each time some were read.
    """
    found = _foreseen(plan, reading, carries, whole, on_rows)
    if found.failed and not found.steps:
        found.steps = _foreseen(plan, lambda size: replace(reading(size), **_AS_THEY_ARE), lambda _: None).steps
    return found


def _foreseen(
    plan: Plan,
    reading: Callable[[int], ReadOptions],
    carries: Callable[[Chunk], np.ndarray | None],
    whole: bool = False,
    on_rows: Callable[[int], None] | None = None,
) -> Foreseen:
    """As `foresee`; of rows that are all refused it finds no steps."""
    found, read, sampled_bytes = Foreseen(whole), _Read(len(plan.units)), 0
    files, options = set[str](), reading(MOST_BYTES)
    most = options.lengths.max_steps
    rows = plan.units.rows if whole else _rows_of_folders(plan, options)
    chunks: Prefetched | Generator[Chunk | FailedUnit, None, None] = (
        read_chunks(plan.source, plan.units, options, keep_going=True)
        if whole
        else _first(plan, reading, rows, found, read)
    )
    with closing(chunks):
        for chunk in _with_carries(chunks, carries):
            files.add(chunk.unit.file.path)
            if isinstance(chunk, FailedUnit):
                count = _add_failed(found, read, chunk)
            else:
                steps = int(chunk.sequences.lengths_within(most).sum())  # the engine cuts some
                count = chunk.rows
                read.add(chunk, steps)
                if sampled_bytes < _SAMPLE_BYTES and steps:
                    found.sample.append(chunk.sequences)
                    sampled_bytes += chunk.sequences.values.nbytes
            if on_rows is not None:
                on_rows(count)
            del chunk  # or it would stay alive while the next one is decoded
    found.files, found.set_aside = len(files), int(read.aside.sum())
    found.rows = int(read.decoded.sum() + (read.passed_over.sum() if whole else 0))
    share = read.share(plan.units.file, rows)
    if share is not None:
        found.steps, found.nbytes = float(read.steps @ share), float(read.nbytes @ share)
    return found


class _Read:
    """What was read of each of `U` units, `(U,)` int64 each; of one that failed, nothing."""

    def __init__(self, units: int) -> None:
        self._counts = np.zeros((5, units), np.int64)
        self.decoded, self.passed_over, self.steps, self.nbytes, self.aside = self._counts

    def add(self, chunk: Chunk, steps: int) -> None:
        """Count a chunk; the first one of a unit that is read anew counts alone."""
        unit = chunk.unit.index
        if not chunk.begin:
            self.forget(unit)
        (self.decoded if chunk.decoded_bytes else self.passed_over)[unit] += chunk.rows
        self.steps[unit] += steps
        self.nbytes[unit] += chunk.decoded_bytes
        self.aside[unit] += 0 if chunk.aside is None else len(chunk.aside)

    def forget(self, unit: int) -> int:
        """Count nothing of a unit any more; how many rows had been."""
        rows = int(self.decoded[unit] + self.passed_over[unit])
        self._counts[:, unit] = 0
        return rows

    def share(self, file: np.ndarray, rows: np.ndarray) -> np.ndarray | None:
        """For how many rows each decoded row of a unit stands, `(U,)`; None where no row was read of those there are.

        It stands for the rows of its unit that were not passed over, the unit for its file, and the files that were
        read for the others: files may differ in how long their sequences are, and give samples of unlike sizes.

        Args:
            file: the number of each unit's file, `(U,)`.
            rows: of each unit, `(U,)`, 0 where none is to be counted.
        """
        read = rows * (self.decoded + self.passed_over > 0)
        of_file, read_of_file = np.bincount(file, rows), np.bincount(file, read)
        if not read.any():
            return None if rows.any() else np.zeros(len(rows))
        of_unit = (rows - self.passed_over) / np.maximum(1, self.decoded)
        of_files = of_file / np.maximum(1, read_of_file)
        return np.asarray(of_unit * of_files[file] * (of_file.sum() / of_file[read_of_file > 0].sum()))


def _rows_of_folders(plan: Plan, options: ReadOptions) -> np.ndarray:
    """The rows of each unit, 0 where the folders of its file say that none of them matches the filter."""
    units = plan.units
    if options.filter is None or units.spans is not None or not plan.source.files.partition_schema.names:
        return units.rows
    files, firsts = np.unique(units.file, return_index=True)
    matches = np.zeros(1 + int(files[-1]), bool)
    matches[files] = may_match(plan.source, units.select(firsts.tolist()), options)
    return units.rows * matches[units.file]


def _first(
    plan: Plan, reading: Callable[[int], ReadOptions], rows: np.ndarray, found: Foreseen, read: _Read
) -> Generator[Chunk | FailedUnit, None, None]:
    """The first chunks of files, evenly chosen; more until a row has a step, if a filter or damage left none."""
    _, firsts = np.unique(plan.units.file[rows > 0], return_index=True)
    firsts = np.flatnonzero(rows > 0)[firsts]
    given = plan.given if isinstance(plan.given, str) else plan.given[0]
    most = MOST_OBJECTS if is_uri(given) else MOST_FILES
    firsts = _evenly(firsts, most)
    options = reading(min(MOST_BYTES, max(LEAST_BYTES, FIRST_BYTES // max(1, len(firsts)))))
    yield from read_first(plan.source, plan.units.select(firsts.tolist()), options)
    others = _evenly(np.setdiff1d(np.flatnonzero(rows > 0), firsts), most)
    for unit in plan.units.select([*firsts.tolist(), *others.tolist()]):
        if found.sample or found.failed or (options.filter is None and read.decoded.any()):
            return
        yield from read_first(plan.source, [unit], options, go_on=True)


def _evenly(units: np.ndarray, most: int) -> np.ndarray:
    return units[:: max(1, -(-len(units) // most))]


def _with_carries(
    read: Iterable[Chunk | FailedUnit], carries: Callable[[Chunk], np.ndarray | None]
) -> Iterator[Chunk | FailedUnit]:
    """What is read; a unit fails at the first chunk whose initial carries are not what they should be."""
    failed = -1
    for item in read:
        if item.unit.index == failed:
            continue
        if not isinstance(item, FailedUnit):
            try:
                carries(item)
            except DataError as error:
                item, failed = FailedUnit(item.unit, str(error)), item.unit.index
        yield item
        del item  # or it would stay alive while the next one is decoded


def _add_failed(found: Foreseen, read: _Read, failed: FailedUnit) -> int:
    """Take note of a unit that is refused, or set aside as a whole, none of whose chunks count then.

    Gives how many rows of it are dealt with besides those that were read.
    """
    unit = failed.unit
    if failed.aside is not None:
        before = read.forget(unit.index)
        read.aside[unit.index], read.decoded[unit.index] = unit.rows, unit.rows * found.whole
        return unit.rows - before
    read.aside[unit.index] = 0
    found.failed += 1
    if len(found.failures) < MOST_TOLD:
        found.failures.append(failed.reason)
    return 0
