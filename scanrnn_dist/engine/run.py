"""`Run`: one stream of rows through an engine. The loop that feeds the compiled program and collects features.

The host side of a window (schedule, copy, send, fetch) runs while the devices compute the one before. What a lane does
stands in `schedule.py`, the program in `program.py`, what is kept for submitted rows in `submissions.py`.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import jax
import numpy as np
from einops import rearrange

from scanrnn_dist.engine.compiled import CompiledWindow
from scanrnn_dist.engine.drain import DRAIN_LANES, drain_engine
from scanrnn_dist.engine.host_buffers import HostBuffers, ValueStream
from scanrnn_dist.engine.mesh import sharded
from scanrnn_dist.engine.profiling import stage
from scanrnn_dist.engine.schedule import Tape, Window
from scanrnn_dist.engine.submissions import StepOutputs, Submissions
from scanrnn_dist.errors import DataError
from scanrnn_dist.protocols import Finished, Statistics
from scanrnn_dist.ragged import Ragged, checked_max_steps, time_first_hint

WINDOWS_IN_FLIGHT = 2
"""Windows sent and not fetched: one computes while the next is scheduled and sent."""
LOOK_AHEAD_BYTES = 32 << 20
"""Values of rows that wait, so that the last rows of a job can go longest first; two windows at least."""
SHORT_WINDOW = 8
"""While the devices are idle, a window of an eighth of the blocks is sent rather than waiting for rows to fill it."""


class _Sent(NamedTuple):
    """A window on the devices: what will come back, and which rows it belongs to."""

    buffers: HostBuffers
    window: Window
    output: Future[tuple[jax.Array, jax.Array]]  # the rows that end, and all that was emitted
    fits: bool  # whether the former have room for all of them

    @property
    def is_ready(self) -> bool:
        """Whether the devices are done with it."""
        return self.output.done() and bool(self.output.result()[0].is_ready())  # type: ignore[attr-defined]


class Run:
    """One stream of rows through an engine, as `RunLike` has it: `submit`, `advance` until nothing is left, `close`.

    Args:
        engine: whose program the rows go through.
        look_ahead_bytes: of values of rows that wait; `LOOK_AHEAD_BYTES` when None.
        drain: what the last rows go on in, given the engine and the steps of the longest; None to stay.
    """

    def __init__(
        self,
        engine: CompiledWindow,
        look_ahead_bytes: int | None = None,
        drain: Callable[[CompiledWindow, int], CompiledWindow | None] = drain_engine,
    ) -> None:
        self.engine = engine
        self._look_ahead_bytes = LOOK_AHEAD_BYTES if look_ahead_bytes is None else look_ahead_bytes
        self.statistics = Statistics(compilations=engine.compilations)
        self._tape = Tape(engine.lanes, engine.shape.block_steps, engine.shape.window_blocks)
        self._state = engine.initial_state()
        self._submissions = Submissions()
        self._values = ValueStream(self._submissions, engine.in_features, 3 * self._look_ahead_bytes)
        self._sent: deque[_Sent] = deque()
        self._free_buffers: list[HostBuffers] = []
        self._free_emitted: list[jax.Array] = []
        self._outputs = StepOutputs(self._submissions, engine.out_features) if engine.gives_steps else None
        self._all_lanes, self._drain = engine, drain
        self._may_drain = True  # until it was decided against, for the rows that are there now
        self._dispatcher = ThreadPoolExecutor(1, thread_name_prefix="scanrnn-dispatch")

    @property
    def wants_rows(self) -> bool:
        steps = self._tape.blocks_waiting * self.engine.shape.block_steps
        in_bytes = 4 * steps * self.engine.in_features
        return in_bytes < self._look_ahead_bytes or steps < 2 * self.engine.lanes * self.engine.shape.window_steps

    @property
    def has_window(self) -> bool:
        # A whole window; a short one where it takes less time and the devices have nothing to do.
        blocks = self.engine.shape.window_blocks
        least = -(-blocks // SHORT_WINDOW) if self.is_idle and not self.engine.copies_to_host else blocks
        return self._tape.ready_blocks >= least

    @property
    def is_idle(self) -> bool:
        return all(sent.is_ready for sent in self._sent)

    @property
    def is_busy(self) -> bool:
        return self._tape.blocks_left > 0 or bool(self._sent)

    def submit(self, ragged: Ragged, max_steps: float | None = None, carries: np.ndarray | None = None) -> None:
        max_steps = checked_max_steps(max_steps)
        expected = self.engine.in_features
        if ragged.in_features != expected:
            hint = time_first_hint(len(ragged) > 0 and len(ragged.row(0)) == expected)
            has = f"{ragged.in_features} features per step"
            raise DataError(f"The sequences have {has}; the encoder takes {expected}.{hint}")
        check_carries(carries, (len(ragged), self.engine.carry_features) if self.engine.own_carries else None)
        if len(ragged) == 0:
            return
        self._may_drain = True
        if self._outputs is not None:
            ragged, max_steps = ragged.first_steps(max_steps), None  # outputs are kept by the positions of steps
        lengths = ragged.lengths if max_steps is None else np.minimum(ragged.lengths, max_steps)
        with stage("submit"):
            own = None if carries is None else np.array(carries, np.float32)
            batch = self._submissions.add(ragged, lengths, own)
            self._values.add(batch, ragged.values)
            self._tape.add(batch.starts, lengths)
        if self._outputs is not None:
            self._outputs.add(batch)
        self.statistics.rows += len(ragged)
        self.statistics.steps += int(lengths.sum())

    def close(self) -> None:
        self._dispatcher.shutdown(cancel_futures=True)

    def results(self) -> list[Finished]:
        finished = []
        while self.is_busy:
            finished.extend(self.advance())
        return finished

    def advance(self, more: bool = False) -> list[Finished]:
        finished = []
        if self.engine is not self._all_lanes and self._tape.blocks_waiting:
            finished.extend(self._move_to(self._all_lanes))
        elif not more and self._may_drain and self._tape.is_draining(self.engine.devices * DRAIN_LANES):
            self._may_drain = False
            few_lanes = self._drain(self.engine, self._tape.longest_cut_blocks * self.engine.shape.block_steps)
            if few_lanes is not None:
                self.statistics.compilations += few_lanes.compilations
                finished.extend(self._move_to(few_lanes))
        if self.has_window if more else self._tape.blocks_left:
            with stage("schedule"):
                window = self._tape.next_window(self.engine.shape.window_blocks, more)
            self._send(window)
        while len(self._sent) >= WINDOWS_IN_FLIGHT or (self._sent and not more and not self._tape.blocks_left):
            with stage("fetch"):
                finished.append(self._fetch(self._sent.popleft()))
        return finished

    def _move_to(self, engine: CompiledWindow) -> list[Finished]:
        """Go on in another program, with the rows that were cut; fetch what was sent first."""
        finished = [self._fetch(self._sent.popleft()) for _ in range(len(self._sent))]
        before, after = self._tape.move(engine.devices, engine.shape.lanes)
        by_lane = "device lane ... -> (device lane) ..."

        def moved(here: jax.Array, fresh: jax.Array) -> np.ndarray:
            there = np.array(fresh)
            rearrange(there, by_lane)[after] = rearrange(np.asarray(here), by_lane)[before]
            return there

        state = jax.tree.map(moved, self._state, engine.initial_state())
        self._state = jax.device_put(state, sharded(engine.mesh))
        self.engine, self._free_buffers, self._free_emitted = engine, [], []
        return finished

    def _send(self, window: Window) -> None:
        """Copy the window's values to where its lanes want them, and start the program on them."""
        engine, shape = self.engine, self.engine.shape
        with stage("place"):
            buffers = self._free_buffers.pop() if self._free_buffers else engine.new_buffers()
            by_device = "(device lane) block -> device block lane"
            self._values.copy(rearrange(window.start, by_device, device=engine.devices), buffers.values)
            for given, wanted in ((window.count, buffers.counts), (window.reset, buffers.resets)):
                wanted[:, : window.blocks] = rearrange(given, by_device, device=engine.devices)
                wanted[:, window.blocks :] = 0
            fits = self._name_ends(window, buffers.ends)
            if engine.own_carries:
                self._place_carries(window, buffers.initials)
        emitted = self._free_emitted.pop() if self._free_emitted else engine.new_emitted()
        output = self._dispatcher.submit(self._dispatch, buffers, emitted, np.int32(window.blocks), fits)
        self._sent.append(_Sent(buffers, window, output, fits))
        self._submissions.count_sent(window.rows)
        self.statistics.windows += 1
        self.statistics.positions += engine.lanes * shape.block_steps * engine.blocks_run(window)

    def _dispatch(
        self, buffers: HostBuffers, emitted: jax.Array, n_blocks: np.int32, fits: bool
    ) -> tuple[jax.Array, jax.Array]:
        """Run the program on a window's buffers, after the one before; in a thread of its own.

        JAX need not return at once: on CPU, with jax 0.10, calls of this program took 0.87 of 1.1 s of a run (0.13 s
        with 0.12), and the host side of the next window would wait for them.
        """
        engine = self.engine
        with stage("dispatch"):
            on_devices = jax.device_put(tuple(buffers), sharded(engine.mesh))
            given = n_blocks, self._state, emitted, *on_devices
            self._state, features, emitted = engine.program(engine.weights, *given)
        if engine.copies_to_host:
            (features if fits else emitted).copy_to_host_async()
        return features, emitted

    def _name_ends(self, window: Window, ends: np.ndarray) -> bool:
        """Write where in each device's emitted rows those of finished rows stand to `ends`, if there is room."""
        lanes = self.engine.shape.lanes
        device, lane = np.divmod(window.ends_lane, lanes)
        per_device = np.bincount(device, minlength=len(ends))
        if self._outputs is not None or per_device.max() > ends.shape[1]:
            return False
        nth = np.arange(len(device)) - (np.cumsum(per_device) - per_device)[device]
        ends[device, nth] = window.ends_block * lanes + lane
        return True

    def _place_carries(self, window: Window, initials: np.ndarray) -> None:
        """Write the initial carries of the rows that begin in a window to where they begin."""
        device, lane = np.divmod(window.begins_lane, self.engine.shape.lanes)
        for batch, mine in self._submissions.of_rows(window.begun):
            assert batch.carries is not None
            carries = batch.carries[window.begun[mine] - batch.first_row]
            initials[device[mine], window.begins_block[mine], lane[mine]] = carries

    def _fetch(self, sent: _Sent) -> Finished:
        """Wait for a window and take the features of the rows that ended in it."""
        begin = time.perf_counter()
        ended, emitted = sent.output.result()
        per_device = _host_shards(ended if sent.fits else emitted)
        self.statistics.device_wait_seconds += time.perf_counter() - begin
        lanes, window = self.engine.shape.lanes, sent.window
        self._free_buffers.append(sent.buffers)
        self._free_emitted.append(emitted)
        if self._outputs is not None:
            return self._collect_steps(window, per_device, self._outputs)
        bounds = np.searchsorted(window.ends_lane, np.arange(len(per_device) + 1) * lanes)
        features = np.empty((len(window.rows), self.engine.out_features), per_device[0].dtype)
        for rows, begin_row, end_row in zip(per_device, bounds[:-1], bounds[1:], strict=True):
            mine = slice(begin_row, end_row)
            if sent.fits:
                features[mine] = rows[0, : end_row - begin_row]
            else:
                features[mine] = rows[0, window.ends_block[mine], window.ends_lane[mine] % lanes]
        return Finished(window.rows, features)

    def _collect_steps(self, window: Window, per_device: list[np.ndarray], outputs: StepOutputs) -> Finished:
        """Put the outputs of a window's steps where they belong, and take those of the rows that ended in it."""
        steps = np.arange(self.engine.shape.block_steps)
        by_device = "(device lane) block -> device block lane"
        start, count = (rearrange(a, by_device, device=len(per_device)) for a in (window.start, window.count))
        for emitted, begin, real in zip(per_device, start, count, strict=True):
            is_real = steps < real[..., None]
            outputs.place((begin[..., None] + steps)[is_real], emitted[0, : window.blocks][is_real])
        rows = np.sort(window.rows)
        return Finished(rows, outputs.take(rows))


def check_carries(carries: np.ndarray | None, expected: tuple[int, int] | None) -> None:
    """Refuse initial carries of another shape than `expected`, `(rows, carry_features)`, or None for none."""
    arrived = None if carries is None else carries.shape
    if arrived != expected:
        wanted = f"one for each of {expected[0]} rows, {expected[1]} numbers" if expected else "none"
        raise DataError(f"The initial carries are {arrived}; expected {wanted}.")


def _host_shards(array: jax.Array) -> list[np.ndarray]:
    """Each device's part of an array sharded along its first axis, without a copy where host and device are one."""
    array.block_until_ready()  # on every device, replicas too: the buffers are written to again afterwards
    parts = {shard.index[0].start or 0: shard.data for shard in array.addressable_shards}
    return [np.asarray(parts[begin]) for begin in sorted(parts)]
