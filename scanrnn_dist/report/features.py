"""What the features of a sample look like: numbers of each, a map of the rows, which features say nothing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SATURATED = 0.99
"""A feature of at least this size is at the end of what tanh gives."""
_FITTED_ROWS, _WIDE = 1000, 512
"""Wider features have their directions found from so many rows: 1,000 of 4,096 numbers take about 1 s."""


@dataclass(frozen=True)
class FeatureNumbers:
    """Of each feature over a sample, all `(out_features,)`.

    Args:
        mean, sd, least, greatest: of its numbers; NaN if there are none.
        saturated: the share of rows in which it is beyond 0.99 in size.
    """

    mean: np.ndarray
    sd: np.ndarray
    least: np.ndarray
    greatest: np.ndarray
    saturated: np.ndarray
    rows: int

    @property
    def saturated_features(self) -> list[int]:
        """Features beyond 0.99 in size in more than half of the rows."""
        return [int(feature) for feature in np.flatnonzero(self.saturated > 0.5)]

    @property
    def dead_features(self) -> list[int]:
        """Features that are the same number in all rows, where there are at least two."""
        return [int(feature) for feature in np.flatnonzero(self.least == self.greatest)] if self.rows > 1 else []


@dataclass(frozen=True)
class Map:
    """Rows on a plane that keeps as much of their variance as a plane can: principal components.

    Args:
        places: `(n, 2)`.
        shares: of the variance, along the two directions.
    """

    places: np.ndarray
    shares: tuple[float, float]


def numbers_of(features: np.ndarray) -> FeatureNumbers:
    """Of each feature of some rows, `(n, out_features)`, all of them finite."""
    if not len(features):
        nothing = np.full(features.shape[1], np.nan)
        return FeatureNumbers(nothing, nothing, nothing, nothing, nothing, 0)
    features = features.astype(np.float64)
    return FeatureNumbers(
        features.mean(0), features.std(0), features.min(0), features.max(0),
        (np.abs(features) > SATURATED).mean(0), len(features),
    )  # fmt: skip


def map_of(features: np.ndarray) -> Map | None:
    """Where rows stand by their two principal components; None if they do not differ, or there is only one feature.

    Example:
        >>> found = map_of(np.array([[0.0, 0.0], [3.0, 4.0]]))
        >>> np.abs(found.places).round(3).tolist(), found.shares
        ([[2.5, 0.0], [2.5, 0.0]], (1.0, 0.0))
    """
    if min(features.shape) < 2:
        return None
    centred = features.astype(np.float64) - features.mean(0, dtype=np.float64)
    fitted = centred
    if features.shape[1] > _WIDE and len(features) > _FITTED_ROWS:
        fitted = centred[np.linspace(0, len(centred) - 1, _FITTED_ROWS).astype(int)]
    _, lengths, directions = np.linalg.svd(fitted, full_matrices=False)
    total = float((lengths**2).sum())
    if total <= np.finfo(np.float64).eps * features.size:
        return None
    directions = directions[:2]
    largest = np.take_along_axis(directions, np.abs(directions).argmax(1)[:, None], 1)
    places = centred @ (directions * np.where(largest < 0, -1.0, 1.0)).T  # else the sign is LAPACK's choice
    first, second = (lengths[:2] ** 2 / total).round(6).tolist()
    return Map(places, (first, second))
