"""Which devices: the mesh, the shardings over its axis `"data"`, and the window shape that suits each device kind."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from scanrnn_dist.engine.schedule import WindowShape
from scanrnn_dist.errors import ConfigError

AXIS = "data"
"""The mesh axis that sequences are sharded over."""

LANES = {
    # Not measured: enough lanes that the products of one step fill the device.
    "gpu": 4096,
    "tpu": 2048,
}
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


def default_mesh() -> Mesh:
    """All local devices along `"data"`.

    On CPU that is one device per core once `jax.config.update("jax_num_cpu_devices", cores)` was called before the
    first use of JAX, as the command line does; a library cannot, and takes what it finds.
    """
    return jax.make_mesh((jax.local_device_count(),), (AXIS,), devices=jax.local_devices(), axis_types=(AxisType.Auto,))


def checked_mesh(mesh: Mesh | None) -> Mesh:
    """The `mesh`, or the default one; raises `ConfigError` if it has no axis `"data"` or devices of other processes."""
    if mesh is None:
        return default_mesh()
    if AXIS not in mesh.shape:
        raise ConfigError(f"The mesh has the axes {tuple(mesh.shape)}; sequences are sharded over one named {AXIS!r}.")
    others = sorted({device.process_index for device in mesh.devices.flat} - {jax.process_index()})
    if others:
        raise ConfigError(
            f"The mesh holds devices of processes {others}; this one is {jax.process_index()}. Rows need no exchange: "
            "give each process a mesh of jax.local_devices() and its own share of the rows."
        )
    return mesh


def device_kind(mesh: Mesh) -> str:
    """`"cpu"`, `"gpu"` or `"tpu"`."""
    return str(np.ravel(mesh.devices)[0].platform)


def known_kind(mesh: Mesh) -> str:
    """The device kind, as far as defaults are concerned: `"gpu"` for one that is not known here."""
    kind = device_kind(mesh)
    return kind if kind in MOST_WINDOW_BLOCKS else "gpu"


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


def compiler_options(mesh: Mesh) -> dict[str, str | bool]:
    """Options for the compiler, of the window program alone; nothing that `XLA_FLAGS` speaks of.

    Where a CPU has AVX-512, XLA does not use its whole width by itself: 512 bits are 8 % faster at H = 512, 16 % at 128
    and 23 % at 32. No other option changed more than the noise, fast math and oneDNN included.
    """
    option = "xla_cpu_prefer_vector_width"
    if device_kind(mesh) != "cpu" or option in os.environ.get("XLA_FLAGS", "") or not _has_avx512():
        return {}
    return {option: "512"}


@lru_cache
def _has_avx512() -> bool:
    try:
        return " avx512f " in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False  # no Linux: XLA's own choice


def sharded(mesh: Mesh) -> NamedSharding:
    """The first axis over the devices of `"data"`."""
    return NamedSharding(mesh, PartitionSpec(AXIS))


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())
