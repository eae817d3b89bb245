"""The specification: what the features of one sequence are. Kept readable; nothing here is fast.

Every other path of this package (the engine, its batches, its devices) is a faster way to the numbers of
`scan_rnn_forward`, and the tests hold them to it.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

MATMUL_PRECISION = "highest"
"""float32 products in float32; the default of TPU and GPU rounds their operands to bfloat16 or TF32."""


def scan_rnn_forward(seed: float, x: Any, hidden: float, T: float) -> jax.Array:
    r"""The final hidden state of a GRU with the weights of `seed`, scanned over the first `T` steps of one sequence.

    The cell is `flax.nnx.GRUCell`, which has no recurrent biases:

        r  = sigmoid(W_ir x + b_ir + W_hr h)
        z  = sigmoid(W_iz x + b_iz + W_hz h)
        n  = tanh(W_in x + b_in + r * (W_hn h))
        h' = (1 - z) * n + z * h

    The cell is built once, outside `step`: built inside, every step of the trace would draw the weights anew, and a
    module made within a transformed function must not leak out of it. The steps run in `jax.lax.scan` and not in a
    Python loop: the loop would trace and compile the cell `T` times, so that compile time and program size grow with
    `T`, and every new length would be a new program body; the scan's body is traced once whatever `T` is.

    Args:
        seed: seed of the weights, used as `int(seed)`.
        x: `(T_x, D)` array, one sequence, time first, taken as float32.
        hidden: hidden features `H`, used as `int(hidden)`.
        T: number of steps to take, used as `int(T)`; beyond the end it takes all of `x`, and 0 gives zeros.

    Returns:
        `(H,)` float32, the final hidden state.

    Raises:
        ValueError: `T` below 0, or `x` without exactly two axes.

    Source: Cho et al. 2014, https://arxiv.org/abs/1406.1078, with the reset gate after the recurrent product.

    Example:
        >>> import jax.numpy as jnp
        >>> scan_rnn_forward(0, jnp.ones((5, 3)), hidden=4, T=0).tolist()
        [0.0, 0.0, 0.0, 0.0]
    """
    s, H, Tt = int(seed), int(hidden), int(T)
    x = jnp.asarray(x, jnp.float32)
    if x.ndim != 2:
        raise ValueError(f"x has shape {x.shape}; expected one sequence (T, D), time first.")
    if Tt < 0:
        raise ValueError(f"T is {Tt}; expected the number of steps to take, 0 or more.")
    cell = nnx.GRUCell(in_features=x.shape[-1], hidden_features=H, rngs=nnx.Rngs(s))
    x, carry = x[:Tt], jnp.zeros_like(x, shape=(H,))  # under `shard_map` it varies over the devices as x does
    if not len(x):  # which `scan` refuses under `disable_jit`
        return carry

    def step(carry: jax.Array, x_t: jax.Array) -> tuple[jax.Array, jax.Array]:
        new_carry, y = cell(carry, x_t)
        return new_carry, y

    with jax.default_matmul_precision(MATMUL_PRECISION):
        final, _ = jax.lax.scan(step, carry, x)
    return final.reshape(-1)
