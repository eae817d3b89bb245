"""`Run`: one stream of rows through an engine. The loop that feeds the compiled program and collects features.

The host side of a window (schedule, copy, send, fetch) runs while the devices compute the one before. What a lane does
stands in `schedule.py`, the program in `program.py`, what is kept for submitted rows in `submissions.py`, and what
comes back of a window in `in_flight.py`.
"""

from __future__ import annotations

import time
from collections import defaultdict, deque

import jax
import numpy as np
from einops import rearrange

from scanrnn_dist.engine.compiled import CompiledWindow
from scanrnn_dist.engine.host_buffers import HostBuffers, ValueStream
from scanrnn_dist.engine.in_flight import Output, Sent, features_of, host_shards, named_ends
from scanrnn_dist.engine.mesh import sharded
from scanrnn_dist.engine.profiling import RUN_BEGINS, stage
from scanrnn_dist.engine.schedule import Tape, Window
from scanrnn_dist.engine.smaller import SmallerPrograms
from scanrnn_dist.engine.submissions import Submissions
from scanrnn_dist.engine.submitting import LOOK_AHEAD_BYTES, WINDOWS_AHEAD, WINDOWS_IN_FLIGHT, Emptied, taken
from scanrnn_dist.observe import share_of_memory
from scanrnn_dist.protocols import Statistics, WindowShape
from scanrnn_dist.ragged import Ragged, backward_positions, cut
from scanrnn_dist.threads import Threads

STATIC_WINDOWS_AHEAD = 4
"""On accelerators, whose windows are large, as far as a share of the memory allows. With 2 it is late when the longest
of the last rows begin: occupancy 0.91 instead of 0.96 on eight devices (`bench_occupancy.py`)."""
SHORT_WINDOW = 8
"""While the devices are idle, a window of an eighth of the blocks is sent rather than waiting for rows to fill it."""


