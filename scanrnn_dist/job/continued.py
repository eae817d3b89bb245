"""A job that goes on where another one ended: the rows of an output, each from its state, with the new steps it has.

The new job has a unit for each part of the old one: all of its rows, those without new steps being sequences of none.
Ids that the old output does not have follow, in the order of the new steps, and begin as in any job: first in the last
part, until that has as many rows as a part should, then in units of their own. The last unit is of the rows that are
set aside, if any are: of ids that never had a step. The job is made aside and takes the old output's place when it is
complete, as a restart does; so an output always holds one row for each id, and whoever dies in between has changed
nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa

from scanrnn_dist.errors import ConfigError, DataError
from scanrnn_dist.job.new_steps import NewSteps
from scanrnn_dist.job.plan import Plan
from scanrnn_dist.protocols import Stage
from scanrnn_dist.ragged import Ragged
from scanrnn_dist.records import FIRST, STATE, read_part, read_quarantine
from scanrnn_dist.source import (
    Chunk,
    FailedUnit,
    Prefetched,
    ReadOptions,
    Unit,
    aside_schema,
    conformed,
    picked_rows,
    with_wide_indices,
)
from scanrnn_dist.storage import Store

APPLIED = "applied"
"""Of a job's options: the digests of all new steps that were applied to its output, in their order."""
FIRST_SOURCE, FIRST_DIGEST = "first_source", "first_digest"
"""The source that the output began with, and the digest of its steps; None while no update was of as many."""
_ROWS = "new_rows"
"""The digest of the kept columns of the last ones: by which a half-made update tells whether its rows are the same."""
WAY_BACK = "bring what is damaged back from a copy, or featurize all steps anew"
"""What to do about damage of an updated output, of which nothing makes a part again."""


@dataclass(frozen=True, eq=False)
class FirstSource:
    """What an output began with, before any update; it need not be there any more.

    Args:
        named: as `Plan.named`.
        records: of its plan.
        digest: of its steps, if they were read.
    """

    named: str
    records: Mapping[str, bytes]
    digest: str | None


