"""Sequences as lists of structs: each struct is a step, its fields are the features. A null struct is a null step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa

from scanrnn_dist.source.layouts.layout import Fault, Steps
from scanrnn_dist.source.layouts.lists import is_list, null_places, storage, taken_apart
from scanrnn_dist.source.layouts.nested_lists import NULL_SEQUENCE
from scanrnn_dist.source.layouts.paths import array_at, path_of, within
from scanrnn_dist.source.layouts.struct_fields import StructFields
from scanrnn_dist.source.layouts.types import plain_type, value_type


@dataclass(frozen=True)
class ListOfStructs(StructFields):
    """One column of lists of structs, of which some fields are read; or such a field within structs.

    Example:
        >>> batch = pa.record_batch({"seq": pa.array([[{"x": 1, "y": 3}, {"x": 2, "y": 4}], []])})
        >>> steps = ListOfStructs("seq", ("y", "x")).steps(batch, None)
        >>> steps.offsets.tolist(), [array.to_pylist() for array in steps.values]
        ([0, 2, 2], [[3, 4], [1, 2]])
    """

    name: ClassVar[str] = "list-of-structs"
    words: ClassVar[str] = "a list of structs"

    @staticmethod
    def struct_of(type: pa.DataType) -> pa.StructType | None:
        type = plain_type(type)
        if not is_list(type):
            return None
        step = plain_type(type.value_type)
        return step if pa.types.is_struct(step) else None

    @staticmethod
    def value_of(type: pa.DataType) -> pa.DataType | None:
        return value_type(type)

    def steps(self, batch: pa.RecordBatch, in_features: int | None) -> Steps:
        path, struct = self._type(batch.schema)
        column = storage(array_at(batch, path))
        offsets, structs = taken_apart(column)
        values = tuple(storage(within(structs, path_of(struct, name))) for name in self.features)
        faults = tuple(Fault(int(row), "null_sequence", NULL_SEQUENCE) for row in null_places(column))
        return Steps(offsets, values, len(self.features), faults, self.features)
