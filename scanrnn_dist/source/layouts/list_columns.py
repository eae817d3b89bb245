"""Sequences as one column of lists for each feature: the n-th values of all of them make the n-th step.

Each list may be of any kind, and columns may be of different types. They stay apart: `numbers.py` puts them together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa

from scanrnn_dist.source.layouts.layout import Asked, NamedFeatures, Steps
from scanrnn_dist.source.layouts.parallel_lists import parallel_steps
from scanrnn_dist.source.layouts.paths import Path, array_at, field_at, path_of, resolved
from scanrnn_dist.source.layouts.types import is_plain_number, list_value


@dataclass(frozen=True)
class ListColumns(NamedFeatures):
    """Columns of lists of equal lengths, or such fields within structs, one for each feature.

    Example:
        >>> batch = pa.record_batch({"x": pa.array([[1, 2], []]), "y": pa.array([[0.5, 1.5], []])})
        >>> steps = ListColumns(("y", "x")).steps(batch, None)
        >>> steps.offsets.tolist(), [array.to_pylist() for array in steps.values]
        ([0, 2, 2], [[0.5, 1.5], [1, 2]])
    """

    name: ClassVar[str] = "list-columns"
    words: ClassVar[str] = "one list column per feature; --features a,b chooses some"
    features: tuple[str, ...]

    @classmethod
    def candidates(cls, schema: pa.Schema, asked: Asked) -> list[ListColumns]:
        if asked.features is not None:
            paths = [resolved(schema, name) for name in asked.features] if asked.column is None else [None]
            types = [None if path is None else list_value(field_at(schema, path).type) for path in paths]
            return [cls(asked.features)] if types and None not in types else []
        lists = [field.name for field in schema if is_plain_number(list_value(field.type) or pa.null())]
        return [cls(tuple(lists))] if len(lists) > 1 else []

    def leaves(self, schema: pa.Schema) -> tuple[Path, ...]:
        return tuple(path_of(schema, name) for name in self.features)

    @property
    def described(self) -> str:
        return f"columns {self.features_told}"

    def steps(self, batch: pa.RecordBatch, in_features: int | None) -> Steps:
        arrays = [array_at(batch, path) for path in self.leaves(batch.schema)]
        return parallel_steps(arrays, self.features)
