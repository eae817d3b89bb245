"""The rows of a unit as record batches: of its file, in order, all that a footer promised, in the types of the source.

Where rows are events, those of the sequences that begin in the unit, regrouped by `grouped.py`. What is made of the
columns is `decode.py`'s.

Neither a file nor a row group need fit into memory: column chunks are streamed, where a plain read
holds all of a row group's. Measured with one row group of 330 MB (4.7 million steps of 16 float32): peak of the whole
process 173 - 205 MB against 490 MB, 79 MB of it Python and pyarrow, at the speed of the plain read (1 GB/s).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import replace

import pyarrow as pa

from scanrnn_dist.errors import DataError, ScanRNNError, UnreadableError, one_line
from scanrnn_dist.protocols import Stage
from scanrnn_dist.source.conform import conform, conforms, filled_bytes, part_of
from scanrnn_dist.source.file_table import SourceFile, is_unchanged
from scanrnn_dist.source.grouped import Grouping
from scanrnn_dist.source.layouts import Path
from scanrnn_dist.source.parquet import CheckedFile, out_of_memory, own_bytes
from scanrnn_dist.source.source import Source
from scanrnn_dist.source.units import Grouped, Unit

_MAX_ROWS = 65_536
_PROBE_ROWS = 64
_CHUNKS_FETCHED = 16
"""Of a bucket, so many chunks at most are fetched ahead: who decodes small ones looks at the first rows only."""


class UnitReader:
    """Reads units of a source; a file stays open from one unit of it to the next.

    Args:
        source: of the units.
        sequences: the columns of the sequences, or fields within them; also those that folders spell.
        beside: what else is read, by names in the schema of the source; of it, what folders spell is left out.
        own: the columns of sequences that are lists, which any layout takes apart in the types that a file has.
        grouping: how events become sequences.
        chunk_bytes: about the decoded size of a batch, which has at most 65,536 rows and at least one.
        stage: names the stage "read".
    """

    def __init__(
        self,
        source: Source,
        sequences: Sequence[Path],
        beside: Sequence[str],
        own: frozenset[str],
        grouping: Grouping,
        chunk_bytes: int,
        stage: Stage = nullcontext,
    ) -> None:
        self._source, self._read = source, tuple(dict.fromkeys(path[0] for path in sequences))
        partitions = source.files.partition_schema.names
        self._columns = [name for name in dict.fromkeys((*self._read, *beside)) if name not in partitions]
        paths = dict.fromkeys((*((name,) for name in beside), *sequences))
        self._paths = [path for path in paths if path[0] not in partitions]
        self._whole = [source.schema.field(name) for name in self._columns]
        self._fields = list(part_of(pa.struct(self._whole), self._paths))  # what a file lacks is filled of these alone
        self._own, self._grouping, self._chunk_bytes, self._stage = own, grouping, chunk_bytes, stage
        self._opened: tuple[str, CheckedFile] | None = None

    def file_of(self, unit: Unit) -> CheckedFile:
        """The file of a unit; it stays open until that of another one is asked for, or `close`."""
        if self._opened is None or self._opened[0] != unit.file.path:
            self.close()
            self._opened = unit.file.path, self.open(unit)
        return self._opened[1]

    def close(self) -> None:
        """Close the file that is open; it is opened again where it is needed."""
        opened, self._opened = self._opened, None
        if opened is not None:
            opened[1].close()

    def open(self, unit: Unit) -> CheckedFile:
        """The file of a unit, for the caller to close."""
        source = self._source
        request_bytes = min(source.request_bytes, _CHUNKS_FETCHED * self._chunk_bytes)
        bounds = (source.memory_bytes, source.kept_bytes, request_bytes)
        with _named(unit.file.path):
            return CheckedFile(source.filesystem, unit.file.path, self._paths, *bounds)

    def nothing(self) -> Iterator[tuple[int, pa.RecordBatch]]:
        """The wanted columns without rows."""
        arrays = [pa.nulls(0, field.type) for field in self._whole]  # pyarrow makes none of some extension types else
        yield 0, pa.RecordBatch.from_arrays(arrays, schema=pa.schema(self._whole))

    def unit_batches(self, unit: Unit) -> Generator[tuple[int, pa.RecordBatch], None, None]:
        """The wanted columns of a unit (and maybe more), batch by batch, each with its first row.

        Where rows of the files are events, as `Grouping.rows` hands them on.
        """
        parquet = self.file_of(unit)
        if unit.grouped is None:
            yield from self._row_batches(parquet, unit)
        else:
            with closing(self._event_batches(parquet, unit, unit.grouped)) as events:
                yield from self._grouping.rows(unit, unit.grouped, events)

    def _row_batches(
        self, parquet: CheckedFile, unit: Unit, wanted: int | None = None
    ) -> Generator[tuple[int, pa.RecordBatch], None, None]:
        """The rows of a unit; of one that only so many are wanted of, at most these at a time."""
        self._check(parquet, unit)
        if not unit.rows:
            yield from self.nothing()
            return
        delivered = 0
        is_cut = _is_cut(parquet, unit)
        wanted = unit.rows if wanted is None else min(wanted, unit.rows)
        groups = range(unit.row_group_begin, unit.row_group_end)
        parquet.fetch(groups, wanted)
        rows = min(wanted, self._chunk_rows(parquet, unit))
        parquet.fetch(groups, wanted)  # once more what was read to learn how long texts are
        for batch in self._batches(parquet, unit, rows):
            if is_cut:
                batch = batch.slice(0, unit.rows - delivered)
            if 0 < batch.num_rows <= unit.rows - delivered:
                yield delivered, batch
            delivered += batch.num_rows
            del batch  # or it would stay alive while the next one is decoded
            if is_cut and delivered == unit.rows:
                parquet.check_pages(range(unit.row_group_begin, unit.row_group_end))
                break
        if delivered != unit.rows:
            raise UnreadableError(
                f"{unit.span} promised {unit.rows} rows in the footer and delivered {delivered}. "
                "Expected a sound file: write it again."
            )

    def _event_batches(
        self, parquet: CheckedFile, unit: Unit, grouped: Grouped
    ) -> Generator[pa.RecordBatch, None, None]:
        """The events of the sequences that begin in a unit, with the columns of the layout that folders spell."""
        own = replace(unit, grouped=None)
        self._check(parquet, own)
        skip, begin = grouped.skip, unit.row_group_begin
        while begin < unit.row_group_end - 1 and skip >= own.group_rows[begin - unit.row_group_begin]:
            skip, begin = skip - own.group_rows[begin - unit.row_group_begin], begin + 1
        piece = _piece(parquet, unit, unit.file, begin, unit.row_group_end)
        for first_row, batch in self._row_batches(parquet, piece):
            if first_row + batch.num_rows > skip or not grouped.rows:  # of a source without rows, one batch without
                yield self._with_partitions(batch.slice(max(0, skip - first_row)), unit.file)
            del batch
        yield from self._tail(parquet, unit, grouped)

    def _tail(self, parquet: CheckedFile, unit: Unit, grouped: Grouped) -> Iterator[pa.RecordBatch]:
        """The events of the last sequence of a unit that stand after its row groups, also in the files that follow."""
        left, begin, file = grouped.tail, unit.row_group_end, unit.file
        for number in range(grouped.file, len(self._source.files)):
            if not left:
                return
            if number > grouped.file:
                begin, file = 0, self._source.files[number]
                parquet = self.file_of(replace(unit, file=file))
            self._check_unchanged(parquet, file)
            end, rows, groups = begin, 0, parquet.footer.row_groups
            while end < len(groups) and rows < left:
                rows, end = rows + groups[end].rows, end + 1
            piece = _piece(parquet, unit, file, begin, end)
            with closing(self._row_batches(parquet, piece, left)) as batches:
                for _, batch in batches if rows else ():
                    batch = batch.slice(0, left)
                    left -= batch.num_rows
                    yield self._with_partitions(batch, file)
                    if not left:
                        break
            with _named(piece.span):
                parquet.check_pages(range(begin, end))
        if left:
            raise DataError(f"{unit.span} promised {grouped.tail} rows after it and lacks {left} of them.")

    def _with_partitions(self, batch: pa.RecordBatch, file: SourceFile) -> pa.RecordBatch:
        """A batch with the columns of the layout that folders spell."""
        for name, value in file.partitions:
            if name in self._read:
                kind = self._source.schema.field(name).type
                batch = batch.append_column(name, pa.repeat(pa.scalar(value, kind), batch.num_rows))
        return batch

    def _check_unchanged(self, parquet: CheckedFile, file: SourceFile) -> None:
        """Refuse a file that is another than it was when it was planned, where no footer of then says what is read.

        Of a bucket by its size alone: to ask for the time would be one more request.
        """
        filesystem, is_same = self._source.filesystem, parquet.size_bytes == file.size_bytes
        if filesystem.type_name == "local":
            is_same = is_unchanged(filesystem, file)
        if not is_same:
            raise DataError(
                f"{file.path} has another size or time than when the source was opened; expected the file as it was. "
                "Something changed the file since: open the source anew."
            )

    def _check(self, parquet: CheckedFile, unit: Unit) -> None:
        """Refuse a file whose footer no longer says of the unit what it said when the unit was planned."""
        groups = parquet.footer.row_groups[unit.row_group_begin : unit.row_group_end]
        rows, nbytes = tuple(group.rows for group in groups), sum(group.nbytes for group in groups)
        there = {field.name: field.type for field in parquet.schema_arrow}
        missing = [field.name for field in self._whole if not conforms(there.get(field.name), field.type)]
        is_as_planned = rows == unit.group_rows or _is_cut(parquet, unit)
        if missing or not is_as_planned or nbytes != unit.nbytes:
            raise DataError(
                f"{unit.span} has {sum(rows)} rows in {len(rows)} row groups of {nbytes} bytes and lacks "
                f"{sorted(missing) or 'no'} columns; expected {unit.rows} rows in {len(unit.group_rows)} of "
                f"{unit.nbytes} and every column, as when the source was opened. Something changed the file since: "
                "open the source anew."
            )

    def _chunk_rows(self, parquet: CheckedFile, unit: Unit) -> int:
        """Rows per chunk of a unit; from the unit alone, so that it is read alike whichever were read before it.

        The footer says how many numbers there are; of texts, whose lengths it does not say, a few rows are decoded.
        That takes 0.4 to 2 ms a unit, more where columns have large dictionaries: 4 of 137 ms for nested lists of 100
        MB, 22 of 159 ms for 16 columns of lists, were all columns tried. Later texts may be longer, so all count for no
        less than they take in the file before it is compressed.
        """
        groups = range(unit.row_group_begin, unit.row_group_end)
        leaves, there = parquet.leaves, {field.name: field.type for field in parquet.schema_arrow}
        known = {path: leaves.decoded_bytes(path, groups) for path in self._paths if path[0] in there}
        in_groups = sum(group.rows for group in parquet.footer.row_groups[groups.start : groups.stop])
        decoded = sum(nbytes or 0 for nbytes in known.values()) / max(1, in_groups)
        decoded += self._filled_bytes(parquet, there, lambda way: leaves.values(way, groups) / max(1, in_groups))
        if unknown := [path for path, nbytes in known.items() if nbytes is None]:
            stored = sum(leaves.stored_bytes(path, groups) for path in unknown) / max(1, in_groups)
            decoded += max(stored, self._tried_bytes(parquet, unit, unknown))
        # The sequences' values are float32 in the end; and the first rows may be the shortest ones.
        decoded = max(1.0, decoded, 4 * unit.values / unit.rows if self._own else 0)
        return int(min(_MAX_ROWS, max(1.0, self._chunk_bytes / decoded)))

    def _filled_bytes(
        self, parquet: CheckedFile, there: dict[str, pa.DataType], lengths: Callable[[Path], float]
    ) -> float:
        """About what a row takes of nulls that stand for what the file lacks; one that takes too much is refused."""
        nbytes = 0.0
        for whole, field in zip(self._whole, self._fields, strict=True):
            kind, way = there.get(field.name), (field.name,)
            if kind != whole.type:
                parquet.check_row(field.name, filled_bytes(kind, field.type, lambda _: 0, way))
                nbytes += filled_bytes(kind, field.type, lengths, way)
        return nbytes

    def _tried_bytes(self, parquet: CheckedFile, unit: Unit, paths: Sequence[Path]) -> float:
        """About what a row takes of these columns, by the first rows of the unit."""
        # The footer's bytes are encoded and of all columns, so they may be far off in both directions.
        encoded = max(1.0, unit.nbytes / unit.rows)
        rows = int(min(_PROBE_ROWS, max(1.0, self._chunk_bytes / encoded)))
        try:
            batch = next(self._decoded(parquet, unit, rows, paths), None)
        except DataError:
            # Of several damaged columns the first one is named: read anew, as what was seen of these pages counts.
            with closing(self.open(unit)) as again:
                next(self._batches(again, unit, rows), None)
            raise
        if batch is None or not batch.num_rows:
            return encoded
        fields = list(part_of(pa.struct(self._whole), paths))  # a dictionary may be texts in the types of the source
        columns = conform(batch, fields, unit.span, self._own).columns
        return sum(map(own_bytes, columns)) / batch.num_rows

    def _batches(self, parquet: CheckedFile, unit: Unit, rows: int) -> Iterator[pa.RecordBatch]:
        """Record batches of `rows` rows, one after the other, with the wanted columns (and maybe more)."""
        there = {field.name: field.type for field in parquet.schema_arrow}
        paths = [path for path in self._paths if path[0] in there]
        is_alike = all(there.get(field.name) == field.type for field in self._whole)
        for batch in self._decoded(parquet, unit, rows, paths):
            yield batch if is_alike else conform(batch, self._fields, unit.span, self._own)
            del batch  # or it would stay alive while the next one is decoded

    def _decoded(self, parquet: CheckedFile, unit: Unit, rows: int, paths: Sequence[Path]) -> Iterator[pa.RecordBatch]:
        """The same as they stand in the file, of these columns; at the end, whether all pages were what they should."""
        groups = range(unit.row_group_begin, unit.row_group_end)
        batches = parquet.iter_batches(rows, row_groups=groups, columns=paths)
        while True:
            try:
                with _named(unit.span), self._stage("read"):
                    batch = next(batches, None)
                    if batch is None:
                        parquet.check_pages(groups)
            except DataError as error:
                if isinstance(error.__cause__, pa.ArrowException | OSError | ValueError):
                    with _named(parquet.damaged(groups, paths) or unit.span):
                        raise error.__cause__ from None
                raise
            if batch is None:
                return
            yield batch
            del batch


def _piece(parquet: CheckedFile, unit: Unit, file: SourceFile, begin: int, end: int) -> Unit:
    """Row groups of a file as if they were a unit, as its footer tells of them."""
    groups = parquet.footer.row_groups
    rows, nbytes = tuple(group.rows for group in groups[begin:end]), sum(group.nbytes for group in groups[begin:end])
    return Unit(unit.index, file, begin, rows, sum(group.rows for group in groups[:begin]), nbytes, sum(rows))


def _is_cut(parquet: CheckedFile, unit: Unit) -> bool:
    """Whether the unit is the last of a source of which only the first rows are read, and ends within a row group."""
    rows = tuple(group.rows for group in parquet.footer.row_groups[unit.row_group_begin : unit.row_group_end])
    same = len(unit.group_rows) - 1
    return len(rows) == same + 1 and rows[:same] == unit.group_rows[:same] and rows[same] > unit.group_rows[same]


@contextmanager
def _named(what: str) -> Iterator[None]:
    """Whatever pyarrow raises inside becomes an `UnreadableError` that names `what`; but for want of memory."""
    try:
        yield
    except ScanRNNError:
        raise  # it names its place itself
    except (pa.ArrowException, OSError, ValueError) as error:
        if stopped := out_of_memory(what.rstrip(","), error):
            raise stopped from error
        text = one_line(str(error)).rstrip(" .")  # some of pyarrow's take three lines
        raise UnreadableError(
            f"{what.rstrip(',')}: cannot be read: {type(error).__name__}: {text}. "
            "Expected a sound Parquet file: write or copy it again."
        ) from error
