"""The loop that feeds the compiled window program rows and collects their features.

`Engine` is one encoder compiled for one window shape on one mesh; `Run` is one stream of rows through it. The host
side of a window (schedule, copy, send, fetch) runs while the devices compute the one before. What a lane does stands
in `tape.py`, the program in `program.py`; who reads and writes data sets, in `job.py`.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx
from jax.sharding import Mesh

from scanrnn_dist.encoder import Encoder
from scanrnn_dist.errors import ConfigError, DataError
from scanrnn_dist.mesh import AXIS, checked_mesh, default_window_shape, device_kind, replicated, sharded
from scanrnn_dist.program import window_program
from scanrnn_dist.ragged import Ragged
from scanrnn_dist.tape import Tape, Window, WindowShape

WINDOWS_IN_FLIGHT = 2
"""Windows sent and not fetched: one computes while the next is scheduled and sent."""


@dataclass
class Statistics:
    """What a run did: rows, real steps, positions of all windows, compilations, and seconds spent waiting."""

    rows: int = 0
    steps: int = 0
    positions: int = 0
    windows: int = 0
    compilations: int = 0
    device_wait_seconds: float = 0.0

    @property
    def occupancy(self) -> float:
        """Positions that did useful work, of all positions; 1 if there were none."""
        return self.steps / self.positions if self.positions else 1.0


class Engine:
    """One encoder compiled for one window shape on one mesh; runs of rows are started from it.

    Args:
        encoder: cell and readout; its weights are copied to every device once.
        mesh: a mesh with an axis `"data"`, whose devices share the rows; all local devices when None.
        shape: lanes, block and window; what suits the device kind when None.

    Raises:
        ConfigError: a mesh without `"data"` or with devices of other processes, or a shape with a number below 1.
    """

    def __init__(self, encoder: Encoder, mesh: Mesh | None = None, shape: WindowShape | None = None) -> None:
        self.encoder = encoder
        self.mesh = checked_mesh(mesh)
        self.shape = shape or default_window_shape(self.mesh, encoder.in_features, encoder.out_features)
        if min(self.shape.lanes, self.shape.block_steps, self.shape.window_blocks) < 1:
            raise ConfigError(f"{self.shape} has a number below 1.")
        self.devices = self.mesh.shape[AXIS]
        self.lanes = self.devices * self.shape.lanes
        self.compilations = 0
        self.ends_capacity = -(-self.shape.lanes * self.shape.window_blocks // 8)
        self.copies_to_host = device_kind(self.mesh) != "cpu"
        _, weights = nnx.split(encoder)
        self.weights = jax.device_put(weights, replicated(self.mesh))
        self.dtype = jax.eval_shape(lambda: encoder.readout(encoder.initial_carry())).dtype
        self.program = self._compile()

    def initial_carry(self) -> jax.Array:
        """The initial carry in every lane, on the devices."""
        carry = np.asarray(self.encoder.initial_carry())
        return jax.device_put(
            np.broadcast_to(carry, (self.devices, self.shape.lanes, *carry.shape)), sharded(self.mesh)
        )

    def feed_shapes(self) -> tuple[jax.ShapeDtypeStruct, ...]:
        """Shapes of what a window is fed besides the weights, in the order of `window_program`."""
        d, l, K, s = self.devices, self.shape.lanes, self.shape.window_blocks, self.shape.block_steps
        carry = jax.eval_shape(self.encoder.initial_carry)
        n_blocks = jax.ShapeDtypeStruct((), jnp.int32, sharding=replicated(self.mesh))
        of_devices = (
            ((d, l, *carry.shape), carry.dtype),
            ((d, K, s, l, self.encoder.in_features), jnp.float32),
            ((d, K, l), jnp.int32),
            ((d, K, l), jnp.bool_),
            ((d, self.ends_capacity), jnp.int32),
        )
        sharding = sharded(self.mesh)
        return n_blocks, *(jax.ShapeDtypeStruct(shape, dtype, sharding=sharding) for shape, dtype in of_devices)

    def _compile(self) -> jax.stages.Compiled:
        """Compile the one program of the job, whose carry is donated and so stays where it is."""
        program = jax.jit(window_program(self.encoder, self.shape, self.mesh), donate_argnums=2)
        self.compilations += 1
        return program.lower(self.weights, *self.feed_shapes()).compile()

    def blocks_run(self, window: Window) -> int:
        """Blocks per lane that the program goes through for a window."""
        return self.shape.window_blocks if self.copies_to_host else window.blocks

    def run(self) -> Run:
        """A new run, whose rows are numbered from 0."""
        return Run(self)


class Finished(NamedTuple):
    """Rows whose features are known: `(n,)` row numbers, in no order, and `(n, out_features)` features."""

    rows: np.ndarray
    features: np.ndarray


class _Sent(NamedTuple):
    """A window on the devices: what will come back, and which rows it belongs to."""

    window: Window
    features: jax.Array
    emitted: jax.Array
    fits: bool  # whether `features` has room for all rows that end; else they are fetched from `emitted`


class Run:
    """One stream of rows through an engine: `submit` rows, `advance` until nothing is left.

    Example:
        >>> import numpy as np
        >>> run = Engine(Encoder.from_seed(0, in_features=2, hidden_features=3)).run()
        >>> run.submit(Ragged.from_sequences([np.ones((5, 2)), np.zeros((0, 2))]))
        >>> finished = [rows for rows, features in run.results()]
        >>> sorted(np.concatenate(finished).tolist())
        [0, 1]
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.statistics = Statistics(compilations=engine.compilations)
        self._tape = Tape(engine.lanes, engine.shape.block_steps)
        self._carry = engine.initial_carry()
        self._batches = _Batches()
        self._sent: deque[_Sent] = deque()

    @property
    def steps_waiting(self) -> int:
        """Steps that are submitted and not sent, each row rounded up to blocks."""
        return self._tape.blocks_left * self.engine.shape.block_steps

    @property
    def wants_rows(self) -> bool:
        """Whether fewer than two whole windows wait, so that lanes may soon be idle."""
        return self.steps_waiting < 2 * self.engine.lanes * self.engine.shape.window_steps

    @property
    def is_busy(self) -> bool:
        """Whether submitted rows are not finished yet."""
        return self._tape.blocks_left > 0 or bool(self._sent)

    def submit(self, ragged: Ragged, max_steps: int | None = None) -> None:
        """Add rows, numbered on from the last; the longest go first. Of each row, the first `max_steps` steps count.

        Raises:
            DataError: another number of features than the encoder takes.
        """
        expected = self.engine.encoder.in_features
        if ragged.in_features != expected:
            raise DataError(
                f"The sequences have {ragged.in_features} features per step; the encoder takes {expected}. "
                "Expected is (T, D), time first."
            )
        lengths = ragged.lengths if max_steps is None else np.minimum(ragged.lengths, max_steps)
        starts = self._batches.add(ragged)
        self._tape.add(starts, lengths)
        self.statistics.rows += len(ragged)
        self.statistics.steps += int(lengths.sum())

    def results(self) -> list[Finished]:
        """Advance until nothing is left; all results."""
        finished = []
        while self.is_busy:
            finished.extend(self.advance())
        return finished

    def advance(self) -> list[Finished]:
        """Send one window, if rows wait; fetch what has to be fetched before the next one."""
        if self._tape.blocks_left:
            self._send(self._tape.next_window(self.engine.shape.window_blocks))
        finished = []
        while len(self._sent) >= WINDOWS_IN_FLIGHT or (self._sent and not self._tape.blocks_left):
            finished.append(self._fetch(self._sent.popleft()))
        return finished

    def _send(self, window: Window) -> None:
        """Copy the window's values to where its lanes want them, and start the program on them."""
        engine, shape = self.engine, self.engine.shape
        grid = (engine.devices, shape.window_blocks, shape.lanes)
        values = np.empty((*grid[:2], shape.block_steps, shape.lanes, engine.encoder.in_features), np.float32)
        count, reset = np.zeros(grid, np.int32), np.zeros(grid, bool)
        by_device = "(device lane) block -> device block lane"
        self._batches.copy(rearrange(window.start, by_device, device=engine.devices), values)
        count[:, : window.blocks] = rearrange(window.count, by_device, device=engine.devices)
        reset[:, : window.blocks] = rearrange(window.reset, by_device, device=engine.devices)
        ends, fits = self._ends(window)
        n_blocks = np.int32(window.blocks)
        feed = jax.device_put((values, count, reset, ends), sharded(engine.mesh))
        self._carry, features, emitted = engine.program(engine.weights, n_blocks, self._carry, *feed)
        if engine.copies_to_host:
            (features if fits else emitted).copy_to_host_async()
        self._sent.append(_Sent(window, features, emitted, fits))
        self._batches.forget(window.rows)
        self.statistics.windows += 1
        self.statistics.positions += engine.lanes * shape.block_steps * engine.blocks_run(window)

    def _ends(self, window: Window) -> tuple[np.ndarray, bool]:
        """Per device, where in its emitted rows the features of finished rows stand; and whether there is room."""
        lanes, devices = self.engine.shape.lanes, self.engine.devices
        device, lane = np.divmod(window.ends_lane, lanes)
        ends = np.zeros((devices, self.engine.ends_capacity), np.int32)
        per_device = np.bincount(device, minlength=devices)
        if per_device.max() > self.engine.ends_capacity:
            return ends, False
        nth = np.arange(len(device)) - (np.cumsum(per_device) - per_device)[device]
        ends[device, nth] = window.ends_block * lanes + lane
        return ends, True

    def _fetch(self, sent: _Sent) -> Finished:
        """Wait for a window and take the features of the rows that ended in it."""
        begin = time.perf_counter()
        per_device = _host_shards(sent.features if sent.fits else sent.emitted)
        self.statistics.device_wait_seconds += time.perf_counter() - begin
        lanes, window = self.engine.shape.lanes, sent.window
        bounds = np.searchsorted(window.ends_lane, np.arange(len(per_device) + 1) * lanes)
        features = np.empty((len(window.rows), self.engine.encoder.out_features), per_device[0].dtype)
        for rows, begin_row, end_row in zip(per_device, bounds[:-1], bounds[1:], strict=True):
            mine = slice(begin_row, end_row)
            if sent.fits:
                features[mine] = rows[0, : end_row - begin_row]
            else:
                rows[0].take(
                    window.ends_block[mine] * lanes + window.ends_lane[mine] % lanes, axis=0, out=features[mine]
                )
        return Finished(window.rows, features)


