"""Door 2: `featurize`, from a Parquet data set to one with a feature vector per row. Read -> tape -> run -> write.

The only place where the two halves meet: `dataset/`, which knows Parquet and no JAX, and `run.py`, which knows JAX
and no Parquet. Three threads overlap: one decodes ahead, this one feeds the devices, one writes.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatch
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jax.sharding import Mesh

from scanrnn_dist.dataset.layouts import fixed_lists
from scanrnn_dist.dataset.manifest import Manifest
from scanrnn_dist.dataset.parts import PartsWriter
from scanrnn_dist.dataset.plan import ROWS_PER_PART, Plan, SourceLike, plan_job
from scanrnn_dist.dataset.reader import Chunk, Prefetched, read_chunks
from scanrnn_dist.dataset.units import Unit
from scanrnn_dist.dataset.writer import part_schema
from scanrnn_dist.encoder import Encoder, checked_encoder
from scanrnn_dist.engine import Engine
from scanrnn_dist.errors import ConfigError, StoppedError
from scanrnn_dist.layered import LayeredEngine, LayeredRun, engine_for, run_of
from scanrnn_dist.mesh import compiler_options, device_kind
from scanrnn_dist.profiling import stage
from scanrnn_dist.ragged import Ragged
from scanrnn_dist.run import Finished, Run, Statistics, checked_max_steps
from scanrnn_dist.step_outputs import FeatureRows
from scanrnn_dist.tape import WindowShape

CHUNK_BYTES = 2 << 20
"""Decoded bytes of a chunk, the unit of reading. Small ones are decoded into memory that is still in the caches, and
was touched before: 0.13 s for 136 MB, against 0.19 s in chunks of 16 MB."""
PREFETCH_BYTES = 8 << 20
OPEN_BYTES = 64 << 20
"""Features and kept columns that may wait for an earlier, longer row, so that parts are written in input order."""


@dataclass(frozen=True)
class JobReport:
    """What a job did.

    `gflops` is useful work only: the products of the cell on real steps. `occupancy` is the share of the program's
    positions that held real steps. The three waits are seconds that the feeding thread stood still for the reader, the
    devices and the writer.
    """

    destination: str
    rows: int
    steps: int
    parts: int
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

    def __str__(self) -> str:
        return (
            f"{self.rows:,} rows, {self.steps:,} steps -> {self.parts} parts in {self.destination}\n"
            f"{self.seconds:.2f} s: {self.rows_per_second:,.0f} rows/s, {self.gflops:.1f} GFLOP/s useful, "
            f"occupancy {self.occupancy:.1%}, {self.compilations} compilations\n"
            f"waited {self.read_wait_seconds:.2f} s for reading, {self.device_wait_seconds:.2f} s for devices, "
            f"{self.write_wait_seconds:.2f} s for writing; peak memory {self.peak_memory_bytes / 2**20:,.0f} MiB"
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
    on_rows: Callable[[int], None] | None = None,
) -> JobReport:
    """Write a Parquet data set with the features of every row of another one, in input order.

    The output has one part per unit of about `rows_per_part` rows (whole row groups of one file), each with the kept
    columns and `features: fixed_size_list<float32>[out_features]`, or a list of them where the readout is `"steps"`.
    Its records stand in `destination/_scanrnn`, and `destination/_SUCCESS` appears last.

    Args:
        encoder: the cell and its readout.
        source: a Parquet file, a folder (hive partitions become columns), a glob, or a list of files; or a `Plan`,
            which has settled `column`, `keep` and `rows_per_part` already.
        destination: a folder that is new or empty.
        column: the column that holds the sequences; None where only one can.
        keep: the columns to carry along; None keeps all but the sequence column.
        mesh: a mesh with an axis `"data"`, whose devices share the rows; all local devices when None.
        window_shape: lanes, block and window of the compiled program; what suits the device kind when None.
        max_steps: of each sequence the first so many steps count, as the `T` of the specification.
        initial_carry: a kept column with each row's own initial carry, a list of `encoder.carry_features` numbers;
            None for the encoder's.
        rows_per_part: rows of a part, about.
        lossy_cast: whether float64 and wide integers may be rounded to float32.
        on_rows: called with the number of rows each time some are finished.

    Returns:
        What was done and how fast.

    Raises:
        ConfigError: arguments that do not fit, or a destination that holds something.
        DataError: data that is not what it should be; file, row group and row are named.
        StoppedError: the destination's file system refused.

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
    if isinstance(source, Plan):
        plan = source
    else:
        plan = plan_job(source, column=column, keep=keep, rows_per_part=rows_per_part)
    if "://" in str(destination):
        raise ConfigError(f"The destination {destination} is a URI; expected a folder of this machine.")
    if initial_carry is not None and initial_carry not in plan.keep:
        raise ConfigError(f"The initial carries' column {initial_carry!r} is not kept; expected one of {plan.keep}.")
    manifest = Manifest(Path(destination))
    _check_apart(plan, manifest.destination)
    chunks = read_chunks(
        plan.source, plan.units, column=plan.column, keep=plan.keep, in_features=encoder.in_features,
        chunk_bytes=CHUNK_BYTES, prefetch_bytes=PREFETCH_BYTES, lossy_cast=lossy_cast, stage=stage,
    )  # fmt: skip
    with closing(chunks), ExitStack() as stack:
        engine = engine_for(encoder, mesh, window_shape, own_carries=initial_carry is not None)
        options = {
            "column": plan.column, "keep": plan.keep, "max_steps": max_steps, "initial_carry": initial_carry,
            "rows_per_part": plan.rows_per_part, "lossy_cast": lossy_cast,
        }  # fmt: skip
        described = _describe(engine, options)
        manifest.create()
        manifest.write_job({**described, "source": plan.given})
        manifest.write_plan(plan.to_records())
        _save_encoder(manifest, encoder)
        metadata = {"scanrnn_dist": json.dumps(described)}
        schema = part_schema(plan.kept_schema, engine.out_features, metadata, steps=engine.gives_steps)
        run = stack.enter_context(closing(run_of(engine)))
        writer = stack.enter_context(PartsWriter(manifest, schema, len(plan.units), stage))
        stream = _Stream(run, chunks, max_steps, initial_carry, lossy_cast)
        for finished in stream:
            writer.put(finished.unit, finished.kept, finished.features.result)
            if on_rows is not None:
                on_rows(finished.kept.num_rows)
        writer.finish()
    totals = {"rows": run.statistics.rows, "steps": run.statistics.steps, "parts": writer.parts}
    manifest.write_success(totals)
    waits = stream.read_wait_seconds, writer.wait_seconds
    return _report(manifest, run.statistics, encoder, writer.parts, time.perf_counter() - begin, *waits)


