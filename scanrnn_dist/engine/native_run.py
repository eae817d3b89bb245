"""`NativeRun`: one stream of rows through the native kernel, as `RunLike` has it.

A window is a queue of rows that all devices take from; while they work on one, the next is made ready. The kernel
reads a row's steps where they stand and writes its features where they belong, so everything that a queue points to is
kept until its rows are finished.
"""

from __future__ import annotations

import time
from collections import deque
from concurrent.futures import Future
from typing import NamedTuple

import jax
import numpy as np

from scanrnn_dist.encoder import COUNT_BASE
from scanrnn_dist.engine.in_flight import host_shards
from scanrnn_dist.engine.native import TOLD, NativeProgram
from scanrnn_dist.engine.profiling import RUN_BEGINS, stage
from scanrnn_dist.engine.row_queue import MORE, NEXT_IS_HERE, ROW, RowQueue, address_of, left_of, queue_of
from scanrnn_dist.engine.shapes import NATIVE_WINDOW_FLOP
from scanrnn_dist.engine.submissions import Submissions
from scanrnn_dist.engine.submitting import LOOK_AHEAD_BYTES, WINDOWS_AHEAD, WINDOWS_IN_FLIGHT, Emptied, taken
from scanrnn_dist.protocols import Statistics
from scanrnn_dist.ragged import Ragged
from scanrnn_dist.threads import Threads

LAST_SHARE = 8
"""The last window of a job may be so much smaller than others."""
MOST_WINDOWS = 8
"""As so many windows may lanes do in one before what is finished is told: without the next one, or full of long rows.
Nor more work than so many of `NATIVE_WINDOW_FLOP`, however large an encoder or a window: whoever stops a job waits for
two of them, 1.4 s with H = 512."""


_AT_WORK: set[NativeRun] = set()
"""Runs of which windows may be on the devices: the kernel reads and writes memory that they hold."""


class Sent(NamedTuple):
    """A window on the devices, and all that it points to."""

    queue: np.ndarray
    rows: np.ndarray
    told: Future[jax.Array]

    @property
    def is_ready(self) -> bool:
        """Whether the devices are done with it."""
        return self.told.done() and self.told.result().is_ready()  # type: ignore[attr-defined]


