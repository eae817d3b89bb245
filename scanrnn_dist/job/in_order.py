"""Chunks in, the same chunks with features out, in order: where rows meet the engine.

The engine finishes rows out of order, by length; what waits for an earlier, longer row waits here, within a bound. A
unit that cannot be read on keeps its place among the chunks. Which chunks there are, and what becomes of them, is
`pipeline.py`'s.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from scanrnn_dist.errors import DataError
from scanrnn_dist.job.initial_carries import own_carries
from scanrnn_dist.job.memory import MemoryShares
from scanrnn_dist.job.options import JobOptions
from scanrnn_dist.observe import in_mib
from scanrnn_dist.protocols import EngineLike, Statistics
from scanrnn_dist.ragged import FeatureRows, Ragged, row_pieces
from scanrnn_dist.records import STATE
from scanrnn_dist.source import WAITING_UNITS, Chunk, FailedUnit, Prefetched, Unit, ends_unit

logger = logging.getLogger("scanrnn_dist")

OPEN_WINDOWS = 16
"""Where windows are large, those of the rows of so many, as far as a share of the memory allows: four wait, two are on
the devices, and rows of up to 2,048 steps take eight windows of 256 steps. 64 MiB are fewer rows than two windows of
4,096 lanes take where H = 512: occupancy 0.34 on one device, 0.04 on eight (`bench_occupancy.py`)."""
_USUAL_OPEN = MemoryShares.of().open


class RowBytes(NamedTuple):
    """What each row takes, and each of its steps."""

    row: int
    step: int

    def of(self, rows: Any, steps: Any) -> Any:
        """What so many rows of so many steps in all take."""
        return rows * self.row + steps * self.step


@dataclass
class OpenChunk:
    """A chunk whose rows are not all finished, or that waits for an earlier one; its sequences are the engine's."""

    chunk: Chunk
    first_row: int  # as the engine counts rows
    features: FeatureRows
    rows_left: int
    nbytes: int  # of features and kept columns
    values_bytes: int  # of its sequences, which the engine keeps until all of its rows are finished
    engine_bytes: int  # what the engine keeps of them besides, as long


def state_apart(finished: OpenChunk, state_features: int) -> tuple[Chunk, np.ndarray | Ragged]:
    """A finished chunk and its features; the states that stand last among these become its last kept column."""
    chunk, features = finished.chunk, finished.features.result
    if not state_features:
        return chunk, features
    assert isinstance(features, np.ndarray), "a stateful encoder gives vectors"
    # Both copied: a view would keep the other one in memory too.
    vectors, states = map(np.ascontiguousarray, np.split(features, [-state_features], axis=1))
    column = pa.FixedSizeListArray.from_arrays(pa.array(states.reshape(-1)), state_features)
    return replace(chunk, kept=chunk.kept.append_column(STATE, column)), vectors


