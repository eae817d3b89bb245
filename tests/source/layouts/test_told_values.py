"""Any value can be told and compared: texts that are no UTF-8, times that Python does not have, zones nobody knows."""

from __future__ import annotations

import datetime

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from odd_values import FAR, ODD, stored, texts

from scanrnn_dist.source.layouts import in_words, python_values, stored_values, told

WORDS = {
    "text": "'\ufffd\ufffd'",
    "large text": "'\ufffd\ufffd'",
    "view of text": "'\ufffd\ufffd'",
    "dictionary of texts": "'\ufffd\ufffd'",
    "unknown zone": "1970-01-01 00:00:00.000005+00:00",
    "year 10000 of a zone": "9999-12-31 23:59:59+00:00",
    "year 10000": "10000-01-01 00:00:09",
    "before the years": "-144169-06-28 09:59:32.612096",
    "far date": "15659-07-15",
    "far date in milliseconds": "10000-01-01",
    "long duration": "1152921504606846976 seconds",
    "nanoseconds": "1970-01-01 00:00:00.000000005",
    "nanoseconds of a day": "00:00:00.000000005",
    "no time for numpy": f"{-(2**63)} of the type timestamp[us]",
}


@pytest.mark.parametrize("name", list(ODD))
def test_what_python_does_not_have_is_told(name: str) -> None:
    array = ODD[name]
    assert in_words(array, 0) == WORDS[name] and in_words(array, 2) == "null"
    values = python_values(array)
    assert len(values) == 3 and values[2] is None and str(values[0]) == WORDS[name].strip("'")


@pytest.mark.parametrize("name", list(ODD))
def test_odd_values_are_equal_where_the_stored_ones_are(name: str) -> None:
    first, second, null = stored_values(ODD[name])
    assert first != second and null is None
    assert stored_values(ODD[name].slice(1, 1)) == [second]


def test_values_in_words() -> None:
    day = pa.array([datetime.datetime(2020, 10, 25, 0, 30)], pa.timestamp("us", "Europe/Berlin"))
    assert told(["a", "b"], [pa.array(["x"]), pa.array([7])], 0) == "a='x', b=7"
    assert [in_words(array, 0) for array in (day, pa.array([b"x"]), pa.array([True]))] == [
        "2020-10-25 02:30:00+02:00", "b'x'", "True",
    ]  # fmt: skip


def test_times_that_python_takes_for_equal_are_not() -> None:
    """An hour apart where clocks are set back, parts of a day in a date, and more than a day."""
    hour = 3600
    for kind, ones in (
        (pa.timestamp("s", "Europe/Berlin"), [1603585800, 1603585800 + hour]),
        (pa.date64(), [5, 6]),
        (pa.time32("s"), [5, 86405]),
    ):
        array = stored(ones, kind)
        assert len(set(array.to_pylist())) == 1 and stored_values(array) == ones


UNITS = ("s", "ms", "us", "ns")
KINDS = [
    *(pa.timestamp(unit, zone) for unit in UNITS for zone in (None, "Asia/Tokyo", "no/zone", "America", "+99:00")),
    *map(pa.duration, UNITS),
    *(pa.time64("us"), pa.time64("ns"), pa.time32("s"), pa.time32("ms"), pa.date32(), pa.date64()),
]  # fmt: skip
NUMBERS = st.integers(-(2**63), 2**63 - 1) | st.sampled_from(FAR)


@given(st.sampled_from(KINDS), st.lists(NUMBERS, min_size=1, max_size=5))
def test_no_time_raises(kind: pa.DataType, numbers: list[int]) -> None:
    bits = kind.bit_width
    numbers = [(number + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1) for number in numbers]
    array = stored(numbers, kind)
    assert stored_values(array) == numbers
    assert len(python_values(array)) == len(numbers) and all(in_words(array, place) for place in range(len(numbers)))


@given(st.lists(st.binary(max_size=6), min_size=1, max_size=5))
def test_no_text_raises(values: list[bytes]) -> None:
    array = texts(values)
    assert stored_values(array) == values
    assert python_values(array) == [value.decode("utf-8", "replace") for value in values]


def test_what_nobody_can_make_a_value_of_is_told_by_its_type() -> None:
    lists = pa.ListArray.from_arrays(pa.array([0, 1], pa.int32()), texts([b"\xff"]))
    assert in_words(lists, 0) == "a value of the type list<item: string>"
