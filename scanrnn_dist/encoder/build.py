"""Layers with random weights, drawn from a seed."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import nnx

from scanrnn_dist.errors import ConfigError

KINDS: dict[str, Any] = {"gru": nnx.GRUCell, "lstm": nnx.OptimizedLSTMCell, "rnn": nnx.SimpleCell}
"""Cells by short names."""


def seeded_layers(
    seed: int, in_features: int, hidden_features: int, cell: str, num_layers: int, bidirectional: bool, dtype: Any
) -> list[Any]:
    """Cells, or pairs `(forward, backward)`; for the arguments and what is raised see `Encoder.from_seed`."""
    sizes = {"in_features": in_features, "hidden_features": hidden_features, "num_layers": num_layers}
    for name, number in sizes.items():
        if int(number) < 1:
            raise ConfigError(f"{name} is {number}; expected 1 or more.")
    if cell not in KINDS:
        raise ConfigError(f"The cell is {cell!r}; expected one of {', '.join(KINDS)}.")
    try:
        rngs = nnx.Rngs(int(seed))
    except OverflowError as error:
        raise ConfigError(f"The seed is {seed}; expected a whole number of at most 64 bits.") from error
    try:
        given = {} if dtype is None else {"dtype": jnp.dtype(dtype)}
    except TypeError as error:
        raise ConfigError(f"dtype is {dtype!r}; expected a float type such as 'bfloat16'.") from error
    H, width = int(hidden_features), int(in_features)
    layers: list[Any] = []
    for _ in range(int(num_layers)):
        cells = [KINDS[cell](width, H, **given, rngs=rngs) for _ in range(1 + bidirectional)]
        layers.append(tuple(cells) if bidirectional else cells[0])
        width = H * (1 + bidirectional)
    return layers
