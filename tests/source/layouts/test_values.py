"""What becomes a number, and which: each type against plain Python, and what float32 cannot hold is named."""

from __future__ import annotations

from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from scanrnn_dist.errors import DataError, LayoutError
from scanrnn_dist.source.layouts.decimals import decimal_numbers
from scanrnn_dist.source.layouts.layout import Steps
from scanrnn_dist.source.taking import to_ragged


def where(row: int) -> str:
    return f"a.parquet, row {row}"


def values_of(array: pa.Array, **options: Any) -> list[float]:
    """The values of one row that holds an array."""
    offsets = pa.array([0, len(array)], pa.int32())
    ragged = to_ragged(pa.ListArray.from_arrays(offsets, array), where=where, **options)
    assert ragged.values.dtype == np.float32 and ragged.in_features == 1
    return ragged.values[:, 0].tolist()


WIDTHS = {pa.decimal32: 9, pa.decimal64: 18, pa.decimal128: 38, pa.decimal256: 76}


@st.composite
def decimals(draw: st.DrawFn) -> tuple[list[int | None], pa.DataType]:
    """Integers and a type that stores them, each times ten to the power of minus its scale."""
    kind = draw(st.sampled_from(list(WIDTHS)))
    precision = draw(st.integers(1, WIDTHS[kind]))
    scale = draw(st.integers(-3, precision))
    precision = min(precision, WIDTHS[kind] + scale) if scale < 0 else precision  # pa.array refuses larger ones
    most = 10**precision - 1
    numbers = st.integers(-most, most) | st.integers(-9, 9).map(
        lambda n: max(-most, min(most, n * 5**scale if scale > 0 else n))
    )
    return draw(st.lists(st.none() | numbers, min_size=1, max_size=8)), kind(precision, scale)


def decimal_array(numbers: list[int | None], type: pa.DataType) -> pa.Array:
    with localcontext(prec=100):
        return pa.array([None if n is None else Decimal(n).scaleb(-type.scale) for n in numbers], type)


MIDDLE = (2**24 + 1) * 10**30 // 2**24
"""Of 1 and the next float32, in units of 1e-30."""
SHORT = ((2**24 + 3 * pow(5**15, -1, 512) % 512) * 5**15 - 3) // 512
"""So little below another such middle that float64 does not tell them apart, in units of 1e-15."""
TINY = (2**20 + 1) * 10**76 // 2**150
"""Of two float32 of less than 24 bits, rounded down, in units of 1e-76."""
MOST = (2**128 - 2**103) * 10**30
"""Of the greatest float32 and what would follow, in units of 1e-30."""


def nearest(value: Fraction) -> float:
    """The float32 that is nearest to a number, and of two the even one; infinities stand for 2**128."""

    def key(single: np.float32) -> tuple[Fraction, int]:
        as_fraction = Fraction(float(single)) if np.isfinite(single) else Fraction(2**128) * int(np.sign(single))
        return abs(as_fraction - value), int(single.view(np.uint32)) & 1

    with np.errstate(over="ignore"):
        middle = np.float32(value.numerator / value.denominator)
        below, above = (np.nextafter(middle, np.float32(end)) for end in (-np.inf, np.inf))
    return float(min(middle, below, above, key=key))


@given(decimals(), st.integers(0, 2))
@example(([2**53 + 1, -(2**53), 2**63 - 1, -(10**18)], pa.decimal128(38, 0)), 0)
@example(([-(2**63), 2**64], pa.decimal256(76, 22)), 0)
@example(([5**22, 1], pa.decimal128(38, 22)), 0)
@example(([10**75], pa.decimal256(76, 0)), 0)
@example(([MIDDLE + 1, MIDDLE, MIDDLE - 1, -MIDDLE - 1], pa.decimal128(38, 30)), 0)
@example(([SHORT, -SHORT], pa.decimal64(18, 15)), 0)
@example(([TINY, TINY + 1, -TINY, -TINY - 1], pa.decimal256(76, 76)), 0)
@example(([MOST + 1, MOST, MOST - 1, 1 - MOST], pa.decimal256(76, 30)), 0)
def test_decimals_are_rounded_as_python_rounds_them(case: Any, begin: int) -> None:
    numbers, type = case
    array = decimal_array([*[1] * begin, *numbers], type)[begin:]
    there = [n for n in numbers if n is not None]
    floats, is_exact = decimal_numbers(array.drop_null())
    exact = [Fraction(n) / Fraction(10) ** type.scale for n in there]
    singles = [nearest(value) for value in exact]
    assert floats.dtype == np.float32 and floats.tolist() == singles
    held = [np.isfinite(single) and Fraction(single) == value for single, value in zip(singles, exact, strict=True)]
    assert is_exact.tolist() == held
    if None not in numbers:
        assert values_of(array, lossy_cast=True, nonfinite="propagate") == singles
    if all(held) and None not in numbers:
        assert values_of(array) == singles
    elif not all(held):
        step = numbers.index(there[held.index(False)])
        with pytest.raises(DataError, match=rf"row 0, step {step}: decimal.* value .* would become .*--lossy-cast"):
            values_of(array, nonfinite="propagate")


def test_a_decimal_that_is_null_is_a_null() -> None:
    array = decimal_array([25, None, 50], pa.decimal128(9, 2))
    with pytest.raises(DataError, match="row 0, step 1: a value is null"):
        values_of(array)
    first, second, third = values_of(array, nonfinite="propagate")
    assert (first, third) == (0.25, 0.5) and np.isnan(second)
    under = pa.Array.from_buffers(
        array.type, 3, [array.buffers()[0], decimal_array([25, 7, 50], array.type).buffers()[1]]
    )
    assert np.isnan(values_of(under, nonfinite="propagate")[1])  # 0.07, which nobody sees


