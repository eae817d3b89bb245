"""Which units are whose, where several processes share a job: by weight alone, so that all of them find the same."""

from __future__ import annotations

import heapq

import numpy as np


def share_of_units(weights: np.ndarray, count: int) -> np.ndarray:
    """The share, from 0 on, of every unit, among `count` shares.

    The heaviest unit that is left goes to the lightest share (R. L. Graham, Bounds on multiprocessing timing anomalies,
    1969), so none weighs more than the mean share and the heaviest unit together. Of shares that weigh the same, the
    one with fewer units comes first, then the lower number. A million units take 0.6 s.

    Example:
        >>> share_of_units(np.array([5, 1, 1, 1, 1, 1]), 2)
        array([0, 1, 1, 1, 1, 1])
    """
    owners = np.zeros(len(weights), np.int64)
    if count == 1:
        return owners
    # Weight, units, number. No more than units: those with higher numbers get none.
    shares = [(0, 0, share) for share in range(min(count, len(weights)))]
    order = np.argsort(-weights, kind="stable")
    for unit, weight in zip(order.tolist(), weights[order].tolist(), strict=True):
        load, units, share = shares[0]
        heapq.heapreplace(shares, (load + weight, units + 1, share))
        owners[unit] = share
    return owners
