"""How long sequences are: each length with its count, whatever the number of sequences, and bars of them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

MOST_BARS = 12
SKEWED = 16
"""Where the longest has more than so many times the steps of the median, bars of one width would show nothing."""


@dataclass(frozen=True)
class Bar:
    """How many sequences have from `first` to `last` steps."""

    first: int
    last: int
    count: int


@dataclass
class LengthCounts:
    """Lengths that occurred, rising, and how often each did.

    Example:
        >>> counts = LengthCounts()
        >>> counts.add(np.array([3, 0, 3]))
        >>> counts.lengths.tolist(), counts.counts.tolist(), counts.median, counts.bars()
        ([0, 3], [1, 2], 3.0, (Bar(first=0, last=0, count=1), Bar(first=3, last=3, count=2)))
    """

    lengths: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    counts: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    def add(self, lengths: np.ndarray) -> None:
        """Count some more."""
        new, counts = np.unique(lengths.astype(np.int64, copy=False), return_counts=True)
        self.lengths, places = np.unique(np.concatenate([self.lengths, new]), return_inverse=True)
        together = np.concatenate([self.counts, counts])
        self.counts = np.bincount(places, together, len(self.lengths)).astype(np.int64)

    @property
    def sequences(self) -> int:
        """How many were counted."""
        return int(self.counts.sum())

    @property
    def steps(self) -> int:
        """Of all of them together."""
        return int((self.lengths * self.counts).sum())

    @property
    def median(self) -> float:
        """Steps of the middle one, or the mean of the two in the middle; NaN without any."""
        if not self.sequences:
            return float("nan")
        middle = np.array([(self.sequences - 1) // 2, self.sequences // 2])
        return float(self.lengths[np.searchsorted(np.cumsum(self.counts), middle, side="right")].mean())

    def bars(self) -> tuple[Bar, ...]:
        """A histogram: a bar for each length, of one round width, or doubling in width where lengths are skewed.

        Bars of one step that nobody has are left out where each length has its own.
        """
        if not self.sequences:
            return ()
        if len(self.lengths) <= MOST_BARS:
            told = zip(self.lengths.tolist(), self.counts.tolist(), strict=True)
            return tuple(Bar(length, length, count) for length, count in told)
        edges = _edges(int(self.lengths[0]), int(self.lengths[-1]), self.median)
        which = np.searchsorted(edges, self.lengths, side="right") - 1
        counts = np.bincount(which, self.counts, len(edges) - 1).astype(np.int64)
        ends = (edges[1:] - 1).tolist()
        return tuple(Bar(*each) for each in zip(edges[:-1].tolist(), ends, counts.tolist(), strict=True))


def _edges(least: int, most: int, median: float) -> np.ndarray:
    """Where bars begin, and the end of the last one."""
    if most > SKEWED * max(1.0, median):
        powers = 2 ** np.arange(max(0, least.bit_length() - 1), most.bit_length() + 1, dtype=np.int64)
        return np.append(0, powers) if least == 0 else powers
    smallest = (most + 1 - least) / MOST_BARS
    scale = 10 ** int(np.floor(np.log10(smallest)))
    width = next(scale * each for each in (1, 2, 5, 10) if scale * each >= smallest)
    return np.arange(least // width * width, most + 1 + width, width, dtype=np.int64)
