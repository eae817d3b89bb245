"""The specification's scan, for all lanes of one device.

`block_scan` is about one lane, with a carry that is reset where a row starts and emitted where one may end; `vmap`
makes it a device's lanes. On CPU the steps of a block are a loop; elsewhere they are unrolled (`UNROLL`).
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

from scanrnn_dist.encoder import Encoder, State, chosen
from scanrnn_dist.errors import ConfigError

UNROLL = 8
"""Steps that stand one after the other in the program of an accelerator; those of a block by default.

Compiled by `benchmarks/aot.py` for blocks of 4 steps, an H200 starts 3.25 kernels a step instead of 6.75, since one
product projects the inputs of several steps. By XLA's own estimate a block takes a v5e 31, 20 and 3 % fewer cycles at
H = 64, 128 and 512. The program grows with it (12 MB on a v5e at H = 512), so longer blocks keep a loop. What
a row gets does not depend on where it lies: every row starts with a block, and all blocks are alike. Rows that bring a
carry may go on from the middle of a block, where the unrolled program may round otherwise; they keep the loop."""


def block_scan(
    encoder: Encoder,
    state: State,
    values: jax.Array,
    count: jax.Array,
    reset: jax.Array,
    initial: jax.Array,
    unroll: int = 1,
) -> tuple[State, jax.Array]:
    """One lane over one block: the scan of the specification, begun anew if a row starts here.

    Args:
        encoder: cells and readout.
        state: from the block before.
        values: `(block_steps, D)` float32.
        count: `()` int32, how many of the steps are real; the state passes the others unchanged.
        reset: `()` bool, or int32 that is 0 or 1: whether a row starts here.
        initial: `(carry_features,)`, the initial carry of the row that starts here; `(0,)` where rows have none of
            their own.
        unroll: steps that one round of the loop takes.

    Returns:
        The state after the block, and what is emitted: the readout `(F,)`, or the outputs `(block_steps, F)`.
    """
    state = chosen(reset.astype(jnp.bool_), encoder.initial_state(initial if initial.size else None), state)

    def step(state: State, at: tuple[jax.Array, jax.Array]) -> tuple[State, jax.Array | None]:
        t, x_t = at
        new, y = encoder.step(state, x_t)
        return chosen(t < count, new, state), y if encoder.gives_steps else None

    steps_of_block = jnp.arange(len(values), dtype=jnp.int32), values
    state, steps = jax.lax.scan(step, state, steps_of_block, unroll=unroll)
    return state, encoder.readout(state) if steps is None else steps.astype(encoder.pool_dtype)


def device_scan(
    encoder: Encoder,
    n_blocks: int | jax.Array,
    state: State,
    emitted: jax.Array,
    *fed: jax.Array,
    unroll: int | None = None,
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
        unroll: steps that one round of a block's loop takes where rows bring no carry; when None 1 on CPU, elsewhere
            `UNROLL`.

    Returns:
        The state, and `emitted` with what every block emits: a readout per block and not per step, which would cost up
        to 1.8 times as much; unless it is the steps that are asked for.
    """
    if isinstance(n_blocks, int):
        values, count, reset, initial = fed
        unroll = 1 if initial.shape[-1] else min(unroll or UNROLL, values.shape[1])
        # A TPU copies all of a window's bools in every block: 3 to 5 % of the cycles at H = 64, 2 % at 128.
        fed = values, count, reset.astype(jnp.int32), initial
    lanes_block = jax.vmap(partial(block_scan, unroll=unroll or 1), in_axes=(None, 0, 1, 0, 0, 0))

    def block(k: jax.Array, carried: tuple[State, jax.Array]) -> tuple[State, jax.Array]:
        state, emitted = carried
        of_block = [jax.lax.dynamic_index_in_dim(array, k, keepdims=False) for array in fed]
        state, new = lanes_block(encoder, state, *of_block)
        _check_emitted(encoder, new, emitted)
        return state, jax.lax.dynamic_update_index_in_dim(emitted, new, k, axis=0)

    return jax.lax.fori_loop(0, n_blocks, block, (state, emitted))


def _check_emitted(encoder: Encoder, new: jax.Array, emitted: jax.Array) -> None:
    """Refuse what a readout or a step of a subclass gives where it does not fill its place: a part would be written."""
    if (new.shape, new.dtype) == (emitted.shape[1:], emitted.dtype):
        return
    of_whom, given = "step" if encoder.gives_steps else "readout", new.shape[emitted.ndim - 2 :]
    raise ConfigError(
        f"The {of_whom} of {type(encoder).__name__} gives {new.dtype}{list(given)}; "
        f"expected one vector, {emitted.dtype}[{emitted.shape[-1]}]."
    )
