"""`jit(vmap(scan(cell)))` in length buckets with a masked carry, two workers on one CPU device.

The cell is `nnx.GRUCell`. A program is compiled for each batch size and bucket length, when it is first needed; where
all rows of a batch are as long as the bucket, a program without the mask. With asynchronous dispatch off, a program
runs in the thread that calls it, so that two threads make two workers, and one compilation serves both.
"""

from __future__ import annotations

import threading
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from benchmarks.opponents.common import Model, Settings, Weights, bucket, main, padded_index, start
from benchmarks.opponents.reading import Rows
from benchmarks.opponents.tuned import TUNED

SETTINGS = TUNED["vmap"]


def build(weights: Weights, settings: Settings) -> Model:
    """The model over programs compiled as needed."""
    return bucketed_model(forward, weights, settings)


def forward(cell: nnx.GRUCell, x: jax.Array, lengths: jax.Array | None) -> jax.Array:
    """The features `(B, H)` of a time-major batch `x (T, B, D)`; without lengths, all rows have `T` steps."""

    def of_row(x: jax.Array, length: jax.Array | None) -> jax.Array:
        def step(carry: jax.Array, at: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
            t, x_t = at
            new = cell(carry, x_t)[0]
            return new if length is None else jnp.where(t < length, new, carry), None

        return jax.lax.scan(step, jnp.zeros(cell.hidden_features), (jnp.arange(len(x)), x))[0]

    return jax.vmap(of_row, in_axes=(1, None if lengths is None else 0))(x, lengths)


def bucketed_model(forward: Any, weights: Weights, settings: Settings) -> Model:
    """`forward(cell, x (T, B, D), lengths | None)` over batches padded to buckets; shared with `nnx_rnn.py`."""
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    graphdef, state = nnx.split(cell_with(weights))
    in_features = len(weights.W_i)

    @jax.jit
    def program(state: nnx.State, x: jax.Array, lengths: jax.Array | None) -> jax.Array:
        with jax.default_matmul_precision("highest"):
            return forward(nnx.merge(graphdef, state), x, lengths)

    @cache
    def compiled(steps: int, width: int, masked: bool) -> Any:
        x = jax.ShapeDtypeStruct((steps, width, in_features), jnp.float32)
        return program.lower(state, x, jax.ShapeDtypeStruct((width,), jnp.int32) if masked else None).compile()

    compiling = threading.Lock()

    def model(rows: Rows, batch: np.ndarray) -> np.ndarray:
        lengths = (rows.offsets[batch + 1] - rows.offsets[batch]).astype(np.int32)
        steps = bucket(int(lengths[0]), settings.growth)
        width = next(w for w in widths(settings) if w >= len(batch))
        masked = bool(lengths[-1] < steps)
        x = rows.values.take(padded_index(rows, batch, steps, width), axis=0)
        with compiling:
            run = compiled(steps, width, masked)
        lengths = np.resize(lengths, width) if masked else None
        return np.asarray(run(state, x, lengths))[: len(batch)]

    return model


def widths(settings: Settings) -> list[int]:
    """The batch sizes that have programs, rising."""
    sizes = [settings.batch]
    while settings.fill and sizes[0] // 2 >= settings.least:
        sizes.insert(0, sizes[0] // 2)
    return sizes


def cell_with(weights: Weights) -> nnx.GRUCell:
    """An `nnx.GRUCell` with these weights."""
    cell = nnx.eval_shape(lambda: nnx.GRUCell(len(weights.W_i), weights.hidden, rngs=nnx.Rngs(0)))
    cell.dense_i.kernel = nnx.Param(jnp.asarray(weights.W_i))
    cell.dense_i.bias = nnx.Param(jnp.asarray(weights.b_i))
    cell.dense_h.kernel = nnx.Param(jnp.asarray(weights.W_h))
    return cell


job = partial(start, build)

if __name__ == "__main__":
    main(job, SETTINGS)
