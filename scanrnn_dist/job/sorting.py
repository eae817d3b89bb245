"""`--sort`: a copy of a source in long format whose sequences stand one after the other, sorted out of core by DuckDB.

The copy stands beside the destination, `DST.sorted/`, with a record of what it is a copy of; so the same command finds
it again. It is written under another name and renamed, so that it is whole or not there. DuckDB is handed rows as our
own reader decodes and checks them, and what it gives back must be the same rows: 64 bits of each are summed up before
and after. Why beside, and not within: all that stands in the destination belongs to one job and goes with it.

10,000,000 rows of 10 columns in no order, 470 MB: 14 s of processor time, 1.2 GB at most, Python and pyarrow included.
"""

from __future__ import annotations

import glob
import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from scanrnn_dist.disk import DISK, whole_file
from scanrnn_dist.errors import ConfigError, DataError, StoppedError, one_line, some_of
from scanrnn_dist.input_spec import InputSpec
from scanrnn_dist.job.apart import check_apart
from scanrnn_dist.job.columns import choose, left_out_in_words
from scanrnn_dist.job.memory import Memory
from scanrnn_dist.job.options import JobOptions
from scanrnn_dist.job.plan import absolute
from scanrnn_dist.records import runs, this_machine
from scanrnn_dist.source import Source, SourceLike, comparable, hashes, is_comparable, read_rows
from scanrnn_dist.storage import new_attempt, resolve

logger = logging.getLogger("scanrnn_dist")

RECORD = "_sorted.json"
"""Begins with `_`, so that it is no file of the source."""
_FILES = "files of the copy"
"""In the record: their sizes in bytes, by their names."""
_ASIDE = re.compile(r"[^./]+\.(?P<pid>\d+)\.[0-9a-f]{8}(?:\.(?P<machine>[0-9a-f]{8}))?")
"""What follows the copy's name until it stands, and once another takes its place: the attempt, and where the number of
its process means that process."""
_GROUP_ROWS, _FILE_ROWS = 122_880, 122_880 * 1000


class _Asked(NamedTuple):
    """The copy that is asked for: its folder, of which columns of what, sorted by which, and its record."""

    folder: Path
    source: Source
    columns: list[str]
    keys: list[str]
    record: dict[str, Any]


