"""Whether a window shape fits the memory of the devices: tried out before a job begins, with fewer lanes until it does.

Lanes change the bits of the features, so they are settled once: never in the middle of a job, and not again when it is
resumed. `shapes.py` says what to begin with.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from scanrnn_dist.encoder import Encoder
from scanrnn_dist.engine.compiled import CompiledWindow
from scanrnn_dist.engine.mesh import device_kind, sharded
from scanrnn_dist.engine.shapes import LEAST_LANES
from scanrnn_dist.engine.submitting import WINDOWS_IN_FLIGHT
from scanrnn_dist.errors import ConfigError
from scanrnn_dist.protocols import WindowShape

logger = logging.getLogger("scanrnn_dist")


def fitting_shape(encoder: Encoder, mesh: Mesh, shape: WindowShape) -> WindowShape:
    """The `shape`, with half of its lanes as often as the devices run out of memory.

    Raises:
        ConfigError: not even `LEAST_LANES` fit.
    """
    while said := refusal(encoder, mesh, shape):
        fewer = replace(shape, lanes=shape.lanes // 2)
        if fewer.lanes < LEAST_LANES:
            raise ConfigError(
                f"The devices have no memory for windows of {shape.lanes} lanes a device and {shape.window_blocks} "
                f"blocks: {said} Choose fewer with --window-blocks and --lanes (window_shape=), or free the devices."
            )
        logger.warning("%d lanes a device do not fit its memory; trying %d. (%s)", shape.lanes, fewer.lanes, said)
        shape = fewer
    return shape


def refusal(encoder: Encoder, mesh: Mesh, shape: WindowShape) -> str:
    """What the compiler or a device says where a shape does not fit; nothing where it does.

    A CPU is not asked: its windows are small, and its memory is that of the host.
    """
    if device_kind(mesh) == "cpu":
        return ""
    try:
        _try_out(_windows_of(encoder, mesh, shape))
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return str(error).splitlines()[0]
    return ""


def _windows_of(encoder: Encoder, mesh: Mesh, shape: WindowShape) -> list[CompiledWindow]:
    """All programs that an encoder's engine keeps on the devices, compiled."""
    if encoder.is_bidirectional:
        layers = encoder.directions()
        return [CompiledWindow(direction, mesh, shape) for layer in layers for direction in layer]
    return [CompiledWindow(encoder, mesh, shape)]


def _try_out(windows: Sequence[CompiledWindow]) -> None:
    """Hold on the devices all that a run does at once, and run each program once.

    Beside it room is held for what may be asked for later: each row's own initial carry, and its state in the features.
    """
    held: list[Any] = []
    for window in windows:
        shape, sharding = window.shape, sharded(window.mesh)
        spare = np.zeros((window.devices, shape.window_blocks, shape.lanes, window.encoder.carry_features), np.float32)
        for _ in range(WINDOWS_IN_FLIGHT):
            held += [jax.device_put(tuple(window.new_buffers()), sharding), window.new_emitted()]
            held += [jax.device_put(spare, sharding) for _ in ("carries", "states")]
    for window in windows:
        fed = jax.device_put(tuple(window.new_buffers()), sharded(window.mesh))
        before = window.initial_state(), window.new_emitted()
        held.append(window.program(window.weights, np.int32(window.shape.window_blocks), *before, *fed))
    jax.block_until_ready(held)
