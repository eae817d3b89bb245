"""Lists of every kind taken apart: slices, nulls, and lists whose first element is not that of the buffer."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scanrnn_dist.source.layouts.lists import alike_taken_apart, of_width, taken_apart

KINDS = (pa.list_, pa.large_list, pa.list_view, pa.large_list_view, lambda element: pa.list_(element, 2))


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25)
@given(st.data())
def test_the_lists_of_a_slice_are_what_python_makes_of_them(
    kind: Callable[[pa.DataType], pa.DataType], data: st.DataObject
) -> None:
    type = kind(pa.int64())
    least, most = (2, 2) if pa.types.is_fixed_size_list(type) else (0, 3)
    lists = st.lists(st.integers(0, 99), min_size=least, max_size=most)
    rows = data.draw(st.lists(lists | st.none() if data.draw(st.booleans()) else lists, max_size=6))
    begin, end = data.draw(st.integers(0, len(rows))), data.draw(st.integers(0, len(rows)))
    offsets, elements = taken_apart(pa.array(rows, type)[begin:end])
    found = [elements[a:b].to_pylist() for a, b in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)]
    assert found == [row or [] for row in rows[begin:end]]
    assert offsets[0] == 0 and offsets[-1] == len(elements)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25)
@given(st.data())
def test_lists_that_may_be_stored_alike_are_taken_apart_as_each_alone(
    kind: Callable[[pa.DataType], pa.DataType], data: st.DataObject
) -> None:
    type = kind(pa.int64())
    lengths = data.draw(st.lists(st.just(2) if pa.types.is_fixed_size_list(type) else st.integers(0, 3), max_size=6))
    begin, end = data.draw(st.integers(0, len(lengths))), data.draw(st.integers(0, len(lengths)))
    columns = []
    for column in range(data.draw(st.integers(1, 4))):
        own = data.draw(st.permutations(lengths)) if data.draw(st.booleans()) else lengths
        is_null = data.draw(st.sampled_from([frozenset(), frozenset({0}), frozenset({1, 3})]))
        rows = [None if row in is_null else [10 * column + row] * count for row, count in enumerate(own)]
        before = data.draw(st.integers(0, 2))  # stored before them, so that the first list begins elsewhere
        columns.append(pa.array([[7, 7]] * before + rows, type)[before:][begin:end])
    for found, array in zip(alike_taken_apart(columns), columns, strict=True):
        offsets, elements = taken_apart(array)
        assert found[0].tolist() == offsets.tolist() and found[1].equals(elements)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25)
@given(st.data())
def test_elements_are_a_view_where_all_lists_have_the_width(
    kind: Callable[[pa.DataType], pa.DataType], data: st.DataObject
) -> None:
    type = kind(pa.int64())
    lists = st.lists(st.integers(0, 99), min_size=2, max_size=2 if pa.types.is_fixed_size_list(type) else 3)
    rows = data.draw(
        st.lists(lists.filter(lambda row: len(row) == 2) if data.draw(st.booleans()) else lists, max_size=6)
    )
    rows = [None if data.draw(st.integers(0, 9)) == 0 else row for row in rows]
    begin, end = data.draw(st.integers(0, len(rows))), data.draw(st.integers(0, len(rows)))
    array, width = pa.array(rows, type)[begin:end], data.draw(st.sampled_from([2, 2, 2, 3]))
    elements, asked = of_width(array, width), rows[begin:end]
    is_even = all(row is not None and len(row) == width for row in asked)
    if elements is not None:
        assert is_even and elements.to_pylist() == [value for row in asked for value in row or []]
    else:
        assert not asked or not is_even or "view" in str(type)
