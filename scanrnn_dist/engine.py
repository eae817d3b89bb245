"""`Engine`: one encoder compiled for one window shape on one mesh, and the buffers that its program takes.

The program stands in `program.py`; `run.py` feeds it rows and collects their features.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from scanrnn_dist.encoder import Encoder, checked_encoder
from scanrnn_dist.errors import ConfigError
from scanrnn_dist.feed import Feed, aligned_zeros
from scanrnn_dist.mesh import AXIS, checked_mesh, default_window_shape, device_kind, replicated, sharded
from scanrnn_dist.program import compiled_window_program
from scanrnn_dist.tape import Window, WindowShape


class Engine:
    """One encoder compiled for one window shape on one mesh; runs of rows are started from it.

    Args:
        encoder: cell and readout; its weights are copied to every device once.
        mesh: a mesh with an axis `"data"`, whose devices share the rows; all local devices when None.
        shape: lanes, block and window; what suits the device kind when None.

    Raises:
        ConfigError: a mesh without `"data"` or with devices of other processes, or a shape with a number below 1.
    """

    def __init__(self, encoder: Encoder, mesh: Mesh | None = None, shape: WindowShape | None = None) -> None:
        self.encoder = checked_encoder(encoder)
        self.mesh = checked_mesh(mesh)
        # Computed and traced once: each time takes JAX 2 to 4 ms.
        self._first_carry = np.asarray(self.encoder.initial_carry())
        features = jax.eval_shape(encoder.readout, self._first_carry)
        self.out_features, self.dtype = int(np.prod(features.shape)), features.dtype
        self.shape = shape or default_window_shape(self.mesh, encoder.in_features, self.out_features)
        if min(self.shape.lanes, self.shape.block_steps, self.shape.window_blocks) < 1:
            raise ConfigError(f"{self.shape} has a number below 1.")
        self.devices = self.mesh.shape[AXIS]
        self.lanes = self.devices * self.shape.lanes
        self.ends_capacity = -(-self.shape.lanes * self.shape.window_blocks // 8)
        self.copies_to_host = device_kind(self.mesh) != "cpu"
        _, weights = nnx.split(encoder)
        self.weights = jax.device_put(weights, replicated(self.mesh))
        inputs = self.weights, *self.feed_shapes()
        self.program, self.compilations = compiled_window_program(encoder, self.shape, self.mesh, inputs)

    def initial_carry(self) -> jax.Array:
        """The initial carry in every lane, on the devices."""
        shape = self.devices, self.shape.lanes, *self._first_carry.shape
        return jax.device_put(np.broadcast_to(self._first_carry, shape), sharded(self.mesh))

    def new_feed(self) -> Feed:
        """Buffers for one window's input."""
        return Feed(*(aligned_zeros(spec.shape, spec.dtype) for spec in self.feed_shapes()[3:]))

    def new_emitted(self) -> jax.Array:
        """A buffer on the devices for what one window emits."""
        spec = self.feed_shapes()[2]
        return jax.device_put(np.zeros(spec.shape, spec.dtype), spec.sharding)

    def feed_shapes(self) -> tuple[jax.ShapeDtypeStruct, ...]:
        """Shapes of what a window is fed besides the weights, in the order of `window_program`."""
        d, l, K, s = self.devices, self.shape.lanes, self.shape.window_blocks, self.shape.block_steps
        carry = self._first_carry
        n_blocks = jax.ShapeDtypeStruct((), jnp.int32, sharding=replicated(self.mesh))
        of_devices = (
            ((d, l, *carry.shape), carry.dtype),
            ((d, K, l, self.out_features), self.dtype),
            ((d, K, s, l, self.encoder.in_features), jnp.float32),
            ((d, K, l), jnp.int32),
            ((d, K, l), jnp.bool_),
            ((d, self.ends_capacity), jnp.int32),
        )
        sharding = sharded(self.mesh)
        return n_blocks, *(jax.ShapeDtypeStruct(shape, dtype, sharding=sharding) for shape, dtype in of_devices)

    def blocks_run(self, window: Window) -> int:
        """Blocks per lane that the program goes through for a window."""
        return self.shape.window_blocks if self.copies_to_host else window.blocks
