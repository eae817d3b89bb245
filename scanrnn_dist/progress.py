"""What a person sees while rows are worked on: a bar on a terminal, plain lines now and then elsewhere.

Goes to standard error, so that standard output holds results alone.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

LINE_SECONDS = 10.0
"""Seconds between two plain lines."""


@contextmanager
def rows_progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Yields a function to call with the number of rows that were just finished, of `total`.

    Example:
        >>> with rows_progress("featurize", total=2) as advance:
        ...     advance(2)
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines(what, total)
        return
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("rows"),
        TextColumn("{task.fields[rate]}"), TimeElapsedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    begin = time.monotonic()
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(what, total=total, rate="")

        def advance(rows: int) -> None:
            done = progress.tasks[task].completed + rows
            rate = f"{done / max(time.monotonic() - begin, 1e-9):,.0f} rows/s"
            progress.update(task, advance=rows, rate=rate)

        yield advance


def _lines(what: str, total: int) -> Callable[[int], None]:
    """Prints a line when `LINE_SECONDS` have passed since the last one."""
    begin = last = time.monotonic()
    done = 0

    def advance(rows: int) -> None:
        nonlocal done, last
        done += rows
        now = time.monotonic()
        if now - last >= LINE_SECONDS:
            last = now
            rate = done / max(now - begin, 1e-9)
            left = (total - done) / max(rate, 1e-9)
            share = done / max(total, 1)
            line = f"{what}: {done:,} of {total:,} rows ({share:.0%}), {rate:,.0f} rows/s, {left:,.0f} s left"
            print(line, file=sys.stderr, flush=True)

    return advance
