"""Which leaves of a Parquet file are a column, or some field within its structs, however the file names its lists.

Writers name the levels of a list in several ways, of which Arrow's types keep none; but the leaves of both stand in one
order. Only what is asked for is then read and checked.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import accumulate

import pyarrow as pa

from scanrnn_dist.source.parquet.budget import least_row_bytes
from scanrnn_dist.source.parquet.footer import Footer

Path = tuple[str, ...]
"""The name of a column, then those of fields within it; lists on the way have no name."""


class Leaves:
    """Which leaves a file's columns, and fields within them, are; what was counted once is kept.

    Args:
        footer: of the file.
        schema: of the file, as pyarrow gives it.
    """

    def __init__(self, footer: Footer, schema: pa.Schema) -> None:
        self._footer, self._schema = footer, schema
        self._of_column = defaultdict[str, list[int]](list)
        for number, leaf in enumerate(footer.leaves):
            self._of_column[footer.names[leaf.column]].append(number)
        self._bounds = dict[Path, list[int]]()

    def of(self, path: Path) -> list[int]:
        """The numbers of the leaves that a way leads to; none if there is no such column.

        Of a field that is not there, one leaf that stands beside it: that says how long lists are, and what is null.
        Of what stands within an extension type, all leaves of that type: pyarrow gives it whole.
        """
        leaves = self._of_column.get(path[0], [])
        if len(path) == 1 or not leaves:
            return leaves
        if self._schema.get_field_index(path[0]) < 0:
            return []  # pyarrow cannot give it
        if path[0] not in self._stored_alike:
            return leaves  # the column is read whole
        kind, begin, end = self._schema.field(path[0]).type, 0, len(leaves)
        for depth, name in enumerate(path[1:], 1):
            kind, index = _field_of(kind, name)
            if isinstance(kind, pa.BaseExtensionType):
                break
            if index < 0:
                return leaves[begin : begin + 1]
            bounds = self._bounds_of(path[:depth], kind)
            begin, end = begin + bounds[index], begin + bounds[index + 1]
            kind = kind.field(index).type
        return leaves[begin:end]

    def names_for(self, paths: Sequence[Path]) -> list[str]:
        """What makes pyarrow read these columns and fields (and maybe more, where dotted names are alike)."""
        told = [[path[0]] if len(path) == 1 else [self._footer.leaves[leaf].name for leaf in self.of(path)]
                for path in paths]  # fmt: skip
        return list(dict.fromkeys(name for names in told for name in names))

    def decoded_bytes(self, path: Path, row_groups: Iterable[int]) -> int | None:
        """About what a column, or a field within it, of these row groups takes once it is decoded.

        By the footer's numbers of values and the widths of their types; None where only the values tell, as of texts.
        At least what the type takes of each row, be it null.
        Of lists within lists the offsets are left out: nobody knows how many there are.
        """
        leaves, kinds = self.of(path), list(_leaf_types(type_at(self._schema, path)))
        if len(leaves) != len(kinds):
            return None
        nbytes, least, least_row = 0, 0, least_row_bytes(type_at(self._schema, path))
        for group in (self._footer.row_groups[number] for number in row_groups):
            for leaf, kind in zip(leaves, kinds, strict=True):
                types = pa.types
                if not (types.is_primitive(kind) or types.is_decimal(kind) or types.is_fixed_size_binary(kind)):
                    return None
                nbytes += group.chunks[leaf].values * kind.bit_width // 8
                nbytes += 4 * group.rows * (self._footer.leaves[leaf].max_repetition > 0)
            least += group.rows * least_row
        return max(nbytes, least)

    def stored_bytes(self, path: Path, row_groups: Iterable[int]) -> int:
        """What a column, or a field within it, of these row groups takes before it is compressed.

        Of texts in dictionaries nothing, since only their indices are of rows.
        """
        leaves, kinds = self.of(path), list(_leaf_types(type_at(self._schema, path)))
        if len(leaves) != len(kinds):
            return 0
        of_rows = [leaf for leaf, kind in zip(leaves, kinds, strict=True) if not pa.types.is_dictionary(kind)]
        groups = [self._footer.row_groups[number] for number in row_groups]
        return sum(group.chunks[leaf].uncompressed_bytes for group in groups for leaf in of_rows)

    def values(self, path: Path, row_groups: Iterable[int]) -> int:
        """About how many values are in the lists or maps of these row groups that a way leads to, at most."""
        groups = [self._footer.row_groups[number] for number in row_groups]
        return min(sum(group.chunks[leaf].values for group in groups) for leaf in self.of(path))

    @cached_property
    def _stored_alike(self) -> set[str]:
        """The columns of which the file has as many leaves as their types are stored as here."""
        return {
            field.name for field in self._schema if leaf_count(field.type) == len(self._of_column.get(field.name, ()))
        }

    def _bounds_of(self, path: Path, kind: pa.StructType) -> list[int]:
        """How many leaves of a struct stand before each of its fields, and how many it has; counted once."""
        if path not in self._bounds:
            counts = (leaf_count(kind.field(number).type) for number in range(kind.num_fields))
            self._bounds[path] = list(accumulate(counts, initial=0))
        return self._bounds[path]


def type_at(schema: pa.Schema, path: Path) -> pa.DataType:
    """The type of a column, or of a field within it; of what is not there that of the last one on the way.

    Within an extension type that type.
    """
    kind = schema.field(path[0]).type
    for name in path[1:]:
        kind, index = _field_of(kind, name)
        if index < 0:
            break
        kind = kind.field(index).type
    return kind


def _field_of(kind: pa.DataType, name: str) -> tuple[pa.DataType, int]:
    """What a type is within its lists, and the number of its field of that name; -1 if it has none."""
    while not pa.types.is_struct(kind) and kind.num_fields == 1:
        kind = kind.field(0).type
    return kind, kind.get_field_index(name) if pa.types.is_struct(kind) else -1


def leaf_count(kind: pa.DataType) -> int:
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
