"""Door 2: `featurize`, from a Parquet data set to one with a feature vector per row. Read -> tape -> run -> write.

Here and in `in_order.py` the two halves meet: `dataset/`, which knows Parquet and no JAX, and `run.py`, which knows JAX
and no Parquet. Three threads overlap: one decodes ahead, this one feeds the devices, one writes. What is committed, who
does what, and how a job goes on after a crash, is `job/attempt.py`'s.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jax.sharding import Mesh

from scanrnn_dist.encoder import Encoder, checked_encoder, encoder_content
from scanrnn_dist.engine import (
    BidirectionalEngine,
    Engine,
    Statistics,
    WindowShape,
    checked_max_steps,
    compiler_options,
    device_kind,
    engine_for,
    run_of,
    stage,
)
from scanrnn_dist.errors import ConfigError
from scanrnn_dist.job import (
    ACCEPTED,
    ROWS_PER_PART,
    Attempt,
    OpenJob,
    Plan,
    Sharing,
    SourceLike,
    Stream,
    Wanted,
    WriteBehind,
    check_apart,
    opened_job,
    plan_for,
    recorded_plan,
)
from scanrnn_dist.records import ENCODER, JOB_FORMAT, JobRecords, part_schema
from scanrnn_dist.source import FailedUnit, ReadOptions, read_chunks
from scanrnn_dist.storage import Check, open_store

CHUNK_BYTES = 2 << 20
"""Decoded bytes of a chunk, the unit of reading. Small ones are decoded into memory that is still in the caches, and
was touched before: 0.13 s for 136 MB, against 0.19 s in chunks of 16 MB."""
PREFETCH_BYTES = 8 << 20


@dataclass(frozen=True)
class JobReport:
    """What a call did, of a job that others may have a part in.

    `rows`, `steps` and `parts` are of this call; `rows_before` were committed when it began, `units_left` are other
    processes' to do, `failed_units` of these failed there, and `is_complete` tells whether `_SUCCESS` is there.

    `gflops` is useful work only: the products of the cell on real steps. `occupancy` is the share of the program's
    positions that held real steps. The three waits are seconds that the feeding thread stood still for the reader, the
    devices and the writer.
    """

    destination: str
    rows: int
    steps: int
    parts: int
    rows_before: int
    units_left: int
    failed_units: int
    is_complete: bool
    seconds: float
    gflops: float
    occupancy: float
    compilations: int
    read_wait_seconds: float
    device_wait_seconds: float
    write_wait_seconds: float
    peak_memory_bytes: int
    rows_per_second: float = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows_per_second", self.rows / self.seconds)

    @property
    def _left(self) -> str:
        failed = f", of which {self.failed_units:,} failed there" if self.failed_units else ""
        return f"{self.units_left:,} units are left to other processes{failed}"

    def __str__(self) -> str:
        if not self.rows and self.is_complete and self.rows_before:
            return f"Nothing to do: {self.destination} is finished, with {self.rows_before:,} rows."
        if not self.rows and self.parts == 0:
            return f"Nothing to do in this share of {self.destination}: {self._left}."
        before = f" ({self.rows_before:,} rows were there before)" if self.rows_before else ""
        left = "" if self.is_complete else f"\nNot complete: {self._left}"
        return (
            f"{self.rows:,} rows, {self.steps:,} steps -> {self.parts} parts in {self.destination}{before}\n"
            f"{self.seconds:.2f} s: {self.rows_per_second:,.0f} rows/s, {self.gflops:.1f} GFLOP/s useful, "
            f"occupancy {self.occupancy:.1%}, {self.compilations} compilations\n"
            f"waited {self.read_wait_seconds:.2f} s for reading, {self.device_wait_seconds:.2f} s for devices, "
            f"{self.write_wait_seconds:.2f} s for writing; peak memory {self.peak_memory_bytes / 2**20:,.0f} MiB{left}"
        )


def featurize(
    encoder: Encoder,
    source: SourceLike | Plan,
    destination: str | os.PathLike[str],
    *,
    column: str | None = None,
    keep: Sequence[str] | None = None,
    mesh: Mesh | None = None,
    window_shape: WindowShape | None = None,
    max_steps: float | None = None,
    initial_carry: str | None = None,
    rows_per_part: int = ROWS_PER_PART,
    lossy_cast: bool = False,
    sharing: Sharing | None = None,
    allow_mixed: bool = False,
    restart: bool = False,
    accept_changes: bool = False,
    on_start: Callable[[int, int], None] | None = None,
    on_rows: Callable[[int], None] | None = None,
) -> JobReport:
    """Write a Parquet data set with the features of every row of another one, in input order.

    The output has one part per unit of about `rows_per_part` rows (whole row groups of one file), each with the kept
    columns and `features: fixed_size_list<float32>[out_features]` (float64 where the encoder computes in it), or a list
    of them where the readout is `"steps"`. Its records stand in `destination/__scanrnn`, and
    `destination/_SUCCESS` appears last.

    The same call again goes on where an earlier one was stopped, in whatever way; after a finished one it does nothing.

    Args:
        encoder: the cell and its readout.
        source: a Parquet file, a folder (hive partitions become columns), a glob, or a list of files; or a `Plan`,
            which has settled `column`, `keep` and `rows_per_part` already.
        destination: a folder, or a URI such as `s3://bucket/folder`, that is new, empty, or holds this same job.
        column: the column that holds the sequences; None where only one can.
        keep: the columns to carry along; None keeps all but the sequence column.
        mesh: a mesh with an axis `"data"`, whose devices share the rows; all local devices when None.
        window_shape: lanes, block and window of the compiled program; what suits the device kind when None.
        max_steps: of each sequence the first so many steps count, as the `T` of the specification.
        initial_carry: a kept column with each row's own initial carry, a list of `encoder.carry_features` numbers;
            None for the encoder's.
        rows_per_part: rows of a part, about.
        lossy_cast: whether float64 and wide integers may be rounded to float32.
        sharing: which units are this process's, and what becomes of those of processes that stopped; all of them,
            and nothing, when None.
        allow_mixed: whether to go on with a job that was begun on another kind of device, with other XLA flags or other
            versions, which may give other bits.
        restart: whether to begin anew where the destination holds a job, finished or not, of whatever kind. The old
            output stands until the new one is complete, and is then replaced.
        accept_changes: whether files of the source may have changed, come or gone since the job began: their units are
            then done again, done or dropped, all others stay as they are, and the records tell it.
        on_start: called when a share is begun, with its rows that are committed already, and all of its rows.
        on_rows: called with the number of rows each time some are finished.

    Returns:
        What was done and how fast.

    Raises:
        ConfigError: arguments that do not fit, or a destination that holds something else, or a job with other
            arguments; the differences are named.
        DataError: data that is not what it should be; file, row group and row are named. It comes once all other units
            are done, and names all units that failed, or the first 20. Or a source that changed since the job began,
            parts of which are done.
        StoppedError: the destination's file system refused, or another process works on the same share.

    Example:
        >>> import pyarrow as pa, pyarrow.parquet as pq, tempfile
        >>> folder = tempfile.mkdtemp()
        >>> pq.write_table(pa.table({"id": [1, 2], "sequence": [[[0.5, 1.0]], []]}), folder + "/in.parquet")
        >>> report = featurize(Encoder.from_seed(0, 2, 3), folder + "/in.parquet", folder + "/out", lossy_cast=True)
        >>> pq.read_table(folder + "/out").column_names, report.rows
        (['id', 'features'], 2)
    """
    encoder, max_steps = checked_encoder(encoder), checked_max_steps(max_steps)
    begin = time.perf_counter()
    if restart and accept_changes:
        raise ConfigError("A restart begins anew, and --accept-changes keeps what is done: leave one of them out.")
    if not isinstance(source, Plan):
        source = plan_for(
            destination, source, column=column, keep=keep, rows_per_part=rows_per_part, restart=restart,
            accept_changes=accept_changes,
        )  # fmt: skip
    if initial_carry is not None and initial_carry not in source.keep:
        raise ConfigError(f"The initial carries' column {initial_carry!r} is not kept; expected one of {source.keep}.")
    engine = engine_for(encoder, mesh, window_shape, own_carries=initial_carry is not None)
    check_apart(source, destination)
    sharing = sharing or Sharing()
    if restart and (sharing.share != (1, 1) or sharing.steal):
        raise ConfigError("A restart is made by one process: leave out --restart, or --shard and --steal.")
    options = {"max_steps": max_steps, "initial_carry": initial_carry, "lossy_cast": lossy_cast}
    job = _describe(engine, {**_options_of_plan(source), **options})
    wanted = Wanted(job, source, allow_mixed, accept_changes, sharing.expiry_seconds)
    opening = opened_job(destination, wanted, restart=restart)
    del source, wanted  # a plan of a million units takes 100 MB
    return _work(opening, engine, options, destination, sharing, begin, on_start, on_rows)


def resume(
    destination: str | os.PathLike[str],
    encoder: Encoder,
    *,
    mesh: Mesh | None = None,
    discard: Collection[str] = (),
    sharing: Sharing | None = None,
    allow_mixed: bool = False,
    on_start: Callable[[int, int], None] | None = None,
    on_rows: Callable[[int], None] | None = None,
) -> JobReport:
    """Go on with the job of a destination by what its records say, as the command that began it would.

    Args:
        destination: a folder or URI that `featurize` wrote to.
        encoder: that of the job.
        mesh: as of `featurize`.
        discard: names of parts that are not what they should be, to be removed and made again.
        sharing: as of `featurize`.
        allow_mixed: as of `featurize`.
        on_start: as of `featurize`.
        on_rows: as of `featurize`.

    Raises:
        ConfigError: there is no job, or another encoder or environment than the job's.
        DataError: the source changed since the job began, or as `featurize`.
        StoppedError: as `featurize`.
    """
    begin, encoder, sharing = time.perf_counter(), checked_encoder(encoder), sharing or Sharing()
    recorded, plan = recorded_plan(destination)
    own = _options_of_plan(plan)
    options = {name: value for name, value in recorded["options"].items() if name not in own}
    own_carries = options["initial_carry"] is not None
    engine = engine_for(encoder, mesh, WindowShape(**recorded["window"]), own_carries=own_carries)
    wanted = Wanted(_describe(engine, {**own, **options}), plan, allow_mixed, expiry_seconds=sharing.expiry_seconds)
    opening = opened_job(destination, wanted, discard=discard)
    return _work(opening, engine, options, destination, sharing, begin, on_start, on_rows)


def _work(
    opening: AbstractContextManager[OpenJob],
    engine: Engine | BidirectionalEngine,
    options: dict[str, Any],
    destination: str | os.PathLike[str],
    sharing: Sharing,
    begin: float,
    on_start: Callable[[int, int], None] | None,
    on_rows: Callable[[int], None] | None,
) -> JobReport:
    """Do what is this process's of a job that is opened."""
    with opening as opened:
        work = _Work(engine, opened, on_rows=on_rows, **options)
        rows_before, units_left = work.run(sharing, on_start)
    return work.report(open_store(destination).root, rows_before, units_left, begin)