@dataclass(frozen=True, eq=False, kw_only=True)
class ContinuedPlan(Plan):
    """What an update would do.

    Args:
        new: the new steps.
        store: where the old output stands.
        names: of the old output's parts, one for each of the first units.
        found: of each of these parts its rows that have new steps, rising, and which rows of `new` these are.
        begun: `(n,)` rows of `new` whose ids the old output does not have.
        joined: how many of these, the first ones, follow in the last of the old parts.
        aside: how many rows are set aside, which are those of the last unit.
        lists: of each list of rows set aside that the old output has: the unit that it is of, and the lines that leave
            it, rising, as their rows have steps now.
        old_units: how many units the old job has.
        empty: rows of `new`, rising, that are set aside now.
        counts: how often each choice for bad rows was applied to the new steps.
        applied: digests of the new steps, the last being these.
        of_job: the id of the job whose output it is.
        first: what the output began with.
    """

    new: NewSteps
    store: Store
    names: tuple[str, ...]
    found: tuple[tuple[np.ndarray, np.ndarray], ...]
    begun: np.ndarray
    joined: int
    aside: int
    lists: tuple[tuple[int, np.ndarray], ...]
    old_units: int
    empty: np.ndarray
    counts: Mapping[str, int]
    applied: tuple[str, ...]
    of_job: str
    first: FirstSource

    @property
    def told(self) -> dict[str, Any]:
        """What was applied to the output, and in which rows it came, for the job's record."""
        first = {FIRST_SOURCE: self.first.named, FIRST_DIGEST: self.first.digest}
        return {APPLIED: list(self.applied), _ROWS: self.new.kept_digest, **first}

    def to_records(self) -> dict[str, bytes]:
        """The plan, and that of what the output began with."""
        first = {f"{FIRST}{name}": content for name, content in self.first.records.items()}
        return {**super().to_records(), **first}

    def chunks(
        self,
        units: Iterable[Unit],
        reading: ReadOptions,
        *,
        prefetch_bytes: int,
        stage: Stage,
        on_chunk: Callable[[], None] | None,
    ) -> Prefetched:
        """The rows of some of its units, as `Plan.chunks` gives them: their sequences are the new steps alone."""
        return Prefetched(self._all_chunks(units, reading.chunk_bytes, on_chunk), prefetch_bytes)

    def _all_chunks(
        self, units: Iterable[Unit], chunk_bytes: int, on_chunk: Callable[[], None] | None
    ) -> Iterator[Chunk | FailedUnit]:
        for unit in units:
            try:
                for chunk in self._chunks_of(unit, chunk_bytes):
                    if on_chunk is not None:
                        on_chunk()
                    is_first = unit.index == chunk.begin == 0  # which tells what became of all new steps
                    yield replace(chunk, counts=self.counts) if is_first else chunk
                    del chunk  # or it would stay alive while the next one is read
            except DataError as error:
                yield FailedUnit(unit, str(error))

    def _chunks_of(self, unit: Unit, chunk_bytes: int) -> Iterator[Chunk]:
        """The rows of a unit, batch by batch, whose new steps take about so much."""
        if self.aside and unit.index == len(self.units) - 1:
            yield from self._aside_chunks(unit)
            return
        if unit.index >= len(self.names):
            first = self.joined + unit.first_row
            yield from self._begun_chunks(unit, self.begun[first : first + unit.rows], 0, chunk_bytes)
            return
        begin = 0
        for batch in read_part(self.store, self.names[unit.index], [*self.keep, STATE]):
            yield from self._old_chunks(unit, batch, begin, chunk_bytes)
            begin += batch.num_rows
            del batch  # or it would stay alive while the next one is read
        if begin != unit.group_rows[0]:
            raise DataError(f"{unit.file.path} holds {begin} rows; expected {unit.group_rows[0]}, as recorded.")
        if unit.rows > begin:
            yield from self._begun_chunks(unit, self.begun[: unit.rows - begin], begin, chunk_bytes)

    def _old_chunks(self, unit: Unit, batch: pa.RecordBatch, begin: int, chunk_bytes: int) -> Iterator[Chunk]:
        """Rows of a unit, from its row `begin` on, of ids that the old output has."""
        check_types(batch.schema, self.kept_schema, self.keep, self.store.path(self.names[unit.index]))
        rows, (old, found) = np.full(batch.num_rows, -1), self.found[unit.index]
        here = slice(*np.searchsorted(old, (begin, begin + batch.num_rows)))
        rows[old[here] - begin] = found[here]
        kept = self._kept(batch, rows)  # at once: dictionaries of a part do not depend on the size of chunks
        for first, end in self.new.pieces(rows, chunk_bytes):
            numbers, sequences = np.arange(begin + first, begin + end), self.new.sequences_of(rows[first:end])
            own, states = kept.slice(first, end - first), batch.column(STATE).slice(first, end - first)
            yield Chunk(unit, numbers, sequences, own, begin + first, begin + end, states=states)

    def _begun_chunks(self, unit: Unit, rows: np.ndarray, begin: int, chunk_bytes: int) -> Iterator[Chunk]:
        """These new rows, whose ids the old output does not have, as rows of a unit from its row `begin` on."""
        for first, end in self.new.pieces(rows, chunk_bytes):
            own, numbers = rows[first:end], np.arange(begin + first, begin + end)
            kept = picked_rows(self.new.kept, own)
            yield Chunk(unit, numbers, self.new.sequences_of(own), kept, begin + first, begin + end)

    def _aside_chunks(self, unit: Unit) -> Iterator[Chunk]:
        """The rows of the unit that are set aside."""
        begin, none, sequences = 0, np.zeros(0, np.int64), Ragged.empty(self.new.sequences.in_features)
        for lines in chain(self._lines_that_stay(), self.new.lines_aside(self.empty)):
            end = begin + lines.num_rows
            yield Chunk(unit, none, sequences, self.new.kept.slice(0, 0), begin, end, aside=lines)
            begin = end
            del lines  # or they would stay alive while the next ones are read
        if begin != unit.rows:
            raise DataError(f"The lists of {self.store.root} hold {begin} rows; expected {unit.rows}, as recorded.")

    def _lines_that_stay(self) -> Iterator[pa.RecordBatch]:
        """The lines of the old output's lists whose rows have no steps now either, batch by batch."""
        schema = aside_schema(self.kept_schema)
        for unit, leaving in self.lists:
            begin = 0
            for batch in read_quarantine(self.store, unit, self.old_units):
                here = slice(*np.searchsorted(leaving, (begin, begin + batch.num_rows)))
                rows = np.delete(np.arange(batch.num_rows), leaving[here] - begin)
                begin += batch.num_rows
                columns = [conformed(column, field.type) for column, field in zip(batch.columns, schema, strict=True)]
                if len(rows):
                    yield picked_rows(pa.RecordBatch.from_arrays(columns, schema=schema), rows)
                del batch, columns

    def _kept(self, batch: pa.RecordBatch, rows: np.ndarray) -> pa.RecordBatch:
        """The kept columns: those of the new steps, where a row has any."""
        columns = [conformed(batch.column(field.name), field.type) for field in self.kept_schema]
        old = pa.RecordBatch.from_arrays(columns, schema=self.kept_schema)
        hit = np.flatnonzero(rows >= 0)
        if not len(hit):
            return old
        both = pa.concat_batches([old, picked_rows(self.new.kept, rows[hit])])
        places = np.arange(len(rows))
        places[hit] = len(rows) + np.arange(len(hit))
        return picked_rows(both, places)


def first_source(told: Mapping[str, bytes], options: Mapping[str, Any]) -> FirstSource:
    """What an output began with, as the records of its plan and the options of its job tell it."""
    prefix = FIRST if options.get(APPLIED) else ""
    own = {name.removeprefix(prefix): content for name, content in told.items() if name.startswith(prefix)}
    return FirstSource(options.get(FIRST_SOURCE, options["source"]), own, options.get(FIRST_DIGEST))


def reads_sorted_copy(options: Mapping[str, Any]) -> bool:
    """Whether a job of these recorded options reads a sorted copy; an update reads its own source, as it is."""
    return bool(options.get("sort")) and not options.get(APPLIED)


def check_is_whole(job: Mapping[str, Any], root: str) -> None:
    """Refuse, by a `ConfigError`, to make rows of an updated output again: the states they went on from are gone."""
    if job["options"].get(APPLIED):
        raise ConfigError(
            f"The rows of {root} were continued by updates, so no source holds all of their steps, and none can be "
            f"made again from one: {WAY_BACK}."
        )


def check_types(old: pa.Schema, new: pa.Schema, names: tuple[str, ...], where: str) -> None:
    """Refuse columns that are of other types in the output, maybe of an earlier version, than in the new steps."""
    for name in names:
        if with_wide_indices(old.field(name).type) != new.field(name).type:
            raise DataError(
                f"{name!r} is {new.field(name).type} in the new steps and {old.field(name).type} in {where}; expected "
                "the same type. Cast the new one."
            )
