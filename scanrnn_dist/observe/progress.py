"""What a person sees while rows are worked on: a bar on a terminal, plain lines now and then elsewhere.

Goes to standard error, so that standard output holds results alone.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from datetime import datetime, timedelta
from importlib.util import find_spec

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as RichProgress

from scanrnn_dist.observe.messages import SHOWN, to_stderr

LINE_SECONDS = 10.0
"""Seconds between two plain lines, at first."""
LINE_SHARE = 0.1
"""Later, a line each time that so much more of the time has passed: an hour's log has some 60 lines, a week's 110."""
NARROW = 80
"""Columns of a terminal below which the bar is left out, so that no number is cut."""
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
    def in_words(self) -> str:
        """`3,500 of 4,000 rows (88%), 120 rows/s, 0:00:04 left`."""
        share = self.done / max(self.total, 1)
        return f"{self.done:,} of {self.total:,} rows ({share:.0%}), {self.rate:,.0f} rows/s, {self.left_in_words}"

    @property
    def left_in_words(self) -> str:
        """`0:00:04 left`."""
        seconds = self.left_seconds
        return "unknown time left" if seconds is None else f"{timedelta(seconds=round(seconds))} left"

    @property
    def left_seconds(self) -> float | None:
        """How long the rows that are left take, if that can be told."""
        return seconds_left(max(0, self.total - self.done), self.rate)


@contextmanager
def rows_progress(what: str, total: int | None = None) -> Iterator[Progress]:
    """Yields what is to hear of rows as they are finished; of how many, `start` tells where it is not known yet."""
    if SHOWN.level > logging.INFO:
        yield Progress(what)
        return
    console = Console(stderr=True)
    bar_of = () if console.width < NARROW else (BarColumn(bar_width=min(40, console.width - 70)),)
    columns = (TextColumn("{task.description}"), *bar_of, TextColumn("{task.fields[told]}"))
    # Else there is no terminal, or a dumb one, where a bar would appear only at the end; nor a notebook with widgets.
    is_seen = (_is_terminal(console) or _has_widgets(console)) and not SHOWN.as_json
    SHOWN.has_bar = is_seen
    try:
        with _Drawn(*columns, console=console) if is_seen else nullcontext() as bar:
            progress: Progress = _Lines(what) if bar is None else _Bar(what, bar)
            if total is not None:
                progress.start(0, total)
            try:
                yield progress
            finally:
                if bar is not None:
                    bar.refresh()  # in a notebook nobody else shows the last state
    finally:
        SHOWN.has_bar = False


def _is_terminal(console: Console) -> bool:
    """Whether it writes to a terminal that draws; rich alone believes FORCE_COLOR, which many set for their logs."""
    return console.is_interactive and console.file.isatty()


def _has_widgets(console: Console) -> bool:
    return console.is_jupyter and find_spec("ipywidgets") is not None


class _Drawn(RichProgress):
    """What is drawn; a terminal that is gone, as where ssh ended, is no reason to end a job, nor to lose its result."""

    def refresh(self) -> None:
        with suppress(OSError):
            super().refresh()

    def stop(self) -> None:
        with suppress(OSError):
            super().stop()


class _Bar(Progress):
    def __init__(self, what: str, bar: RichProgress) -> None:
        super().__init__(what)
        self._bar = bar
        self._is_narrow = bar.console.width < NARROW
        self._task: TaskID | None = None

    def start(self, done: int, total: int) -> None:
        super().start(done, total)
        if self._task is None:
            self._task = self._bar.add_task(self.what, told="")
        self._bar.update(self._task, completed=done, total=total, told=f"{done:,} of {total:,} rows")

    def advance(self, rows: int) -> None:
        assert self._task is not None, "start comes first"
        super().advance(rows)
        short = f"{self.done:,} of {self.total:,} rows, {self.left_in_words}"
        self._bar.update(self._task, completed=self.done, told=short if self._is_narrow else self.in_words)


class _Lines(Progress):
    """Prints a line now and then, with the time of day."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self._begun = self._last = self.begin

    def start(self, done: int, total: int) -> None:
        super().start(done, total)
        if done:
            self._print(f"{done:,} of {total:,} rows were there before")

    def advance(self, rows: int) -> None:
        super().advance(rows)
        now = time.monotonic()
        if now - self._last >= max(LINE_SECONDS, (now - self._begun) * LINE_SHARE):
            self._last = now
            self._print(self.in_words)

    def _print(self, line: str) -> None:
        numbers = {"rows": self.done, "total": self.total, "rows_per_second": round(self.rate, 1)}
        event = {"event": "progress", "what": self.what, **numbers, "seconds_left": self.left_seconds}
        to_stderr(f"{datetime.now():%H:%M:%S} {self.what}: {line}", event=event)
