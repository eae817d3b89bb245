"""`flax.nnx.RNN` in length buckets, two workers on one CPU device; see `vmap_buckets.py` for what they share."""

from __future__ import annotations

from functools import partial

import jax
from flax import nnx

from benchmarks.opponents.common import Model, Settings, Weights, main, start
from benchmarks.opponents.tuned import TUNED
from benchmarks.opponents.vmap_buckets import bucketed_model

SETTINGS = TUNED["nnx"]


def build(weights: Weights, settings: Settings) -> Model:
    """The model over programs compiled as needed."""
    return bucketed_model(forward, weights, settings)


def forward(cell: nnx.GRUCell, x: jax.Array, lengths: jax.Array | None) -> jax.Array:
    """The features `(B, H)` of a time-major batch `x (T, B, D)`; without lengths, all rows have `T` steps."""
    carry, _ = nnx.RNN(cell, time_major=True, return_carry=True)(x, seq_lengths=lengths)
    return carry


job = partial(start, build)

if __name__ == "__main__":
    main(job, SETTINGS)
