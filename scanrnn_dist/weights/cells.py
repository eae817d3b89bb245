"""Cells of flax from kernels and biases that already stand in flax's gate order.

A `Direction` is what all sources are turned into: kernels that multiply from the right, gates side by side.

    GRU   r z n     n = tanh(x W_in + b_in + r * (h W_hn + b_hn)),  h' = (1 - z) * n + z * h
    LSTM  i f g o   c' = f * c + i * g,  h' = o * tanh(c')
    RNN             h' = tanh(x W_i + b_i + h W_h + b_h), or relu

A GRU keeps both biases (b_hn is multiplied by r), so its `dense_h` becomes a layer with a bias. LSTM and RNN only ever
add theirs, and the cells of flax have one: the sum is taken in float64 and rounded once. Of the two LSTM cells
`nnx.OptimizedLSTMCell` is used: one matrix product per side and step, where `nnx.LSTMCell` has four small ones, and two
kernels to fill in place of eight, in the gate order i f g o that PyTorch has too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from scanrnn_dist.encoder import Layer, with_recurrent_bias
from scanrnn_dist.errors import ConfigError, DataError

GATES = {"gru": 3, "lstm": 4, "rnn": 1}
"""Blocks of `hidden_features` columns that a kernel of each kind has."""
NONLINEARITIES = {"tanh": jnp.tanh, "relu": jax.nn.relu}
"""Of a plain RNN, by PyTorch's names."""
ZEROS = nnx.initializers.zeros_init()


@dataclass(frozen=True)
class Direction:
    """One direction of one layer, float32, gates in flax's order: kernels `(D, G H)`, `(H, G H)`, biases `(G H,)`."""

    W_i: np.ndarray
    W_h: np.ndarray
    b_i: np.ndarray | None = None
    b_h: np.ndarray | None = None

    @property
    def sizes(self) -> tuple[int, int]:
        """`in_features` and `hidden_features`."""
        return self.W_i.shape[0], self.W_h.shape[0]

    @property
    def bias(self) -> np.ndarray | None:
        """Both biases added in float64 and rounded once; None without any."""
        given = [b.astype(np.float64) for b in (self.b_i, self.b_h) if b is not None]
        return np.sum(given, axis=0).astype(np.float32) if given else None


def kind_of(columns: int, hidden_features: int, where: str, told: str | None = None) -> str:
    """The kind whose kernels have so many columns; it has to be the one the user told, if any."""
    if told is not None and told not in GATES:
        raise ConfigError(f"The kind is {told!r}; expected one of {sorted(GATES)}.")
    for kind, gates in GATES.items():
        if columns == gates * hidden_features:
            if told not in (None, kind):
                has = f"{gates} gates of {hidden_features} hidden features"
                raise DataError(
                    f"{where} has {has}, those of kind {kind!r}; expected {told!r}, as --kind (kind=) says."
                )
            return kind
    has = f"{columns} gate rows for {hidden_features} hidden features"
    raise DataError(f"{where} has {has}; expected 1 (RNN), 3 (GRU) or 4 (LSTM) for each.")


def layers_of(cells: Iterable[Sequence[nnx.RNNCellBase]]) -> list[Layer]:
    """Layers from one or two cells each, two being a pair `(forward, backward)`."""
    return [(layer[0], layer[1]) if len(layer) == 2 else layer[0] for layer in cells]


def reordered(array: np.ndarray, order: tuple[int, ...], axis: int) -> np.ndarray:
    """An array whose blocks along an axis are put into another order; `order` names the old place of each."""
    blocks = np.split(array, len(order), axis)
    return np.concatenate([blocks[place] for place in order], axis)


def cell_of(kind: str, direction: Direction, nonlinearity: str = "tanh") -> nnx.RNNCellBase:
    """The cell of a kind (`gru`, `lstm`, `rnn`) that has the weights of a direction."""
    D, H = direction.sizes
    zeros: Any = {"kernel_init": ZEROS, "recurrent_kernel_init": ZEROS, "rngs": nnx.Rngs(0)}
    cell: Any
    if kind == "gru":
        cell = nnx.GRUCell(D, H, **zeros)
        if direction.b_h is not None:
            _fill(with_recurrent_bias(cell, kernel_init=ZEROS).dense_h.bias, direction.b_h)
        _fill(cell.dense_i.bias, direction.b_i)
    elif kind == "lstm":
        cell = nnx.OptimizedLSTMCell(D, H, **zeros)
        _fill(cell.dense_h.bias, direction.bias)
    else:
        cell = nnx.SimpleCell(D, H, activation_fn=NONLINEARITIES[nonlinearity], **zeros)
        _fill(cell.dense_i.bias, direction.bias)
    _fill(cell.dense_i.kernel, direction.W_i)
    _fill(cell.dense_h.kernel, direction.W_h)
    return cell


def _fill(variable: Any, array: np.ndarray | None) -> None:
    """Give a variable its array; None leaves the zeros it was built with."""
    if array is not None:
        variable[...] = jnp.asarray(array)
