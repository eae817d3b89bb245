"""New steps of sequences, in memory, found by the ids of their sequences: what an update goes on with.

They are read as any source is, by the same options. `update_plan.py` joins them with an output that stands.
"""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from scanrnn_dist.errors import ConfigError, DataError
from scanrnn_dist.input_spec import InputSpec
from scanrnn_dist.job.options import JobOptions
from scanrnn_dist.job.plan import Plan
from scanrnn_dist.observe import check_fits
from scanrnn_dist.ragged import Ragged, compact, joined, row_pieces
from scanrnn_dist.source import (
    INITIAL_CARRY,
    SKIP,
    SetAside,
    Unit,
    aside_batch,
    count_name,
    is_comparable,
    read_chunks,
    read_kept,
    stored_values,
    told,
)

_COPIES = 2
"""Of the values, at most so many are held at once: those that were read, and those that are put together."""
_ROW_BYTES = 256
"""Of each row besides: its id, which is a key, its number and its digest."""
_REMEDY = "Give them in several updates, the earliest first."


@dataclass(frozen=True, eq=False)
class NewSteps:
    """The sequences of a source by the ids of their rows.

    Args:
        ids: names of the columns that tell whose sequence a row is.
        kept: `(N,)` rows of the kept columns, the ids among them.
        sequences: of the `N` rows.
        numbers: the row of each id.
        first: `(N,)` rows of the columns that order steps, each the first step's; without columns where none do.
        may_be_aside: under `--empty-sequence skip` of each chunk with rows without steps: its first row here, its unit,
            and which rows of that it has.
        counts: how often each choice for bad values was applied.
        digest: SHA-256 of ids, steps and what orders the first ones, in hexadecimal: of the same steps it is the same,
            wherever they stand and in whatever order of rows.
        kept_digest: SHA-256 of the kept columns, in hexadecimal: of the same rows in another order it is another one.
    """

    ids: tuple[str, ...]
    kept: pa.RecordBatch
    sequences: Ragged
    numbers: dict[Any, int]
    first: pa.RecordBatch
    may_be_aside: tuple[tuple[int, Unit, range], ...]
    counts: Mapping[str, int]
    digest: str
    kept_digest: str

    def __len__(self) -> int:
        return len(self.sequences)

    def rows_of(self, table: pa.RecordBatch) -> np.ndarray:
        """The row of each id of a table, `(n,)` int64; -1 where there are no new steps."""
        find = self.numbers.get
        return np.fromiter((find(key, -1) for key in keys_of(table, self.ids)), np.int64, table.num_rows)

    def lengths_of(self, rows: np.ndarray) -> np.ndarray:
        """The steps of these rows, `(n,)` int64; 0 where a row is -1."""
        offsets = self.sequences.offsets
        return np.where(rows >= 0, offsets[rows + 1] - offsets[rows], 0)

    def sequences_of(self, rows: np.ndarray) -> Ragged:
        """The sequences of these rows, views where they follow one another; one without steps where a row is -1."""
        return compact(self.sequences.values, self.sequences.offsets[rows], self.lengths_of(rows))

    def pieces(self, rows: np.ndarray, most_bytes: int) -> Iterator[tuple[int, int]]:
        """Where to cut rows, so that the values of each piece take at most so much, or it is one row."""
        return row_pieces(4 * self.sequences.in_features * self.lengths_of(rows), most_bytes)

    def lines_aside(self, rows: np.ndarray) -> Iterator[pa.RecordBatch]:
        """The lines that set aside rows without steps, which rise; chunk by chunk, as they were read."""
        for first, unit, numbers in self.may_be_aside:
            begin, end = np.searchsorted(rows, (first, first + len(numbers)))
            reason = "the id is new and has no steps."
            lines = [SetAside(row, "empty_sequence", reason) for row in (rows[begin:end] - first).tolist()]
            if lines:
                yield aside_batch(unit, np.array(numbers), lines, self.kept.slice(first, len(numbers)))


