"""What a window is fed, on the host: its buffers, and the rows' values laid where the lanes want them. Numpy only.

Which block goes where is `schedule.py`'s; when a window is sent is `run.py`'s.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import numpy as np
from einops import rearrange

from scanrnn_dist.engine.submissions import Batch, Submissions

ALIGNMENT_BYTES = 64
"""Of a buffer that XLA is to take as it is."""


class HostBuffers(NamedTuple):
    """Host buffers of one window's input, in the order of `window_program`; used again once the window is fetched.

    They begin at multiples of 64 bytes, so that a CPU device takes them as they are: for a window of 12 MB that is
    0.2 ms instead of 9 ms (two copies, and the page faults of fresh memory).
    """

    ends: np.ndarray
    values: np.ndarray
    counts: np.ndarray
    resets: np.ndarray
    initials: np.ndarray


def aligned_zeros(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Zeros that begin at a multiple of `ALIGNMENT_BYTES`."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = np.zeros(size + ALIGNMENT_BYTES, np.uint8)
    begin = -memory.ctypes.data % ALIGNMENT_BYTES
    return memory[begin : begin + size].view(dtype).reshape(shape)


class ValueStream:
    """The values of the rows that are not all sent, as one stream of steps: each batch goes on where the last ended.

    They stand in one array, the arena, whatever batch they came in, so that a window is laid out by one `take` (1 to
    4 ns a step; picking blocks from several arrays took 60). A first batch is used where it is, later ones are copied;
    the arena then takes at least `least_bytes`, of which what is not used is not touched.
    """

    def __init__(self, submissions: Submissions, in_features: int, least_bytes: int = 0) -> None:
        self._submissions = submissions
        self.repacked_bytes = 0  # copied from one arena to a larger one
        self._least_steps = least_bytes // (4 * in_features)
        self._arena = np.empty((0, in_features), np.float32)
        self._is_ours = False  # whether the arena may be written to: not while it is a batch of the caller's
        self._gaps: deque[tuple[int, int]] = deque()  # where there may be room, by position
        self._gaps_of = -1  # `Submissions.times_read` when they were looked for

    @property
    def nbytes(self) -> int:
        """Bytes of the arena."""
        return self._arena.nbytes

    def add(self, batch: Batch, values: np.ndarray) -> None:
        """Take the values of the batch that was submitted last."""
        if self._gaps_of != self._submissions.times_read:  # or others take what they took
            others = self._find_gaps(batch)
            if not others and (not self._is_ours or len(values) > len(self._arena)):
                # In C order, or each `take` would make a copy of all in that order.
                self._arena, self._is_ours = np.ascontiguousarray(values), False
                self._gaps.clear()
                return
        batch.at = self._allocate(batch)
        self._arena[batch.at : batch.at + batch.steps] = values

    def copy(self, start: np.ndarray, out: np.ndarray) -> None:
        """Copy blocks of steps: `start (d, K', l)` of the stream to `out (d, K, s, l, D)`; idle blocks get anything."""
        if len(self._arena) == 0:
            return
        shift = np.asarray([batch.at - batch.first_step for batch in self._submissions.batches])
        if len(shift) > 1:
            shift = shift[self._submissions.places_of_steps(start)]
        index = rearrange(start + shift, "device block lane -> device block 1 lane")
        steps = rearrange(np.arange(out.shape[2]), "step -> step 1")
        for of_device, blocks in zip(index, out, strict=True):
            self._arena.take(of_device + steps, axis=0, out=blocks[: len(of_device)], mode="clip")

    def _find_gaps(self, batch: Batch) -> list[Batch]:
        """Look for gaps between the batches before this one whose values are still kept; these, by position."""
        others = [other for other in self._submissions.batches if other.unread and other is not batch]
        others.sort(key=lambda other: other.at)
        self._gaps.clear()
        self._gaps_of, end = self._submissions.times_read, 0
        for other in others:
            if other.at > end:
                self._gaps.append((end, other.at))
            end = max(end, other.at + other.steps)  # a batch without steps may stand where another one begins
        self._gaps.append((end, len(self._arena)))
        if not self._is_ours:
            self._gaps.clear()
        return others

    def _allocate(self, batch: Batch) -> int:
        """The position of the first gap that is large enough; if there is none, all is packed into a larger arena.

        Gaps that are too small are passed over until they are looked for again: once values were read, or before the
        arena grows. So thousands of small batches, of which few are read at a time, are not walked for each of them.
        """
        if (begin := self._first_gap(batch.steps)) is not None:
            return begin
        others = self._find_gaps(batch)
        if (begin := self._first_gap(batch.steps)) is not None:
            return begin
        live = sum(other.steps for other in others)
        self.repacked_bytes += 4 * live * self._arena.shape[1]
        arena = np.empty((max((live + batch.steps) * 3 // 2, self._least_steps), self._arena.shape[1]), np.float32)
        end = 0
        for other in others:
            arena[end : end + other.steps] = self._arena[other.at : other.at + other.steps]
            other.at, end = end, end + other.steps
        self._arena, self._is_ours = arena, True
        self._gaps = deque([(end + batch.steps, len(arena))])
        return end

    def _first_gap(self, steps: int) -> int | None:
        """Take so many steps of the first gap that has as many; where they begin, or None."""
        while self._gaps:
            begin, end = self._gaps[0]
            if end - begin >= steps:
                self._gaps[0] = begin + steps, end
                return begin
            self._gaps.popleft()
        return None
