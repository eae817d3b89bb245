"""`NativeProgram`: one encoder for the native CPU kernel, on the devices of one mesh, and the buffers that it takes.

The kernel (`native/cpp/`) takes rows where they stand, and writes features where they belong: no windows of blocks,
no copies. It is called through JAX's FFI inside `shard_map`, once for each device, so states stay on the devices, and
the program has no collective. Which rows are sent and what comes back is `native_run.py`'s. `engine.py` makes it an
engine.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from scanrnn_dist.encoder import Encoder
from scanrnn_dist.engine.compilation_cache import compiled
from scanrnn_dist.engine.host_buffers import aligned_zeros
from scanrnn_dist.engine.kernels import TARGET, native_library, network_of
from scanrnn_dist.engine.mesh import AXIS, checked_mesh, replicated, sharded
from scanrnn_dist.engine.on_mesh import OnMesh
from scanrnn_dist.engine.row_queue import ROW
from scanrnn_dist.engine.shapes import checked_shape, window_shape_for
from scanrnn_dist.protocols import WindowShape

MOST_ROWS = 16384
"""Of one window, or as many as there are lanes."""
TOLD = 2
"""Numbers that a device tells of a window, before those of the rows; `Told` in `native/cpp/task.h`."""


class LanesOnDevices(NamedTuple):
    """What the program takes of the lanes, and gives back."""

    states: jax.Array
    in_lanes: jax.Array


class NativeProgram(OnMesh):
    """One encoder for the native kernel; for the arguments see `Engine`.

    `shape` says how many lanes a device has, and how many steps it does, lane by lane, before it tells of what is
    finished; features do not depend on it.
    """

    kernel = "native"
    is_static = False

    def __init__(
        self, encoder: Encoder, mesh: Mesh | None = None, shape: WindowShape | None = None, own_carries: bool = False
    ) -> None:
        library = native_library()
        super().__init__(encoder, checked_mesh(mesh), own_carries)
        self.shape = checked_shape(shape or window_shape_for(encoder, self.mesh, kernel=self.kernel))
        self.lanes = self.devices * self.shape.lanes
        self.most_rows = max(self.lanes, MOST_ROWS)
        self.network = network_of(self.encoder, library)
        self.weights = jax.device_put((self.network.weights, self.network.first_state), replicated(self.mesh))
        self._sizes = (self.shape.lanes, len(self.network.first_state), self.most_rows + self.shape.lanes)
        before = _compiled.cache_info().misses
        self.program, compilations = _compiled(self.network.plan, self._sizes, len(self.network.weights), self.mesh)
        self.compilations = compilations if _compiled.cache_info().misses > before else 0

    def free_lanes(self) -> LanesOnDevices:
        """States and rows of lanes that have none."""
        lanes, state, _ = self._sizes
        rows = np.zeros((self.devices, lanes), ROW)
        rows["number"] = -1
        words = rows.view(np.uint32).reshape(self.devices, lanes, -1)
        states = aligned_zeros((self.devices, lanes, state), np.dtype(np.float32))
        return LanesOnDevices(*jax.device_put((states, words), sharded(self.mesh)))

    def new_told(self) -> jax.Array:
        """A buffer on the devices for what is told of a window's rows."""
        told = aligned_zeros((self.devices, 2 * (TOLD + self._sizes[-1])), np.dtype(np.uint32))
        return jax.device_put(told, sharded(self.mesh))


def native_window_bytes(encoder: Encoder, shape: WindowShape) -> int:
    """What a window takes on each device: states of its lanes, and what is told of its rows."""
    lanes = checked_shape(shape).lanes
    state = encoder.carry_features + (0 if encoder.gives_steps else encoder.out_features)
    return 12 * lanes * state + 8 * (max(lanes, MOST_ROWS) + lanes)


@lru_cache(maxsize=32)
def _compiled(
    plan: tuple[int, ...], sizes: tuple[int, int, int], weight_floats: int, mesh: Mesh
) -> tuple[jax.stages.Compiled, int]:
    """The program of one window, and how many compilations it took.

    `(weights, first_state, states (d, l, S), in_lanes (d, l, words), told (d, words), queue (2,))` gives the three in
    the middle anew; they are donated. `queue` is the address of the queue.
    """
    lanes, state, most = sizes
    devices = mesh.shape[AXIS]

    def per_device(weights: Any, first: Any, *rest: jax.Array) -> Any:
        *changed, queue = rest  # with the axis of the devices, of 1 here: without it, XLA copies each of them twice
        call = jax.ffi.ffi_call(
            TARGET,
            [jax.ShapeDtypeStruct(array.shape, array.dtype) for array in changed],
            input_output_aliases={2 + nth: nth for nth in range(len(changed))},
        )  # it also moves the queue on; declared as a side effect, JAX would call it through Python, 0.4 ms a window
        return tuple(call(weights, first, *changed, queue, network=np.array(plan, np.int64)))

    data, same = PartitionSpec(AXIS), PartitionSpec()
    program = jax.shard_map(
        per_device, mesh=mesh, in_specs=(same, same, *[data] * 3, same), out_specs=(data,) * 3, check_vma=False
    )

    def spec(shape: tuple[int, ...], dtype: Any, of: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=of)

    per, all_of = sharded(mesh), replicated(mesh)
    inputs = (
        spec((weight_floats,), np.float32, all_of), spec((state,), np.float32, all_of),
        spec((devices, lanes, state), np.float32, per), spec((devices, lanes, ROW.itemsize // 4), np.uint32, per),
        spec((devices, 2 * (TOLD + most)), np.uint32, per), spec((2,), np.uint32, all_of),
    )  # fmt: skip
    with jax.set_mesh(mesh):
        return compiled(jax.jit(program, donate_argnums=(2, 3, 4)).lower(*inputs))
