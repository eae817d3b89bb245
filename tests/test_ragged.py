"""Every way to make a `Ragged` gives the same rows, and every refusal says which row and why."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanrnn_dist.errors import ConfigError, DataError
from scanrnn_dist.ragged import Ragged, all_finite, first_inexact

ROWS = st.integers(1, 4).flatmap(
    lambda D: st.lists(
        st.lists(st.lists(st.integers(-99, 99).map(float), min_size=D, max_size=D), max_size=5).map(
            lambda row: np.array(row, np.float64).reshape(len(row), D)
        ),
        min_size=1,
        max_size=8,
    )
)


def same_rows(ragged: Ragged, rows: list[np.ndarray]) -> None:
    assert ragged.values.dtype == np.float32 and ragged.offsets.dtype == np.int64
    assert len(ragged) == len(rows)
    assert ragged.lengths.tolist() == [len(row) for row in rows]
    for index, row in enumerate(rows):
        np.testing.assert_array_equal(ragged.row(index), row)


@given(ROWS, st.integers(-10, 10), st.integers(-10, 10))
def test_rows_and_slices_are_those_of_a_list(rows: list[np.ndarray], begin: int, end: int) -> None:
    ragged = Ragged.from_sequences(rows)
    same_rows(ragged.slice(begin, end), rows[begin:end])
    if -len(rows) <= begin < len(rows):
        np.testing.assert_array_equal(ragged.row(begin), rows[begin])
    else:
        with pytest.raises(IndexError, match=f"no row {begin}; there are {len(rows)}"):
            ragged.row(begin)


@given(ROWS)
def test_a_list_becomes_its_rows(rows: list[np.ndarray]) -> None:
    ragged = Ragged.from_sequences(rows)
    same_rows(ragged, rows)
    assert ragged.in_features == rows[0].shape[1]


@given(ROWS, st.integers(0, 3))
def test_a_padded_array_becomes_its_real_steps(rows: list[np.ndarray], more: int) -> None:
    lengths = np.array([len(row) for row in rows])
    padded = np.full((len(rows), lengths.max() + more, rows[0].shape[1]), np.nan)
    for index, row in enumerate(rows):
        padded[index, : len(row)] = row
    same_rows(Ragged.from_padded(padded, lengths), rows)
    same_rows(Ragged.from_padded(padded, lengths.astype(np.float64)), rows)
    assert Ragged.from_padded(padded, lengths).first_nonfinite() is None


@given(ROWS, st.data())
def test_a_slice_of_a_batch_needs_no_copy(rows: list[np.ndarray], data: Any) -> None:
    begin = data.draw(st.integers(0, len(rows)))
    end = data.draw(st.integers(begin, len(rows)))
    whole = Ragged.from_sequences(rows)
    part = Ragged(whole.values, whole.offsets[begin : end + 1])
    same_rows(part, rows[begin:end])
    assert part.values is whole.values


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int8, np.uint16, np.int64, np.bool_])
def test_every_kind_of_number_is_cast_to_float32(dtype: Any) -> None:
    rows = [np.array([[0, 1], [1, 0]], dtype), np.ones((1, 2), np.float32)]
    same_rows(Ragged.from_sequences(rows), rows)
    same_rows(Ragged.from_sequences(rows[::-1]), rows[::-1])
    same_rows(Ragged.from_padded(rows[0][None], [2]), rows[:1])


def test_plain_lists_are_sequences_too() -> None:
    assert Ragged.from_sequences([[[1, 2]], [[3.5, 4], [5, 6]]]).values.tolist() == [[1, 2], [3.5, 4], [5, 6]]


def test_empty_has_no_rows() -> None:
    ragged = Ragged.empty(3)
    assert (len(ragged), ragged.in_features, ragged.lengths.tolist(), ragged.first_nonfinite()) == (0, 3, [], None)


def test_a_float64_beyond_float32_becomes_an_infinity_with_its_row() -> None:
    ragged = Ragged.from_sequences([np.ones((2, 1)), np.array([[1.0], [1e300]])], lossy_cast=True)
    assert ragged.first_nonfinite() == (1, 1)
    assert Ragged.from_padded(np.array([[[1.0], [1e300]]]), [2], lossy_cast=True).first_nonfinite() == (0, 1)


def test_an_integer_beside_a_float_is_as_exact_in_a_padded_list_and_may_be_anything_in_the_padding() -> None:
    padded = [[[2**60, 0.5]], [[2**53 + 1, 0.5]]]
    with pytest.raises(DataError, match=rf"Sequence 1, step 0, feature 0: int value {2**53 + 1} would become"):
        Ragged.from_padded(padded, [1, 1])
    assert Ragged.from_padded(padded, [1, 0]).values.tolist() == [[2**60, 0.5]]
    assert Ragged.from_padded(padded, [1, 1], lossy_cast=True).values.tolist() == [[2**60, 0.5], [2**53, 0.5]]


@given(st.data())
def test_the_first_number_that_float32_cannot_hold_is_found(data: Any) -> None:
    dtype = np.dtype(data.draw(st.sampled_from(["f8", "i4", "u4", "i8", "u8"])))
    if dtype.kind == "f":
        numbers = st.floats() | st.floats(width=32)
    else:
        numbers = st.integers(int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)) | st.integers(0, 100)
    drawn = data.draw(st.lists(numbers, max_size=5))
    array = np.array(drawn, dtype)
    with np.errstate(over="ignore"):
        values = array.astype(np.float32)
    exact = [number != number or float(value) == number for number, value in zip(drawn, values, strict=True)]
    assert first_inexact(array, values) == (None if all(exact) else exact.index(False))


def test_masked_values_are_no_ragged() -> None:
    masked = np.ma.masked_array(np.zeros((2, 1), np.float32), mask=[[False], [True]])
    with pytest.raises(ConfigError, match="values are masked"):
        Ragged(masked, np.array([0, 2]))


def test_a_padded_batch_may_be_a_list_whose_masks_count() -> None:
    rows = [np.ma.masked_array(np.ones((2, 1)), mask=[[False], [True]])] * 2
    assert Ragged.from_padded(rows, [1, 1]).values.tolist() == [[1], [1]]
    for padded in (rows, [list(row) for row in rows]):
        with pytest.raises(DataError, match="Sequence 1, step 1, feature 0 is masked"):
            Ragged.from_padded(padded, [1, 2])
    with pytest.raises(DataError, match=r"A padded batch is no array of numbers: .* Expected \(N, T, D\)"):
        Ragged.from_padded([np.ones((2, 1)), np.ones((1, 1))], [1, 1])


VALUES = st.sampled_from([0.0, 1.0, np.nan, np.inf, -np.inf]) | st.floats(
    width=32, allow_nan=False, allow_infinity=False
)


@given(
    lengths=st.lists(st.integers(0, 4), max_size=8),
    before=st.integers(0, 3),
    after=st.integers(0, 3),
    D=st.integers(1, 3),
    data=st.data(),
)
def test_first_nonfinite_is_what_looking_at_every_value_finds(
    lengths: list[int], before: int, after: int, D: int, data: Any
) -> None:
    offsets = before + np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    size = int(offsets[-1] + after) * D
    # mostly finite, so that the first bad value stands anywhere
    values = np.array(data.draw(st.lists(VALUES | st.just(1.0), min_size=size, max_size=size)), np.float32).reshape(
        -1, D
    )
    ragged = Ragged(values, offsets)
    bad = [
        (row, step)
        for row in range(len(ragged))
        for step, x_t in enumerate(ragged.row(row))
        if not all(np.isfinite(value) for value in x_t)
    ]
    assert ragged.first_nonfinite() == (bad[0] if bad else None)


def test_finite_values_whose_sum_overflows_are_finite() -> None:
    huge = np.full((4, 2), 3e38, np.float32)
    assert Ragged(huge, np.array([0, 4])).first_nonfinite() is None


@pytest.mark.parametrize(
    ("values", "offsets", "message"),
    [
        (np.zeros((2, 1)), np.array([0, 2]), r"values are float64\[2, 1\]; expected float32"),
        (np.zeros(2, np.float32), np.array([0, 2]), r"values are float32\[2\]"),
        (np.zeros((2, 1), np.float32), np.array([0, 2], np.int32), r"offsets are int32\[2\]; expected int64"),
        (np.zeros((2, 1), np.float32), np.array([[0, 2]]), r"offsets are int64\[1, 2\]"),
        (np.zeros((2, 1), np.float32), np.array([], np.int64), r"offsets are int64\[0\]"),
        (np.zeros((2, 1), np.float32), np.array([0, 3]), "at most 2"),
        (np.zeros((2, 1), np.float32), np.array([-1, 2]), "rise from >= 0"),
        (np.zeros((2, 1), np.float32), np.array([0, 2, 1]), "must rise"),
        ([[0.0]], np.array([0, 1]), "values are a list; expected a numpy array"),
        (jnp.zeros((2, 1)), np.array([0, 1]), "values are a ArrayImpl; expected a numpy array"),
        (np.zeros((2, 1), np.float32), [0, 2], "offsets are a list; expected a numpy array"),
    ],
)
def test_arrays_that_are_no_ragged_are_refused(values: Any, offsets: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Ragged(values, offsets)


def test_sequences_may_come_one_by_one_or_with_an_index_of_their_own() -> None:
    rows = [np.ones((3, 2)), np.zeros((1, 2))]
    for sequences in (iter(rows), {5: rows[0], 7: rows[1]}.values()):
        assert Ragged.from_sequences(sequences).lengths.tolist() == [3, 1]


def test_an_empty_list_is_refused_with_what_to_do() -> None:
    with pytest.raises(ConfigError, match=r"pass Ragged\.empty\(D\)"):
        Ragged.from_sequences([])


@pytest.mark.parametrize(
    ("sequences", "message"),
    [
        ([np.zeros((2, 3)), np.zeros(4)], r"Sequence 1 has shape \(4,\); expected \(T, D\).*x\[:, None\]"),
        ([np.zeros((1, 2, 3))], r"Sequence 0 has shape \(1, 2, 3\)"),
        ([np.zeros((2, 3)), np.array([["a", "b", "c"]])], "Sequence 1 is of dtype <U1; expected numbers"),
        ([np.zeros((2, 3), complex)], "Sequence 0 is of dtype complex128"),
        ([np.zeros((2, 3)), np.zeros((3, 4))], r"Sequence 1 has 4 features \(shape \(3, 4\)\), sequence 0 has 3"),
    ],
)
def test_a_sequence_that_does_not_fit_is_named(sequences: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Ragged.from_sequences(sequences)


def test_sequences_that_lie_the_wrong_way_round_are_told_so() -> None:
    with pytest.raises(DataError, match=r"look like \(D, T\); expected is \(T, D\), time first: pass x\.T"):
        Ragged.from_sequences([np.zeros((3, 10)), np.zeros((3, 11))])
    with pytest.raises(DataError) as error:
        Ragged.from_sequences([np.zeros((3, 10)), np.zeros((4, 11))])
    assert "x.T" not in str(error.value)


@pytest.mark.parametrize(
    ("padded", "seq_lengths", "message"),
    [
        (np.zeros((2, 3)), [3, 3], r"A padded batch is float64\[2, 3\]; expected numbers \(N, T, D\)"),
        (np.full((1, 1, 1), "a"), [1], "A padded batch is <U1"),
        (np.zeros((2, 3, 1)), [3], r"seq_lengths is int64\[1\]; expected 2 whole numbers"),
        (np.zeros((2, 3, 1)), [[3, 3]], r"seq_lengths is int64\[1, 2\]"),
        (np.zeros((2, 3, 1)), [True, False], r"seq_lengths is bool\[2\]"),
        (np.zeros((2, 3, 1)), [3, -1], r"seq_lengths\[1\] is -1; expected a whole number from 0 to 3"),
        (np.zeros((2, 3, 1)), [4, -1], r"seq_lengths\[0\] is 4"),
        (np.zeros((2, 3, 1)), [1.0, 2.5], r"seq_lengths\[1\] is 2\.5"),
        (np.zeros((2, 3, 1)), [1.0, np.nan], r"seq_lengths\[1\] is nan"),
    ],
)
def test_a_padded_batch_that_does_not_fit_is_refused(padded: Any, seq_lengths: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Ragged.from_padded(padded, seq_lengths)


@pytest.mark.parametrize("place", [0, 5, 65_535, 65_536, 131_071, 131_072, 131_076])
def test_one_value_that_is_not_finite_is_found_wherever_it_stands(place: int) -> None:
    values = np.full((131_077, 1), -3e38, np.float32)  # whose sum is none
    assert all_finite(values) and all_finite(values[:place])
    for value in (np.nan, np.inf, -np.inf):
        values[place] = value
        assert not all_finite(values) and all_finite(values[:place]) and not all_finite(values[: place + 1])
        assert not all_finite(np.repeat(values, 2, axis=1)[:, ::2])


@given(ROWS, st.data())
def test_rows_are_taken_in_any_order(rows: list[np.ndarray], data: Any) -> None:
    begin = data.draw(st.integers(0, len(rows) - 1))
    numbers = data.draw(st.lists(st.integers(0, len(rows) - begin - 1), max_size=6))
    ragged, rows = Ragged.from_sequences(rows).slice(begin, len(rows)), rows[begin:]
    same_rows(ragged.take(np.array(numbers, np.int64)), [rows[number] for number in numbers])


def test_rows_that_follow_one_another_are_taken_without_a_copy() -> None:
    ragged = Ragged.from_sequences([np.zeros((2, 1)), np.ones((0, 1)), np.ones((3, 1))])
    assert np.shares_memory(ragged.take(np.array([1, 2])).values, ragged.values)
    assert not np.shares_memory(ragged.take(np.array([2, 0])).values, ragged.values)
