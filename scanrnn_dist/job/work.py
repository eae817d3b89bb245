"""The loop of a job: what is left to do is done by an executor, until nothing is left for this process.

What is done to a unit stands in `pipeline.py`, who does it in `executor.py`; what is committed, which units are whose,
and how a job goes on after a crash, is `attempt.py`'s.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from scanrnn_dist.errors import ConfigError, counted
from scanrnn_dist.job.attempt import MAX_BAD_ROWS, Attempt, OnRows
from scanrnn_dist.job.columns import left_out_in_words
from scanrnn_dist.job.computation import Computation
from scanrnn_dist.job.executor import Executor, InThisProcess
from scanrnn_dist.job.open_job import OpenJob, open_job
from scanrnn_dist.job.options import Handling, JobOptions
from scanrnn_dist.job.pipeline import Done
from scanrnn_dist.job.plan import Plan
from scanrnn_dist.job.report import JobReport, Made
from scanrnn_dist.observe import in_mib, peak_memory_bytes
from scanrnn_dist.records import ENCODER
from scanrnn_dist.source import SourceLike

logger = logging.getLogger("scanrnn_dist")

OnStart = Callable[[int, int], None]
"""Called when a share is begun, with its rows that are committed already, and all of its rows."""


def run_job(
    destination: str | os.PathLike[str],
    source: SourceLike | Plan | None,
    options: JobOptions,
    handling: Handling,
    computation: Computation,
    on_start: OnStart | None = None,
    on_rows: OnRows | None = None,
    executor: Executor | None = None,
) -> JobReport:
    """Open a job, do what is this process's of it, and tell what was done; for arguments and errors see `open_job`.

    `executor` does the work; this process, where it is None.
    """
    if executor is not None and not hasattr(type(executor), "do"):  # a class has none
        raise ConfigError(f"executor is {executor!r}; expected srd.ProcessExecutor(...), srd.RayExecutor(...) or None.")
    begin, executor = time.perf_counter(), executor or InThisProcess()
    try:
        computation = executor.computation(computation)
        with open_job(destination, source, options, handling, computation) as opened:
            work = _Work(opened, handling, computation, executor, on_rows, by_records=source is None)
            rows_before, units_left = work.run(on_start)
            executor.close("done")  # before a restart takes its place, with all that was written
    finally:
        executor.close("stopped")
    return work.report(rows_before, units_left, begin)


@dataclass
class _Work:
    """A job that is worked on, and what was done so far."""

    opened: OpenJob
    handling: Handling
    computation: Computation
    executor: Executor
    on_rows: OnRows | None
    by_records: bool  # whether what is not said is as it was when the job was last worked on
    done: Done = field(default_factory=Done)
    made: Made = field(default_factory=Made)
    gflop: float = 0.0
    kernel: str = ""
    failed_units: int = 0

    def run(self, on_start: OnStart | None) -> tuple[int, int]:
        """Do what is this process's, unless all is done; rows that were committed before, and units that are left."""
        records, job, plan = self.opened.records, self.opened.job, self.opened.plan
        if self.opened.is_done or records.is_complete:
            if not self.opened.is_done:
                records.check_is(job)  # else it would be another job's success
            return int(records.read_totals()["rows"]), 0
        options, handling = self.opened.options, self.handling
        engine = self.computation.engine(options.has_own_carries, options.keep_state)
        header: dict[str, Any] = {"environment": self.opened.environment, "devices": engine.devices}
        if handling.max_bad_rows is not None or not self.by_records:
            header[MAX_BAD_ROWS] = handling.max_bad_rows
        logger.info(
            "%s from %s, %s kernel on %s x %s.", counted(plan.source.rows, "row"), plan.layout.described, engine.kernel,
            engine.devices, self.opened.environment["device_kind"],
        )  # fmt: skip
        shape, budget = engine.shape, self.opened.memory.budget(engine.is_static)
        logger.debug(
            "Each device has %s lanes; a window is %s blocks of %s steps.", shape.lanes, shape.window_blocks,
            shape.block_steps,
        )  # fmt: skip
        logger.debug("Rows may take %s of memory (--memory).", in_mib(budget))
        if names := plan.left_out:
            logger.info("Left out: %s.", left_out_in_words(names))
        with Attempt(records, job, plan.units, handling.sharing, header, self.on_rows) as attempt:
            self.made = attempt.made
            self._save_encoder(attempt)
            rows_before, share = attempt.commits.rows, None
            try:
                for numbers, alone in attempt.work(self.executor.at_once):
                    if on_start is not None and attempt.share != share:
                        on_start(*attempt.share_rows)
                    share = attempt.share
                    self.done += self.executor.do(self.opened, handling, attempt, numbers.tolist(), alone)
            except BaseException:
                self.executor.close("stopped")  # while the share is held: nobody else is to begin what workers still do
                raise
            self.failed_units = len(attempt.commits.failed)
        self.kernel = engine.kernel
        self.gflop = engine.flops_per_step * self.done.statistics.steps / 1e9
        return rows_before, attempt.units_left

    def _save_encoder(self, attempt: Attempt) -> None:
        """Keep the encoder with the records, if a file can hold it and none is there yet; else `verify` asks for it."""
        records = self.opened.records
        content = None if records.has_encoder else self.computation.encoder_content()
        if content is not None:
            records.store.write(ENCODER, content, check=attempt.check_job)

    def report(self, rows_before: int, units_left: int, begin: float) -> JobReport:
        """What was done since `begin`."""
        done, made, seconds = self.done, self.made, time.perf_counter() - begin
        did, took = done.statistics, done.took
        return JobReport(
            self.opened.destination, rows=made.rows, steps=did.steps, parts=made.parts,
            rows_before=rows_before, units_left=units_left, failed_units=self.failed_units,
            is_complete=not units_left, seconds=seconds,
            gflops=self.gflop / seconds, occupancy=did.occupancy, compilations=did.compilations,
            read_wait_seconds=took.read_wait_seconds, device_wait_seconds=took.device_wait_seconds,
            write_wait_seconds=took.write_wait_seconds,
            peak_memory_bytes=max(done.peak_memory_bytes, peak_memory_bytes()),
            set_aside=made.set_aside, counts=dict(sorted(made.counts.items())),
            files_left_out=len(self.opened.plan.source.left_out), kernel=self.kernel, filtered=made.filtered,
        )  # fmt: skip
