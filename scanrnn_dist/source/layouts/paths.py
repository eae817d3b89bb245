"""Names of columns and of fields within structs: `a.b.c` is a way through structs, unless a column has that very name.

What the columns must hold is for each layout to say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pyarrow as pa
import pyarrow.compute as pc

from scanrnn_dist.errors import ConfigError, LayoutError, did_you_mean
from scanrnn_dist.source.layouts.lists import storage

Path = tuple[str, ...]
"""The name of a column, then those of the fields within it, from the outside in. Lists on the way have no name."""


def resolved(fields: pa.Schema | pa.StructType, name: str) -> Path | None:
    """The way that a name means; None if there is none.

    A column whose own name is `a.b` goes before the field `b` of a column `a`.

    Raises:
        LayoutError: several ways are spelled alike.

    Example:
        >>> schema = pa.schema([("a", pa.struct([("b.c", pa.int8())])), ("a.x", pa.int8())])
        >>> resolved(schema, "a.b.c"), resolved(schema, "a.x"), resolved(schema, "a.y")
        (('a', 'b.c'), ('a.x',), None)
    """
    if len(_indices(fields, name)) == 1:
        return (name,)
    ways = list(_ways(fields, name))
    if len(ways) > 1:
        told = " or ".join(" > ".join(map(repr, way)) for way in ways[:2])
        raise LayoutError(f"{name!r} may mean {told}; expected one meaning. Rename one of these fields.")
    return ways[0] if ways else None


def path_of(fields: pa.Schema | pa.StructType, name: str) -> Path:
    """As `resolved`; `ConfigError` where there is no such way."""
    path = resolved(fields, name)
    if path is None:
        raise ConfigError(
            f"{name!r} is no column of the source; expected one of {[field.name for field in fields]}."
            f"{did_you_mean(name, [field.name for field in fields])}"
        )
    return path


def columns_asked_for(
    schema: pa.Schema, column: str | None, is_one: Callable[[pa.DataType, bool], bool]
) -> Iterator[tuple[str, pa.DataType]]:
    """The column that is asked for with its type, or all columns, as far as `is_one(type, is_asked)` says yes."""
    if column is None:
        yield from ((field.name, field.type) for field in schema if is_one(field.type, False))
    elif (path := resolved(schema, column)) is not None:
        type = field_at(schema, path).type
        if is_one(type, True):
            yield column, type


def field_at(fields: pa.Schema | pa.StructType, path: Path) -> pa.Field:
    """The field that a way leads to, through structs."""
    field = fields.field(path[0])
    for name in path[1:]:
        field = field.type.field(name)
    return field


def array_at(batch: pa.RecordBatch, path: Path) -> pa.Array:
    """The values that a way leads to in a batch; null where a struct on the way is."""
    return within(batch.column(path[0]), path[1:])


def within(array: pa.Array, path: Path) -> pa.Array:
    """The values that a way leads to in an array of structs; null where one of the structs is."""
    for name in path:
        array = storage(array)
        index = array.type.get_field_index(name)
        # 0.3 us instead of 12, of which there may be one for each feature.
        array = pc.struct_field(array, [index]) if array.null_count else array.field(index)
    return array


def _indices(fields: pa.Schema | pa.StructType, name: str) -> list[int]:
    found = fields.get_all_field_indices(name)
    return list(found)


def _ways(fields: pa.Schema | pa.StructType, name: str) -> Iterator[Path]:
    """All ways that are spelled like this."""
    for _ in _indices(fields, name):
        yield (name,)
    dot = name.find(".")
    while dot >= 0:
        first, rest = name[:dot], name[dot + 1 :]
        for index in _indices(fields, first):
            kind = fields.field(index).type
            if pa.types.is_struct(kind):
                yield from ((first, *way) for way in _ways(kind, rest))
        dot = name.find(".", dot + 1)
