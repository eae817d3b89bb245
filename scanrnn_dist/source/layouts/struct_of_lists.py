"""Sequences as structs of lists: each field holds one feature of all steps, the n-th values make the n-th step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa

from scanrnn_dist.source.layouts.layout import Steps
from scanrnn_dist.source.layouts.parallel_lists import parallel_steps
from scanrnn_dist.source.layouts.paths import array_at, path_of, within
from scanrnn_dist.source.layouts.struct_fields import StructFields


@dataclass(frozen=True)
class StructOfLists(StructFields):
    """One column of structs, whose fields are lists of equal lengths; or such a field within structs.

    Example:
        >>> batch = pa.record_batch({"seq": pa.array([{"x": [1, 2], "y": [3, 4]}])})
        >>> steps = StructOfLists("seq", ("y", "x")).steps(batch, None)
        >>> steps.offsets.tolist(), [array.to_pylist() for array in steps.values]
        ([0, 2], [[3, 4], [1, 2]])
    """

    name: ClassVar[str] = "struct-of-lists"
    words: ClassVar[str] = "a struct of lists"

    @staticmethod
    def struct_of(type: pa.DataType) -> pa.StructType | None:
        return type if pa.types.is_struct(type) else None

    def steps(self, batch: pa.RecordBatch, in_features: int | None) -> Steps:
        path, type = self._type(batch.schema)
        structs = array_at(batch, path)
        arrays = [within(structs, path_of(type, name)) for name in self.features]
        return parallel_steps(arrays, self.features)
