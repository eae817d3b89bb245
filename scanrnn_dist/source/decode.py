"""Units to chunks: rows of a source decoded from Parquet, as sequences and kept columns.

Takes units from `units.py` as `unit_reader.py` reads them, and turns columns into `Ragged` by `layouts/` and
`taking.py`. In which thread this runs, and how far ahead, says `read_ahead.py`. Every row that a footer promised is
delivered, in order, or a `DataError` says what is missing; the checksums of pages are verified where the writer stored
them. How fast that is, beside pyarrow alone, stands in RESULTS.md ("Feeding the devices").
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa

from scanrnn_dist.errors import ConfigError, DataError, UnreadableError, flag_of
from scanrnn_dist.input_spec import InputSpec
from scanrnn_dist.protocols import Stage
from scanrnn_dist.ragged import Ragged, cut
from scanrnn_dist.source.bad_rows import ERROR, BadRows, Lengths
from scanrnn_dist.source.file_table import is_unchanged
from scanrnn_dist.source.filters import Filter
from scanrnn_dist.source.grouped import Grouping
from scanrnn_dist.source.judging import NamedInput
from scanrnn_dist.source.kept import KeptColumns, check_columns, check_none_twice
from scanrnn_dist.source.layouts import Layout, check_width, picked_rows
from scanrnn_dist.source.set_aside import aside_batch, unread_batch
from scanrnn_dist.source.source import Source
from scanrnn_dist.source.taking import Taken, Where, placed, take, unknown_width
from scanrnn_dist.source.unit_filter import UnitFilter
from scanrnn_dist.source.unit_reader import UnitReader
from scanrnn_dist.source.units import Unit

_PROBE_BYTES = 1 << 18


@dataclass(frozen=True)
class ReadOptions:
    """What is read of a source, and what its numbers may be.

    Args:
        layout: of the sequences.
        keep: columns and partition fields to carry along, none twice.
        in_features: features of every step; None takes those of the first.
        input: what of a step travels, which is then `in_features` numbers; None for its numbers as they are.
        lossy_cast: whether numbers may be rounded to float32.
        bad_rows: what is done with rows that are not what they should be.
        lengths: how many steps of a row count; that a row is cut at its tail keeps it, is left to the engine.
        chunk_bytes: about the decoded size of a chunk, which has at most 65,536 rows and at least one.
        filter: which rows are read; None for all.

    Raises:
        ConfigError: a name twice, or a size below 1.
    """

    layout: Layout
    keep: Sequence[str] = ()
    in_features: int | None = None
    input: InputSpec | None = None
    lossy_cast: bool = False
    bad_rows: BadRows = field(default_factory=BadRows)
    lengths: Lengths = field(default_factory=Lengths)
    chunk_bytes: int = 16 << 20
    filter: Filter | None = None

    def __post_init__(self) -> None:
        if self.chunk_bytes < 1:
            raise ConfigError(f"chunk_bytes is {self.chunk_bytes}; expected at least 1.")
        check_none_twice(self.keep)

    def width(self, schema: pa.Schema) -> int | None:
        """Features that the layout gives of a step, which is what travels unless there is an input; None if untold."""
        return (None if self.input else self.in_features) or self.layout.width(schema)


@dataclass(frozen=True)
class Chunk:
    """What became of consecutive rows of one unit: `N` of them as sequences, the others left out.

    Args:
        unit: of the rows.
        numbers: `(N,)` int64, which rows of the unit they are, rising.
        sequences: of the `N` rows.
        kept: their kept columns in the order asked for, partition values as columns.
        begin, end: the first row of the unit that was looked at, and the one after the last.
        aside: the rows that were set aside, as `aside_schema` has it; None without any.
        counts: how often each choice of a policy was applied, as of `Taken`.
        is_null: `(N,)` bool, which rows have null features, whatever their sequence gives; None if none has.
        filtered: how many rows a filter left out.
        states: the state that each row goes on from, a list of numbers, null where it begins; None where all begin.
        decoded_bytes: of all its rows, also those that a filter left out; 0 where row groups were passed over, since
            none of their rows matches.
    """

    unit: Unit
    numbers: np.ndarray
    sequences: Ragged
    kept: pa.RecordBatch
    begin: int
    end: int
    aside: pa.RecordBatch | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    is_null: np.ndarray | None = None
    filtered: int = 0
    states: pa.Array | None = None
    decoded_bytes: int = 0

    @property
    def rows(self) -> int:
        """Rows of the unit that were looked at."""
        return self.end - self.begin

    @property
    def is_last(self) -> bool:
        """Whether no more rows of the unit are to come."""
        return self.end == self.unit.rows

    def where(self, row: int) -> str:
        """Where a row of the chunk stands, for messages."""
        return self.unit.where(int(self.numbers[row]))

    @property
    def nbytes(self) -> int:
        """Bytes of the sequences, the states and the kept columns, also of rows that were set aside."""
        states = 0 if self.states is None else self.states.nbytes
        return int(self.sequences.values.nbytes + self.sequences.offsets.nbytes + states) + self.nbytes_kept

    @property
    def nbytes_kept(self) -> int:
        """Bytes of the kept columns, also of rows that were set aside."""
        return int(self.kept.nbytes + (self.aside.nbytes if self.aside is not None else 0))

    def slice(self, begin: int, end: int) -> Chunk:
        """Some of its `N` rows, as views; the first of them bring along what is told of rows that were left out."""
        count, is_first = end - begin, begin == 0
        return replace(
            self,
            numbers=self.numbers[begin:end],
            sequences=cut(self.sequences.slice(begin, end)),
            kept=self.kept.slice(begin, count),
            begin=self.begin if is_first else int(self.numbers[begin]),
            end=self.end if end == len(self.numbers) else int(self.numbers[end]),
            aside=self.aside if is_first else None,
            counts=self.counts if is_first else {},
            is_null=None if self.is_null is None else self.is_null[begin:end],
            filtered=self.filtered if is_first else 0,
            decoded_bytes=self.decoded_bytes if is_first else 0,
            states=None if self.states is None else self.states.slice(begin, count),
        )


def first_step_features(source: Source, unit: Unit, layout: Layout, matches: Filter | None = None) -> int | None:
    """Features of the first step in the sequences of a unit that match; None if none has a step that tells.

    Reads no further, and holds some hundred kilobytes. Raises `DataError` as `read_chunks`.
    """
    decoder = Decoder(source, ReadOptions(layout, chunk_bytes=_PROBE_BYTES, filter=matches))
    if not decoder.may_match(unit):
        return None  # its file is not opened
    with closing(decoder), closing(decoder.matching(unit)) as batches:
        for looked_at, numbers, batch, _ in batches:
            steps = placed(layout.steps, batch, None, where=_where(unit, numbers, looked_at.start))
            if steps.in_features is not None:
                return steps.in_features
    return None


class Decoder:
    """Units of a source to chunks; holds what is learnt on the way: `D`, where nobody told it.

    Raises:
        ConfigError: a column that the source does not have, or whose type says another `D` than is expected.
    """

    def __init__(self, source: Source, options: ReadOptions, stage: Stage = nullcontext) -> None:
        self._source, self._options, self._stage = source, options, stage
        layout, schema = options.layout, source.schema
        read, order = layout.columns(schema), layout.asked.order_by or ()
        check_columns(source, (*read, *options.keep))
        if options.in_features is not None and options.input is None:
            check_width(layout, schema, options.in_features)
        own = frozenset(read)
        self._filter = UnitFilter(source, options.filter, own) if options.filter else None
        beside = (*options.keep, *(self._filter.columns if self._filter else ()))
        self._kept = KeptColumns(source, options.keep, order)
        grouping = Grouping(layout.ids, order, layout.asked.features or (), self._kept.of_rows)
        self.units = UnitReader(source, layout.leaves(schema), beside, own, grouping, options.chunk_bytes, stage)
        self._width = options.width(schema)

    def close(self) -> None:
        """Close the file that is open; it is opened again where it is needed."""
        self.units.close()
        if self._filter is not None:
            self._filter.close()

    def may_match(self, unit: Unit) -> bool:
        """Whether a unit may have rows that match, by the folders of its file."""
        return self._filter is None or self._filter.may_match(unit)

    def unit_chunks(self, unit: Unit) -> Iterator[Chunk]:
        """The chunks of a unit."""
        for piece, may_match in self._pieces(unit):
            yield from self._piece_chunks(unit, piece, may_match)

    def first_chunks(self, unit: Unit, go_on: bool = False) -> Iterator[Chunk]:
        """The first chunk of a unit that is decoded, and all chunks of row groups that are passed over.

        With `go_on` all chunks are decoded up to the first one that has a row that matches.
        """
        is_done = False
        for piece, may_match in self._pieces(unit):
            if may_match and is_done:
                continue
            for chunk in self._piece_chunks(unit, piece, may_match):
                is_done = is_done or (may_match and not (go_on and chunk.filtered == chunk.rows))
                yield chunk
                del chunk  # or it would stay alive while the next one is decoded
                if is_done and may_match:
                    break

    def matching(self, unit: Unit) -> Generator[tuple[range, np.ndarray, pa.RecordBatch, int], None, None]:
        """The rows of a unit that match, batch by batch.

        Which rows were looked at, the numbers of those that match, these, and the bytes that were decoded.
        """
        for piece, may_match in self._pieces(unit):
            yield from self._matching(unit, piece, may_match)

    def _pieces(self, unit: Unit) -> list[tuple[Unit, bool]]:
        """The row groups of a unit, and whether they may have rows that match; alike ones together."""
        self.units.file_of(unit)  # whose footer is checked also where no row matches
        return self._filter.pieces(unit) if self._filter else [(unit, True)]

    def _piece_chunks(self, unit: Unit, piece: Unit, may_match: bool) -> Iterator[Chunk]:
        for looked_at, numbers, batch, nbytes in self._matching(unit, piece, may_match):
            yield self._chunk(unit, looked_at, numbers, batch, nbytes)
            del batch  # or it would stay alive while the next one is decoded

    def _matching(
        self, unit: Unit, piece: Unit, may_match: bool
    ) -> Generator[tuple[range, np.ndarray, pa.RecordBatch, int], None, None]:
        """As `matching`, of some row groups."""
        after = piece.first_row - unit.first_row
        for first_row, batch in self.units.unit_batches(piece) if may_match else self.units.nothing():
            begin, nbytes = after + first_row, batch.nbytes if may_match else 0
            looked_at = range(begin, begin + (batch.num_rows if may_match else piece.rows))
            numbers = np.arange(begin, begin + batch.num_rows)
            if self._filter is not None:
                matching = np.flatnonzero(self._filter.matching(unit, batch))
                if len(matching) < batch.num_rows:
                    batch, numbers = picked_rows(batch, matching), numbers[matching]
            yield looked_at, numbers, batch, nbytes
            del batch  # or it would stay alive while the next one is decoded

    def unread(self, unit: Unit, error: DataError) -> pa.RecordBatch | None:
        """The line with which a unit is set aside as a whole; None where an error fails it.

        A file that changed since it was planned fails its units: its rows may be others by now.
        """
        is_asked = self._options.bad_rows.skips_files and unit.rows > 0 and unit.grouped is None
        if not (is_asked and isinstance(error, UnreadableError)) or not is_unchanged(
            self._source.filesystem, unit.file
        ):
            return None
        return unread_batch(unit, str(error), self._kept.schema)

    def flag(self, unit: Unit, error: DataError) -> str:
        """The flag by which an error of a unit need not be one, in parentheses behind a blank; empty if none is."""
        policy = error.policy
        has_no_choice = not policy or (policy == "unreadable_file" and unit.grouped is not None)
        is_chosen = has_no_choice or getattr(self._options.bad_rows, policy) != ERROR
        return "" if is_chosen else f" ({flag_of(policy)})"

    def _chunk(self, unit: Unit, looked_at: range, numbers: np.ndarray, batch: pa.RecordBatch, nbytes: int) -> Chunk:
        with self._stage("convert"):
            where = _where(unit, numbers, looked_at.start)
            rows, self._width = take_batch(batch, self._source.schema, self._options, self._width, where)
        filtered = len(looked_at) - len(numbers)
        kept, aside = self._kept.of(unit, numbers, batch), None
        if rows.aside:
            aside, kept = aside_batch(unit, numbers, rows.aside, kept), picked_rows(kept, rows.kept)
        numbers, counts, is_null = numbers[rows.kept], rows.counts, rows.is_null
        begin, end = looked_at.start, looked_at.stop
        sequences = rows.sequences
        return Chunk(unit, numbers, sequences, kept, begin, end, aside, counts, is_null, filtered, None, nbytes)


def _where(unit: Unit, numbers: np.ndarray, begin: int) -> Where:
    """Says where rows of these numbers stand, and where they would begin if there are none."""
    return lambda row: unit.where(int(numbers[row]) if len(numbers) else begin)


def take_batch(
    batch: pa.RecordBatch, schema: pa.Schema, options: ReadOptions, width: int | None, where: Where
) -> tuple[Taken, int | None]:
    """The rows of a batch as sequences, and how many features the layout gives of a step.

    Args:
        batch: has the columns of the layout, and maybe others.
        schema: of the source.
        options: of which the filter and the kept columns are not looked at.
        width: features that the layout gives of a step; None takes those of the first step.
        where: says where a row of the batch stands.

    Raises:
        DataError: as `take`.
    """
    layout = options.layout
    steps = placed(layout.steps, batch, width, where=where)
    width = steps.in_features or width
    named = None
    if options.input is not None:
        named = NamedInput(options.input, layout.feature_names(schema, width or 0))
    elif width is None:
        raise unknown_width(where(0), layout.described, len(steps))
    taken = take(steps, width or 0, options.bad_rows, options.lossy_cast, where, options.lengths, named)
    return taken, width
