"""A window that is on the devices: which of what it emits is asked for, and the features that come back.

Few bytes should travel: the program picks the rows that end in the window. `run.py` sends windows and waits for them.
"""

from __future__ import annotations

from concurrent.futures import Future
from typing import NamedTuple

import jax
import numpy as np

from scanrnn_dist.engine.compiled import CompiledWindow
from scanrnn_dist.engine.host_buffers import HostBuffers
from scanrnn_dist.engine.schedule import Window


class Output(NamedTuple):
    """What a window gives: the rows that end, pick by pick, or all that was emitted; and the buffer of the latter."""

    fetched: list[jax.Array]
    emitted: jax.Array
    compilations: int


class Sent(NamedTuple):
    """A window on the devices: what will come back, and which rows it belongs to."""

    engine: CompiledWindow
    buffers: HostBuffers
    window: Window
    output: Future[Output]
    picks: int  # of the rows that end; 0 if all that is emitted comes back

    @property
    def is_ready(self) -> bool:
        """Whether the devices are done with it."""
        return self.output.done() and all(array.is_ready() for array in self.output.result().fetched)  # type: ignore[attr-defined]


def named_ends(engine: CompiledWindow, window: Window, ends: np.ndarray) -> list[np.ndarray]:
    """Where in each device's emitted rows those of finished rows stand, by picks; none where all is to be fetched.

    The first is `ends (d, E)`, which is written to, and which the window's program picks itself.
    """
    lanes = engine.shape.lanes
    device, lane = np.divmod(window.ends_lane, lanes)
    per_device = np.bincount(device, minlength=len(ends))
    picks = engine.picks(int(per_device.max()))
    if not picks:
        return []
    named = ends if picks == 1 else np.zeros((len(ends), picks * ends.shape[1]), ends.dtype)
    nth = np.arange(len(device)) - (np.cumsum(per_device) - per_device)[device]
    named[device, nth] = window.ends_block * lanes + lane
    if picks > 1:
        ends[:] = named[:, : ends.shape[1]]
    return [ends, *np.split(named, picks, axis=1)[1:]]


def features_of(sent: Sent, fetched: list[list[np.ndarray]]) -> np.ndarray:
    """The features `(n, F)` of the rows that ended in a window, from what came back of each device, pick by pick."""
    lanes, window, capacity = sent.engine.shape.lanes, sent.window, sent.engine.ends_capacity
    bounds = np.searchsorted(window.ends_lane, np.arange(len(fetched[0]) + 1) * lanes)
    features = np.empty((len(window.rows), sent.engine.out_features), fetched[0][0].dtype)
    for nth, per_device in enumerate(fetched):
        for rows, begin, end in zip(per_device, bounds[:-1], bounds[1:], strict=True):
            if sent.picks:
                some = features[begin:end][nth * capacity : (nth + 1) * capacity]
                some[...] = rows[0, : len(some)]
            else:
                mine = slice(begin, end)
                features[mine] = rows[0, window.ends_block[mine], window.ends_lane[mine] % lanes]
    return features


def host_shards(array: jax.Array) -> list[np.ndarray]:
    """Each device's part of an array sharded along its first axis, without a copy where host and device are one."""
    array.block_until_ready()  # on every device, replicas too: the buffers are written to again afterwards
    parts = {shard.index[0].start or 0: shard.data for shard in array.addressable_shards}
    return [np.asarray(parts[begin]) for begin in sorted(parts)]
