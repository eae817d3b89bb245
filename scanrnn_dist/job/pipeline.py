"""Units through reading, engine and writer, in this process: what is done to a unit, wherever it is done.

Four threads overlap: one decodes ahead, this one feeds the devices, one writes, one names what is durable. Which units
are whose to do stands behind `Claims`; what is computed with, behind `Computation`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace

import pyarrow as pa

from scanrnn_dist.job.amend import ACCEPTED
from scanrnn_dist.job.claims import Claims
from scanrnn_dist.job.computation import RECIPE, Computation
from scanrnn_dist.job.continued import reads_sorted_copy
from scanrnn_dist.job.in_order import Stream, state_apart
from scanrnn_dist.job.open_job import OpenJob
from scanrnn_dist.job.write_behind import WriteBehind
from scanrnn_dist.observe import peak_memory_bytes
from scanrnn_dist.protocols import EngineLike, Statistics
from scanrnn_dist.records import STATE, AttemptLog, Took, part_schema
from scanrnn_dist.source import FailedUnit, Unit, Units


@dataclass(frozen=True)
class Done:
    """What was done by one process, or by several together; what was committed counts the attempt."""

    statistics: Statistics = field(default_factory=Statistics)
    took: Took = field(default_factory=Took)
    peak_memory_bytes: int = 0  # of one process

    def __add__(self, other: Done) -> Done:
        """Of both, one after the other or side by side."""
        peak = max(self.peak_memory_bytes, other.peak_memory_bytes)
        return Done(self.statistics + other.statistics, self.took + other.took, peak)


def put_through(
    opened: OpenJob,
    computation: Computation,
    claims: Claims,
    numbers: Iterable[int],
    alone: bool,
) -> Done:
    """Read, compute and write the units of these numbers, which may come while others are worked on.

    Args:
        opened: the job.
        computation: what it is computed with.
        claims: told what becomes of each unit.
        numbers: of the units; taken one by one, in another thread, as the reader gets to them.
        alone: whether it is one unit that may end the process: then how far its reading got is written down.
    """
    options, stage = opened.options, computation.stage
    engine = computation.engine(options.has_own_carries, options.keep_state)
    plan, shares = opened.plan.within(opened.memory, engine.is_static), opened.memory.shares(engine.is_static)
    reading = options.reading(engine.in_features, computation.input, chunk_bytes=shares.chunk)
    writer = WriteBehind(
        opened.records, opened.job, _schema(opened, engine), len(plan.units), claims, stage, options.output,
        shares.unwritten,
    )  # fmt: skip
    before, begin = claims.log.took, time.perf_counter()
    chunks = plan.chunks(
        begun_units(plan.units, numbers, alone, claims.log), reading,
        prefetch_bytes=shares.read_ahead, stage=stage,
        on_chunk=claims.log.read_chunk if alone else None,
    )  # fmt: skip
    with closing(chunks), closing(Stream(engine, chunks, options, shares)) as stream, writer:
        for finished in stream:
            if isinstance(finished, FailedUnit):
                writer.fail(finished)
            else:
                claims.finished(finished.chunk.unit, finished.chunk.rows)
                writer.put(*state_apart(finished, engine.state_features))
                claims.log.took = before + _took(begin, stream, writer)
            claims.tell()
        writer.finish()
        did = stream.statistics
        took = replace(_took(begin, stream, writer), steps=did.steps, positions=did.positions)
        claims.log.took = before + took
    return Done(did, took, peak_memory_bytes())


def begun_units(units: Units, numbers: Iterable[int], alone: bool, log: AttemptLog) -> Iterator[Unit]:
    """The units of these numbers, each noted down in the log as it is taken to be read."""
    for unit in units.select(numbers):
        log.begin(unit.index, alone)
        yield unit


def _took(begin: float, stream: Stream, writer: WriteBehind) -> Took:
    """Where the time went since `begin`. Steps count when they are submitted, so that they wait for the end."""
    waits = stream.read_wait_seconds, stream.statistics.device_wait_seconds, writer.wait_seconds
    return Took(time.perf_counter() - begin, *waits)


def _schema(opened: OpenJob, engine: EngineLike) -> pa.Schema:
    """Of the parts, with the job in its metadata: the same for all attempts in one environment.

    Nothing of it tells of other units, so that a part stays what it is when other files of the source change; nor
    where a sorted copy stands, which is beside the destination.
    """
    described = {**opened.job, "environment": opened.environment}
    is_copy = reads_sorted_copy(opened.job["options"])
    if is_copy or not isinstance(opened.plan.given, str):
        named = "a sorted copy" if is_copy else "a list of files"
        described["options"] = {**described["options"], "source": named}
    told = sorted(described.keys() - {"id", "plan", ACCEPTED, RECIPE})
    metadata = {"scanrnn_dist": json.dumps({name: described[name] for name in told})}
    kept, output, state = opened.plan.kept_schema, opened.options.output, engine.state_features
    if state:
        kept = kept.append(pa.field(STATE, pa.list_(pa.from_numpy_dtype(engine.dtype), state)))
    features = engine.out_features - state
    return part_schema(kept, features, metadata, engine.gives_steps, engine.dtype, output)
