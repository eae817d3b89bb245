"""Whether a program of another window shape gives the bits of the usual one: tried out, since nobody promises it."""

from __future__ import annotations

import jax
import numpy as np

from scanrnn_dist.engine.compiled import CompiledWindow
from scanrnn_dist.engine.mesh import sharded

PROBE_BLOCKS = 32
"""Of 48 recurrent weights of a GRU with H = 8, each changed in its last bit alone, 47 are seen; with 8 blocks 39."""
PROBED = 4
"""On accelerators, one in so many of these is looked at, and the state after all."""


def gives_same_bits(engine: CompiledWindow, few_lanes: CompiledWindow) -> bool | None:
    """Whether some random rows come out of both programs the same to the last bit, and so do their carries.

    None where this encoder's weights tell nothing of others': all features are the same, or one is NaN.
    """
    rng = np.random.default_rng(0)
    steps, lanes = engine.shape.block_steps, few_lanes.shape.lanes
    shape = engine.devices, PROBE_BLOCKS, steps, lanes
    if engine.encoder.input is None:
        values = rng.standard_normal((*shape, engine.encoder.in_features), np.float32)
    else:  # where a normal number would be no id, and NaN equals NaN
        values = engine.encoder.input.drawn(rng, shape)
    counts = rng.integers(0, steps + 1, (engine.devices, PROBE_BLOCKS, lanes))
    outputs = [_probed(each, values, counts) for each in (engine, few_lanes)]
    if not all(np.array_equal(a, b, equal_nan=True) for a, b in zip(*outputs, strict=True)):
        return False
    features = outputs[0][-1]
    return True if features.max() > features.min() else None


def _probed(engine: CompiledWindow, values: np.ndarray, counts: np.ndarray) -> list[np.ndarray]:
    """The state after these blocks in the first lanes, in as many windows as they need, and what each emitted."""
    height, lanes = engine.shape.window_blocks, counts.shape[-1]
    state, emitted, given = engine.initial_state(), engine.new_emitted(), []
    for begin in range(0, PROBE_BLOCKS, height):
        blocks = min(height, PROBE_BLOCKS - begin)
        buffers = engine.new_buffers()
        buffers.values[:, :blocks, :, :lanes] = values[:, begin : begin + blocks]
        buffers.counts[:, :blocks, :lanes] = counts[:, begin : begin + blocks]
        on_devices = jax.device_put(tuple(buffers), sharded(engine.mesh))
        state, _, emitted = engine.program(engine.weights, np.int32(blocks), state, emitted, *on_devices)
        if not engine.is_static:
            given.append(np.array(np.asarray(emitted)[:, :blocks, :lanes]))
        elif asked := [block for block in range(blocks) if (begin + block) % PROBED == 0]:
            with jax.set_mesh(engine.mesh):  # the caller may have set another one
                # Only what is asked for travels; on CPU that would be a program to compile.
                given.append(np.asarray(emitted[:, np.array(asked, np.int32), :lanes]))
    return [*(np.asarray(leaf)[:, :lanes] for leaf in jax.tree.leaves(state)), np.concatenate(given, axis=1)]
