"""Bidirectional encoders, layer by layer: an engine for each direction of each layer, fed by the layer before.

A backward cell reads a row from the row's own end, so a layer needs all of a row before the next one starts on it. Rows
go through the layers one by one, not batch by batch: what is finished in both directions is handed on at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from jax.sharding import Mesh

from scanrnn_dist.encoder import Encoder
from scanrnn_dist.engine.engine import Engine, NativeEngine
from scanrnn_dist.engine.mesh import checked_mesh
from scanrnn_dist.engine.shapes import window_shape_for
from scanrnn_dist.engine.submissions import Submissions
from scanrnn_dist.engine.submitting import Emptied, check_carries, room_for
from scanrnn_dist.errors import ConfigError
from scanrnn_dist.observe import share_of_memory
from scanrnn_dist.protocols import Statistics, WindowShape
from scanrnn_dist.ragged import Ragged, checked_max_steps, joined, positions, running_sums


class BidirectionalEngine:
    """The engines of a bidirectional encoder; for the arguments see `Engine`."""

    def __init__(
        self,
        encoder: Encoder,
        mesh: Mesh | None = None,
        shape: WindowShape | None = None,
        own_carries: bool = False,
        of_direction: type[Engine] | type[NativeEngine] = Engine,
    ) -> None:
        self.own_carries, self.kernel = own_carries, of_direction.kernel
        self.in_features, self.flops_per_step = encoder.in_features, encoder.flops_per_step
        mesh = checked_mesh(mesh)
        shape = shape or window_shape_for(encoder, mesh, kernel=self.kernel)
        if any(part.pool_dtype == np.float64 for directions in encoder.directions() for part in directions):
            raise ConfigError("A bidirectional encoder computes in float64; between its layers float32 is kept.")
        self.layers = [
            tuple(of_direction(part, mesh, shape, own_carries) for part in directions)
            for directions in encoder.directions()
        ]
        first = self.layers[0][0]
        # What a layer gives of steps is kept until all rows that were submitted together are through it. What the next
        # layer copies of it is part of that layer's look-ahead.
        parts = [part for layer in self.layers for part in layer if part.gives_steps]
        self.kept_step_bytes = 4 * sum(part.out_features for part in parts) if len(self.layers) > 1 else 0
        self.mesh, self.shape, self.devices = first.mesh, first.shape, first.devices
        self.is_static = first.is_static
        self.out_features = sum(direction.out_features for direction in self.layers[-1])
        self.dtype, self.gives_steps = self.layers[-1][0].dtype, encoder.gives_steps
        self.carry_features = encoder.carry_features if own_carries else 0
        self.state_features, self.first_state = 0, np.zeros(0, self.dtype)
        self.compilations = sum(engine.compilations for layer in self.layers for engine in layer)

    def run(self, memory_bytes: int | None = None) -> BidirectionalRun:
        return BidirectionalRun(self, memory_bytes)


class BidirectionalRun(Emptied):
    """One stream of rows through all layers, whose directions share `memory_bytes` evenly."""

    def __init__(self, engine: BidirectionalEngine, memory_bytes: int | None = None) -> None:
        self._engine = engine
        if memory_bytes is None and engine.is_static:
            memory_bytes = share_of_memory()
        of_each = None if memory_bytes is None else memory_bytes // sum(map(len, engine.layers))
        self._layers = [_LayerRun(directions, of_each) for directions in engine.layers]
        self._runs = [run for layer in self._layers for run in layer.runs]
        self._submissions = Submissions()  # of several layers, which take rows apart
        self._carry_ends = np.cumsum([part.carry_features for layer in engine.layers for part in layer])[:-1]

    @property
    def wants_rows(self) -> bool:
        return all(run.wants_rows for run in self._runs)

    @property
    def has_window(self) -> bool:
        return self._runs[0].has_window

    @property
    def is_idle(self) -> bool:
        return all(run.is_idle for run in self._runs)

    @property
    def is_busy(self) -> bool:
        return any(run.is_busy for run in self._runs)

    @property
    def statistics(self) -> Statistics:
        """Rows and steps counted once; positions as a mean over the runs, the rest as sums."""
        each = [run.statistics for run in self._runs]
        total = sum(each, Statistics())
        return replace(total, rows=each[0].rows, steps=each[0].steps, positions=total.positions // len(each))

    def submit(
        self,
        ragged: Ragged,
        max_steps: float | None = None,
        carries: np.ndarray | None = None,
        out: np.ndarray | None = None,
    ) -> None:
        engine = self._engine
        check_carries(carries, (len(ragged), engine.carry_features) if engine.own_carries else None)
        if len(ragged) == 0:
            return
        first = self.statistics.rows
        of_runs = [] if carries is None else np.split(np.array(carries), self._carry_ends, axis=1)
        kept = ragged.first_steps(checked_max_steps(max_steps))
        numbers = np.arange(first, first + len(ragged))
        self._layers[0].submit(numbers, kept, of_runs, out if len(self._layers) == 1 else None)
        if len(self._layers) > 1:
            self._submissions.add(kept, kept.lengths, room_for(engine, kept.lengths, out))

    def advance(self, more: bool = False) -> list[np.ndarray]:
        finished: list[np.ndarray] = []
        for layer, following in zip(self._layers, [*self._layers[1:], None], strict=True):
            # A layer waits while the next one's look-ahead is full, which would grow without bound.
            done = layer.advance(more) if following is None or following.wants_rows else []
            if done and following is not None:
                following.submit(*_joined(done))
            elif done:
                if len(self._layers) > 1:
                    self._place(*_joined(done)[:2])
                finished.append(np.concatenate([batch.numbers[nth] for batch, nth in done]))
            more = more or layer.is_busy
        return finished

    def _place(self, numbers: np.ndarray, values: Ragged) -> None:
        """Put what the last of several layers gives of rows with these numbers where it belongs."""
        for batch, mine in self._submissions.of_rows(numbers):
            nth = numbers[mine] - batch.first_row
            if self._engine.gives_steps:
                nth = positions(batch.starts[nth] - batch.starts[0], batch.lengths[nth])
            batch.out[nth] = values.take(mine).values
        self._submissions.count_finished(numbers)

    def close(self) -> None:
        with ExitStack() as stack:  # each, also where waiting for one is interrupted
            for run in self._runs:
                stack.callback(run.close)


@dataclass(eq=False)
class _Batch:
    """Rows that a layer was given together, until both directions are through with all of them.

    Args:
        first_row: the number of its first row in the layer's runs.
        numbers: `(n,)`, of the rows in the stream.
        carries: `(n, carry_features)` for each direction of the layers to come; empty where rows bring none.
        given: of every row, what both directions give, `(..., F)`; vectors are rows of one step.
        halves: `(n,)`, how many directions are through with a row.
        unfinished: rows that are not finished in both.
    """

    first_row: int
    numbers: np.ndarray
    carries: list[np.ndarray]
    given: Ragged
    halves: np.ndarray
    unfinished: int


class _LayerRun:
    """The runs of both directions of a layer, which get the same rows in the same order."""

    def __init__(self, directions: Sequence[Engine | NativeEngine], memory_bytes: int | None) -> None:
        self.runs = tuple(part.run(memory_bytes, is_backward=nth == 1) for nth, part in enumerate(directions))
        self._gives_steps = directions[0].gives_steps
        widths = [direction.encoder.readout_widths for direction in directions]
        forward, self._width = sum(widths[0]), sum(map(sum, widths))
        self._columns = slice(forward), slice(forward, None)  # of each direction, until a row is finished in both
        # A row of several parts then gets its columns in the order of `join_directions`.
        begins = running_sums(np.ravel(widths))[:-1].reshape(2, -1)
        parts = zip(np.ravel(begins, order="F"), np.ravel(widths, order="F"), strict=True)
        order = np.concatenate([np.arange(begin, begin + width) for begin, width in parts])
        self._order = None if len(widths[0]) == 1 else order
        self._batches: list[_Batch] = []

    @property
    def wants_rows(self) -> bool:
        return all(run.wants_rows for run in self.runs)

    @property
    def is_busy(self) -> bool:
        return any(run.is_busy for run in self.runs)

    def submit(
        self, numbers: np.ndarray, values: Ragged, carries: list[np.ndarray], out: np.ndarray | None = None
    ) -> None:
        """Hand rows to both directions.

        Args:
            numbers: `(n,)`, of the rows in the stream.
            values: the rows.
            carries: as `_Batch` has them, those of this layer first.
            out: where what both give belongs; it is kept here when None.
        """
        n = len(numbers)
        offsets = running_sums(values.lengths if self._gives_steps else np.ones(n, np.int64))
        given = Ragged(np.empty((offsets[-1], self._width), np.float32) if out is None else out, offsets)
        first = self.runs[0].statistics.rows
        self._batches.append(_Batch(first, numbers, carries[2:], given, np.zeros(n, np.int8), n))
        for run, own, columns in zip(self.runs, carries[:2] or (None, None), self._columns, strict=True):
            run.submit(values, carries=own, out=given.values[:, columns])

    def advance(self, more: bool) -> list[tuple[_Batch, np.ndarray]]:
        """Advance both directions; which rows of which batches are now finished in both."""
        done: list[tuple[_Batch, np.ndarray]] = []
        for run in self.runs:
            for rows in run.advance(more and (run.wants_rows or run.has_window)):
                done += self._finished(np.sort(rows))
        self._batches = [batch for batch in self._batches if batch.unfinished]
        return done

    def _finished(self, rows: np.ndarray) -> list[tuple[_Batch, np.ndarray]]:
        """Take note of rows that rise; those, batch by batch, whose other half was there already."""
        done = []
        bounds = np.searchsorted(rows, [batch.first_row for batch in self._batches])
        for batch, (begin, end) in zip(self._batches, pairwise([*bounds, len(rows)]), strict=True):
            if begin == end:
                continue
            nth = rows[begin:end] - batch.first_row
            batch.halves[nth] += 1
            whole = nth[batch.halves[nth] == 2]
            batch.unfinished -= len(whole)
            if len(whole):
                if self._order is not None:
                    batch.given.values[whole] = batch.given.values[np.ix_(whole, self._order)]
                done.append((batch, whole))
        return done


def _joined(done: list[tuple[_Batch, np.ndarray]]) -> tuple[np.ndarray, Ragged, list[np.ndarray]]:
    """The numbers of rows of several batches, what their layer gave, and their carries for the layers to come."""
    numbers = np.concatenate([batch.numbers[nth] for batch, nth in done])
    values = [batch.given.take(nth) for batch, nth in done]
    carries = zip(*([carry[nth] for carry in batch.carries] for batch, nth in done), strict=True)
    whole = values[0] if len(values) == 1 else joined(values, values[0].in_features)
    return numbers, whole, [np.concatenate(parts) for parts in carries]
