"""Which window shape suits a device kind and an encoder, where the user did not choose one; each figure measured."""

from __future__ import annotations

import jax
from jax.sharding import Mesh

from scanrnn_dist.encoder import Encoder, initial_carry
from scanrnn_dist.engine.mesh import device_kind
from scanrnn_dist.protocols import WindowShape

LANES = {"gpu": 4096, "tpu": 2048}
"""Not measured: enough lanes that the products of one step fill the device."""
CPU_LANES = ((128, 48), (2**62, 32))
"""Lanes of a CPU device for cells with up to so many hidden features. Measured on 2 cores, Zen 5: at H = 128 the
program alone is within a few per cent from 32 to 96, since weights, carries and gates of so few lanes stay in the
core's own caches. At H = 32, 48 and 96 lanes are level, and from 64 on the program of `drain.py` has other bits. At
H = 512 each lane is much work, and fewer leave fewer idle at the end: 4 % at 1,000 rows of 256 steps."""
BLOCK_STEPS = 4
"""Steps of a block where nothing else was asked for."""
MOST_WINDOW_BLOCKS = {"cpu": 512, "gpu": 64, "tpu": 64}
"""On CPU, the program alone is 3 % faster with 341 blocks than with 128 (H = 128)."""
WINDOW_BYTES = {"cpu": 8 << 20, "gpu": 1 << 30, "tpu": 512 << 20}
"""What a window's input, and what it emits, may take on each device."""


def window_shape_for(encoder: Encoder, mesh: Mesh) -> WindowShape:
    """What suits the devices of a mesh and the sizes of an encoder: of its widest layer, where each has a program."""
    if encoder.is_bidirectional:
        shapes = [window_shape_for(part, mesh) for pair in encoder.directions() for part in pair]
        return min(shapes, key=lambda shape: (shape.lanes, shape.window_blocks))
    hidden = max(leaf.size for cell in encoder.cells for leaf in jax.tree.leaves(initial_carry(cell, None)))
    emitted = encoder.out_features * (BLOCK_STEPS if encoder.gives_steps else 1)
    return default_window_shape(mesh, encoder.in_features, hidden, emitted)


def default_window_shape(
    mesh: Mesh, in_features: int, hidden_features: int, emitted_features: int | None = None
) -> WindowShape:
    """The window shape for the mesh's devices and a cell's sizes; that of a GPU for device kinds not known here.

    `emitted_features` are what a lane emits per block, `hidden_features` if not given.
    """
    kind = known_kind(mesh)
    lanes = LANES[kind] if kind != "cpu" else next(lanes for most, lanes in CPU_LANES if hidden_features <= most)
    block_bytes = 4 * lanes * max(BLOCK_STEPS * in_features, emitted_features or hidden_features)
    return WindowShape(lanes, BLOCK_STEPS, min(MOST_WINDOW_BLOCKS[kind], max(8, WINDOW_BYTES[kind] // block_bytes)))


def known_kind(mesh: Mesh) -> str:
    """The device kind, as far as defaults are concerned: `"gpu"` for one that is not known here."""
    kind = device_kind(mesh)
    return kind if kind in MOST_WINDOW_BLOCKS else "gpu"
