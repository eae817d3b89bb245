"""Lengths are counted as numpy counts them, and every sequence is in one bar of their histogram."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanrnn_dist.job.lengths import MOST_BARS, LengthCounts

LENGTHS = st.one_of(
    st.lists(st.one_of(st.integers(0, 30), st.integers(0, 10**6)), max_size=40),
    st.builds(range, st.integers(0, 100), st.integers(0, 1000)),
)


@given(st.lists(LENGTHS, max_size=4))
def test_batches_are_counted_like_all_at_once(batches: list[list[int]]) -> None:
    counts, every = LengthCounts(), np.array([length for batch in batches for length in batch], np.int64)
    for batch in batches:
        counts.add(np.array(batch, np.int64))
    assert (counts.sequences, counts.steps) == (len(every), every.sum())
    if len(every):
        assert counts.median == np.median(every)


@given(LENGTHS)
def test_every_sequence_is_in_one_bar(lengths: list[int]) -> None:
    counts = LengthCounts()
    counts.add(np.array(lengths, np.int64))
    bars = counts.bars()
    assert sum(bar.count for bar in bars) == len(lengths)
    for bar, after in pairwise(bars):
        assert bar.first <= bar.last < after.first
    for bar in bars:
        assert bar.count == sum(bar.first <= length <= bar.last for length in lengths)
    assert not bars or (bars[0].count and bars[-1].count)


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        ([5, 5, 7], [(5, 5), (7, 7)]),
        (range(4, 571), [(50 * nth, 50 * nth + 49) for nth in range(12)]),
        (range(4, 601), [(50 * nth, 50 * nth + 49) for nth in range(13)]),
        ([*range(13), 1000], [(0, 0), (1, 1), (2, 3), (4, 7), (8, 15), (16, 31), (32, 63), (64, 127), (128, 255),
                              (256, 511), (512, 1023)]),
    ],
)  # fmt: skip
def test_bars_are_of_round_widths_or_double(lengths: list[int], expected: list[tuple[int, int]]) -> None:
    counts = LengthCounts()
    counts.add(np.array(lengths, np.int64))
    assert [(bar.first, bar.last) for bar in counts.bars()] == expected
    assert MOST_BARS == 12
