"""The end of a run, when fewer rows are left than lanes: a program of few lanes, where it gives the same bits.

A window takes as long with one row left as with all lanes full. On CPU a step of 8 lanes takes a fifth to a third of
one of 48 (1.4 of 4.4 us at H = 32, 2.3 of 8.8 at 64, 5.4 of 27 at 128). Whether it gives the same bits is tried out,
since nobody promises it; `run.py` decides when rows move over.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from weakref import WeakKeyDictionary

import jax
import numpy as np

from scanrnn_dist.engine.compiled import CompiledWindow
from scanrnn_dist.engine.mesh import sharded
from scanrnn_dist.protocols import WindowShape

DRAIN_LANES = 8
PROBE_BLOCKS = 32
"""Of 48 recurrent weights of a GRU with H = 8, each changed in its last bit alone, 47 are seen; with 8 blocks 39."""
PROBED = 4
"""On accelerators, one in so many of these is looked at, and the state after all."""
WORTH_FLOP = 1.5e10
"""Compile a program of few lanes once so much was wasted on each device: 0.1 s, a third of compiling it."""
LEAST_FLOP = 2e9
"""Stay where less is wasted on each device: 15 ms, about what moving over takes."""


@dataclass
class Known:
    """What is known of the ends of an engine's runs; kept as long as its program.

    Args:
        wasted_flop: on each device, as far as it was counted.
        same_bits: whether the program of few lanes gives the bits of all lanes; None if nobody tried.
        smaller: the same for the smaller windows of `smaller.py`.
    """

    wasted_flop: float = 0.0
    same_bits: bool | None = None
    smaller: dict[WindowShape, bool] = field(default_factory=dict)


def drain_shape(shape: WindowShape) -> WindowShape:
    """Few lanes, and so many blocks that a window takes as many bytes: each costs the host a few milliseconds."""
    return replace(shape, lanes=DRAIN_LANES, window_blocks=shape.window_blocks * shape.lanes // DRAIN_LANES)


def gives_same_bits(engine: CompiledWindow, few_lanes: CompiledWindow) -> bool:
    """Whether some random rows come out of both programs the same to the last bit, and so do their carries."""
    rng = np.random.default_rng(0)
    steps, lanes = engine.shape.block_steps, few_lanes.shape.lanes
    shape = engine.devices, PROBE_BLOCKS, steps, lanes
    if engine.encoder.input is None:
        values = rng.standard_normal((*shape, engine.encoder.in_features), np.float32)
    else:  # where a normal number would be no id, and NaN equals NaN
        values = engine.encoder.input.drawn(rng, shape)
    counts = rng.integers(0, steps + 1, (engine.devices, PROBE_BLOCKS, lanes))
    outputs = [_probed(each, values, counts) for each in (engine, few_lanes)]
    return all(np.array_equal(a, b, equal_nan=True) for a, b in zip(*outputs, strict=True))


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


def drain_engine(
    engine: CompiledWindow,
    steps: int,
    *,
    worth_flop: float = WORTH_FLOP,
    least_flop: float = LEAST_FLOP,
    same_bits: Callable[[CompiledWindow, CompiledWindow], bool] = gives_same_bits,
) -> CompiledWindow | None:
    """The engine for the last rows of a run, `steps` of which are left of the longest; None to stay with all lanes.

    None where trip counts are static, which `smaller.py` is for; while compiling would cost more than it saves,
    counted over all runs of this process; and where the program of few lanes does not give the same bits.
    """
    wasted_flop = steps * engine.shape.lanes * engine.encoder.flops_per_step
    if engine.is_static or engine.shape.lanes < 2 * DRAIN_LANES or wasted_flop < least_flop:
        return None
    known = known_of(engine)
    if known.same_bits is None:
        known.wasted_flop += wasted_flop
    if known.same_bits is False or (known.same_bits is None and known.wasted_flop < worth_flop):
        return None
    few_lanes = engine.with_shape(drain_shape(engine.shape))
    if known.same_bits is None:
        known.same_bits = same_bits(engine, few_lanes)
    return few_lanes if known.same_bits else None


def known_of(engine: CompiledWindow) -> Known:
    """What is known of an engine, to be added to; engines of one program share it."""
    return _KNOWN.setdefault(engine.program, Known())


_KNOWN: WeakKeyDictionary[jax.stages.Compiled, Known] = WeakKeyDictionary()