@dataclass
class _Work:
    """What units are put through, and what was done so far."""

    engine: Engine | BidirectionalEngine
    opened: OpenJob
    max_steps: int | None
    initial_carry: str | None
    lossy_cast: bool
    on_rows: Callable[[int], None] | None
    statistics: Statistics = field(default_factory=Statistics)
    parts: int = 0
    failed_units: int = 0
    read_wait_seconds: float = 0.0
    write_wait_seconds: float = 0.0

    def run(self, sharing: Sharing, on_start: Callable[[int, int], None] | None) -> tuple[int, int]:
        """Do what is this process's, unless all is done; rows that were committed before, and units that are left."""
        records, job, plan = self.opened.records, self.opened.job, self.opened.plan
        if records.is_complete:
            return int(plan.units.rows.sum()), 0
        header = {"environment": _environment(self.engine), "devices": self.engine.devices}
        with Attempt(records, job, plan.units, sharing, header) as attempt:
            _save_encoder(records, self.engine.encoder, attempt.check_job)
            rows_before, share = attempt.commits.rows, None
            for numbers, alone in attempt.work():
                if on_start is not None and attempt.share != share:
                    on_start(*attempt.share_rows)
                share = attempt.share
                self._do(attempt, numbers, alone)
            self.failed_units = len(attempt.commits.failed)
        return rows_before, attempt.units_left

    def _do(self, attempt: Attempt, numbers: np.ndarray, alone: bool) -> None:
        """Read, compute and write the units of these numbers."""
        plan, units = self.opened.plan, max(1, len(self.opened.plan.units))
        reading = ReadOptions(
            plan.column, plan.keep, self.engine.encoder.in_features, self.lossy_cast, chunk_bytes=CHUNK_BYTES
        )
        chunks = read_chunks(
            plan.source, attempt.begun(numbers, alone), reading, prefetch_bytes=PREFETCH_BYTES,
            stage=stage, keep_going=True, on_chunk=attempt.log.read_chunk if alone else None,
        )  # fmt: skip
        writer = WriteBehind(
            self.opened.records.store, self._schema(), units, attempt.log, attempt.check_job, stage,
            on_commit=attempt.committed, on_fail=attempt.failed,
        )  # fmt: skip
        with closing(chunks), closing(run_of(self.engine)) as run, writer:
            stream = Stream(run, chunks, self.max_steps, self.initial_carry, self.lossy_cast)
            for finished in stream:
                if isinstance(finished, FailedUnit):
                    writer.fail(finished)
                    continue
                attempt.finished(finished.unit, finished.kept.num_rows)
                writer.put(finished.unit, finished.kept, finished.features.result)
                if self.on_rows is not None:
                    self.on_rows(finished.kept.num_rows)
            if not len(plan.units):
                writer.put_empty()
            writer.finish()
        self.statistics += run.statistics
        self.parts += writer.parts
        self.read_wait_seconds += stream.read_wait_seconds
        self.write_wait_seconds += writer.wait_seconds

    def _schema(self) -> pa.Schema:
        """Of the parts, with the job in its metadata: the same for all attempts in one environment.

        Nothing of it tells of other units, so that a part stays what it is when other files of the source change.
        """
        engine, described = self.engine, {**self.opened.job, "environment": _environment(self.engine)}
        if not isinstance(self.opened.plan.given, str):
            described["options"] = {**described["options"], "source": "a list of files"}
        told = sorted(described.keys() - {"id", "plan", ACCEPTED})
        metadata = {"scanrnn_dist": json.dumps({name: described[name] for name in told})}
        kept = self.opened.plan.kept_schema
        return part_schema(kept, engine.out_features, metadata, steps=engine.gives_steps, dtype=engine.dtype)

    def report(self, destination: str, rows_before: int, units_left: int, begin: float) -> JobReport:
        """What was done since `begin`."""
        seconds = time.perf_counter() - begin
        return JobReport(
            destination=destination,
            rows=self.statistics.rows,
            steps=self.statistics.steps,
            parts=self.parts,
            rows_before=rows_before,
            units_left=units_left,
            failed_units=self.failed_units,
            is_complete=not units_left,
            seconds=seconds,
            gflops=self.engine.encoder.flops_per_step * self.statistics.steps / seconds / 1e9,
            occupancy=self.statistics.occupancy,
            compilations=self.statistics.compilations,
            read_wait_seconds=self.read_wait_seconds,
            device_wait_seconds=self.statistics.device_wait_seconds,
            write_wait_seconds=self.write_wait_seconds,
            peak_memory_bytes=_peak_memory_bytes(),
        )


