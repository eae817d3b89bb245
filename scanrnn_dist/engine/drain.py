"""The end of a run, when fewer rows are left than lanes: a narrower program for them, where it gives the same bits.

A window takes as long with one row left as with all lanes full. On CPU a step of 8 lanes takes a fifth to a third of
one of 48 (1.4 of 4.4 us at H = 32, 2.3 of 8.8 at 64, 5.4 of 27 at 128). Whether it gives the same bits is tried out,
since nobody promises it; `run.py` decides when rows move over.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from scanrnn_dist.engine.compiled import CompiledWindow
from scanrnn_dist.engine.mesh import device_kind, sharded
from scanrnn_dist.protocols import WindowShape

DRAIN_LANES = 8
PROBE_BLOCKS = 32
"""Of 48 recurrent weights of a GRU with H = 8, each changed in its last bit alone, 47 are seen; with 8 blocks 39."""
WORTH_FLOP = 1.5e10
"""Compile a narrow program once wide ones have wasted so much on each device: 0.1 s, a third of compiling it."""
LEAST_FLOP = 2e9
"""Stay where the wide program wastes less on each device: 15 ms, about what moving over takes."""


@dataclass
class _Ledger:
    """What is known of the narrow program of one wide one; kept as long as the process, like the programs."""

    wasted_flop: float = 0.0
    same_bits: bool | None = None


def drain_engine(wide: CompiledWindow, steps: int) -> CompiledWindow | None:
    """The engine for the last rows of a run, `steps` of which are left of the longest; None to stay with the wide one.

    None on other devices than CPUs, where nobody has measured it; while compiling would cost more than it saves,
    counted over all runs of this process; and where the narrow program does not give the same bits.
    """
    wasted_flop = steps * wide.shape.lanes * wide.encoder.flops_per_step
    if device_kind(wide.mesh) != "cpu" or wide.shape.lanes < 2 * DRAIN_LANES or wasted_flop < LEAST_FLOP:
        return None
    key = nnx.split(wide.encoder)[0], wide.shape, wide.mesh, wide.own_carries
    try:
        ledger = _ledger(*key)
    except TypeError:  # an attribute of the cell has no hash, so its programs are not kept either
        ledger = _Ledger()
    if ledger.same_bits is None:
        ledger.wasted_flop += wasted_flop
        if ledger.wasted_flop < WORTH_FLOP:
            return None
    if ledger.same_bits is False:
        return None
    narrow = CompiledWindow(wide.encoder, wide.mesh, drain_shape(wide.shape), wide.own_carries)
    if ledger.same_bits is None:
        ledger.same_bits = gives_same_bits(wide, narrow)
    return narrow if ledger.same_bits else None


def drain_shape(wide: WindowShape) -> WindowShape:
    """Few lanes, and so many blocks that a window takes as many bytes: each costs the host a few milliseconds."""
    return replace(wide, lanes=DRAIN_LANES, window_blocks=wide.window_blocks * wide.lanes // DRAIN_LANES)


def gives_same_bits(wide: CompiledWindow, narrow: CompiledWindow) -> bool:
    """Whether some random rows come out of both programs the same to the last bit, and so do their carries."""
    rng = np.random.default_rng(0)
    blocks = min(PROBE_BLOCKS, wide.shape.window_blocks)
    devices, steps, lanes = wide.devices, wide.shape.block_steps, wide.shape.lanes
    values = rng.standard_normal((devices, blocks, steps, lanes, wide.encoder.in_features), np.float32)
    counts = rng.integers(0, steps + 1, (devices, blocks, lanes))
    outputs = []
    for engine in (wide, narrow):
        feed = engine.new_buffers()
        feed.values[:, :blocks] = values[..., : engine.shape.lanes, :]
        feed.counts[:, :blocks] = counts[..., : engine.shape.lanes]
        on_devices = jax.device_put(tuple(feed), sharded(engine.mesh))
        before = engine.initial_state(), engine.new_emitted()
        state, _, emitted = engine.program(engine.weights, np.int32(blocks), *before, *on_devices)
        leaves = [np.asarray(leaf)[:, :DRAIN_LANES] for leaf in jax.tree.leaves(state)]
        outputs.append([*leaves, np.asarray(emitted)[:, :blocks, :DRAIN_LANES]])
    return all(np.array_equal(a, b, equal_nan=True) for a, b in zip(*outputs, strict=True))


@lru_cache(maxsize=16)
def _ledger(graphdef: Any, shape: WindowShape, mesh: Mesh, own_carries: bool) -> _Ledger:
    return _Ledger()
