"""Lists of every kind taken apart: slices, nulls, and lists whose first element is not that of the buffer."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanrnn_dist.source.layouts.lists import taken_apart

KINDS = (pa.list_, pa.large_list, pa.list_view, pa.large_list_view, lambda element: pa.list_(element, 2))


@pytest.mark.parametrize("kind", KINDS)
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
