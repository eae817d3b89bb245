"""`CompiledWindow`: one encoder compiled for one window shape on one mesh, and the buffers that its program takes.

The program stands in `program.py`; `run.py` feeds it rows and collects their features. `engine.py` makes it an engine
that users see.
"""

from __future__ import annotations

from copy import copy
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from scanrnn_dist.encoder import Encoder, checked_encoder, structure_of
from scanrnn_dist.engine.host_buffers import HostBuffers, aligned_zeros
from scanrnn_dist.engine.mesh import checked_mesh, device_kind, replicated, sharded
from scanrnn_dist.engine.on_mesh import OnMesh
from scanrnn_dist.engine.program import compiled_pick, compiled_window_program
from scanrnn_dist.engine.schedule import Window
from scanrnn_dist.engine.shapes import checked_shape, window_shape_for
from scanrnn_dist.errors import ConfigError
from scanrnn_dist.protocols import WindowShape

ENDS_SHARE = 8
"""One in so many blocks may end a row, for the program to pick the rows that end in a window."""
STATIC_ENDS_SHARE = 16
"""The same on accelerators, where more are picked by more calls. With lognormal rows of mean 99, 1 in 25 ends one."""
MOST_PICKS = 8
"""Of windows in which more than half of the blocks end a row, all that is emitted is fetched."""


class CompiledWindow(OnMesh):
    """One encoder compiled for one window shape on one mesh; for the arguments see `Engine`.

    `is_static` tells whether the devices are accelerators: trip counts are constants, and what is fetched is copied.
    CPU devices are treated as such if it is given, so that the two ways can be compared without the hardware.
    """

    def __init__(
        self,
        encoder: Encoder,
        mesh: Mesh | None = None,
        shape: WindowShape | None = None,
        own_carries: bool = False,
        is_static: bool | None = None,
    ) -> None:
        self._describe(checked_encoder(encoder), checked_mesh(mesh), own_carries, is_static)
        self._take_shape(shape or window_shape_for(encoder, self.mesh))
        _, weights = nnx.split(self.encoder)
        self.weights = jax.device_put(weights, replicated(self.mesh))
        self._compile()

    def _describe(self, encoder: Encoder, mesh: Mesh, own_carries: bool, is_static: bool | None) -> None:
        """All that is known before there is a shape and anything is put on a device."""
        super().__init__(encoder, mesh, own_carries)
        # Computed and traced once: each time takes JAX 2 to 4 ms, and a trace of cells of somebody's own 20.
        self._structure = structure_of(Encoder, self.encoder)
        self._first_state = jax.tree.map(np.asarray, self.encoder.initial_state())
        if self.gives_steps and self.dtype == np.float64:
            raise ConfigError("The outputs of all steps are kept as float32, and the encoder computes in float64.")
        self.is_static = device_kind(self.mesh) != "cpu" if is_static is None else is_static

    def with_shape(self, shape: WindowShape) -> Self:
        """The same encoder, compiled for windows of another shape."""
        other = copy(self)
        other._take_shape(shape)
        other._compile()
        return other

    def _take_shape(self, shape: WindowShape) -> None:
        self.shape, self.lanes = checked_shape(shape), self.devices * shape.lanes
        share = STATIC_ENDS_SHARE if self.is_static else ENDS_SHARE
        # All steps are fetched where they are asked for, so no rows are picked on the devices.
        self.ends_capacity = 0 if self.gives_steps else -(-shape.lanes * shape.window_blocks // share)

    def _compile(self) -> None:
        inputs = self.weights, *self.input_shapes()
        program = compiled_window_program(self._structure, self.shape, self.mesh, inputs, self.is_static)
        self.program, self.compilations = program

    def initial_state(self) -> Any:
        """The initial state in every lane, on the devices."""
        lanes = self.devices, self.shape.lanes
        first = jax.tree.map(lambda leaf: np.broadcast_to(leaf, (*lanes, *leaf.shape)), self._first_state)
        return jax.device_put(first, sharded(self.mesh))

    def new_buffers(self) -> HostBuffers:
        """Buffers for one window's input."""
        return HostBuffers(*(aligned_zeros(spec.shape, spec.dtype) for spec in self.input_shapes()[3:]))

    def new_emitted(self) -> jax.Array:
        """A buffer on the devices for what one window emits."""
        spec = self.input_shapes()[2]
        return jax.device_put(np.zeros(spec.shape, spec.dtype), spec.sharding)

    def input_shapes(self) -> tuple[Any, ...]:
        """Shapes of what the program takes besides the weights, in the order of `window_program`."""
        d, l, K, s = self.devices, self.shape.lanes, self.shape.window_blocks, self.shape.block_steps
        sharding = sharded(self.mesh)

        def spec(shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct((d, *shape), dtype, sharding=sharding)

        steps = (s,) if self.gives_steps else ()
        return (
            jax.ShapeDtypeStruct((), jnp.int32, sharding=replicated(self.mesh)),
            jax.tree.map(lambda leaf: spec((l, *leaf.shape), leaf.dtype), self._first_state),
            spec((K, l, *steps, self.out_features), self.dtype),
            spec((self.ends_capacity,), jnp.int32),
            spec((K, s, l, self.in_features), jnp.float32),
            spec((K, l), jnp.int32),
            spec((K, l), jnp.bool_),
            spec((K, l, self.carry_features), jnp.float32),
        )

    def blocks_run(self, window: Window) -> int:
        """Blocks per lane that the program goes through for a window."""
        return self.shape.window_blocks if self.is_static else window.blocks

    def picks(self, ends: int) -> int:
        """How often rows are picked of what a window emitted, if so many end on one device; 0 to fetch all of it.

        On CPU nothing travels, and more than once is slower than all.
        """
        most = MOST_PICKS if self.is_static else 1
        picks = max(1, -(-ends // max(1, self.ends_capacity)))
        return 0 if self.gives_steps or picks > most else picks

    def pick(self, emitted: jax.Array, ends: np.ndarray) -> tuple[jax.Array, int]:
        """More of the rows that a window emitted, `ends (d, E)`; and how many compilations that took."""
        on_devices = jax.device_put(ends, sharded(self.mesh))
        program, compilations = compiled_pick(self.mesh, emitted, on_devices)
        return program(emitted, on_devices), compilations
