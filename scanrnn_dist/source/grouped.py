"""Events to sequences: batches of rows of which each is one step, regrouped to batches of whole sequences.

A row of what comes out is a sequence: its features as lists, in the order of its steps, and of kept columns the one
value that all its rows have. A sequence that a batch leaves open is carried over to the next; a long one is held as a
whole, as a row is in any layout. Which events there are is said by `decode.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from scanrnn_dist.errors import DataError
from scanrnn_dist.source.layouts import (
    STEPS,
    changes,
    comparable,
    differ,
    in_words,
    missing,
    picked,
    rise,
    taken,
    told,
)
from scanrnn_dist.source.units import Begins, Grouped, Unit


@dataclass(frozen=True)
class Grouping:
    """How events become sequences.

    Args:
        ids: the columns that say which sequence an event belongs to.
        order: the columns that order its steps.
        features: the columns that become lists.
        keep: the columns of which a sequence has one value, of types that can be compared; of one that orders its steps
            it is that of the last step.
        takes_first: whether it is that of the first step.
    """

    ids: Sequence[str] = ()
    order: Sequence[str] = ()
    features: Sequence[str] = ()
    keep: Sequence[str] = ()
    takes_first: bool = False

    def rows(
        self, unit: Unit, grouped: Grouped, events: Iterable[pa.RecordBatch]
    ) -> Iterator[tuple[int, pa.RecordBatch]]:
        """The sequences of a unit, batch by batch, each with its first row.

        Args:
            unit: they belong to.
            grouped: of the unit.
            events: all of these, and no others.

        Raises:
            DataError: other sequences than were found when the source was planned, nulls in a column that orders steps,
                or a kept column with several values in a sequence.
        """
        delivered, event = 0, grouped.skip
        grouped.read.clear()
        if not grouped.rows:  # a source without rows
            yield from ((0, self._sequences(unit, 0, batch, np.zeros(0, np.int64))) for batch in events)
            return
        for batch, begins in self._whole(events):
            rows = len(begins)
            ids = [picked(batch.column(name), pa.array(begins)) for name in self.ids]
            grouped.read.append(Begins(event + begins, partial(told, self.ids, ids)))
            sequences = self._sequences(unit, event, batch, begins)
            event += batch.num_rows
            if delivered + rows <= grouped.rows:
                yield delivered, sequences
            delivered += rows
            del batch, sequences  # or they would stay alive while the next ones are decoded
        if delivered != grouped.rows:
            raise DataError(
                f"{unit.span} has {delivered} sequences of {', '.join(self.ids)}; expected {grouped.rows}, as when the "
                "source was opened. Something changed the files since: open the source anew."
            )

    def _whole(self, events: Iterable[pa.RecordBatch]) -> Iterator[tuple[pa.RecordBatch, np.ndarray]]:
        """Batches of whole sequences, and the rows at which these begin."""
        held: list[pa.RecordBatch] = []  # of the sequence that is open
        last: list[pa.Array] = []
        names = [*dict.fromkeys((*self.ids, *self.order, *self.features, *self.keep))]
        for batch in events:
            # By names: files may have their columns in another order, and other metadata.
            batch = pa.RecordBatch.from_arrays([batch.column(name) for name in names], names)
            keys = [comparable(batch.column(name)) for name in self.ids]
            is_new = changes(keys)
            is_new[0] = bool(held) and bool(differ(last, [key.slice(0, 1) for key in keys])[0])
            last = taken(keys, np.array([batch.num_rows - 1]))
            begins = np.flatnonzero(is_new)
            if len(begins):
                end, before = int(begins[-1]), sum(piece.num_rows for piece in held)
                pieces = [*held, batch.slice(0, end)]
                held = [batch.slice(end)]
                yield pa.concat_batches(pieces), np.append(0, before + begins[:-1])
            else:
                held.append(batch)
            del batch
        if held:
            yield pa.concat_batches(held), np.zeros(1, np.int64)

    def _sequences(self, unit: Unit, event: int, batch: pa.RecordBatch, begins: np.ndarray) -> pa.RecordBatch:
        """The sequences of a batch that begins at an event of the unit."""
        order = self._order(unit, event, batch, begins)
        columns = {
            name: self._end_of_each(batch.column(name), begins, order)
            if name in self.order
            else self._one_of_each(unit, event, batch, begins, name)
            for name in self.keep
        }
        offsets = pa.array(np.append(begins, batch.num_rows))
        for name in self.features:
            values = batch.column(name)
            values = values if order is None else picked(values, order)
            columns[STEPS + name] = pa.LargeListArray.from_arrays(offsets, values)
        if not columns:  # nothing is wanted but the number of rows
            columns = {self.ids[0]: picked(batch.column(self.ids[0]), pa.array(begins))}
        return pa.RecordBatch.from_arrays(list(columns.values()), list(columns))

    def _order(self, unit: Unit, event: int, batch: pa.RecordBatch, begins: np.ndarray) -> pa.Array | None:
        """The steps in their order; None if they stand in it."""
        keys = [comparable(batch.column(name)) for name in self.order]
        for name, key in zip(self.order, keys, strict=True):
            is_missing = missing(key)
            if is_missing.true_count:
                place = unit.event(event + is_missing.index(True).as_py())
                raise DataError(
                    f"{place}: {name!r}, which orders the steps, is null or NaN; expected a value. Leave such rows out."
                )
        if not keys or batch.num_rows < 2:
            return None
        falls = rise([key.slice(1) for key in keys], [key.slice(0, batch.num_rows - 1) for key in keys])
        falls[begins[1:] - 1] = False
        if not falls.any():
            return None
        number = np.zeros(batch.num_rows, np.int64)
        number[begins[1:]] = 1
        names = [str(nth) for nth in range(len(keys) + 1)]
        table = pa.table([pa.array(np.cumsum(number)), *keys], names)
        return pc.sort_indices(table, [(name, "ascending") for name in names])  # which is stable

    def _end_of_each(self, column: pa.Array, begins: np.ndarray, order: pa.Array | None) -> pa.Array:
        """The value of a column at the last step of each sequence, or at the first."""
        places = begins if self.takes_first else np.append(begins[1:], len(column)) - 1
        if not len(begins):
            places = begins
        return picked(column, pa.array(places) if order is None else order.take(pa.array(places)))

    def _one_of_each(self, unit: Unit, event: int, batch: pa.RecordBatch, begins: np.ndarray, name: str) -> pa.Array:
        """The value of a column in each sequence."""
        column = batch.column(name)
        if name not in self.ids:
            plain = [comparable(column)]
            is_other = changes(plain)
            is_other[begins] = False
            if is_other.any():
                row = int(is_other.argmax())
                begin = int(begins[np.searchsorted(begins, row, side="right") - 1])
                key = told(self.ids, [batch.column(name) for name in self.ids], row)
                raise DataError(
                    f"{unit.event(event + row)}: the kept column {name!r} is {in_words(column, row)}; expected "
                    f"{in_words(column, begin)}, as in the first row of the sequence {key}. Only what is the same in "
                    "all rows of a sequence can be kept: leave it out of --keep."
                )
        return picked(column, pa.array(begins))
