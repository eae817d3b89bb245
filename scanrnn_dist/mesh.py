"""Which devices: the mesh, the shardings over its axis `"data"`, and the window shape that suits each device kind."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from scanrnn_dist.errors import ConfigError
from scanrnn_dist.tape import WindowShape

AXIS = "data"
"""The mesh axis that sequences are sharded over."""

LANES = {
    # 2 cores, Zen 5, H = 128 (python -m benchmarks.bench_engine --tune): 32 to 96 lanes a device are within a few per
    # cent of each other, since weights, carries and gates of so few lanes stay in the core's own caches; 48 is best
    # there, also for the dense scan.
    "cpu": 48,
    # Not measured: enough lanes that the products of one step fill the device.
    "gpu": 4096,
    "tpu": 2048,
}
BLOCK_STEPS = 4
MOST_WINDOW_BLOCKS = {"cpu": 512, "gpu": 64, "tpu": 64}
"""On CPU, 512 blocks are 7 % faster than 256 and 20 % than 128: the host side of a window costs half a millisecond."""
WINDOW_BYTES = 8 << 20
"""What a window's input, and what it emits, may take on each CPU device; more elsewhere, in proportion to the lanes."""


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


def default_window_shape(mesh: Mesh, in_features: int, out_features: int) -> WindowShape:
    """The window shape for the mesh's devices and a cell's sizes; that of a GPU for device kinds not known here."""
    kind = device_kind(mesh)
    kind = kind if kind in LANES else "gpu"
    lanes = LANES[kind]
    block_bytes = 4 * LANES["cpu"] * max(BLOCK_STEPS * in_features, out_features)
    blocks = min(MOST_WINDOW_BLOCKS[kind], max(8, WINDOW_BYTES // block_bytes))
    return WindowShape(lanes, BLOCK_STEPS, blocks)


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
