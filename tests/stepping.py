"""Runs layers of cells step by step, as their equations read: no scan, no batch, no padding."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from cells import QUICKLY
from flax import nnx

TOLERANCE = 2e-6
"""Against other float32 implementations: each is right to 1e-6 (the design's bound), on either side of the truth."""


@partial(jax.jit, static_argnums=0, compiler_options=QUICKLY)
def _step(graphdef: Any, weights: Any, carry: Any, x_t: jax.Array) -> Any:
    return nnx.merge(graphdef, weights)(carry, x_t)


def states_of(cell: Any, x: np.ndarray, carry: Any = None) -> np.ndarray:
    """All outputs `(T, H)` of a cell for one sequence, from its own first carry or another."""
    carry = cell.initialize_carry((cell.in_features,), rngs=nnx.Rngs(0)) if carry is None else jnp.asarray(carry)
    states = [np.zeros((0, cell.hidden_features), np.float32)]
    graphdef, weights = nnx.split(cell)
    for x_t in x:
        carry, y = _step(graphdef, weights, carry, jnp.asarray(x_t))
        states.append(np.asarray(y)[None])
    return np.concatenate(states)


def features_of(layers: list[Any], rows: list[np.ndarray]) -> np.ndarray:
    """The last states of the last layer for each row, `(N, H)` or `(N, 2 H)`, forward and backward side by side."""
    with jax.default_matmul_precision("highest"):
        return np.stack([_features(layers, row) for row in rows])


def _features(layers: list[Any], x: np.ndarray) -> np.ndarray:
    for layer in layers:
        cells = layer if isinstance(layer, tuple) else (layer,)
        states = [states_of(cells[0], x)] + [states_of(cell, x[::-1]) for cell in cells[1:]]
        final = np.concatenate([each[-1] for each in states])
        x = np.concatenate([states[0], *(each[::-1] for each in states[1:])], axis=1)
    return final


def ragged_rows(lengths: list[int], in_features: int, seed: int = 0) -> list[np.ndarray]:
    """Normal rows of these lengths."""
    generator = np.random.default_rng(seed)
    return [generator.normal(size=(length, in_features)).astype(np.float32) for length in lengths]