def _host_shards(array: jax.Array) -> list[np.ndarray]:
    """Each device's part of an array sharded along its first axis, without a copy where host and device are one."""
    parts = {shard.index[0].start or 0: shard.data for shard in array.addressable_shards}
    return [np.asarray(parts[begin]) for begin in sorted(parts)]


class _Batches:
    """The values of the rows that are not all sent, as one stream of steps: each batch goes on where the last ended."""

    def __init__(self) -> None:
        self._batches: deque[Ragged] = deque()
        self._bases: deque[int] = deque()  # the step of the stream at which each batch begins
        self._row_ends: deque[int] = deque()  # the number of the row after each batch
        self._rows_left: deque[int] = deque()
        self._steps = 0
        self._rows = 0

    def add(self, ragged: Ragged) -> np.ndarray:
        """Take a batch; where in the stream each of its rows starts, `(n,)` int64."""
        starts = self._steps + ragged.offsets[:-1]
        self._rows += len(ragged)
        self._batches.append(ragged)
        self._bases.append(self._steps)
        self._row_ends.append(self._rows)
        self._rows_left.append(len(ragged))
        self._steps += len(ragged.values)
        return starts

    def copy(self, start: np.ndarray, out: np.ndarray) -> None:
        """Copy blocks of steps: `start (d, K', l)` of the stream to `out (d, K, s, l, D)`; idle blocks get anything."""
        devices, blocks, _ = start.shape
        step = np.arange(out.shape[2])
        last = len(self._batches) - 1
        for number, (ragged, base) in enumerate(zip(self._batches, self._bases, strict=True)):
            if len(ragged.values) == 0:
                continue
            # Blocks of idle lanes lie anywhere; only what is real must come from its own batch.
            within = (start >= base) & (start < base + len(ragged.values))
            if number == last and not within.any():
                break
            if within.all() or last == 0:
                for device in range(devices):
                    index = rearrange(start[device] - base, "block lane -> block 1 lane") + rearrange(step, "s -> s 1")
                    ragged.values.take(index, axis=0, out=out[device, :blocks], mode="clip")
                return
            of_device, block, lane = np.nonzero(within)
            index = rearrange(start[within] - base, "n -> n 1") + step
            out[of_device, block, :, lane] = ragged.values.take(index, axis=0, mode="clip")

    def forget(self, rows: np.ndarray) -> None:
        """Let go of the batches whose rows have all been sent, `rows` being those that just were."""
        batch = np.searchsorted(np.asarray(self._row_ends), rows, side="right")
        for number, count in enumerate(np.bincount(batch, minlength=len(self._batches))):
            self._rows_left[number] -= int(count)
        while self._rows_left and self._rows_left[0] == 0:
            for column in (self._batches, self._bases, self._row_ends, self._rows_left):
                column.popleft()
