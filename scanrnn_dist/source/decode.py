"""Units to chunks: rows of a source decoded from Parquet, as sequences and kept columns.

Takes units from `units.py` as `unit_reader.py` reads them, and turns columns into `Ragged` by `layouts/` and
`taking.py`. In which thread this runs, and how far ahead, says `read_ahead.py`. Every row that a footer promised is
delivered, in order, or a `DataError` says what is missing; the checksums of pages are verified where the writer stored
them. With the conversion and its checks 0.8 GB/s, where pyarrow alone gives 0.95 (nested lists, RESULTS.md).
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa

from scanrnn_dist.errors import ConfigError, DataError, UnreadableError, did_you_mean, flag_of
from scanrnn_dist.input_spec import InputSpec
from scanrnn_dist.protocols import Stage
from scanrnn_dist.ragged import Ragged
from scanrnn_dist.source.bad_rows import ERROR, BadRows, Lengths
from scanrnn_dist.source.file_table import is_unchanged
from scanrnn_dist.source.filters import Filter
from scanrnn_dist.source.grouped import Grouping
from scanrnn_dist.source.judging import NamedInput
from scanrnn_dist.source.layouts import Layout, picked_rows
from scanrnn_dist.source.parquet import CheckedFile
from scanrnn_dist.source.set_aside import aside_batch, unread_batch
from scanrnn_dist.source.source import Source
from scanrnn_dist.source.taking import Taken, Where, placed, take, unknown_width
from scanrnn_dist.source.unit_reader import UnitReader
from scanrnn_dist.source.units import Unit

_PROBE_BYTES = 1 << 18
_KEPT_BYTES = 8 << 20  # of a batch of columns that are no sequences


@dataclass(frozen=True)
class ReadOptions:
    """What is read of a source, and what its numbers may be.

    Args:
        layout: of the sequences; None where only kept columns are read.
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

    layout: Layout | None
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
        if len(set(self.keep)) != len(self.keep):
            raise ConfigError(f"The kept columns {list(self.keep)} hold a name twice; expected each once.")


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
        """Bytes of the sequences and the kept columns, also of rows that were set aside."""
        return int(self.sequences.values.nbytes + self.sequences.offsets.nbytes) + self.nbytes_kept

    @property
    def nbytes_kept(self) -> int:
        """Bytes of all but the sequences."""
        return int(self.kept.nbytes + (self.aside.nbytes if self.aside is not None else 0))


def read_kept(
    source: Source, unit: Unit, keep: Sequence[str], layout: Layout | None = None, *, takes_first: bool = False
) -> Generator[pa.RecordBatch, None, None]:
    """The columns `keep` of a unit, in order, without its sequences.

    Where the layout groups steps, one value for each sequence: of a column that orders them that of its last step, or
    with `takes_first` of its first.

    A batch has about 8 MiB, and at least one row. Raises `DataError` as `read_chunks`.
    """
    ids, order = (layout.ids, layout.asked.order_by or ()) if layout else ((), ())
    grouping = Grouping(ids, order if set(keep) & set(order) else (), (), keep, takes_first)
    decoder = Decoder(source, ReadOptions(None, keep, chunk_bytes=_KEPT_BYTES), grouping=grouping)
    with closing(decoder.units.open(unit)) as parquet:
        for first_row, batch in decoder.units.unit_batches(parquet, unit):
            yield decoder.kept(unit, np.arange(first_row, first_row + batch.num_rows), batch)


def first_step_features(
    source: Source, unit: Unit, layout: Layout, matches: Filter | None = None, input: InputSpec | None = None
) -> int | None:
    """Features of the first step in the sequences of a unit that match; None if all of them are empty.

    With an input those of the first step that has what it names, if there is one. Reads no further, and holds some
    hundred kilobytes. Raises `DataError` as `read_chunks`.
    """
    first: int | None = None
    decoder = Decoder(source, ReadOptions(layout, chunk_bytes=_PROBE_BYTES, filter=matches))
    if matches is not None and not matches.may_match(decoder.partitions(unit)):
        return None  # its file is not opened
    with (
        closing(decoder),
        closing(decoder.units.open(unit)) as parquet,
        closing(decoder.matching(parquet, unit)) as batches,
    ):
        for looked_at, numbers, batch in batches:
            while batch.num_rows:
                steps = placed(layout.steps, batch, None, where=_where(unit, numbers, looked_at.start))
                width = steps.in_features
                if width is None:
                    break
                if input is None or layout.has_features(input.names, source.schema, width):
                    return width
                first = first or width
                others = [fault.row for fault in steps.faults if fault.kind == "wrong_width" and fault.row]
                batch, numbers = picked_rows(batch, np.array(others, np.int64)), numbers[others]
    return first