def test_the_first_number_that_is_lost_is_told_in_the_order_of_steps() -> None:
    struct = pa.array([[{"x": 1.0, "y": 1}, {"x": 2.0, "y": 2**24 + 1}, {"x": 0.1, "y": 3}]])
    with pytest.raises(DataError, match="row 0, step 1: int64 value 16777217 would become"):
        to_ragged(struct, where=where)


TIMES = [pa.timestamp("s"), pa.timestamp("ms"), pa.timestamp("us", "UTC"), pa.timestamp("ns", "Europe/Paris")]
TIMES += [pa.date32(), pa.date64(), pa.time32("s"), pa.time32("ms"), pa.time64("us"), pa.time64("ns")]
TIMES += [pa.duration("s"), pa.duration("ns")]


@pytest.mark.parametrize("type", TIMES, ids=str)
def test_times_are_numbers_in_the_unit_of_their_type(type: pa.DataType) -> None:
    width = pa.int64() if type.bit_width == 64 else pa.int32()
    unit = 86_400_000 if type == pa.date64() else 1
    array = pa.array([0, 3 * unit, None, 4096 * unit], width).view(type)
    values = values_of(array, nonfinite="propagate")
    assert values[:2] == [0, 3 * unit] and np.isnan(values[2]) and values[3] == 4096 * unit
    number = (2**24 + 1) * unit  # of dates a year that no calendar of Python has
    late = pa.array([0, number], width).view(type)
    with pytest.raises(DataError) as caught:
        values_of(late)
    assert f"row 0, step 1: {type} value {number} (" in str(caught.value)
    assert "differences between steps instead" in str(caught.value) and "--lossy-cast" in str(caught.value)
    assert values_of(late, lossy_cast=True)[1] == np.float32(number)


def test_booleans_are_0_and_1_with_nulls_too() -> None:
    assert values_of(pa.array([True, False, True])[1:]) == [0, 1]
    values = values_of(pa.array([None, True, False]), nonfinite="propagate")
    assert np.isnan(values[0]) and values[1:] == [1, 0]


def test_half_floats_keep_their_bits() -> None:
    numbers = np.array([1.5, -65504, 6e-8, 0.1], np.float16)
    assert values_of(pa.array(numbers)) == numbers.astype(np.float32).tolist()


def test_lists_of_no_type_are_empty_or_null() -> None:
    assert len(to_ragged(pa.array([[], []], pa.list_(pa.null())), where=where).values) == 0
    with pytest.raises(DataError, match="row 0, step 0: a value is null"):
        values_of(pa.nulls(2))


@pytest.mark.parametrize("index", [pa.int8(), pa.uint32()])
def test_dictionaries_and_runs_are_decoded(index: pa.DataType) -> None:
    words = pa.DictionaryArray.from_arrays(pa.array([1, 0, 1, 2], index), pa.array([0.5, 1.5, None]))
    assert values_of(words[:3]) == [1.5, 0.5, 1.5] and values_of(words[1:3]) == [0.5, 1.5]
    with pytest.raises(DataError, match="step 3: a value is null"):
        values_of(words)
    runs = pc.run_end_encode(pa.array([1.0, 1.0, 2.0, 2.0, 3.0]))
    assert values_of(runs) == [1, 1, 2, 2, 3] and values_of(runs[1:4]) == [1, 2, 2]


def test_steps_and_sequences_that_are_runs_or_words_are_decoded() -> None:
    steps = pa.array([[1.0, 2.0], [3.0, 4.0]], pa.list_(pa.float32()))
    runs = pa.RunEndEncodedArray.from_arrays(pa.array([2, 3], pa.int32()), steps)
    ragged = to_ragged(pa.ListArray.from_arrays(pa.array([0, 1, 3], pa.int32()), runs)[1:], where=where)
    assert ragged.row(0).tolist() == [[1, 2], [3, 4]]
    whole = to_ragged(runs[1:], where=where)
    assert [whole.row(row).tolist() for row in range(2)] == [[[1], [2]], [[3], [4]]]
    words = pa.DictionaryArray.from_arrays(pa.array([1, None, 0], pa.int8()), steps)
    assert to_ragged(words[2:], where=where).row(0).tolist() == [[1], [2]]
    with pytest.raises(DataError, match="row 1: the sequence is null"):
        to_ragged(words, where=where)


@pytest.mark.parametrize(
    "type", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())]
)
def test_texts_are_carried_and_are_no_numbers(type: pa.DataType) -> None:
    with pytest.raises(
        LayoutError, match=r"row 0: 'sequences' holds texts, which are no numbers; expected .*input spec"
    ):
        to_ragged(pa.array([["a"]], pa.list_(type)), where=where)


def test_steps_give_their_values_by_feature() -> None:
    offsets = np.array([0, 2])
    words = pa.array(["a", "b", "a", "c"]).dictionary_encode()
    assert [it.to_pylist() for it in Steps(offsets, words, 2).by_feature()] == [["a", "a"], ["b", "c"]]
    columns = (pa.array([1, 2]), pa.array(["x", None]))
    assert Steps(offsets, columns, 2).by_feature() == columns
    assert Steps(offsets, pa.array([1, 2]), 1).by_feature() == (pa.array([1, 2]),)
    assert [len(it) for it in Steps(np.array([0]), pa.array([], pa.int8()), 3).by_feature()] == [0, 0, 0]
