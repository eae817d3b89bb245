"""The window program of devices that need not be here, such as those of a topology: to be compiled and looked at.

It is the program that `compiled.py` runs, with the same shapes; only nothing is put on a device.
"""

from __future__ import annotations

import jax
from flax import nnx
from jax.sharding import Mesh

from scanrnn_dist.encoder import Encoder, checked_encoder
from scanrnn_dist.engine.compiled import CompiledWindow
from scanrnn_dist.engine.mesh import replicated
from scanrnn_dist.engine.program import window_program
from scanrnn_dist.engine.shapes import window_shape_for
from scanrnn_dist.protocols import WindowShape


def lowered_window(
    encoder: Encoder, mesh: Mesh, shape: WindowShape | None = None, unroll: int | None = None
) -> jax.stages.Lowered:
    """The program of one window of an encoder with one direction, not compiled yet.

    Args:
        encoder: whose weights are left out; the program takes them.
        mesh: of any devices.
        shape: what suits the mesh's devices when None.
        unroll: steps that one round of a block's loop takes; what suits the devices when None.
    """
    window = CompiledWindow.__new__(CompiledWindow)
    window._describe(checked_encoder(encoder), mesh, own_carries=False, is_static=None)
    window._take_shape(shape or window_shape_for(encoder, mesh))
    graphdef, weights = nnx.split(encoder)
    same = replicated(mesh)
    told = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=same), weights)
    with jax.set_mesh(mesh):
        program = jax.jit(window_program(graphdef, window.shape, mesh, window.is_static, unroll), donate_argnums=(2, 3))
        return program.lower(told, *window.input_shapes())
