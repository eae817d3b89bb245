"""Rows per second over the time of a job, from what `records` reads of its attempts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from scanrnn_dist.records import AttemptHistory

BINS = 60
"""Bars over the whole time, at most."""
MOST_SHOWN = 7
"""Attempts that have a colour of their own; the others share one."""


@dataclass(frozen=True)
class Attempt:
    """What one process did.

    Args:
        name: of it, `HOST.PID.RANDOM`, and `-JOB` once its parts are another job's.
        started: in seconds since 1970.
        commits: `(n, 3)`, for each part: its rows, when the one before was saved, or the attempt began, and
            when it was saved itself.
    """

    name: str
    started: float
    commits: np.ndarray

    @property
    def rows(self) -> int:
        """Rows that it saved."""
        return int(self.commits[:, 0].sum())

    @property
    def seconds(self) -> float:
        """From its start to its last part."""
        return float(max(self.commits[:, 2].max(initial=self.started) - self.started, 0.0))

    @property
    def rows_per_second(self) -> float:
        """Over that time; 0 if it saved nothing."""
        return self.rows / self.seconds if self.seconds else 0.0


@dataclass(frozen=True)
class Throughput:
    """Rows per second over time, pauses between attempts left out.

    Args:
        attempts: all of them, by their start.
        edges: `(bins + 1,)`, seconds of work.
        names: of those that are shown, the last one maybe of several.
        rates: `(names, bins)`, rows per second.
    """

    attempts: tuple[Attempt, ...]
    edges: np.ndarray
    names: tuple[str, ...]
    rates: np.ndarray


def attempts_of(history: Iterable[AttemptHistory]) -> list[Attempt]:
    """The attempts at a job, by their start."""
    return sorted(map(_attempt, history), key=lambda it: (it.started, it.name))


def _attempt(told: AttemptHistory) -> Attempt:
    """What one process did: each part tells of the time since the one before it."""
    order = np.lexsort((told.rows, told.finished))
    ends = told.finished[order]
    # Units are begun many at a time, so a part tells of the time since the one before it, not since its beginning.
    times = np.unique(np.append(ends, told.started))
    begins = times[np.maximum(np.searchsorted(times, ends) - 1, 0)]
    commits = np.column_stack([told.rows[order], begins, ends]).reshape(-1, 3)
    return Attempt(told.name, told.started, commits.astype(np.float64))


def throughput_of(attempts: Sequence[Attempt], bins: int | None = None) -> Throughput:
    """Rows per second in equal spans of the time in which somebody worked: 60, or as many as there are parts if fewer.

    The rows of a part are spread evenly over the time since the same attempt saved the part before.
    """
    attempts = tuple(attempts)
    working = [attempt for attempt in attempts if attempt.rows]
    spans = _united([(attempt.started, attempt.started + attempt.seconds) for attempt in working])
    total = sum(end - begin for begin, end in spans)
    if not total:
        return Throughput(attempts, np.zeros(1), (), np.zeros((0, 0)))
    bins = bins or min(BINS, sum(len(attempt.commits) for attempt in working))
    edges = np.linspace(0.0, total, bins + 1)
    shown = working if len(working) <= MOST_SHOWN + 1 else working[:MOST_SHOWN]
    groups = [[attempt] for attempt in shown] + ([working[MOST_SHOWN:]] if len(shown) < len(working) else [])
    names = [group[0].name if len(group) == 1 else f"{len(group):,} other attempts" for group in groups]
    rates = [_rows_by(edges, np.concatenate([each.commits for each in group]), spans) for group in groups]
    return Throughput(attempts, edges, tuple(names), np.array([np.diff(rows) * bins / total for rows in rates]))


def _rows_by(edges: np.ndarray, commits: np.ndarray, spans: Sequence[tuple[float, float]]) -> np.ndarray:
    """Rows that were done by each moment of work."""
    rows, begins, ends = commits[:, 0], _work_time(commits[:, 1], spans), _work_time(commits[:, 2], spans)
    lasting = np.maximum(ends - begins, 1e-9)
    begins = ends - lasting
    return np.array([(rows * np.clip((edge - begins) / lasting, 0.0, 1.0)).sum() for edge in edges])


def _work_time(times: np.ndarray, spans: Sequence[tuple[float, float]]) -> np.ndarray:
    """Seconds of work before each time of the clock; the spans of work are in their order, and none overlaps."""
    begins, ends = np.array(spans).T
    before = np.cumsum(ends - begins) - (ends - begins)
    span = np.searchsorted(begins, times, side="right") - 1
    return np.where(span < 0, 0.0, before[span] + np.minimum(times, ends[span]) - begins[span])


def _united(spans: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Spans of time, those that overlap as one."""
    united: list[tuple[float, float]] = []
    for begin, end in sorted(spans):
        if united and begin <= united[-1][1]:
            united[-1] = (united[-1][0], max(end, united[-1][1]))
        else:
            united.append((begin, end))
    return united
