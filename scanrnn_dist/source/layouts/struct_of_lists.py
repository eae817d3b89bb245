"""Sequences as structs of lists: each field holds one feature of all steps, the n-th values make the n-th step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa

from scanrnn_dist.source.layouts.layout import Asked, NamedFeatures, Steps
from scanrnn_dist.source.layouts.parallel_lists import parallel_steps
from scanrnn_dist.source.layouts.paths import (
    Path,
    array_at,
    columns_asked_for,
    field_at,
    path_of,
    spelled_fields,
    within,
)
from scanrnn_dist.source.layouts.types import is_plain_number, list_value


@dataclass(frozen=True)
class StructOfLists(NamedFeatures):
    """One column of structs, whose fields are lists of equal lengths; or such a field within structs.

    Example:
        >>> batch = pa.record_batch({"seq": pa.array([{"x": [1, 2], "y": [3, 4]}])})
        >>> steps = StructOfLists("seq", ("y", "x")).steps(batch, None)
        >>> steps.offsets.tolist(), [array.to_pylist() for array in steps.values]
        ([0, 2], [[3, 4], [1, 2]])
    """

    name: ClassVar[str] = "struct-of-lists"
    words: ClassVar[str] = "a struct of lists"
    column: str
    features: tuple[str, ...]

    @classmethod
    def candidates(cls, schema: pa.Schema, asked: Asked) -> list[StructOfLists]:
        found = columns_asked_for(schema, asked.column, lambda type, _: pa.types.is_struct(type))
        chosen = ((name, spelled_fields(type, asked.features, list_value, is_plain_number)) for name, type in found)
        return [cls(name, features) for name, features in chosen if features]

    def leaves(self, schema: pa.Schema) -> tuple[Path, ...]:
        above, type = self._type(schema)
        return tuple((*above, *path_of(type, name)) for name in self.features)

    @property
    def described(self) -> str:
        return f"column {self.column!r}, fields {self.features_told}"

    def types(self, schema: pa.Schema) -> tuple[pa.DataType, ...]:
        return tuple(list_value(field_at(schema, path).type) for path in self.leaves(schema))

    def steps(self, batch: pa.RecordBatch, in_features: int | None) -> Steps:
        path, type = self._type(batch.schema)
        structs = array_at(batch, path)
        arrays = [within(structs, path_of(type, name)) for name in self.features]
        return parallel_steps(arrays, self.features, in_features)

    def fields(self, schema: pa.Schema) -> pa.DataType:
        return self._type(schema)[1]

    def _type(self, schema: pa.Schema) -> tuple[Path, pa.DataType]:
        path = path_of(schema, self.column)
        return path, field_at(schema, path).type