class Stream:
    """Chunks in, the same chunks with features out, in order, and failed units; iterating it runs the engine.

    Of a failed unit, some chunks may come before the `FailedUnit`, and none after it.

    Rows finish out of order, by length, so chunks wait for their longest row. While the chunks that wait exceed their
    share of the memory, no new rows are taken: one giant row then has the devices for itself rather than filling it.
    What the engine keeps of unfinished rows besides their values, such as outputs between layers, counts too. Nor are
    rows taken while the values of unfinished ones exceed the budget: giant rows then come one by one. Chunks are sized
    by what is read, and where far more comes of one, it is taken in pieces.
    Where windows take as long when they are not full, the rows of `OPEN_WINDOWS` of them are enough. Of small units,
    more than `WAITING_UNITS` are open only where it takes more to fill a window.
    """

    def __init__(self, engine: EngineLike, chunks: Prefetched, options: JobOptions, shares: MemoryShares) -> None:
        self.read_wait_seconds = 0.0
        self._shares = shares
        self._engine, self._run = engine, engine.run(shares.look_ahead)
        self._chunks, self._options = chunks, options
        self._pieces: deque[Chunk] = deque()  # that are left of the chunk that was read last
        self._open: deque[OpenChunk | FailedUnit] = deque()
        # Sums over what is open, which may be thousands of small chunks.
        self._open_units = self._held_bytes = self._values_bytes = 0
        self._failed: Unit | None = None
        self._open_bytes, self._taken_bytes, self._taken_blocks = shares.open, 0, 0
        self._is_exhausted = self._is_told = False
        features = engine.out_features * engine.dtype.itemsize
        self._given = RowBytes(0, features) if engine.gives_steps else RowBytes(features, 0)
        self._kept = RowBytes(4 * engine.carry_features, engine.kept_step_bytes)

    def __iter__(self) -> Iterator[OpenChunk | FailedUnit]:
        while True:
            more = self._fill()
            if not self._has_first:
                if not more and not self._run.is_busy:
                    return
                for rows in self._run.advance(more):
                    self._count_finished(rows)
            while self._has_first:
                yield self._pop()

    @property
    def statistics(self) -> Statistics:
        """Of the run."""
        return self._run.statistics

    def close(self) -> None:
        """Let go of the devices."""
        self._run.close()

    @property
    def _has_first(self) -> bool:
        """Whether what comes next is there."""
        return bool(self._open) and (isinstance(self._open[0], FailedUnit) or self._open[0].rows_left == 0)

    def _fill(self) -> bool:
        """Hand the engine rows until it has enough; whether it has a window of them and may count on more.

        Not if there are no more, or if rows that are longer than a window fill the memory before they fill the lanes.
        Once it has a window of rows, idle devices do not wait for more, and no chunk is waited for.
        """
        while self._run.wants_rows and not self._is_exhausted and not self._has_first:
            if self._is_full:
                return False
            if self._run.has_window:
                is_enough = self._run.is_idle or not (self._pieces or self._chunks.is_ready)
                if is_enough or self._open_units >= WAITING_UNITS:
                    return True
            item = self._next()
            if item is None:
                self._is_exhausted = True
                return False
            if self._failed is not None and item.unit.index == self._failed.index:
                continue
            if isinstance(item, FailedUnit):
                self._fail(item)
            else:
                self._take(item)
        return self._run.has_window and not self._is_exhausted

    def _next(self) -> Chunk | FailedUnit | None:
        """What is read next, or the next piece of it; None if nothing is."""
        if self._pieces:
            return self._pieces.popleft()
        begin = time.perf_counter()
        item = next(self._chunks, None)
        self.read_wait_seconds += time.perf_counter() - begin
        if not isinstance(item, Chunk):
            return item
        steps = self._steps(item)
        bounds = list(row_pieces(self._given.of(1, steps) + self._kept.of(1, steps), self._shares.piece))
        if len(bounds) < 2:
            return item
        self._pieces.extend(item.slice(begin, end) for begin, end in bounds)
        return self._pieces.popleft()

    def _steps(self, chunk: Chunk) -> np.ndarray:
        """The steps of each row that count."""
        return chunk.sequences.lengths_within(self._options.max_steps)

    @property
    def _is_full(self) -> bool:
        """Whether what is open holds all that it may: features in their share, values of long rows in the budget."""
        is_full = self._held_bytes > self._open_bytes or self._values_bytes > self._shares.total
        return bool(self._open) and is_full

    def _push(self, item: OpenChunk | FailedUnit) -> None:
        """Have it wait for those before it."""
        self._open.append(item)
        self._open_units += _ends_unit(item)
        self._held_bytes += item.nbytes

    def _pop(self) -> OpenChunk | FailedUnit:
        """What waited longest."""
        item = self._open.popleft()
        self._open_units -= _ends_unit(item)
        self._held_bytes -= item.nbytes
        return item

    def _fail(self, failed: FailedUnit) -> None:
        """Take note of a unit of which no more is taken."""
        self._failed = failed.unit
        self._push(failed)

    def _take(self, chunk: Chunk) -> None:
        """Hand the engine the rows of a chunk; its unit fails if the initial carries are not what they should be."""
        engine, rows, lengths = self._engine, len(chunk.sequences), self._steps(chunk)
        steps = int(lengths.sum())
        features = FeatureRows(rows, engine.out_features, engine.dtype, lengths if engine.gives_steps else None)
        nbytes = chunk.nbytes_kept + self._given.of(rows, steps)
        values_bytes, engine_bytes = chunk.sequences.values.nbytes if rows else 0, self._kept.of(rows, steps)
        if engine.is_static:
            self._allow(chunk, nbytes + engine_bytes)
        self._tell_if_large(chunk)
        try:
            carries = self._carries(chunk)
        except DataError as error:
            self._fail(FailedUnit(chunk.unit, str(error)))
            return
        without = replace(chunk, sequences=Ragged.empty(engine.in_features), states=None)
        first_row = self._run.statistics.rows
        self._push(OpenChunk(without, first_row, features, rows, nbytes, values_bytes, engine_bytes))
        self._held_bytes += engine_bytes
        self._values_bytes += values_bytes
        self._run.submit(chunk.sequences, self._options.max_steps, carries, features.out())

    def _tell_if_large(self, chunk: Chunk) -> None:
        """Say so, once, where a row goes beyond the budget: nested lists take over three times their values to read."""
        values = chunk.sequences.values.nbytes
        if 3 * values > self._shares.total and not self._is_told:
            self._is_told = True
            logger.warning(
                "A row of part %d has values of %s, more than a third of the %s of --memory. It is computed all the "
                "same, but reading it may take more memory than that.",
                chunk.unit.index, in_mib(values), in_mib(self._shares.total),
            )  # fmt: skip

    def _allow(self, chunk: Chunk, nbytes: int) -> None:
        """Have as much wait as the rows of some windows give, judged by the rows so far."""
        shape = self._engine.shape
        self._taken_bytes += nbytes
        self._taken_blocks += int(np.maximum(1, -(-chunk.sequences.lengths // shape.block_steps)).sum())
        window_blocks = self._engine.devices * shape.lanes * shape.window_blocks
        of_windows = OPEN_WINDOWS * window_blocks * self._taken_bytes // max(1, self._taken_blocks)
        self._open_bytes = min(max(of_windows, _USUAL_OPEN), self._shares.open)

    def _carries(self, chunk: Chunk) -> np.ndarray | None:
        """What each row of a chunk begins from, `(n, carry_features)`; None where that is the encoder's affair."""
        engine = self._engine
        if engine.state_features:
            begun = np.tile(engine.first_state, (len(chunk.sequences), 1))
            if chunk.states is not None:
                there = chunk.states.is_valid().to_numpy(zero_copy_only=False)
                begun[there] = chunk.states.flatten().to_numpy().reshape(-1, engine.state_features)
            return begun
        return own_carries(chunk.kept, self._options, engine.carry_features, chunk.where, chunk.is_null)

    def _count_finished(self, rows: np.ndarray) -> None:
        """Take note that the features of rows with these numbers are there."""
        chunks = [item for item in self._open if isinstance(item, OpenChunk)]
        of_chunk = np.searchsorted([chunk.first_row for chunk in chunks], rows, side="right") - 1
        for chunk, count in zip(chunks, np.bincount(of_chunk, minlength=len(chunks)).tolist(), strict=True):
            if count:
                chunk.rows_left -= count
                if not chunk.rows_left:
                    self._held_bytes -= chunk.engine_bytes
                    self._values_bytes -= chunk.values_bytes


def _ends_unit(item: OpenChunk | FailedUnit) -> bool:
    """Whether no more is to come of its unit."""
    return ends_unit(item.chunk if isinstance(item, OpenChunk) else item)