def sorted_copy(
    source: SourceLike,
    options: JobOptions,
    destination: str | os.PathLike[str],
    input: InputSpec | None,
    memory: Memory = Memory(),  # noqa: B008 - frozen
    may_replace: Callable[[], None] | None = None,
) -> str:
    """The folder with the sorted copy of a source; it is made if it does not stand beside the destination.

    Args:
        source: of the job.
        options: of the job, which say what is grouped and ordered by which columns.
        destination: of the job, a folder.
        memory: of the job. What DuckDB needs beyond its `sorting_bytes` goes to the disk.
        may_replace: called before a copy is made or replaced; raises if somebody may read the one that is there. None:
            a copy of other files, or by other columns, may not be replaced.

    Raises:
        ConfigError: the destination is in a bucket, DuckDB is not there or cannot sort such columns; or as `plan_job`.
        DataError: the source changed since it was sorted; or as `read_chunks`.
        StoppedError: the disk refused.
    """
    asked = _asked(source, options, destination, input)
    folder, opened = asked.folder, asked.source
    _remove_left(folder)
    if _stands(asked, may_replace):
        return str(folder)
    if folder.exists():
        logger.info("%s is not whole, or of other rows or columns: it is made anew.", folder)
    logger.info("%s rows are sorted by %s: %s.", f"{opened.rows:,}", ", ".join(asked.keys), folder)
    if left := [name for name in opened.schema.names if name not in asked.columns]:
        logger.info("Left out: %s.", left_out_in_words(left))
    with _stopping(folder):
        aside = _aside(folder)
        try:
            _write(memory.bounded(opened), asked.columns, asked.keys, aside, memory.sorting_bytes)
            _seal(aside, asked.record)
            if not _stands(asked, may_replace):  # by now: sorting may have taken hours
                _take_place(aside, folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return str(folder)


def standing_copy(
    source: SourceLike,
    options: JobOptions,
    destination: str | os.PathLike[str],
    input: InputSpec | None,
    may_replace: Callable[[], None] | None = None,
) -> str | None:
    """The folder that `sorted_copy` would find; None where it would sort. Writes nothing.

    Raises:
        ConfigError, DataError: as `sorted_copy`, before it sorts.
    """
    asked = _asked(source, options, destination, input)
    if _stands(asked, may_replace):
        return str(asked.folder)
    _sortable(asked.source, asked.columns)
    _duckdb()
    return None


def _asked(
    source: SourceLike, options: JobOptions, destination: str | os.PathLike[str], input: InputSpec | None
) -> _Asked:
    """What is to be sorted, by what and into which folder."""
    _, uri, path = resolve(os.fspath(destination))
    if uri is not None:
        raise ConfigError(
            f"--sort writes a sorted copy beside the destination; expected a folder, not {destination}. Sort the "
            "source first, in DuckDB: COPY (SELECT * FROM 'in/**/*.parquet' ORDER BY the columns of --group-by and "
            "--order-by) TO 'sorted.parquet'."
        )
    folder = Path(f"{path}.sorted")
    opened, layout, _ = choose(source, options, input)
    given, keys = absolute(source), [*layout.ids, *(layout.asked.order_by or ())]
    for place in (destination, folder):
        check_apart(given, opened, place)
    columns = [name for name in opened.schema.names if name in {*layout.columns(opened.schema), *(options.keep or ())}]
    record = {"source": given, "files": _fingerprint(opened), "columns": columns, "sorted by": keys}
    return _Asked(folder, opened, columns, keys, record)


def _fingerprint(source: Source) -> str:
    files = source.files
    paths = "\0".join(files.paths.to_pylist()).encode()
    content = (paths, files.sizes_bytes.tobytes(), files.modified_ns.tobytes(), str(source.schema).encode())
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in content)).hexdigest()


def original_of(copy: str) -> str | list[str]:
    """The source that a sorted copy was made of, as it was named, absolute.

    Raises:
        ConfigError: it is no sorted copy, or not there any more.
    """
    source: str | list[str] = _read_record(Path(copy))["source"]
    return source


def _read_record(folder: Path) -> dict[str, Any]:
    try:
        told: dict[str, Any] = json.loads((folder / RECORD).read_text())
        return told
    except (OSError, ValueError) as error:
        raise ConfigError(f"{folder} is no sorted copy: {error}. Remove it, or choose another destination.") from error


def _stands(asked: _Asked, may_replace: Callable[[], None] | None) -> bool:
    """Whether the copy is there, and whole; raises where it is not and must not be put there."""
    if asked.folder.exists():
        record = _read_record(asked.folder)
        differing = [name for name, value in asked.record.items() if record.get(name) != value]
        if not differing and record.get(_FILES) == _sizes(asked.folder):
            return True
        if differing and may_replace is None:
            raise DataError(
                f"{asked.folder} is a sorted copy that differs in its {', '.join(differing)}: the source changed "
                "since, or the command. Bring the source back as it was, or begin anew with --restart."
            )
    if may_replace is not None:
        may_replace()
    return False


def _remove_left(folder: Path) -> None:
    """Remove what processes of this machine left that were killed while they sorted; of others it tells."""
    others = list[str]()
    for path in folder.parent.glob(f"{glob.escape(folder.name)}.*"):
        match = _ASIDE.fullmatch(path.name[len(folder.name) + 1 :])
        if match and match["machine"] != _machine():
            others.append(path.name)
        elif match and not runs(int(match["pid"])):
            shutil.rmtree(path, ignore_errors=True)
    if others:
        logger.warning(
            "%s holds half-made sorted copies of other machines or containers, or of before this one started: %s. "
            "Remove them if nobody sorts there.", folder.parent, some_of(sorted(others), 4),
        )  # fmt: skip


