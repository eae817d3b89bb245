"""Columns put side by side, by the library and by numpy: every number where it belongs, and nothing beside it."""

from __future__ import annotations

import numpy as np
import pytest
from sources import needs_native

from scanrnn_dist.native import copy_side_by_side
from scanrnn_dist.source.layouts import side_by_side

LIBRARIES = [pytest.param(True, marks=needs_native), False]


@pytest.fixture(params=LIBRARIES, ids=["library", "numpy"])
def has_library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    if not request.param:
        monkeypatch.setenv("SCANRNN_NATIVE_LIBRARY", "")
    assert copy_side_by_side([], np.empty((0, 0), np.float32)) is request.param
    return bool(request.param)


@pytest.mark.parametrize("count", [0, 1, 3, 255, 256, 257, 5000])
def test_columns_come_side_by_side(has_library: bool, count: int) -> None:
    rng = np.random.default_rng(count)
    for features in (1, 2, 3, 4, 5, 7, 8, 16, 21):
        columns = [rng.standard_normal(count, np.float32) for _ in range(features)]
        values = side_by_side(columns, count)
        assert values.dtype == np.float32 and values.flags.c_contiguous
        np.testing.assert_array_equal(values, np.stack(columns, axis=1))


def test_columns_of_other_types_and_steps_of_memory_come_side_by_side_too(has_library: bool) -> None:
    whole = np.arange(12, dtype=np.float32)
    values = side_by_side([whole[::2], np.arange(6) > 2, whole[::-1][:6], np.arange(6)], 6)
    expected = [[0, 0, 11, 0], [2, 0, 10, 1], [4, 0, 9, 2], [6, 1, 8, 3], [8, 1, 7, 4], [10, 1, 6, 5]]
    assert values.tolist() == expected


def test_a_column_of_another_length_is_refused(has_library: bool) -> None:
    with pytest.raises(ValueError, match=r"expected float32 \(5,\)|could not broadcast"):
        side_by_side([np.zeros(5, np.float32), np.zeros(4, np.float32)], 5)


@needs_native
def test_nothing_is_written_beside_the_steps() -> None:
    for count in (1, 3, 256, 300):
        memory = np.full(5 * count + 32, np.float32(7))
        columns = [np.full(count, np.float32(nth)) for nth in range(5)]
        assert copy_side_by_side(columns, memory[16:-16].reshape(count, 5))
        assert (memory[:16] == 7).all() and (memory[-16:] == 7).all()
        assert (memory[16:-16].reshape(-1, 5) == range(5)).all()
