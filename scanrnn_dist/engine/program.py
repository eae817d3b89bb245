"""The compiled window program: the specification's scan, for all lanes of all devices.

`block_scan` is about one lane, with a carry that is reset where a row starts and emitted where one may end; `vmap`
makes it a device's lanes, `shard_map` all devices' lanes. No device needs another one, so the program has no
collective. Which row goes where is decided in `schedule.py`; who feeds the program, in `run.py`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jax.sharding import Mesh, PartitionSpec

from scanrnn_dist.encoder import Encoder, State, chosen
from scanrnn_dist.engine.mesh import AXIS, compiler_options, device_kind
from scanrnn_dist.engine.schedule import WindowShape


def block_scan(
    encoder: Encoder, state: State, values: jax.Array, count: jax.Array, reset: jax.Array, initial: jax.Array
) -> tuple[State, jax.Array]:
    """One lane over one block: the scan of the specification, begun anew if a row starts here.

    Args:
        encoder: cells and readout.
        state: from the block before.
        values: `(block_steps, D)` float32.
        count: `()` int32, how many of the steps are real; the state passes the others unchanged.
        reset: `()` bool, whether a row starts here.
        initial: `(carry_features,)`, the initial carry of the row that starts here; `(0,)` where rows have none of
            their own.

    Returns:
        The state after the block, and what is emitted: the readout `(F,)`, or the outputs `(block_steps, F)`.
    """
    state = chosen(reset, encoder.initial_state(initial if initial.size else None), state)

    def step(state: State, at: tuple[jax.Array, jax.Array]) -> tuple[State, jax.Array | None]:
        t, x_t = at
        new, y = encoder.step(state, x_t)
        return chosen(t < count, new, state), y if encoder.gives_steps else None

    state, steps = jax.lax.scan(step, state, (jnp.arange(len(values), dtype=jnp.int32), values))
    return state, encoder.readout(state) if steps is None else steps.astype(encoder.pool_dtype)


def device_scan(
    encoder: Encoder,
    n_blocks: int | jax.Array,
    state: State,
    emitted: jax.Array,
    *fed: jax.Array,
) -> tuple[State, jax.Array]:
    """All lanes of one device over the blocks of a window.

    Args:
        encoder: cells and readout.
        n_blocks: blocks to run, at most `K`. On CPU an array, so that a last, shorter window needs no program of its
            own; elsewhere an int, since a trip count that is not static makes a GPU ask the host at every block.
        state: of `l` lanes, the leading axis of every array.
        emitted: `(K, l, F)`, or `(K, l, block_steps, F)`, whatever an earlier window left there: zeros anew cost 4 %.
        fed: values `(K, block_steps, l, D)` float32, time-major, since batch-major costs a relayout on TPU; count
            `(K, l)` int32; reset `(K, l)` bool; initial `(K, l, carry_features or 0)` float32.

    Returns:
        The state, and `emitted` with what every block emits: a readout per block and not per step, which would cost up
        to 1.8 times as much; unless it is the steps that are asked for.
    """
    lanes_block = jax.vmap(block_scan, in_axes=(None, 0, 1, 0, 0, 0))

    def block(k: jax.Array, carried: tuple[State, jax.Array]) -> tuple[State, jax.Array]:
        state, emitted = carried
        of_block = [jax.lax.dynamic_index_in_dim(array, k, keepdims=False) for array in fed]
        state, new = lanes_block(encoder, state, *of_block)
        return state, jax.lax.dynamic_update_index_in_dim(emitted, new, k, axis=0)

    return jax.lax.fori_loop(0, n_blocks, block, (state, emitted))


def window_program(graphdef: Any, shape: WindowShape, mesh: Mesh) -> Callable[..., Any]:
    """The function of one window over all devices; the leading axis of every array but the weights is the device.

    `(weights, n_blocks, state (d, l, ...), emitted (d, K, l, ..., F), ends (d, E), values (d, K, s, l, D),
    count (d, K, l), reset (d, K, l), initial (d, K, l, C))` gives `(state, features (d, E, ..., F), emitted)`, for `l`
    lanes a device and `s` steps a block. `features` are the rows of `emitted` that `ends` names, so that few bytes
    travel to the host; a window in which more rows end than `E` is fetched from `emitted`. `graphdef` and weights are
    the two halves of the encoder.
    """
    kind = device_kind(mesh)
    static_blocks = None if kind == "cpu" else shape.window_blocks

    def per_device(weights: Any, n_blocks: Any, state: Any, emitted: Any, ends: Any, *fed: Any) -> Any:
        merged = nnx.merge(graphdef, weights)
        blocks = n_blocks if static_blocks is None else static_blocks
        state, emitted, ends, fed = jax.tree.map(lambda array: array[0], (state, emitted, ends, fed))
        with jax.default_matmul_precision(merged.precision):
            state, emitted = device_scan(merged, blocks, state, emitted, *fed)
        by_end = rearrange(emitted, "block lane ... -> (block lane) ...")
        features = by_end.at[ends].get(mode="promise_in_bounds")
        return jax.tree.map(lambda array: array[None], (state, features, emitted))

    data, same = PartitionSpec(AXIS), PartitionSpec()
    return jax.shard_map(
        per_device,
        mesh=mesh,
        in_specs=(same, same, data, data, data, data, data, data, data),
        out_specs=(data, data, data),
        check_vma=False,  # the loop's initial values come from constants, which the check would want cast by hand
    )


def compiled_window_program(
    encoder: Encoder, shape: WindowShape, mesh: Mesh, inputs: tuple[Any, ...]
) -> tuple[jax.stages.Compiled, int]:
    """The program for inputs of such shapes and shardings, carry and emitted donated; how many compilations it took.

    None, if this process has it from before (tracing and compiling take 0.25 s), or JAX's compilation cache has it.
    """
    leaves, tree = jax.tree.flatten(inputs)
    described = tuple(jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding) for leaf in leaves)
    widest = str(jnp.result_type(float))  # follows jax_enable_x64
    key = nnx.split(encoder)[0], shape, mesh, tree, described, widest
    try:
        hash(key)
    except TypeError:  # an attribute of the cell has none
        return _compiled.__wrapped__(*key)
    before = _compiled.cache_info().misses
    program, compilations = _compiled(*key)
    return program, compilations if _compiled.cache_info().misses > before else 0


@lru_cache(maxsize=16)
def _compiled(
    graphdef: Any, shape: WindowShape, mesh: Mesh, tree: Any, inputs: tuple[Any, ...], widest: str
) -> tuple[jax.stages.Compiled, int]:
    """All that the program depends on in, the program and its compilations out."""
    hits = []
    this_thread = threading.get_ident()

    def listen(event: str, **_: Any) -> None:
        # Listeners hear all threads, and another one may compile meanwhile.
        if event == "/jax/compilation_cache/cache_hits" and threading.get_ident() == this_thread:
            hits.append(event)

    program = jax.jit(window_program(graphdef, shape, mesh), donate_argnums=(2, 3))
    lowered = program.lower(*jax.tree.unflatten(tree, inputs))
    jax.monitoring.register_event_listener(listen)
    try:
        return lowered.compile(compiler_options(mesh)), 1 - len(hits)
    finally:
        jax.monitoring.unregister_event_listener(listen)
