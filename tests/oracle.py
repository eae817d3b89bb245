"""An independent GRU in numpy float64: the equations of the specification, in its letters. No jax computes here.

Only the weights come from a flax cell, as arrays. flax holds the three gates of a kernel side by side, in the order
r, z, n, and multiplies from the right (`x @ W`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray


def sigmoid(a: Array) -> Array:
    """The logistic function."""
    return 1.0 / (1.0 + np.exp(-a))


def hard_sigmoid(a: Array) -> Array:
    """`relu6(a + 3) / 6`."""
    return np.clip(a + 3.0, 0.0, 6.0) / 6.0


def weights_of(cell: Any) -> dict[str, Array]:
    """The weights of an `nnx.GRUCell`, float64, by the letters of the specification; a missing recurrent bias is 0."""
    D, H = cell.in_features, cell.hidden_features
    W_i = np.asarray(cell.dense_i.kernel[...], np.float64).reshape(D, 3, H)
    b_i = np.asarray(cell.dense_i.bias[...], np.float64).reshape(3, H)
    W_h = np.asarray(cell.dense_h.kernel[...], np.float64).reshape(H, 3, H)
    b_h = np.zeros((3, H))
    if getattr(cell.dense_h, "bias", None) is not None:
        b_h = np.asarray(cell.dense_h.bias[...], np.float64).reshape(3, H)
    weights = {}
    for gate, letter in enumerate("rzn"):
        weights[f"W_i{letter}"], weights[f"b_i{letter}"] = W_i[:, gate], b_i[gate]
        weights[f"W_h{letter}"], weights[f"b_h{letter}"] = W_h[:, gate], b_h[gate]
    return weights


def gru(weights: dict[str, Array], x: Any, gate_fn: Callable[[Array], Array] = sigmoid) -> Array:
    """The final hidden state `(H,)` of one sequence `x (T, D)`, from a carry of zeros."""
    w = weights
    h = np.zeros(w["b_in"].shape)
    for x_t in np.asarray(x, np.float64):
        r = gate_fn(x_t @ w["W_ir"] + w["b_ir"] + h @ w["W_hr"] + w["b_hr"])
        z = gate_fn(x_t @ w["W_iz"] + w["b_iz"] + h @ w["W_hz"] + w["b_hz"])
        n = np.tanh(x_t @ w["W_in"] + w["b_in"] + r * (h @ w["W_hn"] + w["b_hn"]))
        h = (1 - z) * n + z * h
    return h


def gru_rows(cell: Any, rows: list[Array], gate_fn: Callable[[Array], Array] = sigmoid) -> Array:
    """`gru` of every row, `(N, H)`."""
    weights = weights_of(cell)
    return np.stack([gru(weights, row, gate_fn) for row in rows])
