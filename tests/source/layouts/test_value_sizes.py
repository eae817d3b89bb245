"""What a value takes is counted alike in whatever batch it comes."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from odd_values import ODD

from scanrnn_dist.source import value_bytes

PAIR = pa.struct([("name", pa.string()), ("at", pa.float32())])
VECTORS = pa.struct([("v", pa.list_(pa.list_(pa.float32(), 2), 2))])
KINDS: dict[str, tuple[pa.DataType, list[Any], list[int]]] = {
    "bool": (pa.bool_(), [True, None], [1, 1]),
    "decimal": (pa.decimal128(5, 2), [Decimal("1.5"), None], [16, 16]),
    "fixed bytes": (pa.binary(3), [b"abc", None], [3, 3]),
    "nothing": (pa.null(), [None, None], [0, 0]),
    "text": (pa.string(), ["abc", None, ""], [7, 4, 4]),
    "large bytes": (pa.large_binary(), [b"abc", None], [7, 4]),
    "view of text": (pa.string_view(), ["a text of more than twelve", None], [30, 4]),
    "dictionary": (pa.dictionary(pa.int16(), pa.string()), ["abc", None, "d"], [2, 2, 2]),
    "list": (pa.list_(pa.int16()), [[1, 2, 3], None, []], [10, 4, 4]),
    "large list of texts": (pa.large_list(pa.string()), [["a", "bc"], None, []], [15, 4, 4]),
    "list of a fixed size": (pa.list_(pa.float32(), 2), [[1, 2], None], [12, 12]),
    "texts of a fixed number": (pa.list_(pa.string(), 3), [["ab", None, "c"], None, ["abc"] * 3], [19, 16, 25]),
    "a fixed size in structs": (VECTORS, [{"v": [[1, 2], None]}, {"v": None}, None], [28, 20, 20]),
    "view of lists": (pa.list_view(pa.int32()), [[1], None, [2, 3]], [8, 4, 12]),
    "lists of lists": (pa.list_(pa.list_(pa.float32())), [[[1, 2], [3]], None, [None]], [24, 4, 8]),
    "struct": (PAIR, [{"name": "ab", "at": 1}, None, {"name": None, "at": None}], [10, 8, 8]),
    "structs in lists": (pa.list_(PAIR), [[{"name": "ab", "at": 1}] * 2, None], [24, 4]),
    "map": (pa.map_(pa.string(), pa.int64()), [[("a", 1), ("bc", 2)], None, []], [31, 4, 4]),
}  # fmt: skip


def each(array: pa.Array) -> list[int]:
    """Of every value, also where all take as many."""
    return list(np.broadcast_to(value_bytes(array), len(array)))


@pytest.mark.parametrize("kind", KINDS)
def test_a_value_takes_what_it_holds_and_the_same_in_every_slice(kind: str) -> None:
    arrow, values, nbytes = KINDS[kind]
    array = pa.array(values * 3, arrow)
    assert each(array) == nbytes * 3 and each(array.slice(0, 0)) == []
    for begin in range(len(array)):
        assert each(array.slice(begin, 4)) == (nbytes * 3)[begin : begin + 4]


@pytest.mark.parametrize("kind", ODD)
def test_odd_values_are_counted_too(kind: str) -> None:
    array = ODD[kind]
    assert [*each(array.slice(0, 1)), *each(array.slice(1))] == each(array)


def test_what_an_extension_stores_is_counted_and_what_a_null_hides_is_not() -> None:
    tensors = pa.ExtensionArray.from_storage(
        pa.fixed_shape_tensor(pa.int8(), [3]), pa.array([[1, 2, 3]], pa.list_(pa.int8(), 3))
    )
    assert each(tensors) == [7]
    hidden = pa.ListArray.from_arrays(pa.array([0, 2, 5]), pa.array(range(5), pa.int64()), mask=pa.array([True, False]))
    assert each(hidden) == [4, 28] and each(hidden.slice(1)) == [28]
