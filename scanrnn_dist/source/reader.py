"""Rows of a source as chunks of sequences and kept columns, decoded ahead by one thread within a bound of bytes.

Takes units from `source.py`, turns columns into `Ragged` by `nested_lists.py`, and leaves what happens to the rows to
`job.py`. Every row that a footer promised is delivered, in order, or a `DataError` says what is missing; the
checksums of pages are verified where the writer stored them.

Neither a file nor a row group need fit into memory: column chunks are streamed (`_buffer_bytes`), where a plain read
holds all of a row group's. Measured with one row group of 330 MB (4.7 million steps of 16 float32): peak of the whole
process 173 - 205 MB against 490 MB, 79 MB of it Python and pyarrow, at the speed of the plain read (1 GB/s); with the
conversion and its checks 0.8 GB/s.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Any

import pyarrow as pa
from pyarrow import fs

from scanrnn_dist.errors import ConfigError, DataError, ScanRNNError
from scanrnn_dist.protocols import Stage
from scanrnn_dist.ragged import Ragged
from scanrnn_dist.source.layouts import Nonfinite, first_width, fixed_in_features, to_ragged
from scanrnn_dist.source.parquet import CheckedFile
from scanrnn_dist.source.source import Source
from scanrnn_dist.source.units import Unit

_MAX_ROWS = 65_536
_PROBE_ROWS = 64
_PROBE_BYTES = 1 << 18
_KEPT_BYTES = 8 << 20  # of a batch of columns that are no sequences


@dataclass(frozen=True)
class Chunk:
    """Consecutive rows of one unit, from its row `first_row` on.

    Args:
        unit: the unit that the rows belong to.
        first_row: counted within the unit.
        sequences: `N` rows.
        kept: the `N` rows of the kept columns, in the order asked for, partition values as columns.
    """

    unit: Unit
    first_row: int
    sequences: Ragged
    kept: pa.RecordBatch

    def where(self, row: int) -> str:
        """Where a row of the chunk stands, for messages."""
        return _where(self.unit, self.first_row + row)

    @property
    def nbytes(self) -> int:
        """Bytes of the sequences and the kept columns."""
        return int(self.sequences.values.nbytes + self.sequences.offsets.nbytes + self.kept.nbytes)


@dataclass(frozen=True)
class FailedUnit:
    """A unit that cannot be read on, in place of the rest of its chunks.

    Args:
        unit: the unit.
        reason: what is wrong with it; not the error itself, whose traceback holds the rows that were being converted.
    """

    unit: Unit
    reason: str
    nbytes: int = 4096
    """About what it takes, so that a bound on bytes holds for these too where every unit fails."""


def read_chunks(
    source: Source,
    units: Iterable[Unit],
    *,
    column: str,
    keep: Sequence[str],
    in_features: int | None,
    chunk_bytes: int = 16 << 20,
    prefetch_bytes: int = 64 << 20,
    lossy_cast: bool = False,
    nonfinite: Nonfinite = "error",
    stage: Stage = nullcontext,
    keep_going: bool = False,
    on_chunk: Callable[[], None] | None = None,
) -> Prefetched:
    """The rows of `units`, in their order, decoded ahead by a thread.

    Args:
        source: where the units are from.
        units: which rows to read.
        column: the column of the sequences.
        keep: columns and partition fields to carry along, none twice.
        in_features: `D` of every step; None takes that of the first.
        chunk_bytes: about the decoded size of a chunk, which has at most 65,536 rows and at least one.
        prefetch_bytes: what is decoded and not yet taken stays below this plus one chunk.
        lossy_cast: whether numbers may be rounded to float32.
        nonfinite: "error" refuses NaN and infinity, "propagate" lets them through.
        stage: names the stages "read", that is decoding, and "convert", in the thread.
        keep_going: whether a unit with wrong data is told by a `FailedUnit` in its place and the next one is read,
            rather than the `DataError` raised.
        on_chunk: called, in the thread, after each chunk that was decoded.

    Returns:
        An iterator of chunks, and of failed units with `keep_going`; closing it stops the thread and waits for it.

    Raises:
        ConfigError: a column that the source does not have, or a size below 1.
        DataError: a file that cannot be read, holds other rows than its footer promised, or sequences that
            `to_ragged` refuses. It comes after the chunks that precede it.
        StoppedError: the server of a bucket failed for as long as it was asked; likewise.

    Example:
        >>> from scanrnn_dist.source import open_source, plan_units
        >>> import pyarrow.parquet as pq, tempfile
        >>> folder = tempfile.mkdtemp()
        >>> pq.write_table(pa.table({"sequence": [[1.0], []], "id": [7, 8]}), folder + "/a.parquet")
        >>> source = open_source(folder)
        >>> chunks = read_chunks(source, plan_units(source, 100), column="sequence", keep=["id"], in_features=1)
        >>> [(chunk.sequences.lengths.tolist(), chunk.kept.to_pydict()) for chunk in chunks]
        [([1, 0], {'id': [7, 8]})]
    """
    if chunk_bytes < 1 or prefetch_bytes < 1:
        raise ConfigError(f"chunk_bytes is {chunk_bytes} and prefetch_bytes {prefetch_bytes}; expected at least 1.")
    for name in (column, *keep):
        if name not in source.schema.names:
            raise ConfigError(f"{name!r} is no column of the source; expected one of {source.schema.names}.")
    if len(set(keep)) != len(keep):
        raise ConfigError(f"The kept columns {list(keep)} hold a name twice; expected each once.")
    decoder = _Decoder(source, column, tuple(keep), in_features, chunk_bytes, lossy_cast, nonfinite, stage)
    return Prefetched(decoder.chunks(units, keep_going, on_chunk), prefetch_bytes)


def read_kept(source: Source, unit: Unit, keep: Sequence[str]) -> Generator[pa.RecordBatch, None, None]:
    """The columns `keep` of a unit, in order, without its sequences.

    A batch has about 8 MiB, and at least one row. Raises `DataError` as `read_chunks`.
    """
    decoder = _Decoder(source, "", tuple(keep), None, _KEPT_BYTES, False, "propagate", nullcontext)
    parquet = decoder.open(unit.file.path)
    try:
        decoder.check(parquet, unit)
        first_row = 0
        for batch in decoder.batches(parquet, unit, decoder.chunk_rows(parquet, unit)):
            yield decoder.kept(unit, first_row, batch)
            first_row += batch.num_rows
    finally:
        parquet.close()


def first_step_features(source: Source, unit: Unit, column: str) -> int | None:
    """Features of the first step in the sequences of a unit; None if all of them are empty.

    Reads no further, and holds some hundred kilobytes. Raises `DataError` as `read_chunks`.
    """
    decoder = _Decoder(source, column, (), None, _PROBE_BYTES, True, "propagate", nullcontext)
    parquet = decoder.open(unit.file.path)
    try:
        decoder.check(parquet, unit)
        first_row = 0
        for batch in decoder.batches(parquet, unit, decoder.chunk_rows(parquet, unit)):
            features = first_width(batch.column(column), where=partial(_where_after, unit, first_row))
            if features is not None:
                return features
            first_row += batch.num_rows
    finally:
        parquet.close()
    return None


class Prefetched:
    """What an iterator yields, or raises, with a thread running ahead of the one who takes.

    Args:
        chunks: the generator that the thread iterates and closes.
        limit_bytes: the thread runs ahead while less than this waits.
    """

    def __init__(self, chunks: Iterator[Chunk | FailedUnit], limit_bytes: int) -> None:
        self._queue = _Queue(limit_bytes)
        # A daemon: chunks that nobody closed must not keep the interpreter from ending. The thread knows the queue
        # only, so that whoever drops this object ends it.
        self._thread = threading.Thread(target=self._queue.fill, args=(chunks,), name="scanrnn-reader", daemon=True)
        self._thread.start()

    @property
    def is_ready(self) -> bool:
        """Whether `next` would return, or raise, at once."""
        return bool(self._queue.items) or self._queue.is_stopped

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        """The next `Chunk`, or `FailedUnit` where these are asked for."""
        item = self._queue.take()
        if isinstance(item, Chunk | FailedUnit):
            return item
        self.close()
        raise StopIteration if item is None else item

    def close(self) -> None:
        """Stop the thread and wait for it; what waits is dropped."""
        self._queue.stop()
        self._thread.join()

    def __del__(self) -> None:
        self._queue.stop()


class _Queue:
    """Chunks that wait to be taken; then the error that ended them, or None."""

    def __init__(self, limit_bytes: int) -> None:
        self.items: deque[Chunk | FailedUnit | BaseException | None] = deque()
        self.is_stopped = False
        self._waiting_bytes = 0
        self._limit_bytes = limit_bytes
        self._changed = threading.Condition()

    def fill(self, chunks: Iterator[Chunk | FailedUnit]) -> None:
        """Put all chunks; the thread's work."""
        try:
            for chunk in chunks:
                self._put(chunk)
                del chunk  # or it would stay alive while the next one is decoded
                if self.is_stopped:
                    return
            self._put(None)
        except BaseException as error:  # the consumer raises it, in its place
            self._put(error)
        finally:
            chunks.close()  # type: ignore[attr-defined]

    def take(self) -> Chunk | FailedUnit | BaseException | None:
        """The next item; waits for it, and gives None once stopped."""
        with self._changed:
            self._changed.wait_for(lambda: self.items or self.is_stopped)
            if self.is_stopped:
                return None
            item = self.items.popleft()
            self._waiting_bytes -= _nbytes(item)
            self._changed.notify_all()
        return item

    def stop(self) -> None:
        """Let nobody wait any more."""
        with self._changed:
            self.is_stopped = True
            self.items.clear()
            self._changed.notify_all()

    def _put(self, item: Chunk | FailedUnit | BaseException | None) -> None:
        with self._changed:
            self.items.append(item)
            self._waiting_bytes += _nbytes(item)
            self._changed.notify_all()
            # Waits before the next chunk is decoded, not after: so at most one chunk goes beyond the limit.
            self._changed.wait_for(lambda: self.is_stopped or self._waiting_bytes < self._limit_bytes)


