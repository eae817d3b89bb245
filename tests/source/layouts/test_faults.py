"""Rows that cannot be taken apart: which, why, and that all others come out as if they were not there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from scanrnn_dist.errors import LayoutError
from scanrnn_dist.source.layouts.find import find_layout
from scanrnn_dist.source.layouts.flat_lists import FlatLists
from scanrnn_dist.source.layouts.layout import Asked, Layout, Steps
from scanrnn_dist.source.layouts.list_columns import ListColumns
from scanrnn_dist.source.layouts.list_of_structs import ListOfStructs
from scanrnn_dist.source.layouts.nested_lists import NestedLists
from scanrnn_dist.source.layouts.struct_of_lists import StructOfLists
from scanrnn_dist.source.layouts.tensors import Tensors

LIST = pa.list_(pa.float32())


def taken(layout: Layout, width: int | None = None, /, **columns: pa.Array) -> Steps:
    return layout.steps(pa.record_batch(columns), width)


def rows_of(steps: Steps) -> list[Any]:
    values = np.array([array.to_pylist() for array in steps.by_feature()], object).T
    return [values[begin:end].tolist() for begin, end in zip(steps.offsets[:-1], steps.offsets[1:], strict=True)]


def faults_of(steps: Steps) -> list[tuple[Any, ...]]:
    return [(fault.row, fault.kind, fault.step) for fault in steps.faults]


def test_lists_of_unequal_lengths_name_both_columns() -> None:
    x, y = pa.array([[1.0], [1.0, 2.0], [], [3.0], [5.0]]), pa.array([[10], [20], [7], [], [50]])
    steps = taken(ListColumns(("x", "y")), x=x, y=y, z=pa.nulls(5))
    assert faults_of(steps) == [(row, "unequal_lengths", None) for row in (1, 2, 3)]
    assert steps.faults[0].reason.startswith("'x' has 2 values and 'y' has 1; expected lists of equal lengths")
    assert rows_of(steps) == [[[1.0, 10]], [], [], [], [[5.0, 50]]]
    struct = pa.StructArray.from_arrays([x, y], ["x", "y"])
    assert rows_of(taken(StructOfLists("s", ("x", "y")), s=struct)) == rows_of(steps)


def test_equal_sums_of_unequal_lengths_are_seen() -> None:
    steps = taken(ListColumns(("x", "y")), x=pa.array([[1], [2, 3]]), y=pa.array([[1, 2], [3]]))
    assert [fault.row for fault in steps.faults] == [0, 1] and rows_of(steps) == [[], []]


def test_a_null_list_in_one_or_all_columns_is_a_null_sequence() -> None:
    x, y = pa.array([None, [1], None, [2]], pa.list_(pa.int8())), pa.array([None, None, [], [3]], LIST)
    steps = taken(ListColumns(("x", "y")), x=x, y=y)
    assert faults_of(steps) == [(row, "null_sequence", None) for row in (0, 1, 2)]
    assert steps.faults[0].reason.startswith("the sequence is null")
    assert [fault.reason.split(" is null, and")[0] for fault in steps.faults[1:]] == [
        "the list of 'y'",
        "the list of 'x'",
    ]
    assert rows_of(steps) == [[], [], [], [[2, 3.0]]]


def test_steps_of_another_fixed_size_are_faults() -> None:
    rows = pa.array([[[1, 2, 3]], [], None, [None, [4, 5, 6]], [None]], pa.list_(pa.list_(pa.int8(), 3)))
    steps = taken(NestedLists("f"), 2, f=rows)
    assert faults_of(steps) == [(0, "wrong_width", 0), (2, "null_sequence", None), (3, "wrong_width", 1)]
    assert steps.faults[0].reason.startswith("3 features; expected 2")
    assert rows_of(steps) == [[], [], [], [], [[None, None]]] and taken(NestedLists("f"), f=rows).in_features == 3


def test_a_null_struct_is_a_null_step_or_sequence() -> None:
    type = pa.list_(pa.struct([("x", pa.int8()), ("y", pa.float32())]))
    steps = taken(
        ListOfStructs("s", ("y", "x")), s=pa.array([[{"x": 1, "y": 2}, None], None, [{"x": None, "y": 3}]], type)
    )
    assert faults_of(steps) == [(1, "null_sequence", None)]
    assert rows_of(steps) == [[[2.0, 1], [None, None]], [], [[3.0, None]]]
    nulls = pa.array([None, {"x": [1]}], pa.struct([("x", pa.list_(pa.int8()))]))
    steps = taken(StructOfLists("s", ("x",)), s=nulls)
    assert faults_of(steps) == [(0, "null_sequence", None)] and rows_of(steps) == [[], [[1]]]


def test_flat_lists_hold_whole_steps() -> None:
    lists = pa.array([[1, 2, 3, 4], [5, 6, 7], None, [8, 9]], pa.list_(pa.int16()))
    steps = taken(FlatLists("f", 2), f=lists)
    assert faults_of(steps) == [(1, "wrong_width", None), (2, "null_sequence", None)]
    assert "holds 3 numbers, which are no whole steps of 2 features" in steps.faults[0].reason
    assert rows_of(steps) == [[[1, 2], [3, 4]], [], [], [[8, 9]]]
    fixed = taken(FlatLists("f", 2), f=pa.array([[1, 2, 3, 4], None], pa.list_(pa.int16(), 4)))
    assert rows_of(fixed) == [[[1, 2], [3, 4]], []]
    assert taken(FlatLists("f", 4), f=pa.array([[]], LIST)).in_features == 4


def test_tensors_whose_shape_lies_are_faults() -> None:
    storage = pa.struct([("data", LIST), ("shape", pa.list_(pa.int32(), 2))])
    metadata = {"ARROW:extension:name": "arrow.variable_shape_tensor"}
    rows = [
        {"data": [1, 2, 3, 4], "shape": [2, 2]},
        {"data": [1, 2, 3], "shape": [2, 2]},
        {"data": [1, 2, 3], "shape": [1, 3]},
        {"data": [], "shape": [0, 7]},
        {"data": [1, 2], "shape": [1, None]},
        {"data": [1, 2], "shape": [-1, -2]},
        {"data": [1, 2], "shape": None},
        {"data": None, "shape": [1, 2]},
        None,
        {"data": [5, 6], "shape": [1, 2]},
    ]
    type = (
        pa.ipc.read_schema(
            pa.schema([pa.field("t", storage, metadata=metadata | {"ARROW:extension:metadata": "{}"})]).serialize()
        )
        .field(0)
        .type
    )
    steps = taken(Tensors("t"), t=type.wrap_array(pa.array(rows, storage)))
    assert faults_of(steps) == [
        (row, "null_sequence" if row == 8 else "wrong_width", None) for row in (1, 2, 4, 5, 6, 7, 8)
    ]
    assert steps.faults[1].reason.startswith("3 features; expected 2.")
    assert rows_of(steps) == [[[1, 2], [3, 4]], [], [], [], [], [], [], [], [], [[5, 6]]]
    schema = pa.schema([("t", type)])
    told = find_layout(schema, Asked(in_features=3), where="here")
    assert told == Tensors("t", 3) and told.width(schema) == 3 and Tensors("t").width(schema) is None
    assert rows_of(taken(told, t=type.wrap_array(pa.array(rows, storage)))) == [[], [], [[1, 2, 3]], *[[]] * 7]


@pytest.mark.parametrize("metadata", ['{"uniform_shape":[null,3]}', '{"permutation":[1,0],"uniform_shape":[3,null]}'])
def test_a_uniform_shape_says_the_width(metadata: str) -> None:
    storage = pa.struct([("data", LIST), ("shape", pa.list_(pa.int32(), 2))])
    told = {"ARROW:extension:name": "arrow.variable_shape_tensor", "ARROW:extension:metadata": metadata}
    field = pa.field("t", storage, metadata=told)
    for schema in (
        pa.schema([field]),
        pa.ipc.read_schema(pa.schema([field]).serialize()),
    ):  # unknown and known to pyarrow
        assert Tensors("t").width(schema) == 3


@pytest.mark.parametrize(
    "metadata", ["no JSON", "[]", '{"permutation":[0,0]}', '{"uniform_shape":[1]}', '{"uniform_shape":[-1,"x"]}']
)
def test_a_description_of_tensors_that_cannot_be_is_refused(metadata: str) -> None:
    storage = pa.struct([("data", LIST), ("shape", pa.list_(pa.int32(), 2))])
    told = {"ARROW:extension:name": "arrow.variable_shape_tensor", "ARROW:extension:metadata": metadata}
    with pytest.raises(LayoutError, match="column 't' holds tensors"):
        Tensors("t").width(pa.schema([pa.field("t", storage, metadata=told)]))


GARBAGE = pa.array([np.nan, 1e300, 0.1, np.inf, 5.0, 6.0])
MASK = pa.array([True, False])


def test_what_stands_under_a_null_is_not_looked_at() -> None:
    lists = pa.ListArray.from_arrays(pa.array([0, 4, 6], pa.int32()), GARBAGE, mask=MASK)
    for layout, column in ((NestedLists("c"), lists), (FlatLists("c", 1), lists)):
        assert rows_of(taken(layout, c=column)) == [[], [[5.0], [6.0]]]
    fixed = pa.FixedSizeListArray.from_arrays(GARBAGE, 3, mask=MASK)
    assert rows_of(taken(NestedLists("c"), c=fixed)) == [[], [[np.inf], [5.0], [6.0]]]
    steps = pa.FixedSizeListArray.from_arrays(GARBAGE, 3, mask=MASK)
    nested = pa.ListArray.from_arrays(pa.array([0, 2], pa.int32()), steps)
    assert rows_of(taken(NestedLists("c"), c=nested)) == [[[None] * 3, [np.inf, 5.0, 6.0]]]
    structs = pa.StructArray.from_arrays([GARBAGE[3:5]], ["x"], mask=MASK)
    whole = pa.ListArray.from_arrays(pa.array([0, 2], pa.int32()), structs)
    assert rows_of(taken(ListOfStructs("c", ("x",)), c=whole)) == [[[None], [5.0]]]
    struct = pa.StructArray.from_arrays([pa.array([[np.nan], [5.0]])], ["x"], mask=MASK)
    assert rows_of(taken(StructOfLists("c", ("x",)), c=struct)) == [[], [[5.0]]]
    assert rows_of(taken(NestedLists("c.x"), c=struct)) == [[], [[5.0]]]


def test_views_out_of_order_are_the_rows_that_they_say() -> None:
    offsets, sizes = pa.array([4, 0, 2], pa.int32()), pa.array([2, 2, 3], pa.int32())
    views = pa.ListViewArray.from_arrays(offsets, sizes, pa.array([0, 1, 2, 3, 4, 5]))
    assert rows_of(taken(NestedLists("c"), c=views)) == [[[4], [5]], [[0], [1]], [[2], [3], [4]]]
    inner = pa.ListViewArray.from_arrays(pa.array([3, 0], pa.int32()), pa.array([3, 3], pa.int32()), GARBAGE)
    nested = pa.ListArray.from_arrays(pa.array([0, 2], pa.int32()), inner)
    assert rows_of(taken(NestedLists("c"), c=nested)) == [
        [[np.inf, 5.0, 6.0], [pytest.approx(np.nan, nan_ok=True), 1e300, 0.1]]
    ]