def _aside(folder: Path) -> Path:
    """A name for what is no copy yet, or none any more; `_remove_left` knows it."""
    return folder.with_name(f"{folder.name}.{new_attempt()}.{_machine()}")


def _machine() -> str:
    """What `this_machine` says, short enough for a name."""
    return hashlib.sha256(this_machine().encode()).hexdigest()[:8]


def _seal(aside: Path, record: dict[str, Any]) -> None:
    """Make the files of a copy durable, then its record, which tells of them."""
    sizes = _sizes(aside)
    for name in sizes:
        with open(aside / name, "rb") as file:
            DISK.sync(file)
    with whole_file(aside / RECORD) as write:
        write(json.dumps({**record, _FILES: sizes}).encode())


def _sizes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in folder.glob("*.parquet")}


def _take_place(aside: Path, folder: Path) -> None:
    """Give the copy its name; that of another process, which was faster, is as good."""
    old = _aside(folder)
    if folder.exists() and not _is_as_good(folder, aside):
        with suppress(FileNotFoundError):  # another process did it just now
            os.rename(folder, old)
    try:
        os.rename(aside, folder)
    except OSError:
        if not folder.exists() or not _is_as_good(folder, aside):
            raise
    DISK.sync_folder(str(folder.parent))
    shutil.rmtree(old, ignore_errors=True)


def _is_as_good(folder: Path, aside: Path) -> bool:
    return _read_record(folder) == _read_record(aside) and _sizes(folder) == _sizes(aside)


def _write(source: Source, columns: Sequence[str], keys: Sequence[str], folder: Path, memory_bytes: int) -> None:
    """Sort the rows into files in a folder."""
    schema = _sortable(source, columns)
    duckdb = _duckdb()
    folder.mkdir(parents=True)
    plain = [_plain(pa.nulls(0, kind)).type for kind in schema.types]
    # Names of our own: DuckDB takes names that differ by case alone for one, and none that is empty.
    own = pa.schema([(f"c{place}", kind) for place, kind in enumerate([*plain, pa.int64()])])
    given, back = _Rows(read_rows(source, columns)), _Rows(())
    dictionaries: dict[int, pa.Array] = {}  # of ordered ones, whose order says which value is less
    places = [*map(schema.get_field_index, keys), len(schema)]  # the last is the number of the row
    told, order = ", ".join(own.names[:-1]), ", ".join(own.names[place] for place in places)
    spill = folder / "spill"
    with duckdb.connect() as connection:
        connection.execute(f"SET memory_limit = '{memory_bytes}B'; SET TimeZone = 'UTC'")
        connection.execute(f"SET temp_directory = '{str(spill).replace(chr(39), 2 * chr(39))}'")
        try:
            connection.register("events", pa.RecordBatchReader.from_batches(own, _numbered(given, own, dictionaries)))
            result = connection.sql(f"SELECT {told} FROM events ORDER BY {order}").to_arrow_reader(_GROUP_ROWS)
            back = _Rows(_as_before(batch, schema, dictionaries) for batch in result)
            _write_files(back, schema, folder)
        except (duckdb.Error, pa.ArrowException) as error:
            if given.error is not None:  # of reading, which DuckDB only repeats
                raise given.error from None
            if isinstance(error, duckdb.IOException | duckdb.OutOfMemoryException):  # the latter of a full disk, too
                raise OSError(str(error)) from error
            raise ConfigError(f"--sort: DuckDB cannot sort these columns: {one_line(str(error))}.") from error
    shutil.rmtree(spill, ignore_errors=True)
    if (given.rows, given.bits) != (back.rows, back.bits):
        raise ConfigError(
            f"--sort: DuckDB gave back other rows than it was given ({back.rows:,} of {given.rows:,}, or other values)."
            f" It may not hold all values of these types: {', '.join(map(str, schema.types))}. Sort by other means."
        )


def _sortable(source: Source, columns: Sequence[str]) -> pa.Schema:
    """The columns of the copy; a `ConfigError` if one is of a type that is not sorted."""
    schema = pa.schema([source.schema.field(name).with_metadata(None) for name in columns])
    for name, kind in zip(schema.names, schema.types, strict=True):
        if not is_comparable(kind):
            raise ConfigError(f"--sort: column {name!r} is {kind}; expected numbers, text, times or bytes. Drop it.")
    return schema