class Decoder:
    """Units of a source to chunks; holds what is learnt on the way: `D`, where nobody told it.

    Raises:
        ConfigError: a column that the source does not have.
    """

    def __init__(
        self, source: Source, options: ReadOptions, stage: Stage = nullcontext, grouping: Grouping | None = None
    ) -> None:
        self._source, self._options, self._stage = source, options, stage
        names, partitions = source.schema.names, source.files.partition_schema.names
        grouped = (*grouping.ids, *grouping.order) if grouping else ()
        read = options.layout.columns(source.schema) if options.layout else tuple(dict.fromkeys(grouped))
        wanted = [*read, *options.keep]
        for name in wanted:
            if name not in names:
                near = did_you_mean(name, names)
                raise ConfigError(f"{name!r} is no column of the source; expected one of {names}.{near}")
        asked = options.filter.of(source.schema) if options.filter else ()
        wanted += asked
        columns = [name for name in dict.fromkeys(wanted) if name not in partitions]
        leaves = options.layout.leaves(source.schema) if options.layout else [(name,) for name in read]
        paths = [*((name,) for name in (*options.keep, *asked)), *leaves]
        paths = [path for path in dict.fromkeys(paths) if path[0] in columns]
        if options.layout:
            said = options.layout.asked
            grouping = Grouping(options.layout.ids, said.order_by or (), said.features or (), ())
        grouping = grouping or Grouping((), (), (), ())
        # Of a folder that orders steps, a sequence may go through many.
        self._of_file = frozenset(partitions) - set(grouping.order)
        grouping = replace(grouping, keep=[name for name in options.keep if name not in self._of_file])
        own = frozenset(read if options.layout else ())
        self.units = UnitReader(source, columns, paths, read, own, grouping, options.chunk_bytes, stage)
        asked = tuple(name for name in asked if name not in partitions)
        self._asked = Decoder(source, ReadOptions(None, asked)) if asked else None  # reads what the filter is about
        self._asked_file: tuple[str, CheckedFile] | None = None  # stays open from one unit of it to the next
        self._kept_schema = pa.schema([source.schema.field(name) for name in options.keep])
        # Of what the layout gives, which is what travels unless there is an input.
        self._width = None if options.input else options.in_features
        if options.layout and not self._width:
            self._width = options.layout.width(source.schema)

    def close(self) -> None:
        """Close the file in which the filter's columns were read; it is opened again where it is needed."""
        if self._asked_file is not None:
            self._asked_file[1].close()
            self._asked_file = None

    def unit_chunks(self, parquet: CheckedFile, unit: Unit) -> Iterator[Chunk]:
        """The chunks of a unit, of its file."""
        for looked_at, numbers, batch in self.matching(parquet, unit):
            yield self._chunk(unit, looked_at, numbers, batch)
            del batch  # or it would stay alive while the next one is decoded

    def matching(
        self, parquet: CheckedFile, unit: Unit
    ) -> Generator[tuple[range, np.ndarray, pa.RecordBatch], None, None]:
        """The rows of a unit that match, batch by batch: which rows were looked at, the numbers of these, and they."""
        for piece, may_match in self._pieces(unit):
            after = piece.first_row - unit.first_row
            batches = self.units.unit_batches(parquet, piece) if may_match else self.units.nothing()
            for first_row, batch in batches:
                begin = after + first_row
                looked_at = range(begin, begin + (batch.num_rows if may_match else piece.rows))
                numbers = np.arange(begin, begin + batch.num_rows)
                if self._options.filter is not None:
                    matching = np.flatnonzero(self._matching(unit, batch))
                    if len(matching) < batch.num_rows:
                        batch, numbers = picked_rows(batch, matching), numbers[matching]
                yield looked_at, numbers, batch
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
        return unread_batch(unit, str(error), self._kept_schema)

    def flag(self, unit: Unit, error: DataError) -> str:
        """The flag by which an error of a unit need not be one, in parentheses behind a blank; empty if none is."""
        policy = error.policy
        has_no_choice = not policy or (policy == "unreadable_file" and unit.grouped is not None)
        is_chosen = has_no_choice or getattr(self._options.bad_rows, policy) != ERROR
        return "" if is_chosen else f" ({flag_of(policy)})"

    def _pieces(self, unit: Unit) -> Iterator[tuple[Unit, bool]]:
        """The row groups of a unit, and whether they may have rows that match; alike ones together.

        What the filter is about is read first, row group by row group, up to a row that matches: statistics in a footer
        are not relied on.
        """
        matches = self._options.filter
        if (
            matches is None
            or unit.grouped is not None
            or not unit.rows
            or (self._asked is None and matches.may_match(self.partitions(unit)))
        ):
            yield unit, True
            return
        if not matches.may_match(self.partitions(unit)):
            yield unit, False
            return
        asked = self._asked
        assert asked is not None
        if self._asked_file is None or self._asked_file[0] != unit.file.path:
            self.close()
            self._asked_file = unit.file.path, asked.units.open(unit)
        parquet = self._asked_file[1]
        nbytes = [group.nbytes for group in parquet.footer.row_groups[unit.row_group_begin : unit.row_group_end]]

        def has_match(piece: Unit) -> bool:
            with closing(asked.units.unit_batches(parquet, piece)) as batches:
                return any(self._matching(unit, batch).any() for _, batch in batches)

        try:
            pieces = unit.pieces(nbytes, has_match)
        except DataError:
            self.close()  # it may not be read on
            raise
        yield from pieces

    def partitions(self, unit: Unit) -> dict[str, pa.Scalar]:
        """What the folders of a unit's file spell."""
        schema = self._source.schema
        return {name: pa.scalar(value, schema.field(name).type) for name, value in unit.file.partitions}

    def _matching(self, unit: Unit, batch: pa.RecordBatch) -> np.ndarray:
        assert self._options.filter is not None, "who has a filter asks"
        return self._options.filter.matching(batch, self.partitions(unit), unit.span)

    def kept(self, unit: Unit, numbers: np.ndarray, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The kept columns of a batch of rows of these numbers, partition values as columns."""
        partitions = {name: value for name, value in unit.file.partitions if name in self._of_file}
        arrays = [
            pa.repeat(pa.scalar(partitions[kept.name], kept.type), batch.num_rows)
            if kept.name in partitions
            else batch.column(kept.name)
            for kept in self._kept_schema
        ]
        for kept, array in zip(self._kept_schema, arrays, strict=True):
            if array.null_count and not kept.nullable:  # in a file that came after the job began
                where = unit.where(int(numbers[array.is_null().index(True).as_py()]))
                raise DataError(
                    f"{where}: {kept.name!r} is null, and the files that the job began with say that it "
                    "never is. Write the file without nulls there; or begin anew with --restart."
                )
        # Without columns a record batch made of arrays would forget how many rows it has.
        return pa.RecordBatch.from_arrays(arrays, schema=self._kept_schema) if arrays else batch.select([])

    def _chunk(self, unit: Unit, looked_at: range, numbers: np.ndarray, batch: pa.RecordBatch) -> Chunk:
        with self._stage("convert"):
            rows = self._taken(batch, _where(unit, numbers, looked_at.start))
        filtered = len(looked_at) - len(numbers)
        kept, aside = self.kept(unit, numbers, batch), None
        if rows.aside:
            aside, kept = aside_batch(unit, numbers, rows.aside, kept), picked_rows(kept, rows.kept)
        numbers, counts, is_null = numbers[rows.kept], rows.counts, rows.is_null
        begin, end = looked_at.start, looked_at.stop
        return Chunk(unit, numbers, rows.sequences, kept, begin, end, aside, counts, is_null, filtered)

    def _taken(self, batch: pa.RecordBatch, where: Where) -> Taken:
        """The rows of a batch as sequences."""
        rows, self._width = take_batch(batch, self._source.schema, self._options, self._width, where)
        return rows


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
        options: has a layout; the filter and the kept columns are not looked at.
        width: features that the layout gives of a step; None takes those of the first step.
        where: says where a row of the batch stands.

    Raises:
        DataError: as `take`.
    """
    layout = options.layout
    assert layout is not None, "only who reads sequences asks for chunks"
    steps = placed(layout.steps, batch, width, where=where)
    width = steps.in_features or width
    named = None
    if options.input is not None:
        named = NamedInput(options.input, layout.feature_names(schema, width or 0))
    elif width is None:
        raise unknown_width(where(0), layout.described, len(steps))
    taken = take(steps, width or 0, options.bad_rows, options.lossy_cast, where, options.lengths, named)
    return taken, width
