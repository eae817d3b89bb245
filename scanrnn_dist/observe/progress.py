"""What a person sees while rows are worked on: a bar on a terminal, plain lines now and then elsewhere.

Goes to standard error, so that standard output holds results alone.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress

LINE_SECONDS = 10.0
"""Seconds between two plain lines."""
MOST_SECONDS = 10 * 365 * 86_400.0
"""A time left beyond ten years only says that the rate is not known yet."""


def seconds_left(left: float, rate: float) -> float | None:
    """How long what is `left` takes at a `rate` per second; None where the rate is too low to tell.

    Example:
        >>> seconds_left(100, 20.0), seconds_left(100, 1e-300)
        (5.0, None)
    """
    return left / rate if 0 < rate < math.inf and left <= rate * MOST_SECONDS else None


class Progress:
    """Hears of rows as they are finished; knows their rate, and how long the others take at it."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.begin, self.before, self.done, self.total = time.monotonic(), 0, 0, 0

    def start(self, done: int, total: int) -> None:
        """Rows that were finished before, which count for no rate, and all there are."""
        self.begin, self.before, self.done, self.total = time.monotonic(), done, done, total

    def advance(self, rows: int) -> None:
        """Rows that were finished just now."""
        self.done += rows

    @property
    def rate(self) -> float:
        """Rows per second since the start."""
        return (self.done - self.before) / max(time.monotonic() - self.begin, 1e-9)

    @property
    def left_seconds(self) -> float | None:
        """How long the rows that are left take, if that can be told."""
        return seconds_left(max(0, self.total - self.done), self.rate)


@contextmanager
def rows_progress(what: str, total: int | None = None) -> Iterator[Progress]:
    """Yields what is to hear of rows as they are finished; of how many, `start` tells where it is not known yet."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("rows"),
        TextColumn("{task.fields[rate]}"), TimeElapsedColumn(), TextColumn("{task.fields[left]}"),
    )  # fmt: skip
    is_seen = console.is_interactive  # else no terminal, or a dumb one, where a bar would appear only at the end
    with RichProgress(*columns, console=console) if is_seen else nullcontext() as bar:
        progress: Progress = _Lines(what) if bar is None else _Bar(what, bar)
        if total is not None:
            progress.start(0, total)
        yield progress


class _Bar(Progress):
    def __init__(self, what: str, bar: RichProgress) -> None:
        super().__init__(what)
        self._bar = bar
        self._task: TaskID | None = None

    def start(self, done: int, total: int) -> None:
        super().start(done, total)
        if self._task is None:
            self._task = self._bar.add_task(self.what, rate="", left="")
        self._bar.update(self._task, completed=done, total=total)

    def advance(self, rows: int) -> None:
        assert self._task is not None, "start comes first"
        super().advance(rows)
        seconds = self.left_seconds
        left = "" if seconds is None else f"{timedelta(seconds=round(seconds))} left"
        self._bar.update(self._task, completed=self.done, rate=f"{self.rate:,.0f} rows/s", left=left)


class _Lines(Progress):
    """Prints a line when `LINE_SECONDS` have passed since the last one."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self._last = self.begin

    def start(self, done: int, total: int) -> None:
        super().start(done, total)
        if done:
            print(f"{self.what}: {done:,} of {total:,} rows were there before", file=sys.stderr, flush=True)

    def advance(self, rows: int) -> None:
        super().advance(rows)
        now, seconds = time.monotonic(), self.left_seconds
        if now - self._last >= LINE_SECONDS:
            self._last = now
            share, left = self.done / max(self.total, 1), "unknown time" if seconds is None else f"{seconds:,.0f} s"
            line = f"{self.what}: {self.done:,} of {self.total:,} rows ({share:.0%}), {self.rate:,.0f} rows/s"
            print(f"{line}, {left} left", file=sys.stderr, flush=True)