@dataclass
class _OpenChunk:
    """A chunk whose rows are not all finished, or that waits for an earlier one; its sequences are the engine's."""

    unit: Unit
    first_row: int  # as the engine counts rows
    kept: pa.RecordBatch
    features: FeatureRows
    rows_left: int
    nbytes: int  # asked for at every chunk that is read, of all that are open


class _Stream:
    """Chunks in, the same chunks with features out, in order; iterating it runs the engine.

    Rows finish out of order, by length, so chunks wait for their longest row. While the chunks that wait exceed
    `OPEN_BYTES`, no new rows are taken: one giant row then has the devices for itself rather than filling the memory.
    """

    def __init__(
        self,
        run: Run | LayeredRun,
        chunks: Prefetched,
        max_steps: int | None,
        initial_carry: str | None,
        lossy_cast: bool,
    ) -> None:
        self.read_wait_seconds = 0.0
        self._run, self._chunks, self._max_steps = run, chunks, max_steps
        self._carry_column, self._lossy_cast = initial_carry, lossy_cast
        self._open: deque[_OpenChunk] = deque()
        self._is_exhausted = False

    def __iter__(self) -> Iterator[_OpenChunk]:
        while True:
            more = self._fill()
            if not more and not self._run.is_busy:
                return
            for finished in self._run.advance(more):
                self._place(finished)
            while self._open and self._open[0].rows_left == 0:
                yield self._open.popleft()

    def _fill(self) -> bool:
        """Hand the engine rows until it has enough; whether it has a window of them and may count on more.

        Not if there are no more, or if rows that are longer than a window fill the memory before they fill the lanes.
        Once it has a window of rows, idle devices do not wait for more, and no chunk is waited for.
        """
        while self._run.wants_rows and not self._is_exhausted:
            if self._open and sum(chunk.nbytes for chunk in self._open) > OPEN_BYTES:
                return False
            if self._run.has_window and (self._run.is_idle or not self._chunks.is_ready):
                return True
            begin = time.perf_counter()
            chunk = next(self._chunks, None)
            self.read_wait_seconds += time.perf_counter() - begin
            if chunk is None:
                self._is_exhausted = True
                return False
            self._take(chunk)
        return self._run.has_window and not self._is_exhausted

    def _take(self, chunk: Chunk) -> None:
        """Hand the engine the rows of a chunk."""
        engine, rows = self._run.engine, len(chunk.sequences)
        features = FeatureRows(rows, engine.out_features, steps=engine.gives_steps)
        nbytes = chunk.kept.nbytes + features.nbytes
        if engine.gives_steps:
            lengths = chunk.sequences.lengths
            steps = lengths if self._max_steps is None else np.minimum(lengths, self._max_steps)
            nbytes += 4 * engine.out_features * int(steps.sum())
        self._open.append(_OpenChunk(chunk.unit, self._run.statistics.rows, chunk.kept, features, rows, nbytes))
        carries = None
        if self._carry_column is not None:
            size, lossy = engine.carry_features, self._lossy_cast
            carries = fixed_lists(chunk.kept, self._carry_column, size, lossy_cast=lossy, where=chunk.where)
        self._run.submit(chunk.sequences, self._max_steps, carries)

    def _place(self, finished: Finished) -> None:
        """Put features where their rows stand."""
        order = np.argsort(finished.rows)
        rows, features = finished.rows[order], finished.features
        bounds = [*np.searchsorted(rows, [chunk.first_row for chunk in self._open]), len(rows)]
        for chunk, (begin, end) in zip(self._open, pairwise(bounds), strict=True):
            if begin < end:
                # Those of all steps come in order of rows.
                is_ragged = isinstance(features, Ragged)
                mine = features.slice(begin, end) if is_ragged else features[order[begin:end]]
                chunk.features.place(rows[begin:end] - chunk.first_row, mine)
                chunk.rows_left -= end - begin


