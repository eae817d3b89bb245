"""Which leaves of a Parquet file are a column, or some field within its structs, however the file names its lists.

Writers name the levels of a list in several ways, of which Arrow's types keep none; but the leaves of both stand in one
order. Only what is asked for is then read and checked.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa

from scanrnn_dist.source.parquet.footer import Footer

Path = tuple[str, ...]
"""The name of a column, then those of fields within it; lists on the way have no name."""


def leaves_of(footer: Footer, schema: pa.Schema, path: Path) -> list[int]:
    """The numbers of the leaves that a way leads to; none if there is no such column.

    Of a field that is not there, one leaf that stands beside it: that says how long lists are, and what is null.

    Args:
        footer: of the file.
        schema: of the file, as pyarrow gives it.
        path: the way.
    """
    names = footer.names
    leaves = [number for number, leaf in enumerate(footer.leaves) if names[leaf.column] == path[0]]
    if len(path) == 1 or not leaves:
        return leaves
    if path[0] not in schema.names:
        return []  # pyarrow cannot give it
    kind = schema.field(path[0]).type
    if _count(kind) != len(leaves):
        return leaves  # a type that is not stored as it is here: the column is read whole
    begin = 0
    for name in path[1:]:
        while not pa.types.is_struct(kind) and kind.num_fields == 1:
            kind = kind.field(0).type
        index = kind.get_field_index(name) if pa.types.is_struct(kind) else -1
        if index < 0:
            return leaves[begin : begin + 1]
        begin += sum(_count(kind.field(before).type) for before in range(index))
        kind = kind.field(index).type
    return leaves[begin : begin + _count(kind)]


def type_at(schema: pa.Schema, path: Path) -> pa.DataType:
    """The type of a column, or of a field within it; of what is not there that of the last one on the way."""
    kind = schema.field(path[0]).type
    for name in path[1:]:
        while not pa.types.is_struct(kind) and kind.num_fields == 1:
            kind = kind.field(0).type
        index = kind.get_field_index(name) if pa.types.is_struct(kind) else -1
        if index < 0:
            break
        kind = kind.field(index).type
    return kind


def names_for(footer: Footer, schema: pa.Schema, paths: Sequence[Path]) -> list[str]:
    """What makes pyarrow read these columns and fields (and maybe more, where dotted names are alike)."""
    told = [[path[0]] if len(path) == 1 else [footer.leaves[leaf].name for leaf in leaves_of(footer, schema, path)]
            for path in paths]  # fmt: skip
    return list(dict.fromkeys(name for names in told for name in names))


def decoded_bytes(footer: Footer, schema: pa.Schema, path: Path, row_groups: Iterable[int]) -> int | None:
    """About what a column, or a field within it, of these row groups takes once it is decoded.

    By the footer's numbers of values and the widths of their types; None where only the values tell, as of texts. Of
    lists within lists the offsets are left out: nobody knows how many there are.
    """
    leaves, kinds = leaves_of(footer, schema, path), list(_leaf_types(type_at(schema, path)))
    if len(leaves) != len(kinds):
        return None
    nbytes = 0
    for group in (footer.row_groups[number] for number in row_groups):
        for leaf, kind in zip(leaves, kinds, strict=True):
            types = pa.types
            if not (types.is_primitive(kind) or types.is_decimal(kind) or types.is_fixed_size_binary(kind)):
                return None
            nbytes += group.chunks[leaf].values * kind.bit_width // 8
            nbytes += 4 * group.rows * (footer.leaves[leaf].max_repetition > 0)
    return nbytes


def _count(kind: pa.DataType) -> int:
    """The leaves that a type is stored as."""
    return sum(1 for _ in _leaf_types(kind))


def _leaf_types(kind: pa.DataType) -> Iterator[pa.DataType]:
    """The types of the leaves that a type is stored as; of texts in a dictionary the dictionary."""
    while isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    if pa.types.is_nested(kind):
        for number in range(kind.num_fields):
            yield from _leaf_types(kind.field(number).type)
    elif pa.types.is_dictionary(kind) and pa.types.is_nested(kind.value_type):
        yield from _leaf_types(kind.value_type)
    else:
        yield kind
