"""An independent GRU in numpy float64: the equations of the specification, in its letters. No jax computes here.

Only the weights come from a flax cell, as arrays. flax holds the three gates of a kernel side by side, in the order
r, z, n, and multiplies from the right (`x @ W`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
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


def gru_step(w: dict[str, Array], h: Array, x_t: Array, gate_fn: Callable[[Array], Array] = sigmoid) -> Array:
    """The hidden states `(..., H)` after one step `(..., D)`."""
    r = gate_fn(x_t @ w["W_ir"] + w["b_ir"] + h @ w["W_hr"] + w["b_hr"])
    z = gate_fn(x_t @ w["W_iz"] + w["b_iz"] + h @ w["W_hz"] + w["b_hz"])
    n = np.tanh(x_t @ w["W_in"] + w["b_in"] + r * (h @ w["W_hn"] + w["b_hn"]))
    return (1 - z) * n + z * h


def gru(weights: dict[str, Array], x: Any, gate_fn: Callable[[Array], Array] = sigmoid) -> Array:
    """The final hidden state `(H,)` of one sequence `x (T, D)`, from a carry of zeros."""
    h = np.zeros(weights["b_in"].shape)
    for x_t in np.asarray(x, np.float64):
        h = gru_step(weights, h, x_t, gate_fn)
    return h


def gru_float32(cell: Any, x: Array, operands: Callable[[Array], Array] = lambda a: a) -> Array:
    """The same in numpy's float32, another one than XLA's; `operands` rounds the operands of products first.

    Products are added up one after the other: `@` adds them in an order that the processor's kind decides, which may be
    that of XLA.
    """
    w = {name: np.asarray(array, np.float32) for name, array in weights_of(cell).items()}
    h = np.zeros(w["b_in"].shape, np.float32)

    def product(a: Array, name: str) -> Array:
        return np.cumsum(operands(a)[:, None] * operands(w[name]), axis=0)[-1]

    with np.errstate(over="ignore"):  # of exp in a gate that is closed
        for x_t in x:
            r = sigmoid(product(x_t, "W_ir") + w["b_ir"] + product(h, "W_hr") + w["b_hr"])
            z = sigmoid(product(x_t, "W_iz") + w["b_iz"] + product(h, "W_hz") + w["b_hz"])
            n = np.tanh(product(x_t, "W_in") + w["b_in"] + r * (product(h, "W_hn") + w["b_hn"]))
            h = (1 - z) * n + z * h
    assert h.dtype == np.float32
    return h


def gru_rows(cell: Any, rows: list[Array]) -> Array:
    """`gru` of every row, `(N, H)`: all rows that have a step `t` take it at once."""
    weights, h = weights_of(cell), np.zeros((len(rows), cell.hidden_features))
    for on, x_t in steps_of(rows):
        h[on] = gru_step(weights, h[on], x_t)
    return h


def steps_of(rows: list[Array]) -> Iterator[tuple[Array, Array]]:
    """Of each step: the numbers of the rows that have it, and what it is in them, `(n, D)`."""
    lengths = np.array([len(row) for row in rows])
    for t in range(lengths.max(initial=0)):
        on = np.flatnonzero(lengths > t)
        yield on, np.stack([rows[row][t] for row in on]).astype(np.float64)


# Other cells, directions and stacks. `steps` is all hidden states `(T, H)` of a direction; see `features`.


def rnn_rows(cell: Any, rows: list[Array]) -> Array:
    """The final hidden state of every row, `(N, H)`, of an `nnx.SimpleCell`, by `gru_rows`' way."""
    W_i, b_i, W_h = (
        np.asarray(variable[...], np.float64)
        for variable in (cell.dense_i.kernel, cell.dense_i.bias, cell.dense_h.kernel)
    )
    h = np.zeros((len(rows), cell.hidden_features))
    for on, x_t in steps_of(rows):
        h[on] = np.tanh(x_t @ W_i + b_i + h[on] @ W_h)
    return h


def relu(a: Array) -> Array:
    """`max(a, 0)`."""
    return np.maximum(a, 0.0)


def gru_steps(w: dict[str, Array], x: Any) -> Array:
    """All hidden states of a GRU, its letters as in `gru`."""
    x = np.asarray(x, np.float64)
    return np.stack([gru(w, x[: t + 1]) for t in range(len(x))]) if len(x) else np.zeros((0, w["b_in"].size))


def lstm_steps(w: dict[str, Array], x: Any) -> Array:
    """All hidden states of an LSTM: gates i, f, o, the candidate g, each with `W_i?`, `b_i?`, `W_h?`, `b_h?`."""
    H = w["b_ii"].size
    h, c, states = np.zeros(H), np.zeros(H), [np.zeros((0, H))]
    for x_t in np.asarray(x, np.float64):
        a = {gate: x_t @ w[f"W_i{gate}"] + w[f"b_i{gate}"] + h @ w[f"W_h{gate}"] + w[f"b_h{gate}"] for gate in "ifgo"}
        c = sigmoid(a["f"]) * c + sigmoid(a["i"]) * np.tanh(a["g"])
        h = sigmoid(a["o"]) * np.tanh(c)
        states.append(h[None])
    return np.concatenate(states)


def rnn_steps(w: dict[str, Array], x: Any, activation: Callable[[Array], Array] = np.tanh) -> Array:
    """All hidden states of a plain RNN: `W_i`, `b_i`, `W_h`, `b_h`."""
    h, states = np.zeros(w["b_i"].size), [np.zeros((0, w["b_i"].size))]
    for x_t in np.asarray(x, np.float64):
        h = activation(x_t @ w["W_i"] + w["b_i"] + h @ w["W_h"] + w["b_h"])
        states.append(h[None])
    return np.concatenate(states)


def features(layers: list[list[Callable[[Array], Array]]], x: Any) -> Array:
    """The features of a stack for one sequence of at least one step: the last states of the last layer's directions.

    A layer is a list of one or two functions from `(T, D)` to all hidden states; the second reads from the end, and
    its states are turned around again before they stand beside the first one's.
    """
    for layer in layers:
        states = [layer[0](x)] + [backward(x[::-1]) for backward in layer[1:]]
        final = np.concatenate([each[-1] for each in states])
        x = np.concatenate([states[0], *(each[::-1] for each in states[1:])], axis=1)
    return final
