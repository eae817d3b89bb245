"""Bidirectional encoders, layer by layer: an engine for each direction of each layer, fed by the layer before.

A backward cell reads a row from the row's own end, so a layer needs all of a row before the next one starts on it. Rows
go through the layers one by one, not batch by batch: what is finished in both directions is handed on at once.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np
from jax.sharding import Mesh

from scanrnn_dist.encoder import Encoder, join_directions
from scanrnn_dist.engine.engine import Engine, NativeEngine
from scanrnn_dist.engine.mesh import checked_mesh
from scanrnn_dist.engine.shapes import window_shape_for
from scanrnn_dist.engine.submitting import Emptied, check_carries
from scanrnn_dist.errors import ConfigError
from scanrnn_dist.observe import share_of_memory
from scanrnn_dist.protocols import Finished, Statistics, WindowShape
from scanrnn_dist.ragged import Ragged, checked_max_steps


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
        if encoder.pool_dtype == np.float64:
            raise ConfigError("A bidirectional encoder computes in float64; between its layers float32 is kept.")
        self.layers = [
            tuple(of_direction(part, mesh, shape, own_carries) for part in directions)
            for directions in encoder.directions()
        ]
        first = self.layers[0][0]
        # What a layer gives is kept until all rows that were submitted together are through it. The next layer takes a
        # copy, within its own look-ahead.
        self.kept_step_bytes = 4 * sum(direction.out_features for layer in self.layers[:-1] for direction in layer)
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
        self._layers, self._expects_carries = engine.layers, engine.own_carries
        self._carry_features, self._gives_steps = engine.carry_features, engine.gives_steps
        if memory_bytes is None and engine.is_static:
            memory_bytes = share_of_memory()
        of_each = None if memory_bytes is None else memory_bytes // sum(map(len, engine.layers))
        self._runs = [tuple(direction.run(of_each) for direction in layer) for layer in engine.layers]
        # Per layer and direction, the row that each of the run's own numbers stands for, until it is finished there.
        self._numbers: list[tuple[dict[int, int], ...]] = [({}, {}) for _ in self._runs]
        self._halves: list[dict[int, Any]] = [{} for _ in self._runs]  # what is finished in one direction only
        self._carries: dict[int, np.ndarray] = {}
        widths = [[direction.carry_features for direction in layer] for layer in engine.layers]
        self._carry_ends = np.cumsum(np.ravel(widths))[:-1]

    @property
    def wants_rows(self) -> bool:
        return all(run.wants_rows for layer in self._runs for run in layer)

    @property
    def has_window(self) -> bool:
        return self._runs[0][0].has_window

    @property
    def is_idle(self) -> bool:
        return all(run.is_idle for layer in self._runs for run in layer)

    @property
    def is_busy(self) -> bool:
        return any(run.is_busy for layer in self._runs for run in layer)

    @property
    def statistics(self) -> Statistics:
        """Rows and steps counted once; positions as a mean over the runs, the rest as sums."""
        each = [run.statistics for layer in self._runs for run in layer]
        total = sum(each, Statistics())
        return replace(total, rows=each[0].rows, steps=each[0].steps, positions=total.positions // len(each))

    def submit(
        self,
        ragged: Ragged,
        max_steps: float | None = None,
        carries: np.ndarray | None = None,
        out: np.ndarray | None = None,  # it tells features, joined of both directions
    ) -> None:
        check_carries(carries, (len(ragged), self._carry_features) if self._expects_carries else None)
        if len(ragged) == 0:
            return
        kept = ragged.first_steps(checked_max_steps(max_steps))
        first = self.statistics.rows
        numbers = range(first, first + len(ragged))
        if carries is not None:
            self._carries.update(zip(numbers, np.asarray(carries), strict=True))
        self._submit(0, kept, list(numbers))

    def advance(self, more: bool = False) -> list[Finished]:
        done: list[tuple[int, np.ndarray]] = []
        for index, layer in enumerate(self._runs):
            arrived: list[tuple[int, np.ndarray]] = []
            next_layer = self._runs[index + 1] if index + 1 < len(self._runs) else ()
            # A layer waits while the next one's look-ahead is full, which would grow without bound.
            for direction, run in enumerate(layer if all(run.wants_rows for run in next_layer) else ()):
                for finished in run.advance(more and (run.wants_rows or run.has_window)):
                    arrived += self._matched(index, direction, finished)
            if next_layer:
                if arrived:
                    rows, values = zip(*arrived, strict=True)
                    self._submit(index + 1, Ragged.from_sequences(list(values)), list(rows))
            else:
                done = arrived
            more = more or any(run.is_busy for run in layer)
        return [self._result(done)] if done else []

    def close(self) -> None:
        with ExitStack() as stack:  # each, also where waiting for one is interrupted
            for run in (run for layer in self._runs for run in layer):
                stack.callback(run.close)

    def _submit(self, index: int, ragged: Ragged, rows: list[int]) -> None:
        """Hand rows to both directions of a layer; the backward one gets each in reverse."""
        carries: list[Any] = [None, None]
        if self._expects_carries:
            own = np.split(np.stack([self._carries[row] for row in rows]), self._carry_ends, axis=1)
            carries = own[2 * index : 2 * index + 2]
        for direction, (run, given) in enumerate(zip(self._runs[index], (ragged, backwards(ragged)), strict=True)):
            first = run.statistics.rows
            self._numbers[index][direction].update(enumerate(rows, first))
            run.submit(given, carries=carries[direction])
        if index + 1 == len(self._runs):
            for row in rows:
                self._carries.pop(row, None)

    def _matched(self, index: int, direction: int, finished: Finished) -> list[tuple[int, np.ndarray]]:
        """The rows that are now finished in both directions, each with what the layer gives: features, or its steps."""
        matched = []
        engine, of_backward = self._layers[index]
        widths = (engine.encoder.readout_widths, of_backward.encoder.readout_widths)
        for nth, number in enumerate(finished.rows.tolist()):
            row = self._numbers[index][direction].pop(number)
            half = finished.features.row(nth) if engine.gives_steps else finished.features[nth]
            if direction == 1 and engine.gives_steps:
                half = half[::-1]
            other = self._halves[index].pop(row, None)
            if other is None:
                self._halves[index][row] = half
                continue
            forward, backward = (half, other) if direction == 0 else (other, half)
            if engine.gives_steps:
                matched.append((row, np.concatenate([forward, backward], axis=1)))
            else:
                matched.append((row, join_directions(forward, backward, widths)))
        return matched

    def _result(self, done: list[tuple[int, np.ndarray]]) -> Finished:
        done = sorted(done, key=lambda row_and_value: row_and_value[0])
        rows, values = np.array([row for row, _ in done]), [value for _, value in done]
        return Finished(rows, Ragged.from_sequences(values) if self._gives_steps else np.stack(values))


def backwards(ragged: Ragged) -> Ragged:
    """Every row in reverse, its last step first."""
    begins, ends = ragged.offsets[:-1], ragged.offsets[1:]
    lengths = ends - begins
    index = np.repeat(begins + ends - 1, lengths) - np.arange(ragged.offsets[0], ragged.offsets[-1])
    return Ragged(ragged.values[index], ragged.offsets - ragged.offsets[0])
