"""Sequences as flat lists: a row is one list of T times D numbers, step after step; how many `D` is, must be told.

Each list may be of any kind. Vectorised; float32 is taken as a view of Arrow's buffer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from scanrnn_dist.source.layouts.layout import Asked, Fault, Layout, Steps
from scanrnn_dist.source.layouts.lists import null_places, storage, taken_apart, without_rows
from scanrnn_dist.source.layouts.nested_lists import NULL_SEQUENCE
from scanrnn_dist.source.layouts.paths import Path, array_at, columns_asked_for, field_at, path_of
from scanrnn_dist.source.layouts.types import is_list_of_steps, last_value, list_value


@dataclass(frozen=True)
class FlatLists(Layout):
    """One column of lists of numbers, of which `in_features` make a step.

    Example:
        >>> batch = pa.record_batch({"seq": pa.array([[1, 2, 3, 4], []])})
        >>> steps = FlatLists("seq", 2).steps(batch, None)
        >>> steps.offsets.tolist(), steps.values.to_pylist(), steps.in_features
        ([0, 2, 2], [1, 2, 3, 4], 2)
    """

    name: ClassVar[str] = "flat-lists"
    words: ClassVar[str] = "a flat list for each row"
    column: str
    in_features: int

    @classmethod
    def candidates(cls, schema: pa.Schema, asked: Asked) -> list[FlatLists]:
        if asked.in_features is None:
            return []
        found = columns_asked_for(schema, asked.column, is_list_of_steps)
        return [cls(name, asked.in_features) for name, type in found if list_value(type) is not None]

    def leaves(self, schema: pa.Schema) -> tuple[Path, ...]:
        return (path_of(schema, self.column),)

    @property
    def described(self) -> str:
        return f"column {self.column!r}"

    def types(self, schema: pa.Schema) -> tuple[pa.DataType, ...]:
        return (last_value(field_at(schema, path_of(schema, self.column)).type),)

    def width(self, schema: pa.Schema) -> int:
        return self.in_features

    def steps(self, batch: pa.RecordBatch, in_features: int | None) -> Steps:
        column = storage(array_at(batch, path_of(batch.schema, self.column)))
        width = self.in_features
        offsets, values = taken_apart(column)
        faults = [Fault(int(row), "null_sequence", NULL_SEQUENCE) for row in null_places(column)]
        lengths = np.diff(offsets)
        wrong = np.flatnonzero(lengths % width)
        if len(wrong):
            faults += [Fault(int(row), "wrong_width", _reason(int(lengths[row]), width)) for row in wrong]
            offsets, kept = without_rows(offsets, wrong)
            values = values.take(pa.array(kept))
        return Steps(offsets // width, values, width, tuple(sorted(faults)), (self.column,))


def _reason(length: int, width: int) -> str:
    return (
        f"the list holds {length} numbers, which are no whole steps of {width} features; expected a multiple of "
        f"{width}. Correct --in-features, or the row."
    )
