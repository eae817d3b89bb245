"""The compiled window program: a kernel (`kernels/`) on all devices at once, by `shard_map`.

No device needs another one, so the program has no collective. Which row goes where is decided in `schedule.py`; who
feeds the program, in `run.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jax.sharding import Mesh, PartitionSpec

from scanrnn_dist.engine.compilation_cache import compiled
from scanrnn_dist.engine.environment import compiler_options
from scanrnn_dist.engine.kernels import device_scan
from scanrnn_dist.engine.mesh import AXIS
from scanrnn_dist.protocols import WindowShape


def window_program(
    graphdef: Any, shape: WindowShape, mesh: Mesh, is_static: bool, unroll: int | None = None
) -> Callable[..., Any]:
    """The function of one window over all devices; the leading axis of every array but the weights is the device.

    `(weights, n_blocks, state (d, l, ...), emitted (d, K, l, ..., F), ends (d, E), values (d, K, s, l, D),
    count (d, K, l), reset (d, K, l), initial (d, K, l, C))` gives `(state, features (d, E, ..., F), emitted)`, for `l`
    lanes a device and `s` steps a block. `features` are the rows of `emitted` that `ends` names, so that few bytes
    travel to the host; of a window in which more rows end than `E`, the others are fetched from `emitted`. `graphdef`
    and weights are the two halves of the encoder. With `is_static` all `K` blocks are run, whatever `n_blocks` is. For
    `unroll` see `device_scan`.
    """
    static_blocks = shape.window_blocks if is_static else None

    def per_device(weights: Any, n_blocks: Any, state: Any, emitted: Any, ends: Any, *fed: Any) -> Any:
        merged = nnx.merge(graphdef, weights)
        blocks = n_blocks if static_blocks is None else static_blocks
        state, emitted, ends, fed = jax.tree.map(lambda array: array[0], (state, emitted, ends, fed))
        with jax.default_matmul_precision(merged.precision):
            state, emitted = device_scan(merged, blocks, state, emitted, *fed, unroll=unroll)
        features = _picked(emitted, ends)
        return jax.tree.map(lambda array: array[None], (state, features, emitted))

    data, same = PartitionSpec(AXIS), PartitionSpec()
    return jax.shard_map(
        per_device,
        mesh=mesh,
        in_specs=(same, same, data, data, data, data, data, data, data),
        out_specs=(data, data, data),
        check_vma=False,  # the loop's initial values come from constants, which the check would want cast by hand
    )


def _picked(emitted: jax.Array, ends: jax.Array) -> jax.Array:
    """The rows of `emitted (K, l, ..., F)` that `ends (E,)` names, as if blocks and lanes were one axis."""
    by_end = rearrange(emitted, "block lane ... -> (block lane) ...")
    return by_end.at[ends].get(mode="promise_in_bounds")


def compiled_pick(mesh: Mesh, emitted: jax.Array, ends: jax.Array) -> tuple[jax.stages.Compiled, int]:
    """The program that picks more rows of what a window emitted; how many compilations it took."""
    described = tuple(jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=a.sharding) for a in (emitted, ends))
    before = _compiled_pick.cache_info().misses
    program = _compiled_pick(mesh, described)
    return program, _compiled_pick.cache_info().misses - before


@lru_cache(maxsize=16)
def _compiled_pick(mesh: Mesh, inputs: tuple[Any, ...]) -> jax.stages.Compiled:
    def per_device(emitted: jax.Array, ends: jax.Array) -> jax.Array:
        return _picked(emitted[0], ends[0])[None]

    data = PartitionSpec(AXIS)
    with jax.enable_x64(inputs[0].dtype == jnp.float64):  # this thread may not have what the caller's has
        return jax.jit(jax.shard_map(per_device, mesh=mesh, in_specs=data, out_specs=data)).lower(*inputs).compile()


def compiled_window_program(
    structure: tuple[Any, bytes], shape: WindowShape, mesh: Mesh, inputs: tuple[Any, ...], is_static: bool
) -> tuple[jax.stages.Compiled, int]:
    """The program for inputs of such shapes and shardings, carry and emitted donated; how many compilations it took.

    None, if this process has it from before (tracing and compiling take 0.25 s), or JAX's compilation cache has it. The
    `structure` is `structure_of` the encoder.
    """
    leaves, tree = jax.tree.flatten(inputs)
    described = tuple(jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding) for leaf in leaves)
    widest = str(jnp.result_type(float))  # follows jax_enable_x64
    key = structure, shape, mesh, tree, described, is_static, widest
    try:
        hash(key)
    except TypeError:  # an attribute of the cell has none
        return _compiled.__wrapped__(*key)
    before = _compiled.cache_info().misses
    program, compilations = _compiled(*key)
    return program, compilations if _compiled.cache_info().misses > before else 0


@lru_cache(maxsize=32)
def _compiled(
    structure: Any, shape: WindowShape, mesh: Mesh, tree: Any, inputs: tuple[Any, ...], is_static: bool, widest: str
) -> tuple[jax.stages.Compiled, int]:
    """All that the program depends on in, the program and its compilations out."""
    with jax.set_mesh(mesh):  # the caller may have set another one, such as of all processes, and `shard_map` minds
        program = jax.jit(window_program(structure[0], shape, mesh, is_static), donate_argnums=(2, 3))
        lowered = program.lower(*jax.tree.unflatten(tree, inputs))
    return compiled(lowered, compiler_options(mesh))