@cache
def _versions() -> dict[str, str]:
    """Of all that may change bits."""
    return {package: version(package) for package in ("scanrnn_dist", "jax", "jaxlib", "flax", "numpy", "pyarrow")}


def _options_of_plan(plan: Plan) -> dict[str, Any]:
    """The options of a job that its plan has settled."""
    return {
        "source": _named(plan.given), "column": plan.column, "keep": list(plan.keep),
        "rows_per_part": plan.rows_per_part,
    }  # fmt: skip


def _named(given: str | list[str]) -> str:
    """The source as the records name it; of many files, which the plan lists, the first, their number and a hash."""
    if isinstance(given, str):
        return given
    digest = hashlib.sha256("\0".join(given).encode()).hexdigest()[:16]
    return f"{given[0]} and {len(given) - 1} other files ({digest})"


def _describe(engine: Engine | BidirectionalEngine, options: dict[str, Any]) -> dict[str, Any]:
    """What the job is, for the records: all that the bits of the features depend on."""
    return {
        "format": JOB_FORMAT,
        "encoder": {"fingerprint": engine.encoder.fingerprint, "architecture": engine.encoder.architecture},
        "options": options,
        "window": asdict(engine.shape),
        "environment": _environment(engine),
    }


def _environment(engine: Engine | BidirectionalEngine) -> dict[str, Any]:
    """What may differ from one attempt to the next where the user allows it, and may change bits."""
    return {
        "device_kind": device_kind(engine.mesh),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "compiler_options": compiler_options(engine.mesh),
        "versions": _versions(),
    }


def _save_encoder(records: JobRecords, encoder: Encoder, check: Check) -> None:
    """Keep the encoder with the records, if a file can hold it and none is there yet."""
    if records.has_encoder:
        return
    try:
        content = encoder_content(Encoder, encoder)
    except ConfigError:
        return  # a cell of the user's own: `verify` then asks for the encoder
    records.store.write(ENCODER, content, check=check)


def _peak_memory_bytes() -> int:
    """The most memory that this process has had so far.

    On Linux not `ru_maxrss`, which begins with what the parent had: 1,551 MB for a child that never had more than 9.
    """
    if sys.platform == "linux":
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
