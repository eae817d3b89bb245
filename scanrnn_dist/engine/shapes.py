"""Which window shape suits a device kind and an encoder, where the user did not choose one; each figure measured.

On accelerators it follows from the device's memory. Whether it really fits is tried out by `fitting.py`.
"""

from __future__ import annotations

import jax
from jax.sharding import Mesh

from scanrnn_dist.encoder import Encoder, initial_carry
from scanrnn_dist.engine.mesh import device_kind
from scanrnn_dist.errors import ConfigError
from scanrnn_dist.kinds import check_kind
from scanrnn_dist.protocols import WindowShape

LANES = {"gpu": 4096, "tpu": 2048}
"""Not measured: enough lanes that the products of one step fill the device. Fewer where the memory is small."""
CPU_LANES = ((128, 48), (2**62, 32))
"""Lanes of a CPU device for cells with up to so many hidden features. Measured on 2 cores, Zen 5: at H = 128 the
program alone is within a few per cent from 32 to 96, since weights, carries and gates of so few lanes stay in the
core's own caches. At H = 32, 48 and 96 lanes are level, and from 64 on the program of few lanes has other bits. At
H = 512 each lane is much work, and fewer leave fewer idle at the end: 4 % at 1,000 rows of 256 steps."""
BLOCK_STEPS = 4
"""Steps of a block where nothing else was asked for."""
MOST_WINDOW_BLOCKS = {"cpu": 512, "gpu": 64, "tpu": 64}
"""On CPU, the program alone is 3 % faster with 341 blocks than with 128 (H = 128)."""
LEAST_WINDOW_BLOCKS = 8
LEAST_LANES = 64
CPU_WINDOW_BYTES = 8 << 20
"""What a window's input, and what it emits, may take on each device, if that is a CPU."""
NATIVE_LANES = ((256, 16), (2**62, 48))
"""Of the native kernel, for cells with up to so many hidden features. Alone it is as fast with 8 lanes as with 48, and
few are left idle at the end: jobs with H = 32 to 128 take 0 to 4 % longer with 32. At H = 512 all lanes share what is
read of the weights: there 32 took 8 % less than 16, and 48 take 2 to 4 % less than 32 (without AVX-512)."""
NATIVE_WINDOW_FLOP = 8 << 30
"""On each device: 40 ms. Then it tells of what is finished, and all devices wait for the next call: with windows of 10
ms a job of 1.3 TFLOP takes 4.6 s, not 4.1. Only the product of a window's blocks and their steps means something."""
LEAST_NATIVE_BLOCKS, MOST_NATIVE_BLOCKS = 16, 2048
MEMORY_SHARE = 16
"""On accelerators each may take this part of the device's memory: two of both are in flight, and what the program takes
besides is less than one (`benchmarks/aot.py`). The part is rounded down to a power of two, so that devices of a kind
agree although one may tell of a little less memory than the other: the bits depend on the lanes."""
MEMORY_BYTES = 63 << 28
"""Of an accelerator that does not tell: 15.75 GiB, a TPU v5e's, the least of those that are compiled for."""


def window_shape_for(encoder: Encoder, mesh: Mesh, memory_bytes: int | None = None, kernel: str = "xla") -> WindowShape:
    """What suits the devices of a mesh, a kernel and the sizes of an encoder: of its widest layer, each a program.

    `memory_bytes` are those of each device, what it tells when None.
    """
    if kernel == "native":
        widest = max(leaf.size for cell in encoder.cells for leaf in jax.tree.leaves(initial_carry(cell, None)))
        lanes = next(lanes for most, lanes in NATIVE_LANES if widest <= most)
        blocks = NATIVE_WINDOW_FLOP // (encoder.flops_per_step * lanes * BLOCK_STEPS)
        return WindowShape(lanes, BLOCK_STEPS, min(max(blocks, LEAST_NATIVE_BLOCKS), MOST_NATIVE_BLOCKS))
    if encoder.is_bidirectional:
        shapes = [window_shape_for(part, mesh, memory_bytes) for pair in encoder.directions() for part in pair]
        return min(shapes, key=lambda shape: (shape.lanes, shape.window_blocks))
    hidden = max(leaf.size for cell in encoder.cells for leaf in jax.tree.leaves(initial_carry(cell, None)))
    emitted = encoder.out_features * (BLOCK_STEPS if encoder.gives_steps else 1)
    return default_window_shape(mesh, encoder.in_features, hidden, emitted, memory_bytes)


def default_window_shape(
    mesh: Mesh,
    in_features: int,
    hidden_features: int,
    emitted_features: int | None = None,
    memory_bytes: int | None = None,
) -> WindowShape:
    """The window shape for the mesh's devices and a cell's sizes; that of a GPU for device kinds not known here.

    `emitted_features` are what a lane emits per block, `hidden_features` if not given; `memory_bytes` those of each
    device, what it tells if not given.
    """
    kind = known_kind(mesh)
    lane_bytes = 4 * max(BLOCK_STEPS * in_features, emitted_features or hidden_features)
    if kind == "cpu":
        window_bytes = CPU_WINDOW_BYTES
        lanes = next(lanes for most, lanes in CPU_LANES if hidden_features <= most)
    else:
        share = (memory_bytes or device_memory_bytes(mesh)) // MEMORY_SHARE
        window_bytes = 1 << (share.bit_length() - 1)
        lanes = LANES[kind]
        while lanes > LEAST_LANES and lanes * lane_bytes * LEAST_WINDOW_BLOCKS > window_bytes:
            lanes //= 2
    blocks = max(LEAST_WINDOW_BLOCKS, window_bytes // (lanes * lane_bytes))
    return WindowShape(lanes, BLOCK_STEPS, min(MOST_WINDOW_BLOCKS[kind], blocks))


def device_memory_bytes(mesh: Mesh) -> int:
    """What JAX may use of each device's memory, the least of a mesh's; `MEMORY_BYTES` of devices that do not tell."""
    told = []
    for device in mesh.devices.flat:
        try:
            told.append((device.memory_stats() or {}).get("bytes_limit"))
        except jax.errors.JaxRuntimeError:  # a device of a topology, which is not here
            told.append(None)
    return min((each for each in told if each), default=MEMORY_BYTES)


def known_kind(mesh: Mesh) -> str:
    """The device kind, as far as defaults are concerned: `"gpu"` for one that is not known here."""
    kind = device_kind(mesh)
    return kind if kind in MOST_WINDOW_BLOCKS else "gpu"


def checked_shape(shape: WindowShape) -> WindowShape:
    """The shape, or a `ConfigError` for one with a number below 1."""
    check_kind("window_shape", shape, WindowShape)
    if min(shape.lanes, shape.block_steps, shape.window_blocks) < 1:
        raise ConfigError(f"{shape} has a number below 1.")
    return shape
