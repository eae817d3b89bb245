"""One schema for files that differ, where nothing is lost; and in words, how they differ.

Which types can be one is `united.py`'s, what is said beside names and types `schemas.py`'s.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

import pyarrow as pa

from scanrnn_dist.errors import DataError, counted
from scanrnn_dist.source.layouts import Path, foreign_extensions
from scanrnn_dist.source.schemas import Metadata, agreed, agreed_metadata, metadata_of_many, plain
from scanrnn_dist.source.united import lacking, united

_TYPE_LETTERS = 200


@dataclass
class _Kind:
    """Files of the same columns: how many, the first, and the metadata of the last as they stand there."""

    schema: pa.Schema
    path: str
    metadata: Metadata
    files: int = 1


class Drift:
    """Gathers the schemas of files: columns in the order of the first file, then others as they come.

    Files are of few kinds as a rule, but for their metadata, so each kind is united once.
    """

    def __init__(self) -> None:
        self.extensions: dict[Path, str] = {}
        """Extension types that are not understood, by the columns and fields that have them in any file."""
        self.rounding: dict[str, str] = {}
        """Columns that only sequences may be read from, since float64 cannot hold all their integers; and why."""
        self._kinds: dict[bytes, _Kind] = {}
        self._schema: pa.Schema | None = None

    def add(self, schema: pa.Schema, path: str) -> None:
        """The schema of the next file; `DataError` if a column of it cannot be one with those before."""
        digest = hashlib.blake2b(memoryview(schema.remove_metadata().serialize()), digest_size=16).digest()
        metadata = schema.metadata
        if (kind := self._kinds.get(digest)) is None:
            own = plain(schema, path)
            self.extensions |= dict(found for field in own for found in foreign_extensions(field))
            self._schema = own if self._schema is None else self._united(self._schema, own, path)
            self._kinds[digest] = _Kind(own, path, metadata)
            return
        kind.files += 1
        if metadata != kind.metadata:
            kind.metadata = metadata
            both = agreed_metadata(self.schema.metadata, metadata_of_many(metadata))
            self._schema = self.schema.with_metadata(both)

    @property
    def schema(self) -> pa.Schema:
        """Of all files together."""
        assert self._schema is not None, "there is a file"
        return self._schema

    def is_in_all(self, name: str) -> bool:
        """Whether every file has the column."""
        return all(kind.schema.get_field_index(name) >= 0 for kind in self._kinds.values())

    def told(self, unreadable: Collection[str]) -> tuple[str, ...]:
        """How files differ from the schema of all, a line for each difference; not that some cannot give a column."""
        missing: Counter[str] = Counter()
        others: Counter[tuple[str, pa.DataType]] = Counter()
        for kind in self._kinds.values():
            has = {field.name: field.type for field in kind.schema}
            missing.update({field.name: kind.files for field in self.schema if field.name not in {*has, *unreadable}})
            others.update({
                (field.name, has[field.name]): kind.files
                for field in self.schema
                if field.name in has and has[field.name] != field.type
            })  # fmt: skip
        lines = [f"{counted(count, 'file')} without column {name!r}: nulls there" for name, count in missing.items()]
        lines += [
            f"{counted(count, 'file')} with {name!r} as {_short(kind)}: read as {_short(self.schema.field(name).type)}"
            for (name, kind), count in others.items()
        ]
        return tuple(lines)

    def _united(self, schema: pa.Schema, own: pa.Schema, path: str) -> pa.Schema:
        names, fields = set(own.names), []
        for field in schema:
            if field.name in names:
                fields.append(field.with_type(self._type(field, own.field(field.name).type, path)))
            else:
                fields.append(lacking(field))
        known = set(schema.names)
        new = [lacking(field) for field in own if field.name not in known]
        # What is said beside names and types, of columns that both have.
        both = pa.schema([field for field in fields if field.name in names], schema.metadata)
        theirs = pa.schema([own.field(field.name).with_type(field.type) for field in both], own.metadata)
        said = agreed(both, theirs)
        return pa.schema(
            [*(said.field(field.name) if field.name in names else field for field in fields), *new], said.metadata
        )

    def _type(self, field: pa.Field, its: pa.DataType, path: str) -> pa.DataType:
        kind = united(field.type, its)
        if kind is not None:
            return kind
        first, was = self._other(field.name, its) or (next(iter(self._kinds.values())).path, field.type)
        told = f"{path} has {field.name!r} as {_short(its)}, and {first} as {_short(was)}"
        kind = united(field.type, its, rounds=True)
        if kind is None:
            raise DataError(
                f"{told}: no type holds the values of both. Expected types that can be united without loss: write one "
                "of the files anew with the other's type, or run on each kind alone."
            )
        self.rounding.setdefault(field.name, told)
        return kind

    def _other(self, name: str, its: pa.DataType) -> tuple[str, pa.DataType] | None:
        """The first file, with its type, of which the column cannot be one with another type."""
        for kind in self._kinds.values():
            if kind.schema.get_field_index(name) >= 0 and united(kind.schema.field(name).type, its) is None:
                return kind.path, kind.schema.field(name).type
        return None


def _short(kind: pa.DataType) -> str:
    text = str(kind)
    return text if len(text) <= _TYPE_LETTERS else f"{text[: _TYPE_LETTERS - 3]}..."
