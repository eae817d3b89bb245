"""What rows a job would refuse, before it begins: some are read, or all, as the job would read them. Writes nothing.

What would become of the destination says `destination.py`; how long a job takes is `api/`'s affair.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np

from scanrnn_dist.errors import DataError, UndoneError, one_line
from scanrnn_dist.job.plan import Plan
from scanrnn_dist.ragged import Ragged
from scanrnn_dist.source import Chunk, FailedUnit, ReadOptions, read_chunks, read_first
from scanrnn_dist.storage import is_uri

MOST_FILES, MOST_OBJECTS = 1_000, 32
"""Files whose first rows are read, and objects of a bucket, each of which costs some round trips. They are taken evenly
from the whole source."""
FIRST_BYTES, LEAST_BYTES, MOST_BYTES = 64 << 20, 16 << 10, 1 << 20
"""Decoded bytes of all first rows together, and the least and most of one file. `scanrnn plan --hidden 64` of 1,000
files of 50 rows each took 3.4 s, 1.8 s of one file (2 cores)."""
MOST_TOLD = 20
_SAMPLE_BYTES = 16 << 20


@dataclass
class Foreseen:
    """What the rows that were read tell of all others.

    Args:
        whole: whether all rows were read.
        files: of which rows were read.
        rows: that were read.
        steps: of them that would be computed.
        failed: units, or files where only first rows were read, that have a row which is refused.
        failures: where these are and why, the first ones.
        set_aside: rows that a policy sets aside.
        sample: sequences to measure with.
    """

    whole: bool
    files: int = 0
    rows: int = 0
    steps: int = 0
    failed: int = 0
    failures: list[str] = field(default_factory=list)
    set_aside: int = 0
    sample: list[Ragged] = field(default_factory=list)

    def check(self, max_bad_rows: int | None = None) -> None:
        """Raise an `UndoneError` if the job would end with one."""
        if self.failures:
            more = [f"  and {self.failed - len(self.failures):,} more"] if self.failed > len(self.failures) else []
            head = "featurize would leave out the parts that hold these rows, and end with 3:"
            advice = "Mend these files, or say what to do with such rows (--bad-value skip, --lossy-cast, ...)."
            raise UndoneError("\n".join([head, *(f"  {one_line(it)}" for it in self.failures), *more, advice]))
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
        carries: reads the initial carries of a chunk, as `own_carries` does.
        whole: whether to read all rows.
        on_rows: called with the number of rows each time some were read.
    """
    found, unit, before, sampled_bytes = Foreseen(whole), -1, (0, 0, 0), 0
    files, most = set[str](), reading(MOST_BYTES).lengths.max_steps
    with closing(_read(plan, reading, whole)) as read:
        for chunk in _with_carries(read, carries):
            files.add(chunk.unit.file.path)
            if chunk.unit.index != unit:
                unit, before = chunk.unit.index, (found.rows, found.steps, found.set_aside)
            if isinstance(chunk, FailedUnit):
                rows = _add_failed(found, chunk, before)
                if on_rows is not None:
                    on_rows(rows)
                continue
            lengths = np.minimum(chunk.sequences.lengths, np.inf if most is None else most)  # the engine cuts some
            found.rows, found.steps = found.rows + chunk.rows, found.steps + int(lengths.sum())
            found.set_aside += 0 if chunk.aside is None else len(chunk.aside)
            if sampled_bytes < _SAMPLE_BYTES and lengths.sum():
                found.sample.append(chunk.sequences)
                sampled_bytes += chunk.sequences.values.nbytes
            if on_rows is not None:
                on_rows(chunk.rows)
            del chunk  # or it would stay alive while the next one is decoded
    found.files = len(files)
    return found


def _read(plan: Plan, reading: Callable[[int], ReadOptions], whole: bool) -> Generator[Chunk | FailedUnit, None, None]:
    """The chunks that are looked at."""
    if whole:
        with closing(read_chunks(plan.source, plan.units, reading(MOST_BYTES), keep_going=True)) as chunks:
            yield from chunks
        return
    _, firsts = np.unique(plan.units.file[plan.units.rows > 0], return_index=True)
    firsts = np.flatnonzero(plan.units.rows > 0)[firsts]
    given = plan.given if isinstance(plan.given, str) else plan.given[0]
    most = MOST_OBJECTS if is_uri(given) else MOST_FILES
    firsts = firsts[:: max(1, -(-len(firsts) // most))]
    size = min(MOST_BYTES, max(LEAST_BYTES, FIRST_BYTES // max(1, len(firsts))))
    yield from read_first(plan.source, plan.units.select(firsts.tolist()), reading(size))


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


def _add_failed(found: Foreseen, failed: FailedUnit, before: tuple[int, int, int]) -> int:
    """Take note of a unit that is refused or set aside as a whole, none of whose chunks count then; how many rows of it
    are dealt with besides those that were read.

    `before` are the rows, steps and rows set aside of what comes before the unit.
    """
    rows, steps, found.set_aside = before
    if failed.aside is not None:
        read = found.rows - rows
        found.set_aside += failed.unit.rows
        found.rows, found.steps = rows + failed.unit.rows * found.whole, steps
        return failed.unit.rows - read
    found.failed += 1
    if len(found.failures) < MOST_TOLD:
        found.failures.append(failed.reason)
    return 0
