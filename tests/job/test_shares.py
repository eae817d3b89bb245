"""Shares of a job: every unit has one owner, and no share is heavier than it has to be."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanrnn_dist.errors import ConfigError
from scanrnn_dist.job.attempt import Sharing
from scanrnn_dist.job.shares import share_of_units


@given(st.lists(st.integers(0, 1000), max_size=60), st.integers(1, 9))
def test_shares_are_a_disjoint_cover_and_balanced(weights: list[int], count: int) -> None:
    of_units = np.array(weights, np.int64)
    owners = share_of_units(of_units, count)
    shares = [np.flatnonzero(owners == index) for index in range(count)]
    assert sorted(np.concatenate(shares).tolist()) == list(range(len(weights)))
    assert all((np.diff(share) > 0).all() for share in shares)
    loads = [int(of_units[share].sum()) for share in shares]
    assert max(loads) <= sum(weights) / count + max(weights, default=0)
    # Each was the lightest when it got its last, its lightest unit.
    assert all(load - min(of_units[share], default=0) <= min(loads) for load, share in zip(loads, shares, strict=True))


def test_units_of_the_same_weight_are_dealt_out_evenly() -> None:
    for weight in (0, 7):
        weights = np.full(10, weight)
        assert np.bincount(share_of_units(weights, 4)).tolist() == [3, 3, 2, 2]
    assert share_of_units(np.full(5, 1), 2).tolist() == [0, 1, 0, 1, 0]
    assert share_of_units(np.array([1, 3]), 10**12).tolist() == [1, 0]  # without room for all of these shares
    assert share_of_units(np.array([], np.int64), 10**12).tolist() == []


@pytest.mark.parametrize("share", [(3, 2), (0, 2), (-1, 2), (1, 0)])
def test_a_share_that_is_none_is_refused(share: tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match=f"Share {share[0]} of {share[1]} does not exist"):
        Sharing(share)
