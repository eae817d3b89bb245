"""A plan as two small Parquet files, so that a job that goes on reads neither the source's footers nor its listing.

    files.table    per file: path, size_bytes, modified_ns; in its metadata all that is no column
    units.table    per unit: file, group_rows, nbytes, values, and where rows of the files are events rows, skip, tail

They are not named `*.parquet`, since a reader that is given `**/*.parquet` would take them for rows.

Where a unit starts in its file follows from the units before it. Sorted paths are stored by what differs from the path
before, numbers by their differences. `job_file.py` holds both against their hashes before they are read.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from scanrnn_dist.errors import DataError
from scanrnn_dist.ragged import running_sums
from scanrnn_dist.records.arrow_bytes import reader_of
from scanrnn_dist.records.names import FILES, UNITS
from scanrnn_dist.source import UNKNOWN_TIME, Asked, FileTable, Spans, Units

FORMAT = "scanrnn_dist.plan/4"
KNOWN_FORMATS = ("scanrnn_dist.plan/3", FORMAT)  # the former tells its rows too, which nobody asks for
_KEY = b"scanrnn_dist"
_required = partial(pa.field, nullable=False)
_FILES_SCHEMA = pa.schema(
    [_required("path", pa.large_string()), _required("size_bytes", pa.int64()), ("modified_ns", pa.int64())]
)
_GIVEN = _required("given", pa.large_string())  # where files were named otherwise than their paths
_ROWS = pa.list_(_required("element", pa.int64()))
_NUMBERS = [_required("nbytes", pa.int64()), _required("values", pa.int64())]
_SPANS = [_required(name, pa.int64()) for name in ("rows", "skip", "tail")]
_UNITS_SCHEMA = pa.schema([_required("file", pa.int32()), _required("group_rows", _ROWS), *_NUMBERS])


@dataclass(frozen=True)
class Facts:
    """What a plan is besides its files and units; each as in `Plan`, and the schema of its source.

    `left_out` are files that cannot be read: path, size, time and reason.
    """

    given: str | list[str]
    asked: Asked
    keep: tuple[str, ...]
    rows_per_part: int | None
    schema: pa.Schema
    limit: int | None = None
    left_out: tuple[tuple[str, int, int | None, str], ...] = ()


def write_records(facts: Facts, units: Units) -> dict[str, bytes]:
    """The content of both files by their names."""
    groups = pa.ListArray.from_arrays(pa.array(units.offsets, pa.int32()), pa.array(units.group_rows), type=_ROWS)
    columns = [pa.array(units.file), groups, pa.array(units.nbytes), pa.array(units.values)]
    table = pa.Table.from_arrays(columns, schema=_UNITS_SCHEMA)
    for field in () if units.spans is None else _SPANS:
        table = table.append_column(field, pa.array(getattr(units.spans, field.name)))
    return {FILES: _files_record(facts, units.files), UNITS: _encoded(table, {})}


def hashes_of(records: Mapping[str, bytes]) -> dict[str, str]:
    """SHA-256 of every record, in hexadecimal."""
    return {name: hashlib.sha256(content).hexdigest() for name, content in records.items()}


def read_records(records: Mapping[str, bytes]) -> tuple[Facts, Units]:
    """What was written.

    Raises:
        DataError: a record of another format; it is named.
    """
    table, _ = _decoded(UNITS, records[UNITS])
    facts, files = _read_files(*_decoded(FILES, records[FILES]))
    return facts, _read_units(table, files)


def read_weights(records: Mapping[str, bytes]) -> tuple[np.ndarray, np.ndarray]:
    """Rows and values of every unit, `(U,)` int64 each, from the record of the units alone."""
    table, _ = _decoded(UNITS, records[UNITS])
    if spans := _spans(table):
        return spans.rows, table["values"].to_numpy()
    groups = table["group_rows"].combine_chunks()
    rows = np.diff(running_sums(groups.flatten().to_numpy())[groups.offsets.to_numpy()])
    return rows, table["values"].to_numpy()


def _files_record(facts: Facts, files: FileTable) -> bytes:
    times = pa.array(files.modified_ns, mask=files.modified_ns == UNKNOWN_TIME)
    table = pa.Table.from_arrays([files.paths.cast(pa.large_string()), pa.array(files.sizes_bytes), times],
                                 schema=_FILES_SCHEMA)  # fmt: skip
    # Beside files that were left out, or of an update, whose files are parts, there are others than were named.
    is_each = not isinstance(facts.given, str) and len(facts.given) == len(files)
    if is_each:
        given = pa.array(facts.given, pa.large_string())
        table = table if given.equals(files.paths) else table.append_column(_GIVEN, given)
    said = {
        "source": None if is_each else facts.given,
        "sequences": asdict(facts.asked),
        "keep": facts.keep,
        "rows_per_part": facts.rows_per_part,
        "schema": _text(facts.schema),
        "partition_base": files.partition_base,
        "partition_schema": _text(files.partition_schema),
        "limit": facts.limit,
        "left_out": facts.left_out,
    }
    return _encoded(table, said)


def _read_files(table: pa.Table, said: dict[str, Any]) -> tuple[Facts, FileTable]:
    paths = table["path"].cast(pa.large_string()).combine_chunks()
    times = table["modified_ns"].fill_null(UNKNOWN_TIME).to_numpy()
    fields = _schema(said["partition_schema"])
    files = FileTable(paths, table["size_bytes"].to_numpy(), times, said["partition_base"], fields)
    given = said["source"]
    if given is None:
        given = (table[_GIVEN.name] if _GIVEN.name in table.column_names else paths).to_pylist()
    schema = _schema(said["schema"])
    asked, keep, left_out = _asked(said["sequences"]), tuple(said["keep"]), tuple(map(tuple, said["left_out"]))
    return Facts(given, asked, keep, said["rows_per_part"], schema, said["limit"], left_out), files


def _asked(said: Mapping[str, Any]) -> Asked:
    told: dict[str, Any] = {name: tuple(it) if isinstance(it, list) else it for name, it in said.items()}
    return Asked(**told)


def _read_units(table: pa.Table, files: FileTable) -> Units:
    groups = table["group_rows"].combine_chunks()
    file, nbytes, values = (table[name].to_numpy() for name in ("file", "nbytes", "values"))
    offsets, group_rows = running_sums(groups.value_lengths().to_numpy()), groups.flatten().to_numpy()
    return Units(files, file, offsets, group_rows, nbytes, values, _spans(table))


def _spans(table: pa.Table) -> Spans | None:
    """The columns of units of events; None of other units."""
    if _SPANS[0].name not in table.column_names:
        return None
    return Spans(*(table[field.name].to_numpy() for field in _SPANS))


def _encoded(table: pa.Table, said: dict[str, Any]) -> bytes:
    """A table as Parquet, with `said` in its metadata."""
    sink = pa.BufferOutputStream()
    leaves = [f"{field.name}.list.element" if pa.types.is_list(field.type) else field.name for field in table.schema]
    encodings = {
        leaf: "DELTA_BYTE_ARRAY" if pa.types.is_large_string(field.type) else "DELTA_BINARY_PACKED"
        for leaf, field in zip(leaves, table.schema, strict=True)
    }
    with pq.ParquetWriter(
        sink, table.schema, compression="zstd", use_dictionary=False, column_encoding=encodings,
        write_statistics=False, store_schema=False,
    ) as writer:  # fmt: skip
        writer.write_table(table)
        writer.add_key_value_metadata({_KEY: json.dumps({"format": FORMAT, **said})})
    content: bytes = sink.getvalue().to_pybytes()
    return content


def _decoded(name: str, content: bytes) -> tuple[pa.Table, dict[str, Any]]:
    """The table, and what its metadata says; a `DataError` if that is of another format."""
    parquet = pq.ParquetFile(reader_of(content))
    said = json.loads(parquet.metadata.metadata[_KEY])
    if said["format"] not in KNOWN_FORMATS:
        raise DataError(f"{name} is of the format {said['format']!r}; expected {FORMAT!r}: another version wrote it.")
    # In batches, which takes half the memory: 150 MB for a million files.
    batches = parquet.iter_batches(1 << 16, use_threads=False)
    return pa.Table.from_batches(batches, parquet.schema_arrow), said


def _text(schema: pa.Schema) -> str:
    return base64.b64encode(schema.serialize().to_pybytes()).decode()


def _schema(text: str) -> pa.Schema:
    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(text)))