class Run(Emptied):
    """One stream of rows through an engine, as `RunLike` has it: `submit`, `advance` until nothing is left, `close`.

    Args:
        engine: whose program the rows go through.
        memory_bytes: what the values of rows that wait may hold. On CPU two windows at least, `LOOK_AHEAD_BYTES` when
            None; on accelerators `LOOK_AHEAD_BYTES` at least, a share of the memory when None.
        is_backward: whether rows are read from their last step to their first; `max_steps` is None then.
    """

    def __init__(self, engine: CompiledWindow, memory_bytes: int | None = None, is_backward: bool = False) -> None:
        self.engine, self._is_backward = engine, is_backward
        self._look_ahead_bytes = LOOK_AHEAD_BYTES if engine.is_static or memory_bytes is None else memory_bytes
        self.statistics = Statistics(compilations=engine.compilations)
        self._tape = Tape(engine.lanes, engine.shape.block_steps, engine.shape.window_blocks)
        self._state = engine.initial_state()
        self._submissions = Submissions()
        self._steps_ahead = _steps_ahead(engine, memory_bytes)
        ahead_bytes = max(self._look_ahead_bytes, 4 * engine.in_features * self._steps_ahead * engine.is_static)
        self._values = ValueStream(self._submissions, engine.in_features, 3 * ahead_bytes)
        self._sent: deque[Sent] = deque()
        self._spare: defaultdict[WindowShape, list[tuple[HostBuffers, jax.Array]]] = defaultdict(list)
        self._usual, self._smaller = engine, SmallerPrograms(engine)
        self._dispatcher = Threads(1, thread_name_prefix="scanrnn-dispatch")

    @property
    def wants_rows(self) -> bool:
        steps = self._steps_waiting
        return 4 * steps * self.engine.in_features < self._look_ahead_bytes or steps < self._steps_ahead

    @property
    def has_window(self) -> bool:
        # A whole window; a short one where it takes less time and the devices have nothing to do.
        blocks = self._usual.shape.window_blocks
        if self.engine.is_static:
            return self._steps_waiting >= self._steps_ahead and self._tape.ready_blocks >= blocks
        return self._tape.ready_blocks >= (-(-blocks // SHORT_WINDOW) if self.is_idle else blocks)

    @property
    def _steps_waiting(self) -> int:
        return self._tape.blocks_waiting * self.engine.shape.block_steps

    @property
    def is_idle(self) -> bool:
        return all(sent.is_ready for sent in self._sent)

    @property
    def is_busy(self) -> bool:
        return self._tape.blocks_left > 0 or bool(self._sent)

    def submit(
        self,
        ragged: Ragged,
        max_steps: float | None = None,
        carries: np.ndarray | None = None,
        out: np.ndarray | None = None,
    ) -> None:
        ragged, lengths, out = taken(self.engine, ragged, max_steps, carries, out)
        if len(ragged) == 0:
            return
        if not self.statistics.rows:
            jax.monitoring.record_event(RUN_BEGINS)
        turned = None
        if self._is_backward:
            assert max_steps is None
            ragged = cut(ragged)
            turned = backward_positions(ragged.offsets[:-1], lengths)
            ragged = Ragged(ragged.values[turned], ragged.offsets)
        self._smaller.rows_came()
        with stage("submit"):
            own = None if carries is None else np.array(carries, np.float32)
            batch = self._submissions.add(ragged, lengths, out, own)
            batch.turned = turned if self.engine.gives_steps else None
            self._values.add(batch, ragged.values)
            self._tape.add(batch.starts, lengths)
        self.statistics.rows += len(ragged)
        self.statistics.steps += int(lengths.sum())

    def close(self) -> None:
        self._dispatcher.shutdown(cancel_futures=True)

    def advance(self, more: bool = False) -> list[np.ndarray]:
        finished = self._change_program(more)
        if self.has_window if more else self._tape.blocks_left:
            with stage("schedule"):
                window = self._tape.next_window(self.engine.shape.window_blocks, more)
            self._send(window)
        while len(self._sent) >= WINDOWS_IN_FLIGHT or (self._sent and not more and not self._tape.blocks_left):
            with stage("fetch"):
                finished.append(self._fetch(self._sent.popleft()))
        return finished

    def _change_program(self, more: bool) -> list[np.ndarray]:
        """Go on in the program for the next window; what was finished on the way."""
        if not (self.has_window if more else self._tape.blocks_left):
            return []
        engine = self._usual if more else self._smaller.next_engine(self._tape, self.statistics.steps)
        self.statistics.compilations += self._smaller.compilations_since()
        if engine.lanes != self.engine.lanes:
            return self._move_to(engine)
        self.engine = engine
        return []

    def _move_to(self, engine: CompiledWindow) -> list[np.ndarray]:
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
        self.engine = engine
        return finished

    def _send(self, window: Window) -> None:
        """Copy the window's values to where its lanes want them, and start the program on them."""
        engine, shape = self.engine, self.engine.shape
        with stage("place"):
            spare = self._spare[shape]  # of the last windows, to be used again
            buffers, emitted = spare.pop() if spare else (engine.new_buffers(), engine.new_emitted())
            by_device = "(device lane) block -> device block lane"
            self._values.copy(rearrange(window.start, by_device, device=engine.devices), buffers.values)
            for given, wanted in ((window.count, buffers.counts), (window.reset, buffers.resets)):
                wanted[:, : window.blocks] = rearrange(given, by_device, device=engine.devices)
                wanted[:, window.blocks :] = 0
            ends = named_ends(engine, window, buffers.ends)
            if engine.own_carries:
                self._place_carries(window, buffers.initials)
        output = self._dispatcher.submit(self._dispatch, engine, buffers, emitted, np.int32(window.blocks), ends)
        self._sent.append(Sent(engine, buffers, window, output, len(ends)))
        self._submissions.count_read(window.rows)
        self.statistics.windows += 1
        self.statistics.positions += engine.lanes * shape.block_steps * engine.blocks_run(window)

    def _dispatch(
        self,
        engine: CompiledWindow,
        buffers: HostBuffers,
        emitted: jax.Array,
        n_blocks: np.int32,
        ends: list[np.ndarray],
    ) -> Output:
        """Run the program on a window's buffers, after the one before; in a thread of its own.

        JAX need not return at once: on CPU, with jax 0.10, calls of this program took 0.87 of 1.1 s of a run (0.13 s
        with 0.12), and the host side of the next window would wait for them.
        """
        compilations = 0
        with stage("dispatch"):
            on_devices = jax.device_put(tuple(buffers), sharded(engine.mesh))
            given = n_blocks, self._state, emitted, *on_devices
            self._state, features, emitted = engine.program(engine.weights, *given)
            fetched = [features if ends else emitted]
            for more in ends[1:]:
                picked, compiled = engine.pick(emitted, more)
                fetched.append(picked)
                compilations += compiled
        if engine.is_static:
            for array in fetched:
                array.copy_to_host_async()
        return Output(fetched, emitted, compilations)

    def _place_carries(self, window: Window, initials: np.ndarray) -> None:
        """Write the initial carries of the rows that begin in a window to where they begin."""
        device, lane = np.divmod(window.begins_lane, self.engine.shape.lanes)
        for batch, mine in self._submissions.of_rows(window.begun):
            assert batch.carries is not None
            carries = batch.carries[window.begun[mine] - batch.first_row]
            initials[device[mine], window.begins_block[mine], lane[mine]] = carries

    def _fetch(self, sent: Sent) -> np.ndarray:
        """Wait for a window and put the features of the rows that ended in it where they belong; these rows."""
        begin = time.perf_counter()
        output = sent.output.result()
        fetched = [host_shards(array) for array in output.fetched]
        self.statistics.device_wait_seconds += time.perf_counter() - begin
        self.statistics.compilations += output.compilations
        self._spare[sent.engine.shape].append((sent.buffers, output.emitted))
        if self.engine.gives_steps:
            self._place_steps(sent.window, fetched[0])
        else:
            self._submissions.place(sent.window.rows, features_of(sent, fetched))
        self._submissions.count_finished(sent.window.rows)
        return sent.window.rows

    def _place_steps(self, window: Window, per_device: list[np.ndarray]) -> None:
        """Put the outputs of a window's steps where they belong."""
        steps = np.arange(self.engine.shape.block_steps)
        by_device = "(device lane) block -> device block lane"
        start, count = (rearrange(a, by_device, device=len(per_device)) for a in (window.start, window.count))
        for emitted, begin, real in zip(per_device, start, count, strict=True):
            is_real = steps < real[..., None]
            self._submissions.place_steps((begin[..., None] + steps)[is_real], emitted[0, : window.blocks][is_real])


def _steps_ahead(engine: CompiledWindow, memory_bytes: int | None) -> int:
    """Of so many steps rows wait, where `LOOK_AHEAD_BYTES` are fewer."""
    window_steps = engine.lanes * engine.shape.window_steps
    if not engine.is_static:
        return WINDOWS_AHEAD * window_steps
    memory_bytes = share_of_memory() if memory_bytes is None else memory_bytes
    return min(STATIC_WINDOWS_AHEAD * window_steps, memory_bytes // (4 * engine.in_features))
