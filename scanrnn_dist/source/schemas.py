"""The schema of many files as one, and what a writer said beside names and types, as far as it is true of an output.

A field keeps its metadata (`PARQUET:field_id`, the name of an extension type, comments) as far as all files agree on
it, key by key, and is required only where every file says so. The same holds for the metadata of the schema. What is
said there of single columns (by pandas, Hugging Face `datasets`, GeoParquet) is cut to the columns that an output has;
what describes all columns in a way that cannot be cut is dropped, since a reader would believe it. Columns that differ
are united by `drift.py`; which column holds the sequences is for `layouts/`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import pyarrow as pa

from scanrnn_dist.errors import DataError
from scanrnn_dist.source.united import with_wide_indices

Metadata = Mapping[bytes, bytes] | None

_DESCRIBE_ALL_COLUMNS = {
    b"org.apache.spark.sql.parquet.row.metadata", b"parquet.avro.schema", b"avro.schema", b"writer.model.name",
    b"iceberg.schema", b"parquet.proto.class", b"parquet.proto.descriptor", b"thrift.class", b"thrift.descriptor",
    b"ARROW:schema", b"scanrnn_dist",
}  # fmt: skip


def plain(schema: pa.Schema, path: str) -> pa.Schema:
    """The schema of a file without what holds for the file alone, such as how many values its dictionaries may have.

    Raises `DataError` for two columns of one name.
    """
    twice = sorted(name for name, count in Counter(schema.names).items() if count > 1)
    if twice:
        raise DataError(f"{path} has several columns named {twice[0]!r}; expected every name once. Rename one of them.")
    fields = [field.with_type(with_wide_indices(field.type)) for field in schema]
    return pa.schema(fields, metadata_of_many(schema.metadata))


def metadata_of_many(metadata: Metadata) -> Metadata:
    """The metadata of a file without what holds for the file alone."""
    return _changed(metadata, _of_many_files, frozenset(), None)


def agreed(schema: pa.Schema, other: pa.Schema) -> pa.Schema:
    """What two schemas of the same columns say both; the order of the columns is that of the first."""
    if schema.equals(other, check_metadata=True):
        return schema
    fields = []
    for field in schema:
        its = other.field(field.name)
        said = {key: value for key, value in (field.metadata or {}).items() if (its.metadata or {}).get(key) == value}
        fields.append(pa.field(field.name, field.type, field.nullable or its.nullable, said or None))
    return pa.schema(fields, agreed_metadata(schema.metadata, other.metadata))


def agreed_metadata(metadata: Metadata, other: Metadata) -> Metadata:
    """What the metadata of two schemas say both."""
    theirs = other or {}
    said = {
        key: value
        for key, value in (metadata or {}).items()
        if key in theirs and (theirs[key] == value or _told(key, theirs[key]) == _told(key, value))
    }
    return said or None


def with_true_metadata(schema: pa.Schema, metadata: Metadata, *features: str) -> pa.Schema:
    """The schema of an output with what is true of it of a source's metadata; the source had no columns `features`."""
    names = frozenset(schema.names)
    return schema.with_metadata(
        _changed(metadata, _of_columns, names, pa.schema([schema.field(it) for it in features]))
    )


_Change = Callable[[bytes, Any, frozenset[str], pa.Schema | None], Any]


def _changed(metadata: Metadata, change: _Change, names: frozenset[str], features: pa.Schema | None) -> Metadata:
    """Metadata with the values that are understood changed, and those dropped that cannot be kept true."""
    said = {}
    for key, value in (metadata or {}).items():
        if key in _DESCRIBE_ALL_COLUMNS:
            continue
        if key in (b"pandas", b"huggingface", b"geo"):
            try:
                changed = change(key, json.loads(value), names, features)
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                continue  # not what that library writes, so nobody can rely on it
            if changed is None:
                continue
            value = json.dumps(changed).encode()
        said[key] = value
    return said or None


def _of_many_files(key: bytes, said: dict[str, Any], *_: Any) -> dict[str, Any]:
    """Without what is said of one file: its rows, its extent, its fingerprint."""
    if key == b"pandas":
        indices = [index for index in said["index_columns"] if isinstance(index, str)]  # others are ranges of rows
        return {**said, "index_columns": indices}
    if key == b"geo":
        columns = {name: _without(column, "bbox") for name, column in said["columns"].items()}
        return {**said, "columns": columns}
    return _without(said, "fingerprint")


def _of_columns(key: bytes, said: dict[str, Any], names: frozenset[str], features: pa.Schema) -> dict[str, Any] | None:
    """Cut to the columns of these names; None where nothing is left to say."""
    if key == b"pandas":
        columns = [column for column in said["columns"] if column["field_name"] in names]
        indices = [index for index in said["index_columns"] if index in names]
        levels = said.get("column_indexes", [])
        # Labels that are no text, or have several levels: pandas would parse the new column's name as one.
        are_texts = len(levels) == 1 and levels[0]["pandas_type"] in ("unicode", "string", "empty")
        return {**said, "columns": columns, "index_columns": indices, "column_indexes": levels if are_texts else []}
    if key == b"geo":
        located = {name: column for name, column in said["columns"].items() if name in names}
        return {**said, "columns": located} if said["primary_column"] in located else None
    described = {name: feature for name, feature in said["info"]["features"].items() if name in names}
    described |= {field.name: _feature(field.type) for field in features}
    return {**said, "info": {"features": described}}


def _feature(kind: pa.DataType) -> dict[str, Any]:
    """What `datasets` calls lists of numbers, of fixed length or not; as "Sequence", which all its versions know."""
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    if not pa.types.is_nested(kind):
        names = {"halffloat": "float16", "float": "float32", "double": "float64"}
        return {"dtype": names.get(str(kind), str(kind)), "_type": "Value"}
    length = kind.list_size if pa.types.is_fixed_size_list(kind) else -1
    return {"feature": _feature(kind.value_type), "length": length, "_type": "Sequence"}


@lru_cache(maxsize=64)
def _told(key: bytes, value: bytes) -> Any:
    """What two files must agree on: not which version of pandas wrote them."""
    return _without(json.loads(value), "pandas_version", "creator") if key == b"pandas" else value


def _without(said: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in said.items() if name not in names}
