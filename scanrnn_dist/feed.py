"""What a window is fed, on the host: its buffers, and the rows' values laid where the lanes want them. Numpy only.

Which block goes where is `tape.py`'s; when a window is sent is `engine.py`'s.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from einops import rearrange

from scanrnn_dist.ragged import Ragged


class Feed(NamedTuple):
    """Host buffers of one window's input, in the order of `window_program`; used again once the window is fetched.

    They begin at multiples of 64 bytes, so that a CPU device takes them as they are: for a window of 12 MB that is
    0.2 ms instead of 9 ms (two copies, and the page faults of fresh memory).
    """

    values: np.ndarray
    counts: np.ndarray
    resets: np.ndarray
    ends: np.ndarray


def aligned_zeros(shape: tuple[int, ...], dtype: np.dtype, alignment_bytes: int = 64) -> np.ndarray:
    """Zeros that begin at a multiple of `alignment_bytes`, which XLA wants of a buffer that it is to take as it is."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = np.zeros(size + alignment_bytes, np.uint8)
    begin = -memory.ctypes.data % alignment_bytes
    return memory[begin : begin + size].view(dtype).reshape(shape)


class ValueStream:
    """The values of the rows that are not all sent, as one stream of steps: each batch goes on where the last ended."""

    def __init__(self) -> None:
        self._batches: list[Ragged] = []
        self._bases: list[int] = []  # the step of the stream at which each batch begins
        self._row_ends: list[int] = []  # the number of the row after each batch
        self._rows_left: list[int] = []
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
        # Any of them, not only the first: one long row must not keep all that came after it in memory.
        left = [number for number, rows_left in enumerate(self._rows_left) if rows_left]
        self._batches = [self._batches[number] for number in left]
        self._bases = [self._bases[number] for number in left]
        self._row_ends = [self._row_ends[number] for number in left]
        self._rows_left = [self._rows_left[number] for number in left]