def _nbytes(item: Chunk | FailedUnit | BaseException | None) -> int:
    return item.nbytes if isinstance(item, Chunk | FailedUnit) else 0


@dataclass
class _Decoder:
    """Units to chunks, in the thread that iterates; holds what is learnt on the way: `D`, and how rows expand."""

    source: Source
    column: str
    keep: tuple[str, ...]
    in_features: int | None
    chunk_bytes: int
    lossy_cast: bool
    nonfinite: Nonfinite
    stage: Stage

    def __post_init__(self) -> None:
        schema = self.source.schema
        partitions = self.source.files.partition_schema.names
        self.kept_schema = pa.schema([schema.field(name) for name in self.keep])
        wanted = (self.column, *self.keep) if self.column else self.keep
        self.columns = [name for name in dict.fromkeys(wanted) if name not in partitions]
        if self.column:
            self.in_features = self.in_features or fixed_in_features(schema.field(self.column).type)

    def chunks(
        self, units: Iterable[Unit], keep_going: bool, on_chunk: Callable[[], None] | None
    ) -> Iterator[Chunk | FailedUnit]:
        """The chunks of all units; the file stays open from one unit of it to the next, unless one failed."""
        parquet: CheckedFile | None = None
        path = None
        try:
            for unit in units:
                reason = None
                try:
                    if parquet is not None and unit.file.path != path:
                        parquet.close()
                        parquet = None
                    if parquet is None:
                        parquet, path = self.open(unit.file.path), unit.file.path
                    for chunk in self.unit_chunks(parquet, unit):
                        if on_chunk is not None:
                            on_chunk()
                        yield chunk
                        del chunk  # or it would stay alive while the next one is decoded
                except DataError as error:
                    if not keep_going:
                        raise
                    path, reason = None, str(error)
                if reason is not None:
                    yield FailedUnit(unit, reason)
        finally:
            if parquet is not None:
                parquet.close()

    def open(self, path: str) -> CheckedFile:
        with _named(path):
            return CheckedFile(self.source.filesystem, path, self.columns, _buffer_bytes(self.source.filesystem))

    def check(self, parquet: CheckedFile, unit: Unit) -> None:
        """Refuse a file whose footer no longer says of the unit what it said when the unit was planned."""
        groups = parquet.footer.row_groups[unit.row_group_begin : unit.row_group_end]
        rows, nbytes = tuple(group.rows for group in groups), sum(group.nbytes for group in groups)
        there = {field.name: field.type for field in parquet.schema_arrow}
        missing = [name for name in self.columns if there.get(name) != self.source.schema.field(name).type]
        if missing or (rows, nbytes) != (unit.group_rows, unit.nbytes):
            raise DataError(
                f"{_span(unit)} has {sum(rows)} rows in {len(rows)} row groups of {nbytes} bytes and lacks "
                f"{sorted(missing) or 'no'} columns; expected {unit.rows} rows in {len(unit.group_rows)} of "
                f"{unit.nbytes} and every column, as when the source was opened. Something changed the file since: "
                "open the source anew."
            )

    def unit_chunks(self, parquet: CheckedFile, unit: Unit) -> Iterator[Chunk]:
        self.check(parquet, unit)
        rows = self.chunk_rows(parquet, unit)
        delivered = 0
        for batch in self.batches(parquet, unit, rows):
            if batch.num_rows == 0:
                continue
            if delivered + batch.num_rows <= unit.rows:
                yield self.chunk(unit, delivered, batch)
            delivered += batch.num_rows
            del batch  # or it would stay alive while the next one is decoded
        if delivered != unit.rows:
            raise DataError(
                f"{_span(unit)} promised {unit.rows} rows in the footer and delivered {delivered}. "
                "Expected a sound file: write it again."
            )

    def chunk_rows(self, parquet: CheckedFile, unit: Unit) -> int:
        """Rows per chunk of a unit; from the unit alone, so that it is read alike whichever were read before it.

        The footer's bytes are encoded and of all columns, so they may be far off in both directions: a few rows are
        decoded before they are relied on. That takes 2 to 7 % of the time of reading: 1.8 ms for a unit of 23 MB that
        takes 29 ms, 0.4 ms for one of 4 MB that takes 6; and of a bucket one more request per column.
        """
        encoded = max(1.0, unit.nbytes / unit.rows)
        rows = int(min(_PROBE_ROWS, max(1.0, self.chunk_bytes / encoded)))
        batch = next(self.batches(parquet, unit, rows), None)
        decoded = batch.nbytes / batch.num_rows if batch is not None and batch.num_rows else encoded
        # The first rows may be the shortest ones; what the values come to as float32 is known.
        decoded = max(1.0, decoded, 4 * unit.values / unit.rows if self.column else 0)
        return int(min(_MAX_ROWS, max(1.0, self.chunk_bytes / decoded)))

    def batches(self, parquet: CheckedFile, unit: Unit, rows: int) -> Iterator[pa.RecordBatch]:
        """Record batches of `rows` rows, one after the other, with the wanted columns (and maybe more)."""
        groups = range(unit.row_group_begin, unit.row_group_end)
        # A dotted name may match nested paths beside the column of that name; `chunk` picks columns by exact names.
        batches = parquet.iter_batches(rows, row_groups=groups, columns=self.columns)
        while True:
            try:
                with _named(_span(unit)), self.stage("read"):
                    batch = next(batches, None)
                    if batch is None:
                        parquet.check_pages(groups)
            except DataError as error:
                if isinstance(error.__cause__, pa.ArrowException | OSError | ValueError):
                    with _named(parquet.damaged(groups, self.columns) or _span(unit)):
                        raise error.__cause__ from None
                raise
            if batch is None:
                return
            yield batch

    def chunk(self, unit: Unit, first_row: int, batch: pa.RecordBatch) -> Chunk:
        with self.stage("convert"):
            sequences = to_ragged(
                batch.column(self.column),
                in_features=self.in_features,
                lossy_cast=self.lossy_cast,
                nonfinite=self.nonfinite,
                where=lambda row: _where(unit, first_row + row),
            )
        self.in_features = sequences.in_features
        return Chunk(unit, first_row, sequences, self.kept(unit, first_row, batch))

    def kept(self, unit: Unit, first_row: int, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The kept columns of a batch, partition values as columns."""
        partitions = dict(unit.file.partitions)
        arrays = [
            pa.repeat(pa.scalar(partitions[field.name], field.type), batch.num_rows)
            if field.name in partitions
            else batch.column(field.name)
            for field in self.kept_schema
        ]
        for field, array in zip(self.kept_schema, arrays, strict=True):
            if array.null_count and not field.nullable:  # in a file that came after the job began
                row = first_row + array.is_null().index(True).as_py()
                raise DataError(
                    f"{_where(unit, row)}: {field.name!r} is null, and the files that the job began with say that it "
                    "never is. Write the file without nulls there; or begin anew with --restart."
                )
        # Without columns a record batch made of arrays would forget how many rows it has.
        return pa.RecordBatch.from_arrays(arrays, schema=self.kept_schema) if arrays else batch.select([])


def _buffer_bytes(filesystem: fs.FileSystem) -> int:
    """Bytes per read of a column chunk: from a bucket each is a request, which costs a round trip."""
    return 1 << 20 if filesystem.type_name == "local" else 8 << 20


def _span(unit: Unit) -> str:
    last = unit.row_group_end - 1
    groups = f"row group {last}" if unit.row_group_begin == last else f"row groups {unit.row_group_begin} to {last}"
    return f"{unit.file.path}, {groups},"


def _where(unit: Unit, row: int) -> str:
    """Where row `row` of a unit stands: file, row group, row within it, row of the file."""
    of_file = unit.first_row + row
    ends = list(accumulate(unit.group_rows))
    group = bisect_right(ends, row)
    within = row - (ends[group] - unit.group_rows[group])
    return f"{unit.file.path}, row group {unit.row_group_begin + group}, row {within} (row {of_file} of the file)"


def _where_after(unit: Unit, first_row: int, row: int) -> str:
    return _where(unit, first_row + row)


@contextmanager
def _named(what: str) -> Iterator[None]:
    """Whatever pyarrow raises inside becomes a `DataError` that names `what`."""
    try:
        yield
    except ScanRNNError:
        raise  # it names its place itself
    except (pa.ArrowException, OSError, ValueError) as error:
        text = " ".join(str(error).split()).rstrip(" .")  # some of pyarrow's take three lines
        raise DataError(
            f"{what.rstrip(',')}: cannot be read: {type(error).__name__}: {text}. "
            "Expected a sound Parquet file: write or copy it again."
        ) from error
