"""Sequences as tensors of two axes, (T, D): all of one shape, or each of its own, in whatever order they are stored.

Values are taken as they stand where the order of the axes is that of the storage, else brought into it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from scanrnn_dist.errors import LayoutError
from scanrnn_dist.ragged import positions, running_sums
from scanrnn_dist.source.layouts.layout import Asked, Fault, Layout, Steps
from scanrnn_dist.source.layouts.lists import null_places, storage, taken_apart
from scanrnn_dist.source.layouts.paths import Path, within
from scanrnn_dist.source.layouts.tensor_types import TensorType, tensor_type
from scanrnn_dist.source.layouts.types import EXPECTED, VARIABLE_TENSOR

_NULL_SEQUENCE = "the tensor is null; expected one. Drop such rows, or store a tensor without steps."


@dataclass(frozen=True)
class Tensors(Layout):
    """One column of tensors of the shape (T, D).

    Example:
        >>> stored = pa.array([[1, 2, 3, 4, 5, 6]], pa.list_(pa.int32(), 6))
        >>> array = pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(pa.int32(), [3, 2]), stored)
        >>> steps = Tensors("seq").steps(pa.record_batch({"seq": array}), None)
        >>> steps.offsets.tolist(), steps.in_features
        ([0, 3], 2)
    """

    name: ClassVar[str] = "tensors"
    words: ClassVar[str] = "tensors"
    understands: ClassVar[frozenset[str]] = frozenset({"arrow.fixed_shape_tensor", VARIABLE_TENSOR})
    column: str
    in_features: int | None = None

    @classmethod
    def candidates(cls, schema: pa.Schema, asked: Asked) -> list[Tensors]:
        kinds = [(field.name, tensor_type(field)) for field in schema if asked.column in (None, field.name)]
        return [
            cls(name, asked.in_features if kind.shape[kind.feature] is None else None)
            for name, kind in kinds
            if kind is not None
        ]

    def leaves(self, schema: pa.Schema) -> tuple[Path, ...]:
        return ((self.column,),)

    @property
    def described(self) -> str:
        return f"column {self.column!r}"

    def types(self, schema: pa.Schema) -> tuple[pa.DataType, ...]:
        return (_type(schema.field(self.column)).value,)

    def width(self, schema: pa.Schema) -> int | None:
        kind = _type(schema.field(self.column))
        fixed = kind.shape[kind.feature]
        return self.in_features if fixed is None else fixed

    def steps(self, batch: pa.RecordBatch, in_features: int | None) -> Steps:
        kind, column = _type(batch.schema.field(self.column)), storage(batch.column(self.column))
        faults = [Fault(int(row), "null_sequence", _NULL_SEQUENCE) for row in null_places(column)]
        if kind.is_fixed:
            shapes = np.tile(np.array(kind.shape, np.int64), (len(column), 1))
            begins, values = taken_apart(column)
        else:
            shapes = _shapes(within(column, ("shape",)))
            begins, values = taken_apart(within(column, ("data",)))
        shapes[[fault.row for fault in faults]] = 0
        expected = self.width(batch.schema) if in_features is None else in_features
        if expected is None:
            filled = shapes[:, kind.time] > 0
            expected = int(shapes[filled.argmax(), kind.feature]) if filled.any() else None
        if expected is not None and expected < 1:
            raise LayoutError(f"a step has {expected} features; expected at least one.")
        wrong = _wrong(shapes, np.diff(begins), kind, expected)
        faults += wrong
        shapes[[fault.row for fault in wrong]] = 0
        return _in_order(shapes, begins, values, kind, expected, tuple(sorted(faults)), self.column)


def _type(field: pa.Field) -> TensorType:
    kind = tensor_type(field)
    if kind is None:
        raise LayoutError(f"the column is {field.type}; {EXPECTED} per row, or a tensor of two axes.")
    return kind


def _shapes(array: pa.Array) -> np.ndarray:
    """The stored shapes, `(N, 2)`; -1 for a size that is null."""
    offsets, sizes = taken_apart(array)
    shapes = np.zeros((len(array), 2), np.int64)
    shapes[np.diff(offsets) > 0] = sizes.fill_null(-1).to_numpy(zero_copy_only=False).reshape(-1, 2)
    return shapes


def _wrong(shapes: np.ndarray, lengths: np.ndarray, kind: TensorType, expected: int | None) -> list[Fault]:
    """The rows whose shape contradicts their values or the number of features."""
    steps, widths = shapes[:, kind.time], shapes[:, kind.feature]
    lies = (shapes < 0).any(axis=1) | (steps * widths != lengths)
    differs = (steps > 0) & (widths != expected)
    faults = []
    for row in np.flatnonzero(lies | differs):
        shape = tuple(shapes[row].tolist())
        if lies[row]:
            reason = f"the shape is {shape}, and the tensor holds {lengths[row]} numbers. Write the row again."
        else:
            reason = f"{widths[row]} features; expected {expected}. A step must hold every feature once."
        faults.append(Fault(int(row), "wrong_width", reason))
    return faults


def _in_order(
    shapes: np.ndarray,
    begins: np.ndarray,
    values: pa.Array,
    kind: TensorType,
    in_features: int | None,
    faults: tuple[Fault, ...],
    name: str,
) -> Steps:
    """The steps of all tensors, one after the other, each with its features side by side."""
    steps = shapes[:, kind.time]
    offsets = running_sums(steps)
    if in_features is not None and (kind.time == 1 or len(values) != offsets[-1] * in_features):
        # By rows: where the step's first value stands, and how far it is to the next feature.
        nth = positions(np.zeros(len(steps), np.int64), steps)
        stride = 1 if kind.time == 0 else np.repeat(steps, steps)[:, None]
        first = np.repeat(begins[:-1], steps) + nth * (in_features if kind.time == 0 else 1)
        places = first[:, None] + stride * np.arange(in_features)
        values = values.take(pa.array(places.ravel()))
    return Steps(offsets, values, in_features, faults, (name,))
