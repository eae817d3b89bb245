"""An `InputSpec` applied to Arrow columns gives what plain Python gives, value by value, whatever their types."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from scanrnn_dist.errors import ConfigError, DataError, LayoutError
from scanrnn_dist.input_spec import UNKNOWN_ID, Category, Column, InputSpec, Number, Time
from scanrnn_dist.source import (
    Asked,
    BadRows,
    ColumnStatistics,
    StepStatistics,
    apply_input,
    find_layout,
    layout_of_input,
)
from scanrnn_dist.source.judging import NamedInput
from scanrnn_dist.source.layouts import Steps
from scanrnn_dist.source.layouts.nested_lists import nested_steps
from scanrnn_dist.source.step_input import StepInputs
from scanrnn_dist.source.taking import take

NAN = float("nan")


def applied(column: Column, array: pa.Array, offsets: list[int] | None = None, **options: Any) -> StepInputs:
    """One column alone."""
    at = np.array([0, len(array)] if offsets is None else offsets, np.int64)
    return apply_input(InputSpec((column,)), {column.name: array, "other": pa.nulls(len(array))}, at, **options)


def values_of(column: Column, array: pa.Array, offsets: list[int] | None = None, **options: Any) -> list[float]:
    """What travels of one column, none of it refused."""
    result = applied(column, array, offsets, **options)
    assert not result.refusals and result.values.dtype == np.float32 and result.values.shape == (len(array), 1)
    return result.values[:, 0].tolist()


def assert_same(arrived: list[float], wanted: list[float]) -> None:
    np.testing.assert_array_equal(np.array(arrived, np.float32), np.array(wanted, np.float32))


@pytest.mark.parametrize("type", [pa.int64(), pa.uint64(), pa.decimal128(20, 0), pa.timestamp("ns")])
def test_differences_of_whole_numbers_are_exact(type: pa.DataType) -> None:
    start = 1_700_000_000_000_000_000  # of such, float64 holds every 256th
    times = pa.array([start, start + 100, None, start + 300, start + 401], pa.int64()).cast(type)
    assert_same(values_of(Time("x", unit="ns"), times), [0, 100, NAN, NAN, 101])


@pytest.mark.parametrize("type", [pa.uint64(), pa.decimal128(38, 0), pa.decimal256(76, 0)])
def test_a_number_beyond_int64_leaves_the_differences_of_others_exact(type: pa.DataType) -> None:
    start, large = 1_700_000_000_000_000_000, 2**63 + 5
    times = [start, start + 100, large, large + 100, large - 1, None, 0, 2**64 - 1, 0, start]
    array = pa.array([x if x is None else Decimal(x) for x in times], pa.decimal128(38, 0)).cast(type)
    far = [float(np.float32(x)) for x in (2**64 - 1, 1 - 2**64, start)]
    assert_same(values_of(Time("x"), array, [0, 2, 6, 10]), [0, 100, 0, 100, -101, NAN, 0, *far])


@pytest.mark.parametrize("type", [pa.decimal128(38, 0), pa.decimal256(76, 0)])
def test_differences_of_the_largest_decimals_are_exact(type: pa.DataType) -> None:
    most = 10**type.precision - 1
    array = pa.array([Decimal(most - 100), Decimal(most), None, Decimal(1 - most), Decimal(-most)], type)
    assert_same(values_of(Time("x"), array), [0, 100, NAN, NAN, -1])


@pytest.mark.parametrize("type", [pa.decimal128(38, 5), *(pa.decimal256(76, scale) for scale in (57, 58, 75))], ids=str)
def test_ids_are_found_in_decimals_of_any_scale(type: pa.DataType) -> None:
    far = min(2**64 + 3, 10 ** (type.precision - type.scale) - 1)  # of 2^64 + 3, 64 bits hold 3
    array = pa.array([Decimal("3"), Decimal("0.5"), None, Decimal("-1"), Decimal("7"), Decimal(far)], type)
    assert_same(values_of(Category("x", size=8, unknown="zeros"), array), [3, *[UNKNOWN_ID] * 3, 7, UNKNOWN_ID])


def test_decimals_that_are_all_fraction_hold_no_id_but_zero() -> None:
    array = pa.array([Decimal(0), Decimal("0.5"), None, Decimal("-0.5")], pa.decimal256(76, 76))
    assert_same(values_of(Category("x", size=8, unknown="zeros"), array), [0, *[UNKNOWN_ID] * 3])


def measured(column: Column, *batches: pa.Array) -> Column:
    """A column that is named "x", as measured in batches of one row each."""
    statistics = StepStatistics(InputSpec((column,)))
    for batch in batches:
        statistics.add({"x": batch}, np.array([0, len(batch)]))
    return statistics.measured().columns[0]


@pytest.mark.parametrize("number", [0.1, 0.3, 1000000.1])
@pytest.mark.parametrize("count", [1, 10, 1000])
def test_a_column_of_one_value_is_centred(number: float, count: int) -> None:
    """Its mean may be rounded, and the numbers seem to differ from it."""
    column = measured(Number("x"), *[pa.array([number] * count)] * 3)
    assert isinstance(column, Number) and (column.mean, column.std) == (number, None)


@pytest.mark.parametrize("type", [pa.string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())])
def test_a_null_is_no_category_that_occurs(type: pa.DataType) -> None:
    statistics = StepStatistics(InputSpec((Category("x", values=("a",)),)))
    statistics.add({"x": pa.array(["a", None, "b"], type)}, np.array([0, 3]))
    assert statistics.columns[0].distinct == {"a", "b"}


@pytest.mark.parametrize("type", [pa.float16(), pa.float32(), pa.float64()])
def test_nan_in_many_batches_is_no_value_that_occurs(type: pa.DataType) -> None:
    statistics = StepStatistics(InputSpec((Number("x"),)), most_distinct=2)
    for first in (1, 2, 1):
        batch = pa.array(np.array([first, np.nan, 1], type.to_pandas_dtype()), type)
        statistics.add({"x": pa.concat_arrays([batch, pa.nulls(1, type)])}, np.array([0, 4]))
    assert statistics.columns[0].distinct == {1, 2}


def test_distinct_decimals_of_every_width_are_known() -> None:
    for make in (pa.decimal32, pa.decimal64, pa.decimal128, pa.decimal256):
        statistics = StepStatistics(InputSpec((Number("x"),)))
        statistics.add({"x": pa.array([Decimal("1.5"), None], make(5, 2))}, np.array([0, 2]))
        assert statistics.columns[0].distinct == {Decimal("1.5")}, make


NUMBERS = [
    *(pa.array([3, None, 100], type) for type in (pa.int8(), pa.uint8(), pa.int16(), pa.uint16(), pa.int32())),
    *(pa.array([3, None, 100], type) for type in (pa.uint32(), pa.int64(), pa.uint64(), pa.float32(), pa.float64())),
    pa.array([3, None, 100], pa.float16()),
    *(pa.array([Decimal(3), None, Decimal(100)], type(7, 2)) for type in (pa.decimal32, pa.decimal64)),
    *(pa.array([Decimal(3), None, Decimal(100)], type(9, 0)) for type in (pa.decimal128, pa.decimal256)),
    pa.array([3, None, 100]).dictionary_encode(),
    pa.array([3, None, 100]).dictionary_encode(null_encoding="encode"),
    pc.run_end_encode(pa.array([3, None, 100])),
    pa.array([7, 3, None, 100, 5])[1:4],
]


@pytest.mark.parametrize("array", NUMBERS, ids=lambda array: str(array.type))
def test_numbers_of_every_type(array: pa.Array) -> None:
    assert_same(values_of(Number("x"), array), [3, NAN, 100])
    scaled = [(math.log1p(3) - 1) / 2, NAN, min((math.log1p(100) - 1) / 2, 1.5)]
    assert_same(values_of(Number("x", log1p=True, mean=1.0, std=2.0, clip=(-1.5, 1.5)), array), scaled)
    assert_same(values_of(Category("x", size=101, unknown="zeros"), array), [3, -1, 100])
    assert_same(values_of(Category("x", size=100, unknown="own"), array), [3, 100, 100])
    assert_same(values_of(Category("x", values=(100, -2, 3), unknown="zeros"), array), [2, -1, 0])


def test_booleans_are_numbers_and_categories() -> None:
    array = pa.array([True, False, None])
    assert_same(values_of(Number("x"), array), [1, 0, NAN])
    assert_same(values_of(Category("x", size=2, unknown="own"), array), [1, 0, 2])
    assert_same(values_of(Category("x", values=(1,), unknown="own"), array), [0, 1, 1])


TEXTS = ["b", None, "a", "", "none"]


@pytest.mark.parametrize(
    "type", [pa.string(), pa.large_string(), pa.string_view(), "dictionary", "runs", "sliced"], ids=str
)
def test_texts_of_every_type(type: Any) -> None:
    array = pa.array(TEXTS, type if isinstance(type, pa.DataType) else pa.string())
    if type == "dictionary":
        array = pa.concat_arrays([array[:2].dictionary_encode(), array[2:].dictionary_encode()])
    elif type == "runs":
        array = pc.run_end_encode(array)
    elif type == "sliced":
        array = pa.concat_arrays([array, array, array])[5:10]
    column = Category("x", values=("a", "", "b"), unknown="zeros")
    assert_same(values_of(column, array), [2, -1, 0, 1, -1])


def test_columns_of_nothing_but_nulls_or_nothing() -> None:
    for array in (pa.nulls(2), pa.nulls(0), pa.array([], pa.string()), pa.array([], pa.timestamp("s", "UTC"))):
        missing = len(array) * [NAN]
        if not pa.types.is_string(array.type) and not pa.types.is_timestamp(array.type):
            assert_same(values_of(Number("x"), array), missing)
            assert_same(values_of(Category("x", size=2, unknown="zeros"), array), len(array) * [-1])
        if not pa.types.is_timestamp(array.type):
            assert_same(values_of(Category("x", values=("a",), unknown="own"), array), len(array) * [1])
        if not pa.types.is_string(array.type):
            for give in ("difference", "hour", "weekday"):
                assert_same(values_of(Time("x", give), array, [0, 0, len(array)]), missing)


# Numbers


@given(
    st.lists(st.none() | st.floats(width=64) | st.floats(-1, 10), max_size=8),
    st.booleans(),
    st.none() | st.floats(-9, 9),
    st.none() | st.floats(0.1, 9),
    st.none() | st.just((-1.0, 2.0)),
)
def test_scaling_is_log1p_then_standardising_then_clipping(
    numbers: list[float | None], log1p: bool, mean: float | None, std: float | None, clip: Any
) -> None:
    column = Number("x", log1p=log1p, mean=mean, std=std, clip=clip)

    def one(x: float | None) -> float:
        if x is None or not math.isfinite(x) or (log1p and x <= -1):
            return NAN
        x = float(np.log1p(x)) if log1p else x
        with np.errstate(over="ignore"):
            y = (np.float64(x) - (mean or 0.0)) / (std or 1.0)
            return float(np.float32(y if clip is None else min(max(y, clip[0]), clip[1])))

    array = pa.array(numbers, pa.float64())
    if column.changes_numbers:
        assert_same(values_of(column, array), [one(x) for x in numbers])
    else:
        with np.errstate(over="ignore"):
            wanted = np.array([NAN if x is None else x for x in numbers], np.float64).astype(np.float32)
        np.testing.assert_array_equal(values_of(column, array, lossy_cast=True), wanted)


def test_infinities_become_nan_where_a_column_is_scaled_and_no_clipping_hides_them() -> None:
    array = pa.array([math.inf, -math.inf, NAN, 2.0])
    assert_same(values_of(Number("x", clip=(0, 1)), array), [NAN, NAN, NAN, 1])
    assert_same(values_of(Number("x", log1p=True), pa.array([-1.0, -2.0, 0.0])), [NAN, NAN, 0])
    assert_same(values_of(Number("x"), array), [math.inf, -math.inf, NAN, 2])


@pytest.mark.parametrize(
    "array",
    [pa.array([1, 2**24 + 1, 3, None, -(2**24) - 1]), pa.array([1.0, 0.1, 3.0, None, 1e300]),
     pa.array([Decimal("1.00"), Decimal("0.10"), Decimal("3.00"), None, Decimal("0.70")]),
     pa.array([Decimal(1), Decimal(2**53 + 1), Decimal(3), None, Decimal(2**60)], pa.decimal128(38, 0))],
    ids=str,
)  # fmt: skip
def test_a_number_that_float32_does_not_hold_is_refused_unless_it_is_scaled(array: pa.Array) -> None:
    result = applied(Number("x"), array)
    (refusal,) = result.refusals
    assert refusal.step == 1 and refusal.reason.startswith("column 'x': ")
    assert f" value {array[1].as_py()} would become {result.values[1, 0]}; expected a value that" in refusal.reason
    assert "Allow rounding with --lossy-cast" in refusal.reason
    assert len(values_of(Number("x"), array, lossy_cast=True)) == 5
    numbers = np.array([NAN if x is None else float(x) for x in array.to_pylist()])
    wanted = ((numbers - 1) / 3).clip(-9, 9).astype(np.float32)
    np.testing.assert_array_equal(values_of(Number("x", mean=1.0, std=3.0, clip=(-9, 9)), array), wanted)


# Categories


def test_an_unknown_category_is_refused_by_its_step_and_value() -> None:
    array = pa.array(["a", None, "c", "b"])
    result = applied(Category("x", values=("a", "b")), array)
    assert_same(result.values[:, 0].tolist(), [0, NAN, NAN, 1])
    (refusal,) = result.refusals
    told = "column 'x' is 'c', which is not among the 2 values that the input knows; expected"
    assert refusal.step == 2 and refusal.reason.startswith(told)
    (refusal,) = applied(Category("x", size=3), pa.array([0, 2, 3, -1])).refusals
    assert refusal.step == 2 and "column 'x' is 3, which is not among the ids 0 to 2" in refusal.reason


@pytest.mark.parametrize(
    ("array", "wanted"),
    [
        (pa.array([2**64 - 1, 2**63, 1], pa.uint64()), [0, -1, 1]),
        (pa.array([2**63 - 1, -(2**63), 1]), [-1, 2, 1]),
        (pa.array([1.0, 1.5, NAN, math.inf, 2.0**64, -(2.0**63)]), [1, -1, -1, -1, -1, 2]),
        (pa.array(list(map(Decimal, [1, 2**64 - 1, -(2**63), 2**64 + 1])), pa.decimal128(30, 0)), [1, -1, 2, -1]),
        (pa.array([Decimal("1.00"), Decimal("1.01")], pa.decimal32(5, 2)), [1, -1]),
    ],
    ids=["uint64", "int64", "float64", "decimal", "fractions"],
)  # fmt: skip
def test_integers_at_the_edges_of_their_types(array: pa.Array, wanted: list[float]) -> None:
    column = Category("x", values=(2**64 - 1, 1, -(2**63)), unknown="zeros")
    assert_same(values_of(column, array), wanted)
    within = [x if x in (0, 1) else -1 for x in array.to_pylist()]
    assert_same(values_of(Category("x", size=2, unknown="zeros"), array), within)


@given(st.lists(st.none() | st.integers(-5, 5), max_size=9), st.lists(st.integers(-5, 5), min_size=1, unique=True))
def test_ids_are_places_in_the_vocabulary(numbers: list[int | None], vocabulary: list[int]) -> None:
    def ids(own: float) -> list[float]:
        return [vocabulary.index(x) if x in vocabulary else own for x in numbers]

    array = pa.array(numbers, pa.int64())
    for typed, values in ((array, vocabulary), (array.cast(pa.string()), [str(x) for x in vocabulary])):
        for each in (typed, typed.dictionary_encode()):
            column = Category("x", values=tuple(values), unknown="zeros")
            assert_same(values_of(column, each), ids(UNKNOWN_ID))
            column = Category("x", values=tuple(values), unknown="own")
            assert_same(values_of(column, each), ids(len(vocabulary)))


# Times

BERLIN = ZoneInfo("Europe/Berlin")
MOMENTS = [datetime(1969, 12, 31, 23, 59, 59, 999999), None, datetime(2024, 3, 31, 0, 30), datetime(2024, 3, 31, 1, 30)]


@pytest.mark.parametrize("zone", [None, "UTC", "Europe/Berlin", "+05:30"])
@pytest.mark.parametrize("unit", ["us", "ns"])
def test_hours_and_weekdays_are_local(zone: str | None, unit: str) -> None:
    array = pa.array(MOMENTS, pa.timestamp(unit, zone))
    hours, weekdays = [], []
    for moment in array.to_pylist():
        if moment is None:
            hours.append(NAN), weekdays.append(NAN)
            continue
        seconds = moment.hour * 3600 + moment.minute * 60 + moment.second + moment.microsecond / 1e6
        hours.append(seconds / 3600), weekdays.append(moment.weekday())
    assert_same(values_of(Time("x", "hour"), array), hours)
    assert_same(values_of(Time("x", "weekday"), array), weekdays)
    # Over the night when clocks were put forward an hour passed, whatever they show.
    assert_same(values_of(Time("x", unit="min"), array)[3:], [60])


def test_dates_and_times_of_the_day() -> None:
    dates = [date(1969, 12, 31), date(1970, 1, 1), None, date(2024, 2, 29), date(2024, 3, 3)]
    for type in (pa.date32(), pa.date64()):
        array = pa.array(dates, type)
        assert_same(values_of(Time("x", "weekday"), array), [2, 3, NAN, 3, 6])
        assert_same(values_of(Time("x", "hour"), array), [0, 0, NAN, 0, 0])
        assert_same(values_of(Time("x", unit="d"), array), [0, 1, NAN, NAN, 3])
    for type in (pa.time32("s"), pa.time32("ms"), pa.time64("us"), pa.time64("ns")):
        array = pa.array([time(1, 30), time(23, 0), None], type)
        assert_same(values_of(Time("x", "hour"), array), [1.5, 23, NAN])
        assert_same(values_of(Time("x", unit="h"), array), [0, 21.5, NAN])


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_differences_begin_anew_with_every_row(unit: str) -> None:
    seconds = [5, 7, 100, 99, None, 3, 4]
    offsets = [0, 2, 2, 3, 7, 7]
    wanted = [0, 2, 0, 0, NAN, NAN, 1]
    stamps = pa.array([x if x is None else datetime.fromtimestamp(x, UTC) for x in seconds], pa.timestamp(unit, "UTC"))
    spans = pa.array([x if x is None else timedelta(seconds=x) for x in seconds], pa.duration(unit))
    for array in (stamps, spans, pa.array(seconds), pa.array(seconds, pa.float32())):
        assert_same(values_of(Time("x"), array, offsets), wanted)
        assert_same(values_of(Time("x", mean=1.0, std=2.0), array, offsets), [(x - 1) / 2 for x in wanted])
    assert_same(values_of(Time("x", unit="min"), stamps, offsets), [x / 60 for x in wanted])


def test_differences_do_not_lose_what_the_times_themselves_would() -> None:
    late = 1_700_000_000_000_000_000
    array = pa.array([late, late + 1, late + 3], pa.timestamp("ns"))
    assert_same(values_of(Time("x", unit="ns"), array), [0, 1, 2])
    far = pa.array([-(2**63) + 1, 2**63 - 1, 0], pa.timestamp("ns"))
    np.testing.assert_allclose(values_of(Time("x", unit="ns"), far), [0, 2.0**64, -(2.0**63)])
    sliced = pa.array([1, 5, 6, 9], pa.timestamp("s"))[1:]
    assert_same(values_of(Time("x"), sliced), [0, 1, 3])


def test_a_time_zone_that_is_not_known_is_told() -> None:
    array = pa.array([0], pa.timestamp("s", "Nowhere/City"))
    with pytest.raises(DataError, match=r"'x' is timestamp\[s, tz=Nowhere/City\], and its hours .* cannot be told"):
        applied(Time("x", "hour"), array)


# All columns together


def test_columns_travel_in_the_order_of_the_input_whatever_that_of_the_data() -> None:
    spec = InputSpec((Time("t", "hour"), Number("x"), Category("c", values=("b", "a")), Time("t", "weekday")))
    fields = {
        "c": pa.chunked_array([["a"], ["b"]]),
        "t": pa.array([datetime(2024, 1, 1, 6), datetime(2024, 1, 2, 12)]),
        "x": pa.array([5, 6]),
    }
    values, refusals = apply_input(spec, fields, np.array([0, 2]))
    assert values.tolist() == [[6, 5, 1, 0], [12, 6, 0, 1]] and refusals == () and values.flags.c_contiguous


def test_a_missing_column_is_told_with_those_there() -> None:
    with pytest.raises(ConfigError, match=r"names the columns 'x', which the steps do not have; they have 'a', 'b'"):
        apply_input(InputSpec((Number("a"), Number("x"))), {"b": pa.nulls(1), "a": pa.nulls(1)}, np.array([0, 1]))


STAMP = pa.array([datetime(2024, 1, 1)])


@pytest.mark.parametrize(
    ("column", "array", "message"),
    [
        (Number("x"), pa.array(["1"]), r"'x' is string; expected numbers \(kind = \"category\" takes strings"),
        (Number("x"), STAMP, r"'x' is timestamp\[us\]; expected numbers .*kind = \"time\" takes times"),
        (Number("x"), pa.array([[1]]), r"'x' is list<.*>; expected numbers\."),
        (Number("x"), pa.array([b"1"]).dictionary_encode(), "'x' is binary; expected numbers"),
        (Category("x", size=3), pa.array(["1"]), "'x' is string; expected integers, since the input's values are"),
        (Category("x", values=("1",)), pa.array([1]), "'x' is int64; expected strings, since the input's values are"),
        (Category("x", values=("1",)), STAMP, "expected strings"),
        (Time("x"), pa.array(["1"]), "'x' is string; expected times that have differences"),
        (Time("x", "hour"), pa.array([1]), "'x' is int64; expected times that have a hour"),
        (Time("x", "weekday"), pa.array([time(1)]), r"'x' is time64\[us\]; expected times that have a weekday"),
        (Time("x", "hour"), pa.array([timedelta(1)]), r"'x' is duration\[us\]; expected times that have a hour"),
    ],
)
def test_a_type_that_a_column_cannot_take_is_told(column: Column, array: pa.Array, message: str) -> None:
    with pytest.raises(LayoutError, match=message):
        applied(column, array)
    if not isinstance(column, Category):
        with pytest.raises(LayoutError, match=message):
            measured(column, array)


# Statistics


@given(st.lists(st.lists(st.none() | st.floats(-1e3, 1e3) | st.just(math.inf), max_size=6), max_size=5), st.booleans())
@example([[682.7677798287943] * 3], False)
def test_statistics_of_batches_are_those_of_all(batches: list[list[float | None]], log1p: bool) -> None:
    column = Number("x", log1p=log1p)
    statistics = StepStatistics(InputSpec((column,)))
    for batch in batches:
        statistics.add({"x": pa.array(batch, pa.float64())}, np.array([0, len(batch)]))
    everything = np.array([NAN if x is None else x for batch in batches for x in batch], np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        numbers = np.log1p(everything) if log1p else everything
    finite, (of_it,) = numbers[np.isfinite(numbers)], statistics.columns
    assert (of_it.count, of_it.unusable) == (len(finite), len(numbers) - len(finite))
    (measured,) = statistics.measured().columns
    if len(finite):
        np.testing.assert_allclose([of_it.mean, of_it.std], [finite.mean(), finite.std()], rtol=1e-9, atol=1e-9)
        assert (of_it.least, of_it.most) == (finite.min(), finite.max())
        mean = of_it.least if of_it.is_constant else of_it.mean  # of equal numbers their mean is rounded
        assert measured == Number("x", log1p=log1p, mean=mean, std=of_it.std or None)
    else:
        assert measured == column


def test_statistics_keep_their_digits_far_from_zero_and_shares_can_be_merged() -> None:
    numbers = 1e9 + np.random.default_rng(0).standard_normal(10_000)
    shares = []
    for part in np.array_split(numbers, 7):
        shares.append(StepStatistics(InputSpec((Number("x"),))))
        shares[-1].add({"x": pa.array(part)}, np.array([0, len(part)]))
    merged = ColumnStatistics()
    for share in shares:
        merged = merged.merged(share.columns[0])
    # Means of shares are 0.02 apart and rounded to 1e-7, so a variance of 1 is right to some 1e-9.
    np.testing.assert_allclose([merged.mean, merged.std], [numbers.mean(), numbers.std()], rtol=1e-8)
    assert merged.distinct is None and merged.count == 10_000


def test_measured_standardisation_gives_mean_0_and_deviation_1() -> None:
    rng = np.random.default_rng(0)
    fields = {
        "x": pa.array(rng.exponential(50, 1000)),
        "t": pa.array(np.cumsum(rng.integers(1, 90, 1000)), pa.timestamp("s")),
        "constant": pa.array(np.full(1000, 5)),
        "item": pa.array(rng.integers(0, 3, 1000)),
        "given": pa.array(rng.standard_normal(1000)),
    }
    columns = (
        Number("x", log1p=True),
        Time("t"),
        Number("constant"),
        Category("item", size=3),
        Number("given", mean=9.0),
    )
    offsets = np.arange(0, 1001, 10)
    statistics = StepStatistics(InputSpec(columns), most_distinct=5)
    for begin in range(0, 1000, 100):
        statistics.add({name: array[begin : begin + 100] for name, array in fields.items()}, offsets[:11])
    assert [of_it.distinct for of_it in statistics.columns] == [None, None, {5}, {0, 1, 2}, None]
    spec = statistics.measured()
    assert spec.columns[2:] == (Number("constant", mean=5.0), *columns[3:])
    values = apply_input(spec, fields, offsets).values.astype(np.float64)
    np.testing.assert_allclose(values[:, :2].mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(values[:, :2].std(0), 1, atol=1e-6)
    assert not values[:, 2].any()


def test_numbers_whose_deviation_is_too_large_are_left_as_they_are() -> None:
    assert measured(Number("x"), *[pa.array([-1.7e308, 1.7e308, 1.0])] * 2) == Number("x")
    assert measured(Number("x"), *[pa.array([1.7e308] * 3)] * 2) == Number("x", mean=1.7e308)


@pytest.mark.parametrize(
    ("values", "array"),
    [
        (("a",), pa.array(["a", None])),
        (("a",), pa.array(["a", None], pa.string_view())),
        (("a",), pa.array(["a", None]).dictionary_encode()),
        (("a",), pa.DictionaryArray.from_arrays(pa.array([1, 0]), pa.array([None, "a"]))),
        ((7,), pa.array([7, None])),
        ((7,), pa.array([7.0, NAN], pa.float16())),
        ((7,), pa.array([7.0, NAN])),
        ((7,), pa.array([Decimal(7), None])),
        ((1,), pa.array([True, None])),
    ],
    ids=str,
)
def test_a_category_that_is_null_is_judged_as_a_bad_value(values: tuple[Any, ...], array: pa.Array) -> None:
    result = applied(Category("x", values=values), array)
    assert_same(result.values[:, 0].tolist(), [0, NAN])
    assert result.refusals == ()


@pytest.mark.parametrize(
    ("column", "asked"),
    [
        (
            ("seq", pa.list_(pa.struct([("balance", pa.float32()), ("t", pa.date32()), ("word", pa.string())]))),
            Asked(column="seq"),
        ),
        (("seq", pa.struct([("balance", pa.list_(pa.int8())), ("word", pa.list_(pa.string()))])), Asked(column="seq")),
        (("balance", pa.list_(pa.int8())), Asked()),
        (("balance", pa.int64()), Asked(group_by=("id",))),
    ],
    ids=["list of structs", "struct of lists", "list columns", "long"],
)
def test_a_name_that_steps_do_not_have_is_told_with_a_near_one(column: Any, asked: Asked) -> None:
    schema = pa.schema([("id", pa.string()), column, ("x", pa.list_(pa.int8())), ("word", pa.list_(pa.string()))])
    find = partial(find_layout, schema, where="a.parquet", takes_texts=True)
    with pytest.raises(ConfigError, match=r"'blance'.* Did you mean 'balance'\?"):
        layout_of_input(find, asked, schema, InputSpec((Number("blance"),)))


def test_a_name_is_told_with_a_near_one_where_no_column_holds_plain_numbers() -> None:
    schema = pa.schema([("user", pa.string()), ("item", pa.string()), ("ts", pa.timestamp("s"))])
    find, asked = partial(find_layout, schema, where="a.parquet", takes_texts=True), Asked(group_by=("user",))
    with pytest.raises(ConfigError, match=r"'itm'.* Did you mean 'item'\?"):
        layout_of_input(find, asked, schema, InputSpec((Category("itm", values=("a",)),)))


def test_values_of_a_batch_are_taken_apart_once_whatever_the_number_of_bad_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls, by_feature = list[Any](), Steps.by_feature
    monkeypatch.setattr(Steps, "by_feature", lambda steps: calls.append(steps) or by_feature(steps))
    steps = nested_steps(pa.array([[[1.0, NAN]]] * 50, pa.list_(pa.list_(pa.float32(), 2))), 2)
    named = NamedInput(InputSpec((Number("0"), Number("1"))), ("0", "1"))
    taken = take(steps, 2, BadRows("skip"), False, str, named=named)
    assert len(taken.aside) == 50 and len(calls) == 2


def test_a_layout_without_names_is_chosen_though_the_input_names_its_features() -> None:
    schema = pa.schema([("id", pa.string()), ("seq", pa.list_(pa.list_(pa.int8(), 2)))])
    find = partial(find_layout, schema, where="a.parquet", takes_texts=True)
    assert layout_of_input(find, Asked(), schema, InputSpec((Number("1"), Number("0")))).name == "nested-lists"
    with pytest.raises(ConfigError, match="names the columns '2', which the steps do not have; they have '0', '1'"):
        layout_of_input(find, Asked(), schema, InputSpec((Number("2"),)))
    two = schema.append(pa.field("other", schema.field("seq").type))
    with pytest.raises(LayoutError, match="in 2 ways"):
        layout_of_input(partial(find_layout, two, where="a.parquet"), Asked(), two, InputSpec((Number("1"),)))
