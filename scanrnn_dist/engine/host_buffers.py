"""What a window is fed, on the host: its buffers, and the rows' values laid where the lanes want them. Numpy only.

Which block goes where is `schedule.py`'s; when a window is sent is `run.py`'s.
"""

from __future__ import annotations

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

    @property
    def nbytes(self) -> int:
        """Bytes of the arena."""
        return self._arena.nbytes

    def add(self, batch: Batch, values: np.ndarray) -> None:
        """Take the values of the batch that was submitted last."""
        if others := [other for other in self._submissions.batches if other.unread and other is not batch]:
            batch.at = self._allocate(batch.steps, others)
        elif not self._is_ours or len(values) > len(self._arena):
            # In C order, or each `take` would make a copy of all in that order.
            self._arena, self._is_ours = np.ascontiguousarray(values), False
            return
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

    def _allocate(self, steps: int, others: list[Batch]) -> int:
        """The position of the first gap of so many steps; if there is none, the arena is packed into a larger one."""
        end = 0
        by_position = sorted(others, key=lambda batch: batch.at)
        for batch in by_position:
            if self._is_ours and batch.at - end >= steps:
                return end
            end = max(end, batch.at + batch.steps)  # a batch without steps may stand where another one begins
        if self._is_ours and len(self._arena) - end >= steps:
            return end
        live = sum(batch.steps for batch in by_position)
        self.repacked_bytes += 4 * live * self._arena.shape[1]
        arena = np.empty((max((live + steps) * 3 // 2, self._least_steps), self._arena.shape[1]), np.float32)
        end = 0
        for batch in by_position:
            arena[end : end + batch.steps] = self._arena[batch.at : batch.at + batch.steps]
            batch.at, end = end, end + batch.steps
        self._arena, self._is_ours = arena, True
        return end
