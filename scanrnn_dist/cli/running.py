"""A job in the process of a command: its progress on the terminal, and its signals heeded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from scanrnn_dist.cli.process import SIGNALS
from scanrnn_dist.errors import SAVED, StoppedError
from scanrnn_dist.observe import to_stderr

if TYPE_CHECKING:
    from scanrnn_dist.cli.computation import AskedComputation
    from scanrnn_dist.job import Executor, Handling, JobOptions, JobReport


def run_shown(
    destination: str,
    source: str | list[str] | None,
    options: JobOptions,
    handling: Handling,
    computation: AskedComputation,
    executor: Executor | None = None,
) -> JobReport:
    """Do a job with a progress display; `source` is None to go on with the one that stands there.

    What was done before is told at once, long before JAX is there; what was saved, when the job is stopped.
    """
    from scanrnn_dist.job import command_that_continues, run_job, saved_rows

    if saved := saved_rows(destination):
        anew = " By --restart another one is made, from nothing." if handling.restart else ""
        to_stderr(f"{destination} holds a job that is not finished. {saved}.{anew}")
    try:
        with progress("featurize") as (on_start, on_rows):
            return run_job(destination, source, options, handling, computation, on_start, on_rows, executor)
    except StoppedError as error:
        if not SIGNALS.stopped_by or SIGNALS.rest != SAVED or not (saved := saved_rows(destination)):
            raise
        # Where nothing stood, a restart is an ordinary job, which the same command would make from nothing once more.
        same = "leave out --restart" if handling.restart else "run the same command"
        raise StoppedError(
            f"Stopped by {SIGNALS.stopped_by}. {saved}. To continue, {same}, or {command_that_continues(destination)}."
        ) from error


@contextmanager
def progress(what: str) -> Iterator[tuple[Callable[[int, int], None], Callable[[int], None]]]:
    """What a job is to call when it starts and when rows are finished: it draws a bar, and heeds signals."""
    from scanrnn_dist.observe import rows_progress

    with SIGNALS.raising(), rows_progress(what) as display:

        def advance(rows: int) -> None:
            SIGNALS.check()
            display.advance(rows)

        yield display.start, advance