def _check_apart(plan: Plan, destination: Path) -> None:
    """Refuse a destination whose parts would be read as part of the source next time, or that holds its files."""
    resolved = destination.resolve()
    for file in plan.source.files:
        if resolved in Path(file.path).resolve().parents or resolved == Path(file.path).resolve():
            raise ConfigError(f"The destination {destination} holds the source file {file.path}; choose another.")
    for given in [plan.given] if isinstance(plan.given, str) else plan.given:
        in_folder = Path(given).is_dir() and resolved.is_relative_to(Path(given).resolve())
        in_glob = "**" in given and fnmatch(str(resolved / "part-00000.parquet"), given)
        if in_folder or in_glob:
            raise ConfigError(f"The destination {destination} lies within the source {given}; choose another.")


def _describe(engine: Engine | LayeredEngine, options: dict[str, Any]) -> dict[str, Any]:
    """All that the bits of the features depend on, for the records and the parts' metadata."""
    return {
        "format": "scanrnn_dist.job/1",
        "encoder": {"fingerprint": engine.encoder.fingerprint, "architecture": engine.encoder.architecture},
        "options": options,
        "window": {**asdict(engine.shape), "device_kind": device_kind(engine.mesh), "devices": engine.devices},
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "compiler_options": compiler_options(engine.mesh),
        "versions": {
            "python": ".".join(map(str, sys.version_info[:3])),
            **{package: version(package) for package in ("scanrnn_dist", "jax", "jaxlib", "flax", "numpy", "pyarrow")},
        },
    }


def _save_encoder(manifest: Manifest, encoder: Encoder) -> None:
    """Keep the encoder with the records, if a file can hold it."""
    try:
        encoder.save(manifest.encoder_path)
    except ConfigError:
        return  # a cell of the user's own: `verify` then asks for the encoder
    except OSError as error:
        raise StoppedError(f"{manifest.encoder_path} could not be written: {error.strerror}.") from error


def _report(
    manifest: Manifest,
    statistics: Statistics,
    encoder: Encoder,
    parts: int,
    seconds: float,
    read_wait_seconds: float,
    write_wait_seconds: float,
) -> JobReport:
    return JobReport(
        destination=str(manifest.destination),
        rows=statistics.rows,
        steps=statistics.steps,
        parts=parts,
        seconds=seconds,
        gflops=encoder.flops_per_step * statistics.steps / seconds / 1e9,
        occupancy=statistics.occupancy,
        compilations=statistics.compilations,
        read_wait_seconds=read_wait_seconds,
        device_wait_seconds=statistics.device_wait_seconds,
        write_wait_seconds=write_wait_seconds,
        peak_memory_bytes=_peak_memory_bytes(),
    )


def _peak_memory_bytes() -> int:
    """The most memory that this process has had so far.

    On Linux not `ru_maxrss`, which begins with what the parent had: 1,551 MB for a child that never had more than 9.
    """
    if sys.platform == "linux":
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
