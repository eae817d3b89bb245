"""A job in the process of a command: its progress on the terminal, and its signals heeded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from scanrnn_dist.cli.process import SIGNALS

if TYPE_CHECKING:
    from scanrnn_dist.cli.computation import AskedComputation
    from scanrnn_dist.job import Executor, Handling, JobOptions, JobReport


def run_shown(
    destination: str,
    source: str | list[str],
    options: JobOptions,
    handling: Handling,
    computation: AskedComputation,
    executor: Executor | None = None,
) -> JobReport:
    """Do a job with a progress display."""
    from scanrnn_dist.job import run_job

    with progress("featurize") as (on_start, on_rows):
        return run_job(destination, source, options, handling, computation, on_start, on_rows, executor)


@contextmanager
def progress(what: str) -> Iterator[tuple[Callable[[int, int], None], Callable[[int], None]]]:
    """What a job is to call when it starts and when rows are finished: it draws a bar, and heeds signals."""
    from scanrnn_dist.observe import rows_progress

    with SIGNALS.raising(), rows_progress(what) as display:

        def advance(rows: int) -> None:
            SIGNALS.check()
            display.advance(rows)

        yield display.start, advance
