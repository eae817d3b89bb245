"""Sequences as one column of lists for each feature: the n-th values of all of them make the n-th step.

Each list may be of any kind, and columns may be of different types. They stay apart: `numbers.py` puts them together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa

from scanrnn_dist.source.layouts.layout import Asked, NamedFeatures, Steps
from scanrnn_dist.source.layouts.parallel_lists import parallel_steps
from scanrnn_dist.source.layouts.paths import Path, array_at, path_of


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
        features = cls.fitting(schema, asked.features) if asked.column is None else ()
        is_enough = len(features) > 1 if asked.features is None else features
        return [cls(features)] if is_enough else []

    def leaves(self, schema: pa.Schema) -> tuple[Path, ...]:
        return tuple(path_of(schema, name) for name in self.features)

    @property
    def described(self) -> str:
        return f"columns {self.features_told}"

    def steps(self, batch: pa.RecordBatch, in_features: int | None) -> Steps:
        arrays = [array_at(batch, path) for path in self.leaves(batch.schema)]
        return parallel_steps(arrays, self.features)