class NativeRun(Emptied):
    """One stream of rows through an engine.

    Args:
        engine: whose program the rows go through.
        memory_bytes: what the values of rows that wait may hold, two windows at least; `LOOK_AHEAD_BYTES` when None.
        is_backward: whether rows are read from their last step to their first.
    """

    def __init__(self, engine: NativeProgram, memory_bytes: int | None = None, is_backward: bool = False) -> None:
        self.engine = engine
        self._towards = -1 if is_backward else 1
        self._output_step = engine.out_features  # floats from the output of one step to that of the next in memory
        self.statistics = Statistics(compilations=engine.compilations)
        self._look_ahead_bytes = LOOK_AHEAD_BYTES if memory_bytes is None else memory_bytes
        self._window_steps = engine.lanes * engine.shape.window_steps
        most = MOST_WINDOWS * NATIVE_WINDOW_FLOP // (engine.flops_per_step * engine.shape.lanes)
        self._most_steps = min(MOST_WINDOWS * engine.shape.window_steps, max(most, 1))
        self._queue = RowQueue(engine.lanes, engine.shape.window_steps)
        self._submissions = Submissions()
        self._on_devices = engine.free_lanes()
        self._sent: deque[Sent] = deque()
        self._spare: list[jax.Array] = []
        self._unfinished = 0  # rows that were sent
        self._dispatcher = Threads(1, thread_name_prefix="scanrnn-dispatch")

    @property
    def wants_rows(self) -> bool:
        steps = self._queue.steps
        is_room = 4 * steps * self.engine.in_features < self._look_ahead_bytes
        return is_room or steps < WINDOWS_AHEAD * self._window_steps

    @property
    def has_window(self) -> bool:
        queue = self._queue
        if queue.steps >= self._window_steps or queue.rows >= self.engine.most_rows:
            return True
        return queue.rows >= self.engine.lanes and self.is_idle

    @property
    def is_idle(self) -> bool:
        return all(sent.is_ready for sent in self._sent)

    @property
    def is_busy(self) -> bool:
        return bool(self._queue.rows or self._unfinished or self._sent)

    def submit(
        self,
        ragged: Ragged,
        max_steps: float | None = None,
        carries: np.ndarray | None = None,
        out: np.ndarray | None = None,
    ) -> None:
        engine = self.engine
        ragged, lengths, out = taken(engine, ragged, max_steps, carries, out)
        n = len(ragged)
        if n == 0:
            return
        if not self.statistics.rows:
            jax.monitoring.record_event(RUN_BEGINS)
        with stage("submit"):
            values = np.ascontiguousarray(ragged.values, np.float32)
            own = None if carries is None else np.array(carries, np.float32, order="C")
            batch = self._submissions.add(ragged, lengths, out, own)
            batch.values = values
            rows = np.zeros(n, ROW)
            nth = np.maximum(lengths - 1, 0) if self._towards < 0 else 0  # of its steps, the one that is read first
            rows["x"] = values.ctypes.data + 4 * engine.in_features * (ragged.offsets[:-1] + nth)
            rows["number"] = np.arange(batch.first_row, batch.first_row + n)
            rows["left"] = lengths
            if own is not None:
                rows["carry"] = own.ctypes.data + 4 * own.shape[1] * np.arange(n)
                if engine.network.counts_steps:
                    rows["done"] = COUNT_BASE * own[:, -2].astype(np.int64) + own[:, -1].astype(np.int64)
            if engine.gives_steps:
                if len(out):
                    self._output_step = _vector_bytes(out) // 4
                at = batch.starts - batch.starts[0] + nth
                rows["steps_to"] = out.ctypes.data + 4 * self._output_step * at
            else:
                rows["features"] = out.ctypes.data + _vector_bytes(out) * np.arange(n)
            self._queue.add(rows)
        self.statistics.rows += n
        self.statistics.steps += int(lengths.sum())

    def advance(self, more: bool = False) -> list[np.ndarray]:
        finished = []
        if self.has_window if more else self._has_work:
            with stage("schedule"):
                steps = self._window_steps
                if not more:  # ever smaller ones, so that what follows can begin while the last ones are at work
                    steps = min(steps, max(steps // LAST_SHARE, self._queue.steps // 3))
                rows = self._queue.take(steps, self.engine.most_rows, more, least_rows=self.engine.lanes)
            self._send(rows, more or self._queue.rows > 0)
        while len(self._sent) >= WINDOWS_IN_FLIGHT or (self._sent and not more and not self._has_work):
            with stage("fetch"):
                finished.append(self._fetch())
        return finished

    def close(self) -> None:
        _AT_WORK.add(self)  # whoever is interrupted here leaves it there
        self._dispatcher.shutdown(cancel_futures=True)
        for sent in self._sent:
            if not sent.told.cancel() and sent.told.exception() is None:
                sent.told.result().block_until_ready()
        _AT_WORK.discard(self)

    @property
    def _has_work(self) -> bool:
        """Whether a window is worth sending once no more rows are to come: of rows, or for long ones to go on."""
        return self._queue.rows > 0 or (self._unfinished > 0 and not self._sent)

    def _send(self, rows: np.ndarray, more: bool) -> None:
        """Hand the devices a window of rows; with `more`, others follow."""
        engine = self.engine
        if self._sent:  # whose lanes may end it, once they run dry
            self._sent[-1].queue[MORE] = NEXT_IS_HERE
        # Until the next rows are there, lanes that run dry go on with what they have.
        most_dry = self._most_steps if more else min(engine.shape.window_steps, self._most_steps)
        strides = self._towards * engine.in_features, self._towards * self._output_step
        queue = queue_of(rows, engine.devices, more, self._most_steps, most_dry, strides)
        sent = Sent(queue, rows, Future())
        self._sent.append(sent)  # first: whoever is interrupted in between has it
        self._dispatcher.submit(self._dispatch, sent)
        self._unfinished += len(rows)
        self.statistics.windows += 1

    def _dispatch(self, sent: Sent) -> None:
        """Run the program on a queue, after the one before; in a thread of its own, since a call need not return."""
        engine = self.engine
        if not sent.told.set_running_or_notify_cancel():
            return
        try:
            with stage("dispatch"):
                told = self._spare.pop() if self._spare else engine.new_told()
                queue = address_of(sent.queue)
                states, in_lanes, told = engine.program(*engine.weights, *self._on_devices, told, queue)
                self._on_devices = type(self._on_devices)(states, in_lanes)
            sent.told.set_result(told)
        except BaseException as error:
            sent.told.set_exception(error)

    def _fetch(self) -> np.ndarray:
        """Wait for the oldest window; the rows that ended in it. Whoever is interrupted meanwhile still has it."""
        sent, begin = self._sent[0], time.perf_counter()
        told = sent.told.result().block_until_ready()
        self._sent.popleft()
        self.statistics.device_wait_seconds += time.perf_counter() - begin
        numbers = []
        for words in host_shards(told):
            finished, rounds = words[0].view(np.int64)[:TOLD].tolist()
            numbers.append(words[0].view(np.int64)[TOLD : TOLD + finished])
            self.statistics.positions += rounds * self.engine.shape.lanes
        rows = np.concatenate(numbers)
        del words, numbers  # or JAX would copy what is donated next
        self._spare.append(told)
        left = left_of(sent.rows, sent.queue)
        self._queue.give_back(left)
        self._unfinished -= len(rows) + len(left)
        self._submissions.count_finished(rows)
        return rows


def _vector_bytes(vectors: np.ndarray) -> int:
    """Bytes from one of the vectors `(n, F)`, each of which lies in one piece, to the next."""
    of_vector, of_number = vectors.strides
    assert of_number == vectors.itemsize
    return int(of_vector)
