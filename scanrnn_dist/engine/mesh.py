"""Which devices: the mesh, and the shardings over its axis `"data"`."""

from __future__ import annotations

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from scanrnn_dist.errors import ConfigError
from scanrnn_dist.kinds import check_kind

AXIS = "data"
"""The mesh axis that sequences are sharded over."""


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
    check_kind("mesh", mesh, Mesh, "a jax.sharding.Mesh with an axis 'data', such as srd.default_mesh()")
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


def sharded(mesh: Mesh) -> NamedSharding:
    """The first axis over the devices of `"data"`."""
    return NamedSharding(mesh, PartitionSpec(AXIS))


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())