def read_new_steps(
    plan: Plan, options: JobOptions, ids: Sequence[str], in_features: int, input: InputSpec | None
) -> NewSteps:
    """All of a source, in memory; also its rows without steps, whatever `--empty-sequence` says.

    Args:
        plan: of the source.
        options: of the job, settled for the plan.
        ids: columns that tell whose sequence a row is; they are kept.
        in_features, input: of the encoder.

    Raises:
        ConfigError: a column of ids that is not kept, or steps that would not fit into memory.
        DataError: an id that is null or stands twice, a row that would be set aside; or as `read_chunks`.
    """
    missing = [name for name in ids if name not in plan.keep]
    if missing or not ids:
        raise ConfigError(f"The ids {list(ids)} are no kept columns; expected some of {list(plan.keep)}.")
    for name in ids:
        kind = plan.kept_schema.field(name).type
        if not is_comparable(kind):
            raise ConfigError(f"The ids in {name!r} are {kind}; expected numbers, texts or times.")
    parts, kept, counts, rows, needed_bytes = [], [], Counter[str](), 0, 0
    may_be_aside = list[tuple[int, Unit, range]]()
    takes_all = replace(options, bad_rows=replace(options.bad_rows, empty_sequence=INITIAL_CARRY))
    with closing(read_chunks(plan.source, plan.units, takes_all.reading(in_features, input))) as chunks:
        for chunk in chunks:
            if len(chunk.sequences) != chunk.rows:
                raise DataError(
                    f"{chunk.unit.span} has rows that would be set aside or left out; an update takes all rows of its "
                    "source. Mend them, or leave them out of the source."
                )
            parts.append(chunk.sequences)
            kept.append(chunk.kept)
            counts.update(chunk.counts)
            if options.bad_rows.empty_sequence == SKIP and not chunk.sequences.lengths.all():
                may_be_aside.append((rows, chunk.unit, range(chunk.begin, chunk.end)))
            rows += chunk.rows
            needed_bytes += _COPIES * chunk.nbytes + _ROW_BYTES * chunk.rows
            check_fits(needed_bytes, "The new steps", _REMEDY)
    batch = _as_one(kept, plan.kept_schema)
    keys, numbers = keys_of(batch, ids), dict[Any, int]()
    for row, key in enumerate(keys):
        values = key if isinstance(key, tuple) else (key,)
        if any(value is None or value != value for value in values):  # null or NaN
            raise DataError(f"Row {row} of the new steps has no {' and '.join(ids)}; expected an id in every row.")
        if numbers.setdefault(key, row) != row:
            raise DataError(
                f"{told_key(batch, ids, row)} stands in rows {numbers[key]} and {row} of the new steps; expected each "
                "id once."
            )
    sequences, order = joined(parts, in_features), plan.layout.asked.order_by or ()
    first = _first(plan, order)
    digest = _digest(ids, keys, keys_of(first, order) if order else [()] * len(batch), sequences)
    del counts[count_name("empty_sequence", INITIAL_CARRY)]  # most of them have steps in the output
    return NewSteps(
        tuple(ids), batch, sequences, numbers, first, tuple(may_be_aside), counts, digest, _kept_digest(batch)
    )


def _as_one(batches: Sequence[pa.RecordBatch], schema: pa.Schema) -> pa.RecordBatch:
    """The rows of all batches; `ConfigError` where a column of them is larger than one array of its type can be."""
    if not batches:  # `from_pylist` does not know every extension type
        return pa.RecordBatch.from_arrays([pa.nulls(0, field.type) for field in schema], schema=schema)
    try:
        return pa.concat_batches(batches)
    except pa.ArrowInvalid as error:
        raise ConfigError(
            f"One of the columns {schema.names} of the new steps is larger than an array of its type can be, which is "
            f"2 GiB for texts. {_REMEDY}"
        ) from error


def _first(plan: Plan, order: Sequence[str]) -> pa.RecordBatch:
    """What orders steps, at the first step of each sequence."""
    schema = pa.schema([plan.source.schema.field(name) for name in order])
    units = plan.units if order else ()
    return _as_one([*read_kept(plan.source, units, order, plan.layout, takes_first=True)], schema)


def keys_of(table: pa.RecordBatch, ids: Sequence[str]) -> list[Any]:
    """The id of each row, as it is stored: a value, or a tuple of several columns' values."""
    columns = [stored_values(table.column(name)) for name in ids]
    return columns[0] if len(columns) == 1 else list(zip(*columns, strict=True))


def told_key(table: pa.RecordBatch, ids: Sequence[str], row: int) -> str:
    """The id of a row in words: `client=7`."""
    return told(ids, [table.column(name) for name in ids], row)


def _digest(ids: Sequence[str], keys: Sequence[Any], first: Sequence[Any], sequences: Ragged) -> str:
    """Of each sequence, then of all of these in an order that does not depend on where they stand."""
    of_each = bytearray()
    for row, (key, began) in enumerate(zip(keys, first, strict=True)):
        digest = hashlib.sha256(f"{key!r}\n{began!r}\n".encode())
        digest.update(np.ascontiguousarray(sequences.row(row)))
        of_each += digest.digest()
    in_order = np.sort(np.frombuffer(of_each, "S32"))
    return hashlib.sha256(repr(tuple(ids)).encode() + in_order.tobytes()).hexdigest()


def _kept_digest(kept: pa.RecordBatch) -> str:
    """Of all values in their order."""
    sink = _Digesting()
    with pa.ipc.new_stream(sink, kept.schema) as stream:
        stream.write_batch(kept)
    return sink.digest.hexdigest()


class _Digesting(io.RawIOBase):
    """A file that keeps nothing but the digest of what is written to it."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        self.digest.update(content)
        return len(content)