class _Rows:
    """Batches that pass through, and what they sum up to in whatever order; and the error that ended them."""

    def __init__(self, batches: Iterable[pa.RecordBatch]) -> None:
        self._batches = batches
        self.rows, self.bits = 0, 0
        self.error: Exception | None = None

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        try:
            for batch in self._batches:
                self.rows += batch.num_rows
                self.bits += int(hashes([comparable(column) for column in batch.columns]).sum(dtype=np.uint64))
                self.bits &= 2**64 - 1
                yield batch
        except Exception as error:
            self.error = error
            raise


def _numbered(
    batches: Iterable[pa.RecordBatch], schema: pa.Schema, dictionaries: dict[int, pa.Array]
) -> Iterator[pa.RecordBatch]:
    """Batches in types that DuckDB knows, and the number of each row, by which rows that are equal keep their order.

    The values of ordered dictionaries are put into `dictionaries`, by the number of their column.
    """
    first = 0
    for batch in batches:
        for number, column in enumerate(batch.columns):
            if pa.types.is_dictionary(column.type) and column.type.ordered:
                so_far = dictionaries.get(number, column.dictionary)
                if not so_far.equals(column.dictionary):
                    so_far = pc.unique(pa.concat_arrays([so_far, column.dictionary]))
                dictionaries[number] = so_far
        numbers = pa.array(np.arange(first, first + batch.num_rows))
        yield pa.RecordBatch.from_arrays([*map(_plain, batch.columns), numbers], schema=schema)
        first += batch.num_rows


def _plain(array: pa.Array) -> pa.Array:
    """Values in the same order, of a type that DuckDB holds: it has no float16, and time zones to the microsecond."""
    array = comparable(array)
    if pa.types.is_float16(array.type):
        return array.cast(pa.float32())
    if pa.types.is_temporal(array.type):
        return array.view(pa.int64() if array.type.bit_width == 64 else pa.int32())
    return array


def _as_before(batch: pa.RecordBatch, schema: pa.Schema, dictionaries: dict[int, pa.Array]) -> pa.RecordBatch:
    """A batch in the types of the source; ordered dictionaries are those of their columns."""
    arrays = []
    for number, (array, kind) in enumerate(zip(batch.columns, schema.types, strict=True)):
        if number in dictionaries:
            values = dictionaries[number]
            indices = pc.index_in(array.cast(kind.value_type), value_set=values).cast(kind.index_type)
            arrays.append(pa.DictionaryArray.from_arrays(indices, values, ordered=True))
            continue
        stored = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind
        array = array.view(stored) if pa.types.is_temporal(stored) else array.cast(stored)
        arrays.append(array if stored is kind else pa.ExtensionArray.from_storage(kind, array))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _write_files(batches: Iterable[pa.RecordBatch], schema: pa.Schema, folder: Path) -> None:
    """Row groups of one size, in files that a footer can describe."""
    numbers, writer = count(), None
    rows = 0
    try:
        for batch in batches:
            if writer is None or rows >= _FILE_ROWS:
                if writer is not None:
                    writer.close()
                path = folder / f"part-{next(numbers):05}.parquet"
                writer, rows = pq.ParquetWriter(path, schema, compression="zstd", write_page_checksum=True), 0
            writer.write_batch(batch, row_group_size=_GROUP_ROWS)
            rows += batch.num_rows
        if writer is None:
            writer = pq.ParquetWriter(folder / "part-00000.parquet", schema)
    finally:
        if writer is not None:
            writer.close()


def _duckdb() -> Any:
    try:
        import duckdb
    except ImportError as error:
        raise ConfigError("--sort needs DuckDB: pip install -e '.[duckdb]'.") from error
    return duckdb


@contextmanager
def _stopping(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoppedError(f"The sorted copy {folder} could not be written: {one_line(str(error))}.") from error
