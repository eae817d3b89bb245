"""Sequences as nested lists: a row is a list of steps, a step a list of numbers or, for one feature, a plain number.

The column may be a field within structs. Each list may be of any kind (`lists.py`). Vectorised: single rows are looked
at only to say what is wrong with one. float32 is taken as a view of Arrow's buffer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pyarrow as pa

from scanrnn_dist.errors import LayoutError
from scanrnn_dist.ragged import positions, time_first_hint
from scanrnn_dist.source.layouts.layout import Asked, Fault, Layout, Steps
from scanrnn_dist.source.layouts.lists import (
    is_list,
    null_places,
    of_width,
    storage,
    taken_apart,
    without_rows,
)
from scanrnn_dist.source.layouts.paths import Path, array_at, columns_asked_for, field_at, path_of
from scanrnn_dist.source.layouts.types import (
    EXPECTED,
    fixed_in_features,
    is_list_of_steps,
    last_value,
    list_value,
    step_type,
    way_out,
    with_page,
)

NULL_SEQUENCE = "the sequence is null; expected a list. Drop such rows, or store an empty list for one without steps."


@dataclass(frozen=True)
class NestedLists(Layout):
    """One column of lists of lists of numbers, or of lists of numbers.

    Example:
        >>> batch = pa.record_batch({"seq": pa.array([[[1, 2], [3, 4]], []])})
        >>> steps = NestedLists("seq").steps(batch, None)
        >>> steps.offsets.tolist(), steps.values.to_pylist(), steps.in_features
        ([0, 2, 2], [1, 2, 3, 4], 2)
    """

    name: ClassVar[str] = "nested-lists"
    words: ClassVar[str] = "a list for each row"
    column: str
    in_features: int | None = None

    @classmethod
    def candidates(cls, schema: pa.Schema, asked: Asked) -> list[NestedLists]:
        # Of plain lists, --in-features asks for flat ones: `flat_lists.py`.
        may_be_plain = asked.in_features is None
        return [
            cls(name, asked.in_features)
            for name, type in columns_asked_for(schema, asked.column, is_list_of_steps)
            if may_be_plain or list_value(type) is None
        ]

    def leaves(self, schema: pa.Schema) -> tuple[Path, ...]:
        return (path_of(schema, self.column),)

    @property
    def described(self) -> str:
        return f"column {self.column!r}"

    def types(self, schema: pa.Schema) -> tuple[pa.DataType, ...]:
        return (last_value(self._type(schema)),)

    def width(self, schema: pa.Schema) -> int | None:
        fixed = fixed_in_features(self._type(schema))
        return self.in_features if fixed is None else fixed

    def feature_names(self, schema: pa.Schema, in_features: int) -> tuple[str, ...]:
        is_plain = list_value(self._type(schema)) is not None
        return (self.column,) if is_plain else super().feature_names(schema, in_features)

    def steps(self, batch: pa.RecordBatch, in_features: int | None) -> Steps:
        array = array_at(batch, path_of(batch.schema, self.column))
        steps = nested_steps(array, self.in_features if in_features is None else in_features)
        return replace(steps, names=(self.column,))

    def _type(self, schema: pa.Schema) -> pa.DataType:
        return field_at(schema, path_of(schema, self.column)).type


def nested_steps(column: pa.Array, in_features: int | None) -> Steps:
    """The rows of an Arrow array taken apart, as `Layout.steps` does it."""
    kind = column.type
    if step_type(kind) is None:
        raise LayoutError(f"the column is {kind}; {EXPECTED} per row. {with_page(way_out(kind))}.")
    faults = [Fault(int(row), "null_sequence", NULL_SEQUENCE) for row in null_places(storage(column))]
    offsets, steps = taken_apart(column)
    expected = in_features if in_features is not None else fixed_in_features(kind)
    if not is_list(steps.type):
        return Steps(offsets, steps, 1, tuple(faults))
    if expected is not None and (values := of_width(steps, expected)) is not None:
        _check_width(expected)
        return Steps(offsets, values, expected, tuple(faults))
    begins, values = taken_apart(steps)
    widths, nulls = np.diff(begins), null_places(steps)
    if expected is None:
        there = np.delete(widths, nulls) if len(nulls) else widths
        expected = int(there[0]) if len(there) else None
    if expected is None:  # no step tells, as there is none or all are null
        return Steps(offsets, values, None, tuple(faults))
    _check_width(expected)
    wrong = widths != expected
    wrong[nulls] = False
    if len(nulls) or wrong.any():
        wrong_rows = np.unique(np.searchsorted(offsets, np.flatnonzero(wrong), side="right") - 1)
        hint = _hint(offsets, widths, expected, told=in_features is not None) if len(wrong_rows) else ""
        says = "as in_features, or the first step of the source, says"
        source = says if in_features is not None else "as in the first step"
        for row in wrong_rows:
            step = int(offsets[row]) + int(wrong[offsets[row] : offsets[row + 1]].argmax())
            reason = f"{widths[step]} features; expected {expected}, {source}.{hint}"
            faults.append(Fault(int(row), "wrong_width", reason, step - int(offsets[row])))
        offsets, kept = without_rows(offsets, wrong_rows)
        values = _of_steps(values, begins, nulls, kept, expected)
    return Steps(offsets, values, expected, tuple(sorted(faults)))


def _of_steps(values: pa.Array, begins: np.ndarray, nulls: np.ndarray, kept: np.ndarray, in_features: int) -> pa.Array:
    """The values of the steps at the positions `kept`, a null step having `in_features` nulls."""
    is_null = np.zeros(len(begins) - 1, bool)
    is_null[nulls] = True
    places = positions(begins[:-1][kept], np.full(len(kept), in_features))
    mask = np.repeat(is_null[kept], in_features)
    return values.take(pa.array(np.where(mask, 0, places), mask=mask))


def _check_width(expected: int) -> None:
    if expected < 1:
        raise LayoutError(f"a step has {expected} features; expected at least one. An empty row is [], not [[]].")


def _hint(offsets: np.ndarray, widths: np.ndarray, expected: int, *, told: bool) -> str:
    """What to do about steps of another width than expected."""
    is_time_last = _looks_transposed(offsets, widths, expected, told=told)
    hint = time_first_hint(is_time_last, "transpose every row before it is stored")
    return hint or " A step must hold every feature once."


def _looks_transposed(offsets: np.ndarray, widths: np.ndarray, expected: int, *, told: bool) -> bool:
    """Whether all rows have as many lists as there are features, each list of a row being of the same length."""
    lengths = np.diff(offsets)
    filled = lengths > 0
    outer = np.unique(lengths[filled])
    first_of_row = np.repeat(widths[offsets[:-1][filled]], lengths[filled])
    if len(outer) != 1 or not np.array_equal(widths, first_of_row):
        return False
    return int(outer[0]) == expected if told else True
