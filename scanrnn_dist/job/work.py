"""The loop of a job: read -> tape -> run -> write, for the units of this process, until nothing is left for it.

Three threads overlap: one decodes ahead, this one feeds the devices, one writes. What is computed with stands behind
`Computation`; what is committed, who does what, and how a job goes on after a crash, is `attempt.py`'s.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from scanrnn_dist.job.amend import ACCEPTED
from scanrnn_dist.job.attempt import Attempt
from scanrnn_dist.job.computation import Computation
from scanrnn_dist.job.in_order import Stream, state_apart
from scanrnn_dist.job.open_job import RECIPE, OpenJob, open_job
from scanrnn_dist.job.options import Handling, JobOptions
from scanrnn_dist.job.plan import Plan
from scanrnn_dist.job.report import JobReport
from scanrnn_dist.job.write_behind import WriteBehind
from scanrnn_dist.observe import peak_memory_bytes
from scanrnn_dist.protocols import EngineLike, Statistics
from scanrnn_dist.records import ENCODER, STATE, PartRecord, part_schema
from scanrnn_dist.source import FailedUnit, SourceLike, Unit

CHUNK_BYTES = 2 << 20
"""Decoded bytes of a chunk, the unit of reading. Small ones are decoded into memory that is still in the caches, and
was touched before: 0.13 s for 136 MB, against 0.19 s in chunks of 16 MB."""
PREFETCH_BYTES = 8 << 20

OnStart = Callable[[int, int], None]
"""Called when a share is begun, with its rows that are committed already, and all of its rows."""
OnRows = Callable[[int], None]
"""Called with the number of rows each time some are finished."""


def run_job(
    destination: str | os.PathLike[str],
    source: SourceLike | Plan | None,
    options: JobOptions,
    handling: Handling,
    computation: Computation,
    on_start: OnStart | None = None,
    on_rows: OnRows | None = None,
) -> JobReport:
    """Open a job, do what is this process's of it, and tell what was done; for arguments and errors see `open_job`."""
    begin = time.perf_counter()
    with open_job(destination, source, options, handling, computation) as opened:
        work = _Work(opened, computation, on_rows)
        rows_before, units_left = work.run(handling, on_start)
    return work.report(rows_before, units_left, begin)


@dataclass
class _Work:
    """What units are put through, and what was done so far."""

    opened: OpenJob
    computation: Computation
    on_rows: OnRows | None
    statistics: Statistics = field(default_factory=Statistics)
    gflop: float = 0.0
    parts: int = 0
    failed_units: int = 0
    rows_dropped: int = 0
    set_aside: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    read_wait_seconds: float = 0.0
    write_wait_seconds: float = 0.0

    def run(self, handling: Handling, on_start: OnStart | None) -> tuple[int, int]:
        """Do what is this process's, unless all is done; rows that were committed before, and units that are left."""
        records, job, plan = self.opened.records, self.opened.job, self.opened.plan
        if self.opened.is_done or records.is_complete:
            return int(records.read_totals()["rows"]), 0
        options = self.opened.options
        engine = self.computation.engine(options.has_own_carries, options.keep_state)
        header = {"environment": self.opened.environment, "devices": engine.devices}
        with Attempt(records, job, plan.units, handling.sharing, header, handling.max_bad_rows) as attempt:
            self._save_encoder(attempt)
            rows_before, share = attempt.commits.rows, None
            for numbers, alone in attempt.work():
                if on_start is not None and attempt.share != share:
                    on_start(*attempt.share_rows)
                share = attempt.share
                self._do(engine, attempt, numbers, alone)
            self.failed_units = len(attempt.commits.failed)
        self.gflop = engine.flops_per_step * self.statistics.steps / 1e9
        return rows_before, attempt.units_left

    def _do(self, engine: EngineLike, attempt: Attempt, numbers: np.ndarray, alone: bool) -> None:
        """Read, compute and write the units of these numbers."""
        plan, options, stage = self.opened.plan, self.opened.options, self.computation.stage
        reading = options.reading(engine.in_features, self.computation.input, chunk_bytes=CHUNK_BYTES)
        chunks = plan.chunks(
            attempt.begun(numbers, alone), reading,
            prefetch_bytes=PREFETCH_BYTES, stage=stage, keep_going=True,
            on_chunk=attempt.log.read_chunk if alone else None,
        )  # fmt: skip

        def on_commit(unit: Unit, record: PartRecord) -> None:
            self.set_aside += record.aside
            self.counts.update(json.loads(record.counts))
            attempt.committed(unit, record)

        writer = WriteBehind(
            self.opened.records.store, self._schema(engine), len(plan.units), attempt.log, attempt.check_job, stage,
            on_commit=on_commit, on_fail=attempt.failed, on_aside=attempt.set_aside,
            output=self.opened.options.output,
        )  # fmt: skip
        with closing(chunks), closing(Stream(engine, chunks, options)) as stream, writer:
            for finished in stream:
                if isinstance(finished, FailedUnit):
                    writer.fail(finished)
                    continue
                rows = finished.chunk.rows
                attempt.finished(finished.chunk.unit, rows)
                writer.put(*state_apart(finished, engine.state_features))
                if self.on_rows is not None:
                    self.on_rows(rows)
            writer.finish()
        self.statistics += stream.statistics
        self.parts += writer.parts
        self.rows_dropped += writer.rows_dropped
        self.read_wait_seconds += stream.read_wait_seconds
        self.write_wait_seconds += writer.wait_seconds

    def _schema(self, engine: EngineLike) -> pa.Schema:
        """Of the parts, with the job in its metadata: the same for all attempts in one environment.

        Nothing of it tells of other units, so that a part stays what it is when other files of the source change.
        """
        described = {**self.opened.job, "environment": self.opened.environment}
        if not isinstance(self.opened.plan.given, str):
            described["options"] = {**described["options"], "source": "a list of files"}
        told = sorted(described.keys() - {"id", "plan", ACCEPTED, RECIPE})
        metadata = {"scanrnn_dist": json.dumps({name: described[name] for name in told})}
        kept, output, state = self.opened.plan.kept_schema, self.opened.options.output, engine.state_features
        if state:
            kept = kept.append(pa.field(STATE, pa.list_(pa.from_numpy_dtype(engine.dtype), state)))
        features = engine.out_features - state
        return part_schema(kept, features, metadata, engine.gives_steps, engine.dtype, output)

    def _save_encoder(self, attempt: Attempt) -> None:
        """Keep the encoder with the records, if a file can hold it and none is there yet; else `verify` asks for it."""
        records = self.opened.records
        content = None if records.has_encoder else self.computation.encoder_content()
        if content is not None:
            records.store.write(ENCODER, content, check=attempt.check_job)

    def report(self, rows_before: int, units_left: int, begin: float) -> JobReport:
        """What was done since `begin`."""
        did, seconds = self.statistics, time.perf_counter() - begin
        return JobReport(
            self.opened.destination, rows=did.rows - self.rows_dropped, steps=did.steps, parts=self.parts,
            rows_before=rows_before, units_left=units_left, failed_units=self.failed_units,
            is_complete=not units_left, seconds=seconds,
            gflops=self.gflop / seconds, occupancy=did.occupancy, compilations=did.compilations,
            read_wait_seconds=self.read_wait_seconds, device_wait_seconds=did.device_wait_seconds,
            write_wait_seconds=self.write_wait_seconds, peak_memory_bytes=peak_memory_bytes(),
            set_aside=self.set_aside, counts=dict(sorted(self.counts.items())),
            files_left_out=len(self.opened.plan.source.left_out),
        )  # fmt: skip
